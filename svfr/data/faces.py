"""A face in a frame: crop it, put the restored crop back, and judge which frame shows it best.

Boxes are x0, y0, x1, y1 [px] between pixel edges: pixel i covers [i, i + 1].
"""

import math
from collections.abc import Iterable

import cv2
import numpy as np
from PIL import Image

# Assumption: half axes of the oval in which a face is pasted, and its shift towards the chin, in halves of the crop.
OVAL, OVAL_SHIFT = (0.92, 0.95), 0.05


def crop(image: np.ndarray, box: Iterable[float], size: int) -> np.ndarray:
    """The square `box` of a frame (h, w, 3) uint8 at `size` px, antialiased and sub-pixel exact: (size, size, 3) uint8.

    Outside of the frame, the frame's edge is repeated. A box without area is a ValueError.
    """
    x0, y0, x1, y1 = map(float, box)
    if not (x1 > x0 and y1 > y0):
        raise ValueError(f"the box {x0:g}, {y0:g}, {x1:g}, {y1:g} has no area")
    height, width = image.shape[:2]
    left, right = max(0, math.ceil(-x0)), max(0, math.ceil(x1 - width))
    top, bottom = max(0, math.ceil(-y0)), max(0, math.ceil(y1 - height))
    if left or right or top or bottom:
        image = np.pad(image, ((top, bottom), (left, right), (0, 0)), mode="edge")
    inner = (x0 + left, y0 + top, x1 + left, y1 + top)
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC, box=inner))


def region(box: Iterable[float], width: int, height: int) -> tuple[int, int, int, int]:
    """The pixels of a frame that lie entirely inside `box`: integer x0, y0, x1, y1, maybe without area."""
    x0, y0, x1, y1 = map(float, box)
    left, top = max(0, math.ceil(x0)), max(0, math.ceil(y0))
    return left, top, max(left, min(width, math.floor(x1))), max(top, min(height, math.floor(y1)))


def fit(patch: np.ndarray, box: Iterable[float], region: tuple[int, int, int, int]) -> np.ndarray:
    """A restored `crop(frame, box, s)`, (s, s, 3) uint8, resampled onto pixels of the frame, sub-pixel exact.

    `region` is x0, y0, x1, y1 of the frame, inside the box, with area; what comes out has its size.
    """
    corner, size = np.array([*box], dtype=np.float64).reshape(2, 2), patch.shape[0]
    inside = (np.reshape(region, (2, 2)) - corner[0]) * (size / (corner[1] - corner[0]))
    inside = inside.clip(0, size)  # rounded 1e-13 px outside
    extent = (region[2] - region[0], region[3] - region[1])
    return np.asarray(Image.fromarray(patch).resize(extent, Image.Resampling.BICUBIC, box=tuple(inside.ravel())))


def feather(box: Iterable[float], region: tuple[int, int, int, int], softness: float) -> np.ndarray:
    """Opacity (y1 - y0, x1 - x0, 1) float32 in a region of the box [px]: 0 at its border, rising smoothly to 1 inside.

    It depends only on the distance to the box's border, so that nothing jumps when a moving box leaves the frame.
    `softness` is the width of the rise as a share of the box's side.
    """
    x0, y0, x1, y1 = map(float, box)
    x, y = np.arange(region[0], region[2]) + 0.5, np.arange(region[1], region[3]) + 0.5
    across = _rise(np.minimum(x - x0, x1 - x) / (softness * (x1 - x0)))
    down = _rise(np.minimum(y - y0, y1 - y) / (softness * (y1 - y0)))
    return (down[:, None] * across[None, :]).astype(np.float32)[..., None]


def oval(
    box: Iterable[float], region: tuple[int, int, int, int], landmarks: np.ndarray | None, softness: float
) -> np.ndarray:
    """Opacity with which a face is pasted: 0 at the border of an oval around it, rising smoothly to 1 inside.

    It is as steady as the crop, whose place and size it has; the angle moves little of a shape that is nearly round.
    As `feather`, but `landmarks` (5, 2) [px] are None if the face is upright, and `softness` is in half axes.
    """
    x0, y0, x1, y1 = map(float, box)
    right, down = (1.0, 0.0) if landmarks is None else map(float, landmarks[1] - landmarks[0])
    half, angle = (x1 - x0) / 2, math.atan2(down, right)
    cosine, sine = math.cos(angle), math.sin(angle)
    x = (np.arange(region[0], region[2], dtype=np.float32) + 0.5 - (x0 + x1) / 2)[None] / half
    y = (np.arange(region[1], region[3], dtype=np.float32) + 0.5 - (y0 + y1) / 2)[:, None] / half
    radius = np.hypot((cosine * x + sine * y) / OVAL[0], (cosine * y - sine * x - OVAL_SHIFT) / OVAL[1])
    return _rise((1 - radius) / softness)[..., None]


def sharpness(image: np.ndarray) -> float:
    """Variance of the Laplacian of the luma of (h, w, 3) uint8 RGB (Pech-Pacheco et al. 2000), for comparing images of
    one size with each other only."""
    return float(cv2.Laplacian(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.CV_64F).var())


def frontality(landmarks: np.ndarray) -> float:
    """How frontal a face of (5, 2) landmarks is, in [0, 1]: 1 = nose midway between level eyes, 0 = profile.

    Assumption: 1 - the nose's offset from the middle along the eyes' line, in half eye distances, times the cosine of
    that line's slope.
    """
    left, right, nose = np.asarray(landmarks, dtype=np.float64)[:3]
    line = right - left
    distance = float(np.linalg.norm(line))
    if distance == 0:
        return 0.0
    offset = abs(2 * float((nose - left) @ line) / distance**2 - 1)
    return max(0.0, 1 - offset) * max(0.0, float(line[0]) / distance)


def _rise(t: np.ndarray) -> np.ndarray:
    """Smoothstep from 0 to 1."""
    t = np.clip(t, 0, 1)
    return t * t * (3 - 2 * t)
