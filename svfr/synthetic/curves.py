"""Functions that the renderer's shapes and colours are made of."""

import cv2
import numpy as np


def smoothstep(low: float | np.ndarray, high: float | np.ndarray, x: np.ndarray) -> np.ndarray:
    """0 below `low`, 1 above `high`, smooth between; the other way around if high < low."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def power(x: np.ndarray, exponent: int) -> np.ndarray:
    """x ** exponent for a whole exponent >= 1, by multiplications: numpy's own is very slow where x is negative."""
    assert exponent >= 1
    if exponent == 1:
        return x
    half = power(x, exponent // 2)
    return half * half * x if exponent % 2 else half * half


def bump(x: np.ndarray, y: np.ndarray, cx: float, cy: float, sx: float, sy: float) -> np.ndarray:
    """A Gaussian hill of height 1."""
    return np.exp(-(((x - cx) / sx) ** 2) - ((y - cy) / sy) ** 2)


def noise(rng: np.random.Generator, shape: tuple[int, ...], cells: tuple[int, int], octaves: int = 1) -> np.ndarray:
    """Smooth noise (rows, columns) float32, about normal; `cells` along rows and columns, doubled each octave.

    The picture at another shape is the same.
    """
    total = np.zeros(shape, dtype=np.float32)
    for octave in range(octaves):
        grid = rng.normal(size=(cells[0] * 2**octave + 1, cells[1] * 2**octave + 1)).astype(np.float32)
        total += cv2.resize(grid, shape[::-1], interpolation=cv2.INTER_CUBIC) * 0.6**octave
    return total
