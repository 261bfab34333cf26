"""PSNR and SSIM of single frames; a video's number is its frames' mean."""

import numpy as np
import torch
from skimage.metrics import structural_similarity
from torch import Tensor

from svfr.metrics.base import Chunk, Column, FrameRows, VideoMetric, to_images, to_numbers

PEAK = 255
# [dB] Assumption: what a frame counts that equals the truth, whose PSNR is infinite and would swallow the mean; other
# frames that are better (a few levels of difference in all of a frame) count as much.
PSNR_CEILING = 100.0
SSIM_WINDOW, SSIM_SIGMA = 11, 1.5  # [px], Wang et al. 2004
INNER = (slice(SSIM_WINDOW // 2, -(SSIM_WINDOW // 2)),) * 2  # the pixels whose window lies in the frame
LUMA = (0.299, 0.587, 0.114)  # ITU-R 601


def decibels(mse: Tensor) -> Tensor:
    """PSNR [dB] of mean squared errors of values in [0, 255], at most 100."""
    return (10 * torch.log10(PEAK**2 / mse)).clamp(max=PSNR_CEILING)


def psnr(restored: Tensor, truth: Tensor, mask: Tensor | None = None) -> Tensor:
    """Peak signal-to-noise ratio of each frame: the three channels pooled, no border cut off, not on Y.

    Args:
        restored: (n, 3, h, w) uint8 RGB.
        truth: (n, 3, h, w) uint8 RGB.
        mask: (n, h, w) bool; only its pixels count.

    Returns:
        (n,) float64 [dB], at most 100; NaN where the mask is empty.
    """
    squares = (restored.double() - truth.double()).square().mean(dim=1)  # (n, h, w)
    if mask is None:
        return decibels(squares.mean(dim=(1, 2)))
    return decibels((squares * mask).sum(dim=(1, 2)) / mask.sum(dim=(1, 2)))


def ssim_map(restored: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Structural similarity around each pixel whose window lies in the frame (Wang et al. 2004; scikit-image's).

    Gaussian window of 11 x 11 px, sigma 1.5, population covariance, data range 255.

    Args:
        restored: (h, w) or (h, w, 3), each channel on its own; h, w >= 11.
        truth: the same shape.

    Returns:
        (h - 10, w - 10) or (h - 10, w - 10, 3) float64; its mean is the SSIM.
    """
    _, values = structural_similarity(
        restored.astype(np.float64),
        truth.astype(np.float64),
        channel_axis=2 if restored.ndim == 3 else None,
        gaussian_weights=True,
        sigma=SSIM_SIGMA,
        use_sample_covariance=False,
        data_range=PEAK,
        full=True,
    )
    return values[INNER]


def luma(image: np.ndarray) -> np.ndarray:
    """(..., 3) RGB -> (...) luma of ITU-R 601, full range and rounded, as the SSIM authors' script takes it."""
    return np.rint(image @ np.array(LUMA))


class PSNR(VideoMetric):
    """PSNR of whole frames and of their holes."""

    columns = (
        Column("psnr", "PSNR", "higher", "dB"),
        Column("psnr_mask", "PSNR, holes", "higher", "dB", needs_holes=True),
    )

    def __init__(self) -> None:
        self.protocol = {
            "input": "uint8 RGB, channels pooled, no border cut off",
            "video": "mean over frames",
            "identical frames [dB]": PSNR_CEILING,
        }

    def _measure(self, chunk: Chunk) -> FrameRows:
        holes: list[float | None] = [None] * len(chunk)
        if chunk.mask is not None:
            holes = to_numbers(psnr(chunk.restored, chunk.truth, chunk.mask))
        return {"psnr": to_numbers(psnr(chunk.restored, chunk.truth)), "psnr_mask": holes}


class SSIM(VideoMetric):
    """SSIM on RGB (each channel, then the mean), on luma, and around the pixels of holes on RGB."""

    columns = (
        Column("ssim", "SSIM", "higher"),
        Column("ssim_y", "SSIM, Y", "higher"),
        Column("ssim_mask", "SSIM, holes", "higher", needs_holes=True),
    )

    def __init__(self) -> None:
        self.protocol = {
            "window": f"Gaussian, {SSIM_WINDOW} x {SSIM_WINDOW} px, sigma {SSIM_SIGMA}, valid area",
            "data_range": PEAK,
            "rgb": "mean over channels",
            "y": "ITU-R 601, full range, rounded",
            "video": "mean over frames",
        }

    def _measure(self, chunk: Chunk) -> FrameRows:
        rows: FrameRows = {column.name: [None] * len(chunk) for column in self.columns}
        if min(chunk.truth.shape[2:]) < SSIM_WINDOW:
            return rows
        for at, (restored, truth) in enumerate(zip(to_images(chunk.restored), to_images(chunk.truth), strict=True)):
            rgb = ssim_map(restored, truth).mean(axis=2)
            rows["ssim"][at] = float(rgb.mean())
            rows["ssim_y"][at] = float(ssim_map(luma(restored), luma(truth)).mean())
            hole = None if chunk.mask is None else chunk.mask[at].cpu().numpy()[INNER]
            if hole is not None and hole.any():
                rows["ssim_mask"][at] = float(rgb[hole].mean())
        return rows
