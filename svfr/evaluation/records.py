"""What is kept of each evaluated pair, so that an evaluation goes on where it stopped and runs in any split."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from svfr.evaluation.face_points import save_arrays
from svfr.evaluation.pairs import Pair
from svfr.files import write_json
from svfr.inference.batch import RECORDS
from svfr.metrics import SetFeatures

ROW, FRAMES, PICTURES = "row.json", "frames.npz", "pictures"


@dataclass
class Record:
    """The numbers of one pair.

    Attributes:
        method: see `Pair`.
        task: see `Pair`.
        name: see `Pair`.
        status: "done" or "failed".
        cache_key: digest of all that the numbers depend on.
        reason: why it failed, in one line.
        trace: of an error that is ours, not the input's.
        num_frames: compared.
        width: [px].
        height: [px].
        fps: [1/s] of the ground truth.
        metrics: number by column; None where it is not defined.
        why_none: reason by column.
        problems: what was wrong with the input though it was measured, one line each.
        notes: what a reader should know, one line each.
    """

    method: str
    task: str
    name: str
    status: str
    cache_key: str
    reason: str | None = None
    trace: str | None = None
    num_frames: int = 0
    width: int = 0
    height: int = 0
    fps: float = 0.0
    metrics: dict[str, float | None] = field(default_factory=dict)
    why_none: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


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
    """The finished record of this very key; None if there is none."""
    try:
        content: dict[str, Any] = json.loads((record_folder(output, pair) / ROW).read_text())
        record = Record(**content)
    except (OSError, ValueError, TypeError):
        return None
    return record if cache_key and record.cache_key == cache_key else None


def save_frames(folder: Path, rows: dict[str, list[float | None]]) -> None:
    """Keep the values of single frames, NaN where undefined."""
    save_arrays(folder / FRAMES, **{name: np.array(values, dtype=np.float64) for name, values in rows.items()})


def load_frames(folder: Path) -> dict[str, np.ndarray]:
    """What `save_frames` kept, by column; (f,) float64."""
    try:
        with np.load(folder / FRAMES, allow_pickle=False) as kept:
            return {name: kept[name] for name in kept.files}
    except (OSError, ValueError, EOFError):
        return {}


def save_features(folder: Path, index: int, features: SetFeatures) -> None:
    """Keep what the set metric number `index` has to know of a video."""
    save_arrays(
        folder / f"set{index}.npz",
        starts=np.array(features.starts, dtype=np.int64),
        restored=features.restored,
        truth=features.truth,
    )


def load_features(folder: Path, index: int, video: str) -> SetFeatures | None:
    """What `save_features` kept; None if it is not there."""
    try:
        with np.load(folder / f"set{index}.npz", allow_pickle=False) as kept:
            starts = tuple(int(start) for start in kept["starts"])
            return SetFeatures(video, starts, kept["restored"], kept["truth"])
    except (OSError, ValueError, KeyError, EOFError):
        return None


def picture_files(folder: Path, prefix: str) -> Iterator[Path]:
    """Pictures of a record by the beginning of their names, sorted."""
    yield from sorted((folder / PICTURES).glob(f"{prefix}*"))
