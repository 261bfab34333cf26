"""Defects of old media: what film and video tape do to a clip. Assumption: all ranges, set by eye beside old footage.

Clips are (f, h, w, 3) float32 RGB in [0, 255]. Lengths are in units of 1/512 of the frame's shorter side.
"""

import cv2
import numpy as np


def film(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Faded colours, flicker, grain, scratches that stay for some frames, dust that is there for one."""
    height, width = frames.shape[1:3]
    unit, x = min(height, width) / 512, np.arange(width)
    # Cyan and yellow dyes fade first.
    cast = rng.uniform((0.95, 0.8, 0.65), (1.0, 1.0, 1.0)) if rng.uniform() < 0.7 else np.ones(3)
    black, white = rng.uniform(0, 35), rng.uniform(195, 250)
    flicker, dust, scratches = rng.uniform(0, 0.08), rng.uniform(0, 5), rng.uniform(size=(rng.poisson(1.2), 3))
    grain, channels, spread = rng.uniform(3, 13), int(rng.choice([1, 3])), max(0.4, rng.uniform(0.6, 1.4) * unit**0.5)
    result = []
    for frame in black + (white - black) / 255 * frames * cast:
        image = frame * (1 + flicker * rng.standard_normal())
        tone = frame.mean(axis=-1, keepdims=True) / 255
        noise = _noise((height, width, channels), spread, spread, rng)
        image += grain * np.maximum(0.35, 4 * tone * (1 - tone)) * noise
        for place, thickness, level in scratches:
            centre = place * width + 2 * unit * rng.standard_normal() + 3 * unit * np.sin(np.linspace(0, 3, height))
            profile = np.exp(-(((x - centre[:, None]) / max(0.6, 2 * thickness * unit)) ** 2))[..., None]  # (h, w, 1)
            patchy = np.clip(_noise((height, 1, 1), 0, 40 * unit, rng) + 0.6, 0, 1)
            image += (rng.uniform() < 0.75) * (210 * level - 90) * profile * patchy
        for _ in range(rng.poisson(dust)):
            cover = np.zeros((height, width), np.float32)
            path = rng.uniform(0, (width, height)) + rng.normal(0, 3 * unit, (3, 2)).cumsum(axis=0)
            thickness, points = max(1, round(rng.uniform(1, 5) * unit)), [np.rint(path).astype(np.int32)]
            cv2.polylines(cover, points, False, rng.uniform(0.5, 0.95), thickness, cv2.LINE_AA)
            image += _blur(cover, 0.7 * unit, 0.7 * unit)[..., None] * ((240 if rng.uniform() < 0.6 else 15) - image)
        result.append(image)
    return np.clip(np.stack(result), 0, 255, dtype=np.float32)


def vhs(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blurred and shifted colour, luma that is soft and rings, trembling lines, drop-outs, head switching below."""
    height, width = frames.shape[1:3]
    unit = min(height, width) / 512
    soft, ring, reach = rng.uniform(0.6, 2.2) * unit, rng.uniform(0.2, 1.0), rng.uniform(2, 4) * unit
    chroma, right, down = rng.uniform(5, 14) * unit, rng.uniform(0, 7) * unit, rng.uniform(0, 2.5) * unit
    saturation, luma_noise, chroma_noise = rng.uniform(0.65, 1.15), rng.uniform(2, 9), rng.uniform(1, 7)
    tremble, dropouts = rng.uniform(0, 1.5) * unit, rng.uniform(0, 1.5)
    torn = int(rng.uniform(0.01, 0.06) * height) if rng.uniform() < 0.4 else 0  # lines
    shift = np.array([[1, 0, right], [0, 1, down]])
    y, x = np.mgrid[:height, :width].astype(np.float32)
    result = []
    for frame in frames:
        luma, *colours = cv2.split(cv2.cvtColor(frame / 255, cv2.COLOR_RGB2YCrCb) * 255)
        luma = _blur(luma, soft, 0.3 * soft)
        luma = luma + ring * (luma - _blur(luma, reach, 0)) + luma_noise * _noise((height, width), 1.5, 0.5, rng)
        for _ in range(rng.poisson(dropouts)):  # a white streak that fades to the right
            row, start, length = rng.integers(height), rng.integers(width), rng.uniform(0.01, 0.17) * width + 1
            streak = rng.uniform(60, 180) * np.exp(-np.arange(width - start) / length)
            luma[row : row + max(1, round(1.5 * unit)), start:] += streak
        colour = _blur(np.dstack(colours) - 127.5, chroma, 0.4 * chroma)
        colour = saturation * cv2.warpAffine(colour, shift, (width, height), borderMode=cv2.BORDER_REPLICATE)
        colour += chroma_noise * _noise((height, width, 2), 6 * unit, 1, rng)
        ycc = np.dstack([luma, colour + 127.5]).astype(np.float32) / 255
        offsets = tremble * _noise((height, 1), 0, 1.5, rng)  # of each line
        offsets[height - torn :] += width / 4 * np.linspace(0, 1, torn)[:, None] ** 2
        offsets[height - torn :] += 6 * unit * rng.standard_normal((torn, 1))
        moved = cv2.remap(ycc, x + np.float32(offsets), y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        result.append(cv2.cvtColor(moved, cv2.COLOR_YCrCb2RGB) * 255)
    return np.clip(np.stack(result), 0, 255)


def _blur(image: np.ndarray, sigma_x: float, sigma_y: float) -> np.ndarray:
    """Gaussian blur; a sigma [px] of next to nothing is none."""
    return cv2.GaussianBlur(image, (0, 0), max(sigma_x, 0.05), sigmaY=max(sigma_y, 0.05))


def _noise(shape: tuple[int, ...], sigma_x: float, sigma_y: float, rng: np.random.Generator) -> np.ndarray:
    """(h, w, ...) Gaussian noise of standard deviation 1, blurred."""
    noise = _blur(rng.standard_normal(shape, dtype=np.float32), sigma_x, sigma_y).reshape(shape)
    return noise / (noise.std() + np.float32(1e-6))


MEDIA = {"film": film, "vhs": vhs}
