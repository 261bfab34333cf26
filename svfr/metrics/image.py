"""PSNR, SSIM, and detail by the gradients of luma, of single frames; a video's number is its frames' mean."""

from collections.abc import Mapping
from functools import partial

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from svfr.metrics.base import Chunk, Column, Row, VideoMetric, to_number

PEAK = 255
# [dB] Assumption: what a frame counts that equals the truth, whose PSNR is infinite and would swallow the mean; other
# frames that are better (a few levels of difference in all of a frame) count as much.
PSNR_CEILING = 100.0
SSIM_WINDOW, SSIM_SIGMA = 11, 1.5  # [px], Wang et al. 2004
SSIM_CONSTANTS = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2
LUMA = (0.299, 0.587, 0.114)  # ITU-R 601
PREWITT_SIDE = 3  # [px]
GMSD_CONSTANT = 170.0  # Xue et al. 2014, for values of 0 to 255


def decibels(mse: Tensor) -> Tensor:
    """PSNR [dB] of mean squared errors of values in [0, 255], at most 100."""
    return (10 * torch.log10(PEAK**2 / mse)).clamp(max=PSNR_CEILING)


def psnr(restored: Tensor, truth: Tensor, mask: Tensor | None = None) -> Tensor:
    """Peak signal-to-noise ratio of each frame: the three channels pooled, no border cut off, not on Y.

    (n, 3, h, w) uint8 RGB -> (n,) float64 [dB], at most 100. Of a `mask` (n, h, w) bool only its pixels count; where it
    is empty, NaN.
    """
    differences = torch.maximum(restored, truth) - torch.minimum(restored, truth)
    squares = torch.arange(PEAK + 1, dtype=torch.float64, device=truth.device).square()
    errors = []
    for at, frame in enumerate(differences):  # whole numbers, counted: no sum of theirs rounds
        counts = torch.bincount((frame if mask is None else frame[:, mask[at]]).flatten(), minlength=PEAK + 1)
        errors.append((counts * squares).sum() / counts.sum())
    return decibels(torch.stack(errors))


def window_means(values: Tensor) -> Tensor:
    """Means of (..., h, w) float64 in SSIM's Gaussian windows that lie in the frame -> (..., h - 10, w - 10)."""
    offsets = torch.arange(SSIM_WINDOW, dtype=torch.float64, device=values.device) - SSIM_WINDOW // 2
    window = torch.exp(-offsets.square() / (2 * SSIM_SIGMA**2))
    window /= window.sum()
    flat = values.flatten(0, -3)
    if values.device.type == "cpu":  # where PyTorch's convolutions of float64 take seven times as long
        inner, kernel = slice(SSIM_WINDOW // 2, -(SSIM_WINDOW // 2)), window.numpy()
        filtered = (cv2.sepFilter2D(plane, cv2.CV_64F, kernel, kernel)[inner, inner] for plane in flat.numpy())
        return torch.from_numpy(np.stack([*filtered])).unflatten(0, values.shape[:-2])
    return _convolve(flat, window).unflatten(0, values.shape[:-2])


def _convolve(planes: Tensor, window: Tensor) -> Tensor:
    """Weighted means of planes (n, h, w), by a window (k,) along both axes -> (n, h - k + 1, w - k + 1)."""
    down = functional.conv2d(planes[:, None], window.view(1, 1, -1, 1))
    return functional.conv2d(down, window.view(1, 1, 1, -1))[:, 0]


def local_statistics(values: Tensor) -> tuple[Tensor, Tensor]:
    """Means and mean squares of (..., h, w) float64 in SSIM's windows."""
    return window_means(values), window_means(values.square())


def ssim_map(restored: Tensor, truth: Tensor, of_truth: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """Structural similarity around each pixel whose window lies in the frame (Wang et al. 2004), as scikit-image's.

    Planes (..., h, w) float64 of values in [0, 255], h, w >= 11 -> (..., h - 10, w - 10) float64, whose mean is the
    SSIM: Gaussian window, population covariance. `of_truth`: the truth's `local_statistics`, if they are known.
    """
    (c1, c2), (their_mean, their_square) = SSIM_CONSTANTS, of_truth or local_statistics(truth)
    mean, square = local_statistics(restored)
    product, squares = mean * their_mean, mean.square_().addcmul_(their_mean, their_mean)
    covariance = window_means(restored * truth).sub_(product)
    similarity = product.mul_(2).add_(c1).mul_(covariance.mul_(2).add_(c2))
    return similarity.div_(square.add_(their_square).sub_(squares).add_(c2).mul_(squares.add_(c1)))


def luma(frames: Tensor) -> Tensor:
    """(n, 3, h, w) uint8 RGB -> (n, h, w) float64, rounded luma of ITU-R 601, full range, as SSIM's authors take it.

    Of whole numbers, so that halves round to even on every device.
    """
    red, green, blue = frames.int().unbind(dim=1)
    return (299 * red + 587 * green + 114 * blue).double().div_(1000).round_()


def gradient_magnitude(frames: Tensor) -> Tensor:
    """Magnitude of Prewitt's gradients of luma: (n, 3, h, w) uint8 -> (n, h - 2, w - 2) float64."""
    luma = torch.einsum("nchw,c->nhw", frames.double(), torch.tensor(LUMA, dtype=torch.float64, device=frames.device))
    rows = luma[:, :-2] + luma[:, 1:-1] + luma[:, 2:]
    columns = luma[..., :-2] + luma[..., 1:-1] + luma[..., 2:]
    across, down = rows[..., :-2] - rows[..., 2:], columns[:, :-2] - columns[:, 2:]
    return across.square_().addcmul_(down, down).sqrt_().div_(3)


def gmsd(ours: Tensor, theirs: Tensor) -> Tensor:
    """Gradient magnitude similarity deviation (Xue et al. 2014) of each frame.

    Assumption: without the paper's halving of the picture, which is meant for pictures of some hundred px.
    `gradient_magnitude` of restored and true frames -> (n,) float64, 0 for equal ones.
    """
    similarity = (2 * ours * theirs + GMSD_CONSTANT) / (ours.square() + theirs.square() + GMSD_CONSTANT)
    return similarity.flatten(1).std(dim=1, correction=0)


def gradient_energy(ours: Tensor, theirs: Tensor) -> Tensor:
    """Mean squared gradient of luma over that of the truth: below 1 is too smooth, above 1 too rough.

    `gradient_magnitude` of restored and true frames -> (n,) float64, NaN where the truth is flat.
    """
    mine, known = (magnitude.square().mean(dim=(1, 2)) for magnitude in (ours, theirs))
    return torch.where(known > 0, mine / known, torch.nan)


class PSNR(VideoMetric):
    """PSNR of whole frames and of their holes."""

    columns = (
        Column("psnr", "PSNR", "higher", "dB"),
        Column("psnr_mask", "PSNR, holes", "higher", "dB", needs_holes=True),
    )
    protocol: Mapping[str, object] = {
        "input": "uint8 RGB, channels pooled, no border cut off",
        "video": "mean over frames",
        "identical frames [dB]": PSNR_CEILING,
    }

    def _measure(self, chunk: Chunk, at: int) -> Row:
        frames = chunk.on(self.device, at)
        row: Row = {"psnr": psnr(*frames).item()}
        if chunk.mask is not None:
            row["psnr_mask"] = to_number(psnr(*frames, chunk.mask[at : at + 1].to(self.device)))
        return row


class SSIM(VideoMetric):
    """SSIM on RGB (each channel, then the mean), on luma, and around the pixels of holes on RGB."""

    columns = (
        Column("ssim", "SSIM", "higher"),
        Column("ssim_y", "SSIM, Y", "higher"),
        Column("ssim_mask", "SSIM, holes", "higher", needs_holes=True),
    )
    protocol: Mapping[str, object] = {
        "window": f"Gaussian, {SSIM_WINDOW} x {SSIM_WINDOW} px, sigma {SSIM_SIGMA}, valid area",
        "data_range": PEAK,
        "rgb": "mean over channels",
        "y": "ITU-R 601, full range, rounded, halves to even",
        "video": "mean over frames",
    }

    def _measure(self, chunk: Chunk, at: int) -> Row:
        if min(chunk.truth.shape[2:]) < SSIM_WINDOW:
            return {}
        ours, theirs = (torch.cat([frame[0].double(), luma(frame)]) for frame in chunk.on(self.device, at))  # (4, h, w)
        values = ssim_map(ours, theirs, chunk.of_truth(f"ssim {at}", partial(local_statistics, theirs)))
        row: Row = {"ssim": values[:3].mean().item(), "ssim_y": values[3].mean().item()}
        margin = SSIM_WINDOW // 2
        if chunk.mask is not None and (hole := chunk.mask[at, margin:-margin, margin:-margin].to(self.device)).any():
            row["ssim_mask"] = values[:3, hole].mean().item()
        return row


class Gradients(VideoMetric):
    """GMSD, and how much detail there is, whether it is the right one or not, as a share of the truth's."""

    columns = (
        Column("gmsd", "GMSD", "lower", digits=4),
        Column("gradient_energy", "Gradient energy / truth", "truth"),
    )
    protocol: Mapping[str, object] = {
        "gmsd": "Prewitt, ITU-R 601 luma of 0 to 255, constant 170, not downsampled, mean over frames",
        "gradient_energy": "mean squared Prewitt gradient of luma, restored / truth, mean over frames",
    }

    def _measure(self, chunk: Chunk, at: int) -> Row:
        if min(chunk.truth.shape[2:]) < PREWITT_SIDE:
            return {}
        both = chunk.both("gradients", at, lambda frame: gradient_magnitude(frame.to(self.device)))
        return {"gmsd": gmsd(*both).item(), "gradient_energy": to_number(gradient_energy(*both))}
