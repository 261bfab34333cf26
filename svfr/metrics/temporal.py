"""Temporal stability: the warping error, and the picture of one line of pixels over time."""

from collections.abc import Iterable, Mapping
from functools import partial

import cv2
import numpy as np

from svfr.metrics.base import Chunk, Column, Row, VideoMetric, to_image

SCALE = 1000  # the error is given in thousandths
SMALLEST = 16  # [px] below, OpenCV's DIS has no pyramid
# A pixel counts as occluded where flow forth and back don't cancel out (Sundaram et al. 2010).
OCCLUSION_SHARE, OCCLUSION_SLACK = 0.01, 0.5  # of the squared lengths; [px^2]


def sources(before: np.ndarray, after: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the pixels of a frame come from: dense inverse search flow (Kroeger et al. 2016; OpenCV, medium preset).

    Two frames (h, w, 3) uint8 RGB, h, w >= 16 -> (h, w, 2) float32 positions x, y [px] in `before`, and (h, w) bool,
    True where they can be trusted: inside of the frame, not occluded.
    """
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    gray = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (before, after)]
    back, forth = flow.calc(gray[1], gray[0], None), flow.calc(gray[0], gray[1], None)
    height, width = gray[0].shape
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).astype(np.float32)
    source = grid + back
    returned = cv2.remap(forth, source, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    lengths = (back**2).sum(axis=2) + (returned**2).sum(axis=2)
    cancels = ((back + returned) ** 2).sum(axis=2) <= OCCLUSION_SHARE * lengths + OCCLUSION_SLACK
    inside = ((source >= 0) & (source <= (width - 1, height - 1))).all(axis=2)
    return source, cancels & inside


def warping_error(before: np.ndarray, after: np.ndarray, source: np.ndarray, trusted: np.ndarray) -> float | None:
    """Squared difference between a restored frame (h, w, 3) uint8 and the one before it, moved along the truth's flow.

    `source` and `trusted` are as `sources` gives them. Mean over trusted pixels and channels, of values in [0, 1], in
    thousandths; None if no pixel is trusted.
    """
    if not trusted.any():
        return None
    moved = cv2.remap(before.astype(np.float32), source, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    squares = cv2.norm(after.astype(np.float32), moved, cv2.NORM_L2SQR, trusted.view(np.uint8))  # summed in float64
    return SCALE * squares / (after.shape[2] * np.count_nonzero(trusted) * 255**2)


class WarpingError(VideoMetric):
    """Warping error (Lai et al. 2018) of a restored video, the mean over pairs of neighbouring frames.

    The flow is the truth's, so that a restored video cannot gain by blurring its motion away.
    """

    # Best is the truth's own: a video that stands still or is black has no error at all.
    columns = (Column("warping_error", "Warping error", "truth", "1/1000", no_reference=True),)
    protocol: Mapping[str, object] = {
        "flow": "OpenCV DIS, medium preset, of the ground truth's gray frames, from each frame to the one before",
        "occlusion": f"left out: |forth + back|^2 > {OCCLUSION_SHARE} (|forth|^2 + |back|^2) + {OCCLUSION_SLACK} "
        "[px^2], and what comes from outside of the frame",
        "warping_error": "squared difference in [0, 1], mean over pixels, channels and pairs, in thousandths",
    }

    def reset(self) -> None:
        """Start with the next video."""
        super().reset()
        self._last: tuple[np.ndarray, np.ndarray] | None = None

    def _measure(self, chunk: Chunk, at: int) -> Row:
        last, self._last = self._last, chunk.both("image", at, to_image)
        restored, truth = self._last
        if last is None or min(truth.shape[:2]) < SMALLEST:
            return {}
        flow = chunk.of_truth(f"sources {at}", partial(sources, last[1], truth))
        return {"warping_error": warping_error(last[0], restored, *flow)}


def temporal_slice(frames: Iterable[np.ndarray], column: float = 0.5) -> np.ndarray:
    """One column of pixels of every frame side by side (SVFR, Fig. 5): jitter shows as ragged edges.

    (h, w, 3) uint8 each, taken one by one -> (h, f, 3) uint8, time from left to right; `column` is a share of width.
    """
    return np.stack([frame[:, round(column * (frame.shape[1] - 1))].copy() for frame in frames], axis=1)
