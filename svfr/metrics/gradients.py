"""Detail, by the gradients of luma: GMSD, and the gradients' energy."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from svfr.metrics.base import Chunk, Column, FrameRows, VideoMetric, to_numbers
from svfr.metrics.image import LUMA

GMSD_CONSTANT = 170.0  # Xue et al. 2014, for values of 0 to 255
SMALLEST = 3  # [px], the side of Prewitt's kernels


def gradient_magnitude(frames: Tensor) -> Tensor:
    """Magnitude of Prewitt's gradients of luma: (n, 3, h, w) uint8 -> (n, h - 2, w - 2) float64."""
    luma = (frames.double() * torch.tensor(LUMA, dtype=torch.float64, device=frames.device).view(3, 1, 1)).sum(dim=1)
    across = torch.tensor([[1.0, 0, -1]] * 3, dtype=luma.dtype, device=luma.device) / 3
    kernels = torch.stack([across, across.T])[:, None]  # (2, 1, 3, 3)
    return functional.conv2d(luma[:, None], kernels).square().sum(dim=1).sqrt()


def gmsd(restored: Tensor, truth: Tensor) -> Tensor:
    """Gradient magnitude similarity deviation (Xue et al. 2014) of each frame.

    Assumption: without the paper's halving of the picture, which is meant for pictures of some hundred px.
    (n, 3, h, w) uint8 RGB -> (n,) float64, 0 for equal frames; h, w >= 3.
    """
    ours, theirs = gradient_magnitude(restored), gradient_magnitude(truth)
    similarity = (2 * ours * theirs + GMSD_CONSTANT) / (ours.square() + theirs.square() + GMSD_CONSTANT)
    return similarity.flatten(1).std(dim=1, correction=0)


def gradient_energy(restored: Tensor, truth: Tensor) -> Tensor:
    """Mean squared gradient of luma over that of the truth: below 1 is too smooth, above 1 too rough.

    (n, 3, h, w) uint8 RGB -> (n,) float64, NaN where the truth is flat; h, w >= 3.
    """
    ours, theirs = (gradient_magnitude(frames).square().mean(dim=(1, 2)) for frames in (restored, truth))
    return torch.where(theirs > 0, ours / theirs, torch.nan)


class GMSD(VideoMetric):
    """GMSD of frames."""

    columns = (Column("gmsd", "GMSD", "lower", digits=4),)

    def __init__(self) -> None:
        self.protocol = {"gmsd": "Prewitt, ITU-R 601 luma of 0 to 255, constant 170, not downsampled, mean over frames"}

    def _measure(self, chunk: Chunk) -> FrameRows:
        return {"gmsd": _values(gmsd, chunk)}


class GradientEnergy(VideoMetric):
    """How much detail there is, whether it is the right one or not, as a share of the truth's."""

    columns = (Column("gradient_energy", "Gradient energy / truth", "truth"),)

    def __init__(self) -> None:
        self.protocol = {"gradient_energy": "mean squared Prewitt gradient of luma, restored / truth, mean over frames"}

    def _measure(self, chunk: Chunk) -> FrameRows:
        return {"gradient_energy": _values(gradient_energy, chunk)}


def _values(function: Callable[[Tensor, Tensor], Tensor], chunk: Chunk) -> list[float | None]:
    too_small = min(chunk.truth.shape[2:]) < SMALLEST
    return [None] * len(chunk) if too_small else to_numbers(function(chunk.restored, chunk.truth))
