"""Batches from loader processes, which hand them over in shared memory."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from svfr.data.clip_sources import DataError
from svfr.data.dataset import ClipDataset, Sample, set_up_worker
from svfr.data.sampler import ClipBatchSampler

PREFETCH = 2  # batches that each process prepares ahead
LONGEST_WAIT = 600  # [s] for a batch; a source that is gone is waited for half as long
SHARED_MEMORY = Path("/dev/shm")


def load_batches(
    dataset: ClipDataset,
    sampler: ClipBatchSampler,
    num_workers: int,
    pin_memory: bool,
    longest_wait: int = LONGEST_WAIT,
) -> "ClipLoader":
    """The sampler's batches, without end, made by `num_workers` processes, or by this one if there are none.

    Raises:
        DataError: shared memory is too small for what they prepare; later, when a batch is asked for: the dataset
            fails, a process has died, or there is no batch for `longest_wait` seconds.
    """
    if num_workers:
        check_shared_memory(dataset.sample_bytes * sampler.batch_size, num_workers)
    return ClipLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=num_workers,
        worker_init_fn=set_up_worker,
        pin_memory=pin_memory,
        prefetch_factor=PREFETCH if num_workers else None,
        timeout=longest_wait if num_workers else 0,
    )


class ClipLoader(DataLoader[Sample]):
    """A DataLoader whose own failures are one line; its processes start with `iter`."""

    def __iter__(self) -> Any:
        """Start the processes."""
        return _failing_in_one_line(super().__iter__())


def check_shared_memory(batch_bytes: int, num_workers: int) -> None:
    """Refuse to start what would hang: a loader process that finds no room there never says so.

    Raises:
        DataError: /dev/shm has less room than the batches need that all processes of this machine prepare.
    """
    if not SHARED_MEMORY.is_dir():  # not Linux
        return
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # of training on this machine
    needed = batch_bytes * (PREFETCH * num_workers + 1) * processes
    free = shutil.disk_usage(SHARED_MEMORY).free
    if needed > free:
        raise DataError(
            f"{SHARED_MEMORY} has {free / 2**20:.0f} MiB free, data.num_workers={num_workers} needs "
            f"{needed / 2**20:.0f} MiB: give the container more (docker run --shm-size=...), or lower data.num_workers "
            "(0 needs none) or batch_size"
        )


def _failing_in_one_line(batches: Iterator[Sample]) -> Iterator[Sample]:
    try:
        yield from batches
    except RuntimeError as error:  # of the loader itself: its processes hang, or were killed
        what = str(error).strip().splitlines()[-1]
        raise DataError(f"{what}: is a disk slow, or too little memory or {SHARED_MEMORY} left?") from error
