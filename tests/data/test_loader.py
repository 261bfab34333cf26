"""What is in which batch; loader processes: too little shared memory, one that hangs, one that is killed."""

import os
import shutil
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from svfr.data import loader
from svfr.data.clip_sources import DataError, Excerpt
from svfr.data.loader import ClipBatchSampler
from tests.data.test_dataset import MadeClips, dataset
from tests.runs import overrides

ROOT = Path(__file__).resolve().parents[2]


def small_shared_memory() -> bool:
    """Whether a process may be given a /dev/shm of its own here."""
    command = ["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/dev/shm"]
    return shutil.which("unshare") is not None and subprocess.run(command, capture_output=True).returncode == 0


@pytest.mark.slow
def test_too_little_shared_memory_is_one_line_at_the_start(tmp_path: Path) -> None:
    """In a container's 1 MiB, as training would meet it; without the check it hangs for ever."""
    if not small_shared_memory():
        pytest.skip("no process can be given a /dev/shm of its own here")
    settings = overrides(tmp_path, data__num_workers=2)
    inside = 'mount -t tmpfs -o size=1m none /dev/shm && exec "$0" scripts/train.py "$@"'
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", inside, sys.executable, *settings],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 2, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("train.py: /dev/shm has 1 MiB free, data.num_workers=2 needs ")
    assert "--shm-size" in last


@pytest.mark.skipif(not loader.SHARED_MEMORY.is_dir(), reason="this system has no /dev/shm")
def test_what_shared_memory_has_to_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    free = shutil.disk_usage(loader.SHARED_MEMORY).free
    loader.check_shared_memory(free // 6, num_workers=2)  # 2 x 2 that wait, and one in use
    with pytest.raises(DataError, match=r"num_workers=2 needs .* MiB"):
        loader.check_shared_memory(free // 4, num_workers=2)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(DataError, match=r"num_workers=2 needs .* MiB"):
        loader.check_shared_memory(free // 8, num_workers=2)


class Hanging(MadeClips):
    """Clips that take for ever to read."""

    def read(self, index: int, num_frames: int, size: int, rng: np.random.Generator, reference: bool) -> Excerpt:
        time.sleep(1000)
        raise AssertionError


class Dying(MadeClips):
    """Clips that end the process that reads them."""

    def read(self, index: int, num_frames: int, size: int, rng: np.random.Generator, reference: bool) -> Excerpt:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


@pytest.mark.parametrize(
    ("source", "words"), [(Hanging, "timed out after 1 seconds"), (Dying, "killed by signal|exited unexpectedly")]
)
def test_processes_that_hang_or_die_are_one_line(
    monkeypatch: pytest.MonkeyPatch, source: type[MadeClips], words: str
) -> None:
    monkeypatch.setattr(loader, "LONGEST_WAIT", 1)
    data = dataset(source())
    sampler = ClipBatchSampler(len(data), 2, 0, 1, seed=1)
    batches = iter(loader.ClipLoader(data, sampler, 1))
    with pytest.raises(DataError, match=words) as error:
        next(batches)
    assert "\n" not in str(error.value)


def batches(count: int, *arguments: int, **more: int) -> list[list[tuple[int, int]]]:
    return list(islice(ClipBatchSampler(*arguments, **more), count))


def test_each_epoch_is_a_permutation_of_all_samples() -> None:
    flat = [place for batch in batches(10, 7, 3, 0, 1, seed=0) for place in batch][:28]
    epochs = [flat[7 * e : 7 * e + 7] for e in range(4)]
    assert [[epoch for epoch, _ in part] for part in epochs] == [[e] * 7 for e in range(4)]
    assert all(sorted(index for _, index in part) == list(range(7)) for part in epochs)
    assert len({tuple(index for _, index in part) for part in epochs}) > 1
    assert flat != [place for batch in batches(10, 7, 3, 0, 1, seed=1) for place in batch][:28]


@pytest.mark.parametrize("num_processes", [2, 3, 6])
def test_global_batches_do_not_depend_on_the_number_of_processes(num_processes: int) -> None:
    alone = batches(8, 11, 6, 0, 1, seed=3)
    parts = [batches(8, 11, 6 // num_processes, rank, num_processes, seed=3) for rank in range(num_processes)]
    assert [[place for part in parts for place in part[b]] for b in range(8)] == alone


def test_a_later_start_goes_on_where_the_earlier_one_was() -> None:
    for rank in range(2):
        assert batches(5, 11, 3, rank, 2, seed=3, start=4) == batches(9, 11, 3, rank, 2, seed=3)[4:]


def test_a_batch_may_be_larger_than_an_epoch() -> None:
    (batch,) = batches(1, 2, 5, 0, 1, seed=0)
    assert [epoch for epoch, _ in batch] == [0, 0, 1, 1, 2]
