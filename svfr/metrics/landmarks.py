"""Landmark error: do the eyes, the mouth and the outline lie where the truth has them?"""

from pathlib import Path

import cv2
import numpy as np

from svfr.data.alignment import similarity_transform
from svfr.data.landmarks import EYE_CORNERS, Landmarker, load_landmarker
from svfr.metrics.base import Chunk, Column, NetworkOptions, Row, VideoMetric, to_image
from svfr.models.identity import ARCFACE_TEMPLATE

# [px] x0, y0, x1, y1 at 112 px: where a detector's box lies when the face is aligned to ArcFace's template. Measured
# with YuNet: 12 people, 60 frames, standard deviations 4.9 and 1.8 (centre), 3.2 and 2.4 (sides).
TEMPLATE_BOX = (16.8, 9.3, 96.0, 119.7)


def landmark_error(restored: np.ndarray, truth: np.ndarray) -> float | None:
    """Mean distance of landmarks (68, 2) [px], in % of the truth's distance between the outer corners of the eyes.

    None if the truth's eyes coincide. Papers that measure 98 points, or in px at 512, have other numbers.
    """
    left, right = EYE_CORNERS
    eyes = float(np.linalg.norm(truth[left] - truth[right]))
    return 100 * float(np.linalg.norm(restored - truth, axis=1).mean()) / eyes if eyes > 0 else None


def box_of(landmarks: np.ndarray) -> np.ndarray:
    """The box (4,) [px] that a detector puts around a face of five landmarks (5, 2) [px]."""
    matrix = cv2.invertAffineTransform(similarity_transform(landmarks, ARCFACE_TEMPLATE))
    x0, y0, x1, y1 = TEMPLATE_BOX
    center = matrix[:, :2] @ ((x0 + x1) / 2, (y0 + y1) / 2) + matrix[:, 2]
    half = np.hypot(matrix[0, 0], matrix[1, 0]) * np.array([x1 - x0, y1 - y0]) / 2
    return np.concatenate([center - half, center + half])


class LandmarkError(VideoMetric):
    """Landmark error, of frames with a face; both videos are searched in the box of the truth's five landmarks."""

    columns = (Column("landmark_error", "Landmarks", "lower", "% of the outer-eye distance", 2, needs_faces=True),)

    @classmethod
    def build(cls, options: NetworkOptions) -> "LandmarkError":
        """Make it with a landmark network."""
        return cls(load_landmarker(options.landmarker, options.folder, options.download, options.device))

    def __init__(self, landmarker: Landmarker) -> None:
        self._landmarker = landmarker
        self.protocol = {
            "network": {"name": landmarker.name, "file": Path(landmarker.source).name, "sha256": landmarker.sha256},
            "landmark_error": "68 points, mean distance in % of the truth's outer-eye distance, mean over frames; both "
            "videos in the box that the truth's five landmarks give",
        }

    def _measure(self, chunk: Chunk, at: int) -> Row:
        if (points := chunk.face(at)) is None:
            return {}
        boxes = box_of(points)[None]
        found = chunk.both("landmarks", at, lambda frame: self._landmarker(to_image(frame), boxes)[0])
        return {"landmark_error": landmark_error(*found)}
