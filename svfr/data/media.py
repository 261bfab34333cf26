"""Defects of old media: what film and video tape do to a clip. Assumption: all ranges, set by eye beside old footage.

Clips are (f, h, w, 3) float32 RGB in [0, 255]. Lengths are in units of 1/512 of the frame's shorter side.
"""

import cv2
import numpy as np

Rng = np.random.Generator


def film(frames: np.ndarray, rng: Rng) -> np.ndarray:
    """Faded colours, flicker, grain, scratches that stay for some frames, dust that is there for one."""
    unit = min(frames.shape[1:3]) / 512
    # Cyan and yellow dyes fade first.
    cast = rng.uniform((0.95, 0.8, 0.65), (1.0, 1.0, 1.0)) if rng.uniform() < 0.7 else np.ones(3)
    black, white = rng.uniform(0, 35), rng.uniform(195, 250)
    flicker, grain, spread = rng.uniform(0, 0.08), rng.uniform(3, 13), max(0.4, rng.uniform(0.6, 1.4) * unit**0.5)
    coloured = rng.uniform() < 0.3
    scratches = [(rng.uniform(), rng.uniform(0.5, 2.0), rng.uniform(-90, 120)) for _ in range(rng.poisson(1.2))]
    dust = rng.uniform(0, 5)
    faded = black + (white - black) / 255 * frames * np.float32(cast)
    result = []
    for frame in faded:
        image = frame * np.float32(1 + flicker * rng.standard_normal())
        noise = _noise(frame.shape[:2], 3 if coloured else 1, (spread, spread), rng)
        tone = frame.mean(axis=-1, keepdims=True) / 255
        image = image + noise * np.float32(grain) * np.maximum(0.35, 4 * tone * (1 - tone)).astype(np.float32)
        image = _scratched(image, scratches, unit, rng)
        result.append(_dusty(image, rng.poisson(dust), unit, rng))
    return np.clip(np.stack(result), 0, 255)


def vhs(frames: np.ndarray, rng: Rng) -> np.ndarray:
    """Blurred and shifted colour, luma that is soft and rings, trembling lines, drop-outs, head switching below."""
    height, width = frames.shape[1:3]
    unit = min(height, width) / 512
    soft, ring, reach = rng.uniform(0.6, 2.2) * unit, rng.uniform(0.2, 1.0), rng.uniform(2, 4) * unit
    chroma, right, down = rng.uniform(5, 14) * unit, rng.uniform(0, 7) * unit, rng.uniform(0, 2.5) * unit
    saturation, luma_noise, chroma_noise = rng.uniform(0.65, 1.15), rng.uniform(2, 9), rng.uniform(1, 7)
    tremble, dropouts = rng.uniform(0, 1.5) * unit, rng.uniform(0, 1.5)
    switching = int(rng.uniform(0.01, 0.06) * height) if rng.uniform() < 0.4 else 0
    shift = np.array([[1, 0, right], [0, 1, down]], np.float32)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    result = []
    for frame in frames:
        ycc = cv2.cvtColor(frame / 255, cv2.COLOR_RGB2YCrCb) * 255
        luma = _blurred(ycc[..., 0], soft, 0.3 * soft)
        luma = luma + np.float32(ring) * (luma - _blurred(luma, reach, 0))
        luma = luma + np.float32(luma_noise) * _noise((height, width), 1, (1.5, 0.5), rng)[..., 0]
        luma = _with_dropouts(luma, rng.poisson(dropouts), unit, rng)
        colour = _blurred(ycc[..., 1:], chroma, 0.4 * chroma) - 127.5
        colour = cv2.warpAffine(colour, shift, (width, height), borderMode=cv2.BORDER_REPLICATE)
        colour = np.float32(saturation) * colour
        colour = colour + np.float32(chroma_noise) * _noise((height, width), 2, (6 * unit, 1.0), rng)
        image = cv2.cvtColor(np.dstack([luma, colour + 127.5]) / 255, cv2.COLOR_YCrCb2RGB) * 255
        offsets = tremble * _noise((height, 1), 1, (0, 1.5), rng)[:, 0]  # (h, 1) of each line
        if switching:
            depth = np.linspace(0, 1, switching)[:, None]
            offsets[-switching:] += width * 0.25 * depth**2 + 6 * unit * rng.standard_normal((switching, 1))
        result.append(cv2.remap(image, x + np.float32(offsets), y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))
    return np.clip(np.stack(result), 0, 255)


def _blurred(image: np.ndarray, sigma_x: float, sigma_y: float) -> np.ndarray:
    """Gaussian blur; a sigma [px] of next to nothing is none."""
    return cv2.GaussianBlur(image, (0, 0), max(sigma_x, 0.05), sigmaY=max(sigma_y, 0.05))


def _noise(shape: tuple[int, int], channels: int, sigma: tuple[float, float], rng: Rng) -> np.ndarray:
    """(h, w, c) float32 Gaussian noise of standard deviation 1, blurred by sigma (x, y) [px]."""
    noise = _blurred(rng.standard_normal((*shape, channels), dtype=np.float32), *sigma).reshape(*shape, channels)
    return noise / (noise.std() + np.float32(1e-6))


def _scratched(image: np.ndarray, scratches: list[tuple[float, float, float]], unit: float, rng: Rng) -> np.ndarray:
    """Upright lines: (place, width, brightness) each, which tremble and are gone in some frames."""
    height, width = image.shape[:2]
    x = np.arange(width, dtype=np.float32)[None]
    for place, thickness, level in scratches:
        centre = place * width + 2 * unit * rng.standard_normal() + 3 * unit * np.sin(np.arange(height) / height * 3)
        profile = np.exp(-(((x - centre[:, None]) / max(0.6, thickness * unit)) ** 2))  # (h, w)
        patchy = np.clip(_noise((height, 1), 1, (0, 40 * unit), rng)[:, 0] + 0.6, 0, 1)
        if rng.uniform() < 0.75:
            image = image + np.float32(level) * (profile * patchy)[..., None].astype(np.float32)
    return image


def _dusty(image: np.ndarray, count: int, unit: float, rng: Rng) -> np.ndarray:
    """Specks and hairs, dark or white."""
    height, width = image.shape[:2]
    for _ in range(count):
        cover = np.zeros((height, width), np.float32)
        centre = np.array([rng.uniform(0, width), rng.uniform(0, height)])
        is_hair = rng.uniform() < 0.15
        steps = rng.normal(0, 6 * unit, (8 if is_hair else 3, 2)).cumsum(axis=0) * (1.5 if is_hair else 0.3)
        thickness = max(1, round(rng.uniform(1, 1.5 if is_hair else 5) * unit))
        cv2.polylines(cover, [np.rint(centre + steps).astype(np.int32)], False, 1.0, thickness, cv2.LINE_AA)
        cover = (rng.uniform(0.5, 0.95) * _blurred(cover, 0.7 * unit, 0.7 * unit))[..., None].astype(np.float32)
        image = image + cover * (np.float32(240 if rng.uniform() < 0.6 else 15) - image)
    return image


def _with_dropouts(luma: np.ndarray, count: int, unit: float, rng: Rng) -> np.ndarray:
    """White streaks along a line or two, that fade to the right."""
    height, width = luma.shape
    luma = luma.copy()
    for _ in range(count):
        row, start, length = rng.integers(height), rng.integers(width), rng.uniform(0.03, 0.5) * width
        fade = np.exp(-np.arange(width - start, dtype=np.float32) / np.float32(length / 3 + 1))
        luma[row : row + max(1, round(1.5 * unit)), start:] += np.float32(rng.uniform(60, 180)) * fade
    return luma


MEDIA = {"film": film, "vhs": vhs}
