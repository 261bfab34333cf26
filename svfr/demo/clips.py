"""Held-out clips that the bundled model is judged on, degraded by seed, and what trivial methods make of them."""

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from svfr.data.degradations import PRESETS, degrade
from svfr.data.frames import task_input
from svfr.data.masks import mask_clip
from svfr.synthetic import TEST_SEEDS, render_clip

MEDIAN = 3  # frames and px
CHROMA_CLIPS = 64  # training clips that the mean chroma is taken from
TELEA_RADIUS = 3  # [px]


@dataclass(frozen=True)
class DegradedClip:
    """A rendered clip and its degraded self; shapes f frames of s x s px.

    Attributes:
        tasks: what there is to restore.
        truth: (f, s, s, 3) uint8.
        blurred: (f, s, s, 3) uint8, what a pipeline is given: degraded if there is bfr among the tasks, in colour.
        mask: (f, s, s) uint8, 255 = hole; None without inpainting.
        landmarks: (f, 68, 2) [px] of the truth.
        seed: of all.
    """

    tasks: tuple[str, ...]
    truth: np.ndarray
    blurred: np.ndarray
    mask: np.ndarray | None
    landmarks: np.ndarray
    seed: int

    @property
    def degraded(self) -> np.ndarray:
        """(f, s, s, 3) uint8, what the network sees: gray, with white holes."""
        masks = [None] * len(self.truth) if self.mask is None else list(self.mask)
        inputs = [task_input(frame, self.tasks, mask) for frame, mask in zip(self.blurred, masks, strict=True)]
        return np.stack(inputs)


def degraded_clip(
    seed: int, tasks: tuple[str, ...], num_frames: int, size: int, preset: str, identity: int | None = None
) -> DegradedClip:
    """Render and degrade a clip; equal arguments give equal clips. From seed 1,000,000 up they are held out."""
    clip = render_clip(seed, num_frames, size, identity=identity)
    rng = np.random.default_rng(seed)
    blurred = clip.frames
    if "bfr" in tasks:
        blurred = degrade(blurred, PRESETS[preset].sample(rng, size), rng)
    mask = mask_clip(num_frames, (size, size), np.random.default_rng([seed, 1])) if "inpainting" in tasks else None
    return DegradedClip(tasks, clip.frames, blurred, mask, clip.landmarks, seed)


def held_out_clip(index: int, tasks: tuple[str, ...], num_frames: int, size: int, preset: str) -> DegradedClip:
    """The held-out clip number `index`, from 0; its scene is the same for all tasks."""
    return degraded_clip(TEST_SEEDS + index, tasks, num_frames, size, preset)


def trivial_baseline(clip: DegradedClip) -> np.ndarray:
    """What needs no learning: Telea's inpainting, a median over space and time, the mean chroma of training.

    Returns:
        (f, s, s, 3) uint8.
    """
    frames = clip.degraded
    if clip.mask is not None:
        frames = np.stack(
            [cv2.inpaint(f, m, TELEA_RADIUS, cv2.INPAINT_TELEA) for f, m in zip(frames, clip.mask, strict=True)]
        )
    if "bfr" in clip.tasks:
        frames = median_3d(frames)
    if "colorization" in clip.tasks:
        frames = np.stack([with_chroma(frame, mean_chroma(frames.shape[1])) for frame in frames])
    return frames


def median_3d(frames: np.ndarray) -> np.ndarray:
    """Median over 3 frames and 3 x 3 px of each channel; borders are repeated; (f, h, w, 3) uint8."""
    border = MEDIAN // 2
    padded = np.pad(frames, [(border, border)] * 3 + [(0, 0)], mode="edge")
    windows = sliding_window_view(padded, (MEDIAN,) * 3, axis=(0, 1, 2))  # (f, h, w, 3, 3, 3, 3)
    return np.median(windows.reshape(*frames.shape, -1), axis=-1).astype(np.uint8)


def with_chroma(frame: np.ndarray, chroma: tuple[float, float]) -> np.ndarray:
    """(h, w, 3) uint8 with its own luma and one chroma (Cr, Cb) everywhere."""
    image = cv2.cvtColor(frame, cv2.COLOR_RGB2YCrCb)
    image[..., 1:] = np.rint(chroma)
    return cv2.cvtColor(image, cv2.COLOR_YCrCb2RGB)


@cache
def mean_chroma(size: int) -> tuple[float, float]:
    """Mean Cr and Cb of rendered training clips at `size` px."""
    frames = [render_clip(seed, 1, size).frames[0] for seed in range(CHROMA_CLIPS)]
    chroma = np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2YCrCb)[..., 1:] for frame in frames])
    cr, cb = chroma.reshape(-1, 2).mean(axis=0)
    return float(cr), float(cb)
