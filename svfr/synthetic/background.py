"""The background of a rendered person: a textured, moving picture. Its colours follow from its brightness and kind."""

import cv2
import numpy as np

from svfr.synthetic.curves import noise

KINDS = ("wall", "green", "sky", "shelf", "lights", "studio")
MARGIN = 1.5  # the picture is this many times larger than the frame


class Background:
    """Of a clip with frames of `size` x `size` px: two pictures of a kind that move against each other."""

    def __init__(self, rng: np.random.Generator, size: int) -> None:
        self.size = size
        kind, side = str(rng.choice(KINDS)), round(size * MARGIN)
        self._first = _paint(rng, kind, side)
        self._drift = rng.normal(0, 0.0035, size=2)
        self._second = _paint(rng, kind, side)
        self._pace = float(rng.uniform(0.02, 0.06))

    def frame(self, index: int, camera: np.ndarray, unit: float) -> np.ndarray:
        """A frame (size, size, 3) uint8 RGB, once the camera has moved that far (2,) in head units, of `unit` px."""
        size = self.size
        room = (MARGIN - 1) * size / 2
        shift = np.clip(room - camera * unit, 0, 2 * room - 1)
        second = np.clip(room - 0.4 * camera * unit + self._drift * size * index, 0, 2 * room - 1)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        back, front = (
            cv2.warpAffine(picture, np.array([[1, 0, at[0]], [0, 1, at[1]]]), (size, size), flags=flags)
            for picture, at in ((self._first, shift), (self._second, second))
        )
        share = 0.3 + 0.2 * float(np.sin(index * self._pace))
        return cv2.addWeighted(back, 1 - share, front, share, 0)


def _paint(rng: np.random.Generator, kind: str, side: int) -> np.ndarray:
    shape = (side, side)
    y, x = np.meshgrid(np.linspace(0, 1, side), np.linspace(0, 1, side), indexing="ij")
    bright = float(rng.uniform(0.35, 0.8))
    if kind == "wall":
        value = bright * (0.85 + 0.3 * x) + 0.03 * noise(rng, shape, (6, 6), 4)
        low, high = np.array([0.28, 0.22, 0.17]), np.array([0.93, 0.89, 0.81])
    elif kind == "green":
        value = 0.42 + 0.18 * noise(rng, shape, (7, 7), 4)
        low, high = np.array([0.06, 0.13, 0.04]), np.array([0.72, 0.84, 0.50])
    elif kind == "sky":
        value = 0.75 - 0.3 * y + 0.11 * noise(rng, shape, (3, 4), 4)
        low, high = np.array([0.20, 0.38, 0.62]), np.array([0.95, 0.96, 0.97])
    elif kind == "shelf":
        books = rng.uniform(0.2, 0.95, size=(6, 44)).astype(np.float32)
        value = cv2.resize(books, shape, interpolation=cv2.INTER_NEAREST)
        value = value * (np.abs(np.sin(np.pi * 6 * y)) > 0.12)
        value = cv2.GaussianBlur(value, (0, 0), side / 180)
        low, high = np.array([0.12, 0.07, 0.04]), np.array([0.80, 0.66, 0.48])
    elif kind == "lights":
        value = 0.12 + 0.03 * noise(rng, shape, (4, 4), 2)
        for _ in range(28):
            at, reach = rng.uniform(0, 1, 2), rng.uniform(0.015, 0.06)
            value = value + rng.uniform(0.2, 0.7) * np.clip((reach - np.hypot(x - at[0], y - at[1])) * 60, 0, 1)
        low, high = np.array([0.04, 0.05, 0.10]), np.array([1.0, 0.85, 0.55])
    else:
        distance = np.hypot(x - 0.5, y - 0.45)
        value = bright * (1.1 - 1.1 * distance) + 0.025 * noise(rng, shape, (5, 5), 3)
        low, high = np.array([0.05, 0.06, 0.09]), np.array([0.75, 0.80, 0.88])
    colour = low + (high - low) * np.clip(value, 0, 1)[..., None]
    return (np.clip(colour, 0, 1) * 255 + 0.5).astype(np.uint8)
