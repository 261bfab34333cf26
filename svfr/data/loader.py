"""Which samples make up which batch, on which process; batches from loader processes, through shared memory."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import DataLoader

from svfr.data.clip_sources import DataError
from svfr.data.dataset import ClipDataset, Sample, set_up_worker

PREFETCH = 2  # batches that each process prepares ahead
LONGEST_WAIT = 600  # [s] for a batch; a source that is gone is waited for half as long
SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class ClipBatchSampler:
    """Batches of (epoch, index), for ever; each epoch is another permutation of all samples.

    Global batch b, that of all processes together, is samples b B n ... (b + 1) B n - 1 of one endless row, B being
    `batch_size` and n `num_processes`, so it is the same however B n is split. Epochs follow each other without a gap;
    no sample is left out.
    """

    num_samples: int  # of an epoch
    batch_size: int  # samples per batch of one process
    process_index: int  # which part of each global batch is this process's
    num_processes: int  # that share a global batch
    seed: int  # of the permutations
    start: int = 0  # global batches that were done before

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        shuffled_epoch, order = -1, np.empty(0, dtype=np.int64)
        position = (self.start * self.num_processes + self.process_index) * self.batch_size
        while True:
            batch = []
            for place in range(position, position + self.batch_size):
                epoch, offset = divmod(place, self.num_samples)
                if epoch != shuffled_epoch:
                    shuffled_epoch = epoch
                    order = np.random.default_rng([self.seed, epoch]).permutation(self.num_samples)
                batch.append((epoch, int(order[offset])))
            yield batch
            position += self.batch_size * self.num_processes


class ClipLoader(DataLoader[Sample]):
    """The sampler's batches, without end, made by `num_workers` processes, or by this one if there are none.

    The processes start with `iter`. A DataError is that shared memory is too small for what they prepare; later, when a
    batch is asked for, that the dataset fails, a process has died, or there is no batch for `LONGEST_WAIT`.
    """

    def __init__(
        self, dataset: ClipDataset, sampler: ClipBatchSampler, num_workers: int, pin_memory: bool = False
    ) -> None:
        about: dict[str, Any] = {}
        if num_workers:
            check_shared_memory(dataset.sample_bytes * sampler.batch_size, num_workers)
            about = {"worker_init_fn": set_up_worker, "prefetch_factor": PREFETCH, "timeout": LONGEST_WAIT}
        super().__init__(dataset, batch_sampler=sampler, num_workers=num_workers, pin_memory=pin_memory, **about)

    def __iter__(self) -> Any:
        """Start the processes."""
        return _failing_in_one_line(super().__iter__())


def check_shared_memory(batch_bytes: int, num_workers: int) -> None:
    """Refuse to start what would hang: a loader process never says that /dev/shm has no room for the batches that all
    processes of this machine prepare."""
    if not SHARED_MEMORY.is_dir():  # not Linux
        return
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # of training on this machine
    needed = batch_bytes * (PREFETCH * num_workers + 1) * processes
    if needed > (free := shutil.disk_usage(SHARED_MEMORY).free):
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
