"""Colour: CIEDE2000 and the PSNR of chroma against the truth, and how colourful the restored frames are."""

import torch
from skimage.color import deltaE_ciede2000, rgb2lab
from torch import Tensor

from svfr.metrics.base import Chunk, Column, FrameRows, VideoMetric, to_images, to_numbers
from svfr.metrics.image import decibels

CHROMA = ((0.5, -0.418688, -0.081312), (-0.168736, -0.331264, 0.5))  # Cr, Cb of ITU-R 601, full range


def ciede2000(restored: Tensor, truth: Tensor) -> Tensor:
    """Mean colour difference of each frame (CIE 2001; scikit-image's; sRGB, D65): (n, 3, h, w) uint8 -> (n,)."""
    pairs = zip(to_images(restored), to_images(truth), strict=True)
    return torch.tensor([deltaE_ciede2000(rgb2lab(a), rgb2lab(b)).mean() for a, b in pairs], dtype=torch.float64)


def colourfulness(frames: Tensor) -> Tensor:
    """Colourfulness of each frame (Hasler & Suesstrunk 2003, their M3): (n, 3, h, w) uint8 -> (n,), 0 for gray."""
    red, green, blue = frames.double().unbind(dim=1)
    opponents = torch.stack([red - green, (red + green) / 2 - blue]).flatten(2)  # (2, n, h w)
    spread = opponents.var(dim=2, correction=0).sum(dim=0).sqrt()
    return spread + 0.3 * opponents.mean(dim=2).square().sum(dim=0).sqrt()


def chroma_psnr(restored: Tensor, truth: Tensor) -> Tensor:
    """PSNR of the two chroma channels, pooled: (n, 3, h, w) uint8 RGB -> (n,) [dB], at most 100."""
    matrix = torch.tensor(CHROMA, dtype=torch.float64, device=truth.device)
    error = (restored.double() - truth.double()).movedim(1, -1) @ matrix.T  # (n, h, w, 2)
    return decibels(error.square().mean(dim=(1, 2, 3)))


class Colour(VideoMetric):
    """How far colours are from the truth's, and how colourful the restored frames are."""

    columns = (
        Column("ciede2000", "CIEDE2000", "lower", digits=2),
        Column("colourfulness", "Colourfulness", "truth", digits=2, no_reference=True),
    )

    def __init__(self) -> None:
        self.protocol = {
            "ciede2000": "sRGB, D65, mean over pixels and frames",
            "colourfulness": "Hasler & Suesstrunk 2003, restored frames alone, mean over frames",
        }

    def _measure(self, chunk: Chunk) -> FrameRows:
        return {
            "ciede2000": to_numbers(ciede2000(chunk.restored, chunk.truth)),
            "colourfulness": to_numbers(colourfulness(chunk.restored)),
        }


class ChromaPSNR(VideoMetric):
    """PSNR of chroma alone: colour, whatever the detail."""

    columns = (Column("chroma_psnr", "PSNR, chroma", "higher", "dB"),)

    def __init__(self) -> None:
        self.protocol = {"chroma_psnr": "Cr and Cb of ITU-R 601, full range, pooled, mean over frames"}

    def _measure(self, chunk: Chunk) -> FrameRows:
        return {"chroma_psnr": to_numbers(chroma_psnr(chunk.restored, chunk.truth))}
