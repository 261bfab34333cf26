"""What is kept of each evaluated pair, so that an evaluation goes on where it stopped and runs in any split."""

import hashlib
import json
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from svfr.evaluation.pairs import Pair, Problem
from svfr.files import read_json, replacing, write_json
from svfr.inference.batch import RECORDS
from svfr.metrics import SetFeatures, SetMetric
from svfr.metrics.base import Row
from svfr.metrics.image import PSNR_CEILING

ROW, PICTURES = "row.json", "pictures"
FRAMES = "frames.npz"  # values of single frames by column, (f,) float64, NaN where undefined


@dataclass
class Record:
    """The numbers of one pair, whose `method`, `task` and `name` it has."""

    method: str
    task: str
    name: str
    status: str  # done | failed
    cache_key: str  # digest of all that the numbers depend on
    reason: str | None = None  # why it failed, in one line
    trace: str | None = None  # of an error that is ours, not the input's
    num_frames: int = 0  # compared
    num_capped: int = 0  # of these, whose PSNR is at its ceiling: equal to the truth, or as good as
    width: int = 0  # [px]
    height: int = 0  # [px]
    fps: float | None = None  # [1/s] of the ground truth, where it is known
    metrics: dict[str, float | None] = field(default_factory=dict)  # by column; None where it is not defined
    why_none: dict[str, str] = field(default_factory=dict)  # by column
    problems: list[str] = field(default_factory=list)  # with the input, though it was measured; one line each
    notes: list[str] = field(default_factory=list)  # what a reader should know, one line each
    cost: dict[str, Any] = field(default_factory=dict)  # of restoring it, where it is known; see `results.cost_of`

    def all_problems(self) -> list[Problem]:
        """Why it failed, or what is wrong although it was measured."""
        lines = [self.reason] if self.reason else self.problems
        return [Problem(self.method, self.task, self.name, line) for line in lines]


def record_folder(output: Path, pair: Pair) -> Path:
    """Where all that is kept of a pair lies."""
    return output / RECORDS / pair.method / (pair.task or "all") / f"{pair.name}.row"


def start_record(output: Path, pair: Pair) -> Path:
    """An empty folder for a new record."""
    folder = record_folder(output, pair)
    shutil.rmtree(folder, ignore_errors=True)
    (folder / PICTURES).mkdir(parents=True)
    return folder


def write_record(output: Path, pair: Pair, record: Record) -> None:
    """Write the record, the last file of its folder: where it stands, the rest is whole."""
    write_json(record_folder(output, pair) / ROW, asdict(record))


def read_record(output: Path, pair: Pair, cache_key: str) -> Record | None:
    """The finished record of this key; None if there is none."""
    try:
        record = Record(**read_json(record_folder(output, pair) / ROW))
    except TypeError:
        return None
    return record if cache_key and record.cache_key == cache_key else None


def save_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Write an npz file so that it is whole or not there."""
    with replacing(path) as partial:
        np.savez_compressed(partial, allow_pickle=False, **arrays)


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an npz file; none if it is not there or broken."""
    try:
        with np.load(path, allow_pickle=False) as kept:
            return dict(kept)
    except (OSError, ValueError, EOFError, BadZipFile):
        return {}


def save_features(output: Path, pair: Pair, index: int, features: SetFeatures) -> None:
    """Keep what the set metric number `index` has to know of a video; the truth's part serves all its pairs."""
    for path, values in zip(_feature_files(output, pair, index), (features.restored, features.truth), strict=True):
        with replacing(path) as partial:
            np.save(partial, values, allow_pickle=False)
    write_json(record_folder(output, pair) / f"set{index}.json", features.starts)


def load_features(output: Path, pair: Pair, index: int) -> SetFeatures | None:
    """What `save_features` kept, read from the disk as it is used; None if it is not there."""
    try:
        starts = json.loads((record_folder(output, pair) / f"set{index}.json").read_text())
        arrays = [np.load(path, mmap_mode="r", allow_pickle=False) for path in _feature_files(output, pair, index)]
    except (OSError, ValueError, EOFError):
        return None
    return SetFeatures(pair.name, tuple(starts), *arrays)


def _feature_files(output: Path, pair: Pair, index: int) -> tuple[Path, Path]:
    truth = output / RECORDS / "truth_features" / f"{pair.name}.set{index}.npy"
    return record_folder(output, pair) / f"set{index}.npy", truth


def describe_capped(num_capped: int, num_frames: int) -> str:
    """The line that says how many frames' PSNR is no number of theirs."""
    return f"{num_capped} of {num_frames} frames equal the truth (PSNR capped at {PSNR_CEILING:g} dB)"


def compute_set(output: Path, metric: SetMetric, features: Sequence[SetFeatures]) -> Row:
    """The numbers of a set of videos, or those that were kept of the same features."""
    content = hashlib.sha256(json.dumps(metric.protocol, sort_keys=True).encode())
    for video in features:
        for values in (video.restored, video.truth):
            content.update(f"{values.dtype} {values.shape}".encode())
            content.update(np.ascontiguousarray(values).data)
    path = output / RECORDS / "sets" / f"{content.hexdigest()}.json"
    with suppress(OSError, ValueError):
        return json.loads(path.read_text())
    row = metric.compute(features)
    write_json(path, row)
    return row
