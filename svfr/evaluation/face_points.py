"""The five face points of a ground-truth video, found once and kept: both videos are aligned by them."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from svfr.data.detectors import Face, FaceDetector
from svfr.data.tracks import track_largest_face
from svfr.data.video import probe, read_frames
from svfr.files import digest, fingerprint


def face_points(video: Path, detector: FaceDetector, cache: Path | None = None) -> np.ndarray:
    """Eyes, nose and mouth corners of the largest face in each frame.

    Frames between two sightings of a face are filled in linearly (see `track_largest_face`).

    Args:
        video: the ground truth.
        detector: finds the faces.
        cache: file that keeps the points, valid for this file and this detector.

    Returns:
        (f, 5, 2) float32 [px]; NaN in frames without a face.

    Raises:
        VideoError: the video cannot be read.
    """
    key = digest({"files": fingerprint(video), "detector": [detector.name, detector.source]})
    if cache is not None and (kept := _load(cache, key)) is not None:
        return kept
    num_frames = 0

    def faces() -> Iterator[list[Face]]:
        nonlocal num_frames
        for frame in read_frames(video):
            num_frames += 1
            yield detector(frame.image)

    tracks = track_largest_face(faces(), float(probe(video).fps))
    points = np.full((num_frames, 5, 2), np.nan, dtype=np.float32)
    for track in tracks:
        points[track.start : track.start + len(track.landmarks)] = track.landmarks
    if cache is not None:
        save_arrays(cache, points=points, key=np.array(key))
    return points


def _load(cache: Path, key: str) -> np.ndarray | None:
    try:
        with np.load(cache, allow_pickle=False) as kept:
            return kept["points"] if str(kept["key"]) == key else None
    except (OSError, ValueError, KeyError, EOFError):
        return None


def save_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Write an npz file so that it is whole or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial-{os.getpid()}.npz")
    try:
        np.savez_compressed(temporary, allow_pickle=False, **arrays)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
