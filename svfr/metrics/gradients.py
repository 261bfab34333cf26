"""Detail, by the gradients of luma: GMSD, and the gradients' energy."""

from collections.abc import Mapping

import torch
from torch import Tensor

from svfr.metrics.base import Chunk, Column, Row, VideoMetric, to_number
from svfr.metrics.image import LUMA

GMSD_CONSTANT = 170.0  # Xue et al. 2014, for values of 0 to 255
SMALLEST = 3  # [px], the side of Prewitt's kernels


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
        if min(chunk.truth.shape[2:]) < SMALLEST:
            return {}
        both = chunk.both("gradients", at, lambda frame: gradient_magnitude(frame.to(self.device)))
        return {"gmsd": gmsd(*both).item(), "gradient_energy": to_number(gradient_energy(*both))}
