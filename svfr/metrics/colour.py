"""Colour: CIEDE2000 and the PSNR of chroma against the truth, and how colourful the restored frames are."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from svfr.metrics.base import Chunk, Column, Row, VideoMetric
from svfr.metrics.image import decibels

CHROMA = ((0.5, -0.418688, -0.081312), (-0.168736, -0.331264, 0.5))  # Cr, Cb of ITU-R 601, full range
XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))  # of sRGB
WHITE = (0.95047, 1.0, 1.08883)  # D65, 2 degrees


def to_lab(frames: Tensor) -> Tensor:
    """CIELAB of sRGB (D65, 2 degrees, constants of scikit-image): (n, 3, h, w) uint8 -> (3, n, h, w) float64."""
    levels = torch.arange(256, dtype=torch.float64, device=frames.device) / 255
    linear = torch.where(levels > 0.04045, ((levels + 0.055) / 1.055) ** 2.4, levels / 12.92)
    matrix = torch.tensor(XYZ, dtype=torch.float64, device=frames.device)
    matrix /= torch.tensor(WHITE, dtype=torch.float64, device=frames.device)[:, None]
    xyz = (matrix @ linear[frames.movedim(1, 0).flatten(1).int()]).unflatten(1, (len(frames), *frames.shape[2:]))
    x, y, z = torch.where(xyz > 0.008856, (xyz.log() / 3).exp_(), 7.787 * xyz + 16 / 116)  # exp(log / 3): cube root
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def ciede2000(first: Tensor, second: Tensor) -> Tensor:
    """Colour difference of each pixel (CIE 2001; Sharma, Wu & Dalal 2005): (3, ...) float64 CIELAB -> (...)."""
    (l1, a1, b1), (l2, a2, b2) = first, second
    stretch = 1.5 - 0.5 * _saturation((torch.hypot(a1, b1) + torch.hypot(a2, b2)) / 2)
    a1, a2 = a1 * stretch, a2 * stretch
    c1, c2 = torch.hypot(a1, b1), torch.hypot(a2, b2)
    h1, h2 = _angle(a1, b1), _angle(a2, b2)
    turn, hue, product = h2 - h1, (h1 + h2) / 2, c1 * c2
    # Products with conditions, since `where` takes ten times as long. First: the shorter way leads over a hue of 0.
    crosses = (turn.abs() > math.pi).double()
    hue = hue.addcmul(crosses, 1 - 2 * (hue >= math.pi).double(), value=math.pi)
    hue = hue * (1 + (product == 0).double())  # one of them is gray, and has no hue
    turn = turn.addcmul(crosses, turn.sign(), value=-math.tau)
    chroma, lightness = (c1 + c2) / 2, ((l1 + l2) / 2 - 50).square()
    weight = 1 - 0.17 * (hue - math.radians(30)).cos() + 0.24 * (2 * hue).cos()
    weight += 0.32 * (3 * hue + math.radians(6)).cos() - 0.2 * (4 * hue - math.radians(63)).cos()
    of_lightness = (l2 - l1) / (1 + 0.015 * lightness / (20 + lightness).sqrt())
    of_chroma = (c2 - c1) / (1 + 0.045 * chroma)
    of_hue = 2 * product.sqrt() * (turn / 2).sin() / (1 + 0.015 * chroma * weight)
    rotation = (math.radians(60) * (-((hue.rad2deg() - 275) / 25).square()).exp()).sin() * 2 * _saturation(chroma)
    squares = of_lightness.square() + of_chroma.square() + of_hue.square() - rotation * of_chroma * of_hue
    return squares.clamp(min=0).sqrt()


def _saturation(chroma: Tensor) -> Tensor:
    """CIEDE2000's step from 0 for gray to 1 beyond a chroma of 25."""
    square = chroma.square()
    power = square.square().mul_(square).mul_(chroma)
    return power.div_(power + 25**7).sqrt_()


def _angle(a: Tensor, b: Tensor) -> Tensor:
    """In [0, tau)."""
    angle = torch.atan2(b, a)
    return angle.add_((angle < 0).double(), alpha=math.tau)


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
    protocol: Mapping[str, object] = {
        "ciede2000": "sRGB, D65, mean over pixels and frames",
        "colourfulness": "Hasler & Suesstrunk 2003, restored frames alone, mean over frames",
    }

    def _measure(self, chunk: Chunk, at: int) -> Row:
        restored = chunk.on(self.device, at)[0]
        difference = ciede2000(*chunk.both("lab", at, lambda frame: to_lab(frame.to(self.device))))
        return {"ciede2000": difference.mean().item(), "colourfulness": colourfulness(restored).item()}


class ChromaPSNR(VideoMetric):
    """PSNR of chroma alone: colour, whatever the detail."""

    columns = (Column("chroma_psnr", "PSNR, chroma", "higher", "dB"),)
    protocol: Mapping[str, object] = {"chroma_psnr": "Cr and Cb of ITU-R 601, full range, pooled, mean over frames"}

    def _measure(self, chunk: Chunk, at: int) -> Row:
        return {"chroma_psnr": chroma_psnr(*chunk.on(self.device, at)).item()}
