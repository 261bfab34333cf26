"""Where a video changes from one shot to the next."""

from collections.abc import Iterable

import cv2
import numpy as np

SMALL = (64, 64)  # [px] frames are compared at this size, whatever their own
# A cut stands out from the frames around it; a fast pan or a dancer does not (the idea of PySceneDetect's adaptive
# detector). Assumption: this many frames on each side, and this factor over the largest of their differences.
AROUND = 2
STANDS_OUT = 2.0


def content_differences(images: Iterable[np.ndarray]) -> np.ndarray:
    """How much each frame differs from the one before.

    The mean absolute difference over pixels and the channels hue, saturation and value; hue counts on its circle, and
    hue and saturation as far as the pixel is bright and colourful enough to have them.

    Args:
        images: (h, w, 3) uint8 RGB frames; only the last is kept in memory.

    Returns:
        (n,) float64 in [0, 255]; 0 for the first frame.
    """
    differences = []
    before: np.ndarray | None = None
    for image in images:
        small = cv2.resize(image, SMALL, interpolation=cv2.INTER_AREA)
        now = cv2.cvtColor(small, cv2.COLOR_RGB2HSV_FULL).astype(np.float64)
        differences.append(0.0 if before is None else _difference(before, now))
        before = now
    return np.array(differences)


def shot_starts(differences: np.ndarray, threshold: float) -> list[int]:
    """Indices of the frames that start a shot, 0 always among them.

    A frame starts one if its difference is at least `threshold` and `STANDS_OUT` times those around it.
    A single flash makes two large differences in a row, which don't stand out from each other.

    Args:
        differences: of `content_differences`.
        threshold: least difference of a cut.
    """
    starts = [0]
    for index in np.flatnonzero(differences >= threshold).tolist():
        around = np.r_[differences[max(1, index - AROUND) : index], differences[index + 1 : index + 1 + AROUND]]
        if index and differences[index] >= STANDS_OUT * around.max(initial=0.0):
            starts.append(index)
    return starts


def _difference(a: np.ndarray, b: np.ndarray) -> float:
    change = np.abs(a - b)
    hue = np.minimum(change[..., 0], 256 - change[..., 0])
    coloured = np.minimum(a[..., 1] * a[..., 2], b[..., 1] * b[..., 2]) / 255**2
    saturation = change[..., 1] * np.minimum(a[..., 2], b[..., 2]) / 255  # means nothing in the dark
    return float((2 * hue * coloured + saturation + change[..., 2]).mean() / 3)  # 2: half a circle is the whole range
