"""The five face points of a ground-truth video, found once and kept: both videos are aligned by them."""

from pathlib import Path

import numpy as np

from svfr.data.detectors import FaceDetector
from svfr.data.tracks import track_largest_face
from svfr.data.video import probe, read_frames
from svfr.evaluation.records import load_arrays, save_arrays
from svfr.files import digest, fingerprint


def face_points(video: Path, detector: FaceDetector, cache: Path) -> np.ndarray:
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
    kept = load_arrays(cache)
    if str(kept.get("key")) == key:
        return kept["points"]
    faces = [detector(frame.image) for frame in read_frames(video)]
    points = np.full((len(faces), 5, 2), np.nan, dtype=np.float32)
    for track in track_largest_face(iter(faces), float(probe(video).fps)):
        points[track.start : track.start + len(track.landmarks)] = track.landmarks
    save_arrays(cache, points=points, key=np.array(key))
    return points
