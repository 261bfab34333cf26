"""How fast one loader worker makes training samples, and what the time goes to."""

import cProfile
import pstats
import time
from pathlib import Path
from typing import TypedDict

import cv2

import svfr.data
from svfr.data.dataset import ClipDataset

FOLDER = Path(svfr.data.__file__).parent

# What a row of the report adds up: functions of svfr.data that don't call each other.
STAGES = {
    "read": ("read",),
    "blur": ("_blur", "blur_kernel"),
    "noise": ("_add_noise",),
    "resize": ("_resize",),
    "H.264": ("h264_round_trip",),
    "masks": ("mask_clip",),
    "gray, holes": ("task_input",),
    "tensors": ("_to_tensors",),
}


class DataPath(TypedDict):
    """What was measured."""

    samples_per_second: float
    shares: dict[str, float]


def measure_data_path(dataset: ClipDataset, num_samples: int) -> DataPath:
    """Make samples in this process, in one thread, as a loader worker does.

    Args:
        dataset: of training.
        num_samples: to time; they are made twice.

    Returns:
        samples per second, and the share of each stage (and of "the rest") in the time.
    """
    threads = cv2.getNumThreads()
    cv2.setNumThreads(0)
    try:
        places = [divmod(place, len(dataset)) for place in range(num_samples + 1)]
        dataset[places[0]]  # imports, opens
        start = time.perf_counter()
        for place in places[1:]:
            dataset[place]
        seconds = time.perf_counter() - start
        profile = cProfile.Profile()
        profile.enable()
        for place in places[1:]:
            dataset[place]
        profile.disable()
    finally:
        cv2.setNumThreads(threads)
    return {"samples_per_second": num_samples / seconds, "shares": _shares(pstats.Stats(profile))}


def _shares(stats: pstats.Stats) -> dict[str, float]:
    calls: dict[tuple[str, int, str], tuple] = stats.stats  # type: ignore[attr-defined]
    inside: dict[str, float] = {}  # [s] by name of a function of svfr.data, with what it calls
    for (file, _, name), (_, _, _, cumulative, _) in calls.items():
        if Path(file).parent == FOLDER:
            inside[name] = inside.get(name, 0.0) + cumulative
    total = inside["__getitem__"]
    shares = {stage: sum(inside.get(name, 0.0) for name in names) / total for stage, names in STAGES.items()}
    return {**shares, "the rest": max(0.0, 1 - sum(shares.values()))}
