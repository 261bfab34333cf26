"""Several processes measure what one does; one that dies costs its pair."""

import multiprocessing
import os
import shutil
import signal
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from svfr.evaluation.measure import Evaluator, measure_in_workers
from svfr.evaluation.pairs import Pair
from svfr.evaluation.records import read_record
from svfr.evaluation.settings import EvalConfig
from svfr.metrics import BuiltMetrics, Chunk
from tests.evaluation.stand_in import Psnr

FRAMES = 3


class Deadly(Psnr):
    """Kills its process at a black frame, as the system does for want of memory."""

    def update(self, chunk: Chunk) -> Any:
        if not chunk.restored.any():
            os.kill(os.getpid(), signal.SIGKILL)
        return super().update(chunk)


def make(output: Path) -> tuple[Evaluator, None]:
    return Evaluator(BuiltMetrics([Deadly()], [], {}), None, EvalConfig(picture_size=16), output), None


@pytest.fixture
def groups(tmp_path: Path) -> list[list[Pair]]:
    """Two ground truths with three results each; one of the first's cannot be read."""
    random = np.random.default_rng(0)
    for folder in ("a/gt", "a/x", "a/y", "a/z", "b/gt", "b/x", "b/y", "b/z"):
        (tmp_path / folder).mkdir(parents=True)
        for index in range(FRAMES):
            pixels = random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / folder / f"{index}.png")
    (tmp_path / "a" / "z" / "1.png").write_bytes(b"broken")
    return [[Pair(m, "bfr", n, tmp_path / n / "gt", tmp_path / n / m) for m in "xyz"] for n in "ab"]


@pytest.mark.slow
def test_workers_measure_what_one_process_does_and_a_killed_one_costs_its_pair(
    groups: list[list[Pair]], tmp_path: Path
) -> None:
    alone, _ = make(tmp_path / "alone")
    expected = {(r.method, r.name): r for group in groups for r in alone.evaluate(group, lambda _: None)}
    assert [record.method for record in expected.values() if record.status != "done"] == ["z"]  # cannot be read
    for index in range(FRAMES):
        Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / "b" / "x" / f"{index}.png")
    evaluator, _ = make(tmp_path / "many")
    found = list(measure_in_workers(evaluator, partial(make, tmp_path / "many"), 2, groups))
    assert not multiprocessing.active_children()
    by_place = {(record.method, record.name): record for record in found}
    assert len(by_place) == len(found) == len(expected)
    killed = by_place["x", "b"]
    assert killed.status == "failed"
    assert killed.reason == ("ended its worker process (crash, or out of memory): lower workers or chunk_size")
    assert by_place == {**expected, ("x", "b"): killed}
    for group in groups:
        for pair in group:
            key = evaluator.cache_key(pair)
            assert read_record(evaluator.output, pair, key) == by_place[pair.method, pair.name]

    # Again: what is done is not measured again, what failed before is.
    shutil.copytree(tmp_path / "b" / "y", tmp_path / "b" / "x", dirs_exist_ok=True)
    again = measure_in_workers(evaluator, partial(make, tmp_path / "many"), 2, groups)
    assert [record.method for record in again if record.status != "done"] == ["z"]


@pytest.mark.slow
def test_no_worker_outlives_an_interruption(groups: list[list[Pair]], tmp_path: Path) -> None:
    evaluator, _ = make(tmp_path)
    with closing(measure_in_workers(evaluator, partial(make, tmp_path), 2, groups)) as records:
        next(records)
    assert not multiprocessing.active_children()
    assert not [file for file in tmp_path.rglob(".*") if "partial" in file.name]
