"""Where a video changes from one shot to the next."""

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain, repeat

import cv2
import numpy as np

SMALL = (64, 64)  # [px] frames are compared at this size, whatever their own
# A cut stands out from the frames around it; a fast pan or a dancer does not (the idea of PySceneDetect's adaptive
# detector). Assumption: this many frames on each side, and this factor over the largest of their differences.
AROUND = 2
STANDS_OUT = 2.0
CUT = 10.0  # least difference of a cut, the default of data preparation, too
# A dissolve: the picture in the middle is the mean of those this many frames before and after it, which are of
# different things. Assumption: their correlation is below the first; what is not their mean, as a share of their
# difference, below the second.
DISSOLVE = 6
SAME_PICTURE = 0.7
LEFT_OVER = 0.25


def content_differences(images: Iterable[np.ndarray]) -> np.ndarray:
    """How much each frame (h, w, 3) uint8 RGB differs from the one before: (n,) in [0, 255], 0 for the first.

    The mean absolute difference over pixels and the channels hue, saturation and value; hue counts on its circle, and
    hue and saturation as far as the pixel is bright and colourful enough to have them.
    """
    return np.array([difference for _, _, difference in _compared(images)])


def shot_starts(differences: np.ndarray, threshold: float) -> list[int]:
    """Indices of the frames that start a shot, 0 always among them, by their `content_differences`.

    A frame starts one if its difference is at least `threshold` and `STANDS_OUT` times those around it.
    A single flash makes two large differences in a row, which don't stand out from each other.
    """
    starts = [0]
    for index in np.flatnonzero(differences >= threshold).tolist():
        around = np.r_[differences[max(1, index - AROUND) : index], differences[index + 1 : index + 1 + AROUND]]
        if index and differences[index] >= STANDS_OUT * around.max(initial=0.0):
            starts.append(index)
    return starts


def _compared(images: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray, float]]:
    """Each frame, its small picture (64, 64, 3) float64 RGB, and its difference from the one before."""
    before: np.ndarray | None = None
    for image in images:
        small = cv2.resize(image, SMALL, interpolation=cv2.INTER_AREA)
        now = cv2.cvtColor(small, cv2.COLOR_RGB2HSV_FULL).astype(np.float64)
        yield image, small.astype(np.float64), 0.0 if before is None else _difference(before, now)
        before = now


def with_cuts(images: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, bool]]:
    """All frames in order, each with whether it starts a shot: as of `shot_starts` with `CUT`, or amid a dissolve.

    `DISSOLVE` + 1 of the frames, (h, w, 3) uint8 RGB, are held.
    """
    held = deque[np.ndarray]()  # the frames from the window's middle on
    nothing: tuple[np.ndarray | None, float] = None, 0.0  # before the first frame and after the last one
    window = deque([nothing] * (2 * DISSOLVE + 1), maxlen=2 * DISSOLVE + 1)
    since = 0  # frames since the last start
    for compared in chain(_compared(images), repeat(None, DISSOLVE)):
        window.append(nothing if compared is None else compared[1:])
        if compared is not None:
            held.append(compared[0])
        first, middle, last = window[0][0], window[DISSOLVE][0], window[-1][0]
        if middle is None:
            continue
        is_cut = DISSOLVE in shot_starts(np.array([difference for _, difference in window]), CUT)
        if first is not None and last is not None and since > 2 * DISSOLVE:
            is_cut = is_cut or _is_dissolve(first, middle, last)
        starts = is_cut or since == 0
        since = 1 if starts else since + 1
        yield held.popleft(), starts


def _is_dissolve(first: np.ndarray, middle: np.ndarray, last: np.ndarray) -> bool:
    """Whether (h, w, 3) pictures of different things are mixed in the middle."""
    change = np.abs(last - first).mean()
    if change < CUT or min(first.std(), last.std()) < 1:  # alike, or a fade from or to one colour
        return False
    left_over = np.abs(middle - (first + last) / 2).mean()
    return bool(left_over < LEFT_OVER * change and np.corrcoef(first.ravel(), last.ravel())[0, 1] < SAME_PICTURE)


def _difference(a: np.ndarray, b: np.ndarray) -> float:
    change = np.abs(a - b)
    hue = np.minimum(change[..., 0], 256 - change[..., 0])
    coloured = np.minimum(a[..., 1] * a[..., 2], b[..., 1] * b[..., 2]) / 255**2
    saturation = change[..., 1] * np.minimum(a[..., 2], b[..., 2]) / 255  # means nothing in the dark
    return float((2 * hue * coloured + saturation + change[..., 2]).mean() / 3)  # 2: half a circle is the whole range
