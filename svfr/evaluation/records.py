"""What is kept of each evaluated pair, so that an evaluation goes on where it stopped and runs in any split."""

import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from svfr.evaluation.pairs import Pair
from svfr.files import replacing, write_json
from svfr.inference.batch import RECORDS
from svfr.metrics import SetFeatures

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
    width: int = 0  # [px]
    height: int = 0  # [px]
    fps: float | None = None  # [1/s] of the ground truth, where it is known
    metrics: dict[str, float | None] = field(default_factory=dict)  # by column; None where it is not defined
    why_none: dict[str, str] = field(default_factory=dict)  # by column
    problems: list[str] = field(default_factory=list)  # with the input, though it was measured; one line each
    notes: list[str] = field(default_factory=list)  # what a reader should know, one line each
    cost: dict[str, Any] = field(default_factory=dict)  # of restoring it, where it is known; see `provenance.cost_of`


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
        record = Record(**json.loads((record_folder(output, pair) / ROW).read_text()))
    except (OSError, ValueError, TypeError):
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


def save_features(folder: Path, index: int, features: SetFeatures) -> None:
    """Keep what the set metric number `index` has to know of a video."""
    starts = np.array(features.starts, dtype=np.int64)
    save_arrays(folder / f"set{index}.npz", starts=starts, restored=features.restored, truth=features.truth)


def load_features(folder: Path, index: int, video: str) -> SetFeatures | None:
    """What `save_features` kept; None if it is not there."""
    kept = load_arrays(folder / f"set{index}.npz")
    return SetFeatures(video, tuple(kept["starts"].tolist()), kept["restored"], kept["truth"]) if kept else None
