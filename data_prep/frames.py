"""Reading the frames of several clips of one file in one go, and the networks, loaded once for each process."""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np

from data_prep.records import Record, file_name, replacing
from data_prep.runner import num_frames
from data_prep.settings import DataPrepConfig
from svfr.data.detectors import FaceDetector, load_detector
from svfr.data.landmarks import Landmarker, load_landmarker
from svfr.data.recognition import Recognizer, load_recognizer
from svfr.data.video import VideoError, read_frames


def walk(path: Path, clips: list[Record]) -> Iterator[tuple[np.ndarray, list[tuple[int, int]]]]:
    """The frames of a file up to the last one of its clips.

    Yields:
        The (h, w, 3) uint8 frame, and for each clip that it is in (index of the clip, index of the frame in it).

    Raises:
        VideoError: the file cannot be read, or is shorter than its clips say.
    """
    end = num_frames(clips)
    index = 0
    for frame in read_frames(path):
        places = [(i, index - clip["start_frame"]) for i, clip in enumerate(clips)]
        yield frame.image, [(i, at) for i, at in places if 0 <= at < clips[i]["num_frames"]]
        index += 1
        if index == end:
            return
    raise VideoError(f"{path}: has {index} frames now, {end} when it was cut")


def load_arrays(output: Path, kind: str, clip_id: str) -> dict[str, np.ndarray]:
    """The arrays that a step saved of a clip."""
    with np.load(output / arrays_file(kind, clip_id)) as arrays:
        return dict(arrays)


def save_arrays(output: Path, kind: str, clip_id: str, **arrays: np.ndarray) -> str:
    """Save the arrays of a clip, whole or not at all; returns the file, relative to the output folder."""
    name = arrays_file(kind, clip_id)
    with replacing(output / name) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    return name


def arrays_file(kind: str, clip_id: str) -> str:
    """Where the arrays of a clip lie, relative to the output folder."""
    return f"{kind}/{file_name(clip_id, '.npz')}"


def detector(settings: DataPrepConfig) -> FaceDetector:
    """The face detector that the settings name."""
    return _detector(settings.detector, settings.networks)


def recognizer(settings: DataPrepConfig) -> Recognizer | None:
    """The recognition network that the settings name."""
    return None if settings.recognizer == "none" else _recognizer(settings.recognizer, settings.networks)


def landmarker(settings: DataPrepConfig) -> Landmarker | None:
    """The landmark network that the settings name."""
    return None if settings.landmarks == "none" else _landmarker(settings.landmarks, settings.networks)


@lru_cache(maxsize=1)
def _detector(name: str, networks: str | None) -> FaceDetector:
    return load_detector(name, Path(networks) if networks else None)


@lru_cache(maxsize=1)
def _recognizer(name: str, networks: str | None) -> Recognizer:
    return load_recognizer(name, Path(networks) if networks else None)


@lru_cache(maxsize=1)
def _landmarker(name: str, networks: str | None) -> Landmarker:
    return load_landmarker(name, Path(networks) if networks else None)
