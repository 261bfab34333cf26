"""A face through consecutive frames, with a steady square crop for each of them."""

import math
from dataclasses import dataclass

import numpy as np

from svfr.data.detectors import Face

# The square crop of a face, in larger sides S of its box: side 1.40 S, centre 0.05 S above the box's centre. Measured:
# YuNet's boxes on 6 FFHQ-aligned photos, which are the crops wanted, at 8 sizes from 200 to 1024 px: side 1.40 +- 0.09,
# shift right 0.02 +- 0.03 (none taken), up 0.05 +- 0.03; the eyes are then 122 px apart at 512 px (FFHQ's template:
# 126). InsightFace's boxes are as large within 1.5%, their centres 0.04 S higher (21 frames of one clip).
MARGIN = 1.40
SHIFT_UP = 0.05

TAKEOVER = 0.1  # [s] Assumption: a face that is seen for less may be a false detection
SMOOTHING = 0.2  # [s] Assumption: sigma of the Gaussian that steadies the crop


@dataclass(frozen=True)
class FaceTrack:
    """One face through n consecutive frames."""

    start: int  # index of its first frame
    boxes: np.ndarray  # (n, 4) float64, square crops x0, y0, x1, y1 [px]; may reach outside of the frame
    landmarks: np.ndarray  # (n, 5, 2) float32 [px] in the frame
    detected: np.ndarray  # (n,) bool; the other frames were filled in between
    # (n,) bool; False where a frame that was filled in does not look like its neighbours: a flash, a black frame,
    # something before the face.
    visible: np.ndarray

    @property
    def stop(self) -> int:
        """Index after its last frame."""
        return self.start + len(self.boxes)

    @property
    def largest(self) -> float:
        """The largest side of its crops [px]."""
        return float((self.boxes[:, 2] - self.boxes[:, 0]).max())

    def part(self, start: int, stop: int) -> "FaceTrack":
        """The same face from frame `start` to before `stop`."""
        cut = slice(start - self.start, stop - self.start)
        return FaceTrack(start, self.boxes[cut], self.landmarks[cut], self.detected[cut], self.visible[cut])


def steady_track(seen: list[int], faces: list[Face], hidden: list[int], fps: float) -> FaceTrack:
    """Fill the gaps between frames in which a face was seen, make the boxes square with `MARGIN`, and steady them."""
    frames = np.arange(seen[0], seen[-1] + 1)
    values = np.stack([np.concatenate([f.box, f.landmarks.ravel()]) for f in faces]).astype(np.float64)
    filled = np.stack([np.interp(frames, seen, column) for column in values.T], axis=1)
    low, high = filled[:, 0:2], filled[:, 2:4]
    face_side = (high - low).max(axis=1)
    centre = (low + high) / 2 - np.array([0.0, SHIFT_UP]) * face_side[:, None]
    steady = smooth(np.column_stack([centre, MARGIN * face_side]), SMOOTHING * fps)
    # The fit at the ends may lie a little beyond what was seen; a side must stay a side.
    half = np.maximum(steady[:, 2:], MARGIN * face_side.min()) / 2
    boxes = np.concatenate([steady[:, :2] - half, steady[:, :2] + half], axis=1)
    landmarks = filled[:, 4:].reshape(-1, 5, 2).astype(np.float32)
    return FaceTrack(seen[0], boxes, landmarks, np.isin(frames, seen), ~np.isin(frames, hidden))


def square_around(box: np.ndarray) -> np.ndarray:
    """(4,) the square crop of one face's box [px]."""
    side, centre = max(box[2:] - box[:2]), (box[:2] + box[2:]) / 2
    centre = centre - np.array([0.0, SHIFT_UP]) * side
    return np.concatenate([centre - MARGIN * side / 2, centre + MARGIN * side / 2])


def face_boxes(crops: np.ndarray) -> np.ndarray:
    """The faces' own boxes, as squares, from (n, 4) crops of a track [px]: `steady_track` backwards."""
    side = (crops[:, 2:] - crops[:, :2]) / MARGIN
    centre = (crops[:, :2] + crops[:, 2:]) / 2 + np.array([0.0, SHIFT_UP]) * side
    return np.concatenate([centre - side / 2, centre + side / 2], axis=1)


def smooth(values: np.ndarray, sigma: float) -> np.ndarray:
    """(n, d) values smoothed along n by a Gaussian of `sigma` samples.

    Each value is that of a straight line fitted with Gaussian weights. Away from the ends this is the Gaussian mean;
    at the ends, where half of its samples are missing, the mean would lag behind a moving face.
    """
    n = len(values)
    reach = min(math.ceil(3 * sigma), n - 1)
    if reach < 1:
        return values.copy()
    offset = np.arange(-reach, reach + 1)
    weight = np.exp(-0.5 * (offset / sigma) ** 2)

    def summed(column: np.ndarray, kernel: np.ndarray) -> np.ndarray:
        # Nothing lies beyond the ends. Convolving mirrors the offsets, so s1 and t1 both change their sign.
        return np.convolve(column, kernel, mode="full")[reach : reach + n]

    ones = np.ones(n)
    s0, s1, s2 = (summed(ones, weight * offset**power) for power in range(3))
    t0 = np.stack([summed(column, weight) for column in values.T], axis=1)
    t1 = np.stack([summed(column, weight * offset) for column in values.T], axis=1)
    return (s2[:, None] * t0 - s1[:, None] * t1) / (s0 * s2 - s1**2)[:, None]
