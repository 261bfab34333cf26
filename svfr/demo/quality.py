"""How good a restored clip is: fidelity, detail, identity, stability, and what the denoiser was asked for it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from svfr.data.alignment import five_points
from svfr.demo.clips import DegradedClip
from svfr.metrics.base import Chunk, Column, FrameRows, Row, VideoMetric, to_numbers
from svfr.metrics.identity import Identity, IResNetRecognizer
from svfr.metrics.image import PSNR, SSIM
from svfr.metrics.temporal import WarpingError
from svfr.models.components import Components

LUMA = (0.299, 0.587, 0.114)  # ITU-R 601
CHROMA = ((0.5, -0.418688, -0.081312), (-0.168736, -0.331264, 0.5))  # Cr, Cb of ITU-R 601, full range
GMSD_CONSTANT = 170.0  # Xue et al. 2014, for values of 0 to 255

# What the ladder and the demo print, in this order: column, title, whether higher is better (None: nearest to 1).
SHOWN: tuple[tuple[str, str, bool | None], ...] = (
    ("psnr", "PSNR [dB]", True),
    ("psnr_mask", "PSNR, holes [dB]", True),
    ("psnr_chroma", "PSNR, chroma [dB]", True),
    ("ssim", "SSIM", True),
    ("gmsd", "GMSD", False),
    ("gradient_energy", "gradient energy / truth", None),
    ("ids", "IDS, own ID net", True),
    ("vidd", "VIDD, own ID net", False),
    ("warping_error", "warping error [1/1000]", False),
)


def gradient_magnitude_deviation(restored: Tensor, truth: Tensor) -> Tensor:
    """GMSD (Xue et al. 2014) of each frame: standard deviation of the similarity of gradient magnitudes.

    Prewitt gradients of luma, constant 170. Assumption: without the paper's halving of the picture, which is meant for
    pictures of some hundred px.

    Args:
        restored: (n, 3, h, w) uint8.
        truth: (n, 3, h, w) uint8.

    Returns:
        (n,) float64, 0 for equal frames; lower is better.
    """
    ours, theirs = (_prewitt(_luma(frames)) for frames in (restored, truth))
    similarity = (2 * ours * theirs + GMSD_CONSTANT) / (ours.square() + theirs.square() + GMSD_CONSTANT)
    return similarity.flatten(1).std(dim=1, correction=0)


def gradient_energy_ratio(restored: Tensor, truth: Tensor) -> Tensor:
    """Mean squared gradient of luma over that of the truth, (n,); below 1 is too smooth, above 1 too rough."""
    ours, theirs = (_prewitt(_luma(frames)).square().mean(dim=(1, 2)) for frames in (restored, truth))
    return ours / theirs


def chroma_psnr(restored: Tensor, truth: Tensor) -> Tensor:
    """PSNR [dB] of the two chroma channels (ITU-R 601, full range), pooled; (n,), at most 100."""
    error = (restored.double() - truth.double()).movedim(1, -1) @ torch.tensor(CHROMA, dtype=torch.float64).T
    return (10 * torch.log10(255**2 / error.square().mean(dim=(1, 2, 3)))).clamp(max=100.0)


class Detail(VideoMetric):
    """GMSD, gradient energy and the PSNR of chroma."""

    columns = (
        Column("gmsd", "GMSD", "lower"),
        Column("gradient_energy", "Gradient energy / truth", "truth"),
        Column("psnr_chroma", "PSNR, chroma", "higher", "dB"),
    )

    def __init__(self) -> None:
        self.protocol = {
            "gmsd": "Xue et al. 2014: Prewitt, luma of 0 to 255, constant 170, not downsampled",
            "gradient_energy": "mean squared Prewitt gradient of luma, restored / truth",
            "psnr_chroma": "Cr and Cb of ITU-R 601, full range, pooled",
        }

    def _measure(self, chunk: Chunk) -> FrameRows:
        return {
            "gmsd": to_numbers(gradient_magnitude_deviation(chunk.restored, chunk.truth)),
            "gradient_energy": to_numbers(gradient_energy_ratio(chunk.restored, chunk.truth)),
            "psnr_chroma": to_numbers(chroma_psnr(chunk.restored, chunk.truth)),
        }


def build_quality(model: Path, untrained: bool = False) -> list[VideoMetric]:
    """The metrics of the bundled model, identity by the ID network of the model folder itself.

    SSIM is left out where scikit-image isn't installed, identity where the model is untrained.
    """
    metrics: list[VideoMetric] = [PSNR()]
    try:
        metrics.append(SSIM())
    except ValueError as error:
        tqdm.write(f"SSIM is left out: {error}")
    metrics.append(Detail())
    if not untrained:
        metrics.append(Identity(IResNetRecognizer(model / "id_encoder")))
    return [*metrics, WarpingError()]


def measure(metrics: Sequence[VideoMetric], restored: np.ndarray, clip: DegradedClip) -> Row:
    """All columns for one restored clip (f, s, s, 3) uint8."""
    chunk = Chunk(
        restored=torch.from_numpy(np.ascontiguousarray(restored)).movedim(-1, 1),
        truth=torch.from_numpy(clip.truth).movedim(-1, 1),
        mask=None if clip.mask is None else torch.from_numpy(clip.mask > 127),
        landmarks=torch.from_numpy(five_points(clip.landmarks)),
    )
    row: Row = {}
    for metric in metrics:
        metric.reset()
        metric.update(chunk)
        row |= metric.compute()
    return row


def mean_row(rows: Sequence[Row]) -> Row:
    """Mean of each column over the rows that have it."""
    columns = dict.fromkeys(column for row in rows for column in row)
    means: Row = {}
    for column in columns:
        values = [value for row in rows if (value := row.get(column)) is not None]
        means[column] = float(np.mean(values)) if values else None
    return means


@contextmanager
def counted_calls(components: Components) -> Iterator[list[int]]:
    """Inside, each run of the UNet appends its number of frames to the list."""
    frames: list[int] = []

    def note(module: torch.nn.Module, inputs: tuple[Tensor, ...]) -> None:
        frames.append(inputs[0].shape[0] * inputs[0].shape[1])

    handle = components.model.unet.register_forward_pre_hook(note)
    try:
        yield frames
    finally:
        handle.remove()


def _luma(frames: Tensor) -> Tensor:
    """(n, 3, h, w) -> (n, h, w) float64."""
    return (frames.double() * torch.tensor(LUMA, dtype=torch.float64).view(3, 1, 1)).sum(dim=1)


def _prewitt(images: Tensor) -> Tensor:
    """Gradient magnitude (n, h - 2, w - 2) of (n, h, w)."""
    across = torch.tensor([[1.0, 0, -1]] * 3, dtype=images.dtype) / 3
    kernels = torch.stack([across, across.T])[:, None]  # (2, 1, 3, 3)
    return functional.conv2d(images[:, None], kernels).square().sum(dim=1).sqrt()
