"""Metrics of restored videos against their ground truth: `build_metrics` makes those that can be computed."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from svfr.metrics.base import Chunk, Column, FrameRows, Row, SetFeatures, SetMetric, VideoMetric

__all__ = [
    "COLUMNS",
    "METRICS",
    "BuiltMetrics",
    "Chunk",
    "Column",
    "FrameRows",
    "Row",
    "SetFeatures",
    "SetMetric",
    "VideoMetric",
    "build_metrics",
]

COLUMNS: dict[str, Column] = {
    "psnr": Column("PSNR", "higher", "dB"),
    "psnr_mask": Column("PSNR, holes", "higher", "dB"),
    "ssim": Column("SSIM", "higher"),
    "ssim_y": Column("SSIM, Y", "higher"),
    "ssim_mask": Column("SSIM, holes", "higher"),
    "lpips": Column("LPIPS, VGG", "lower"),
    "lpips_mask": Column("LPIPS, VGG, holes", "lower"),
    "lpips_alex": Column("LPIPS, Alex", "lower"),
    "lpips_alex_mask": Column("LPIPS, Alex, holes", "lower"),
    "ciede2000": Column("CIEDE2000", "lower"),
    "colourfulness": Column("Colourfulness", "truth"),
    "ids": Column("IDS", "higher"),
    "vidd": Column("VIDD", "lower"),
    "vidd_stride5": Column("VIDD, every 5th frame", "lower"),
    "vidd_raw": Column("VIDD, not normalized", "lower"),
    "vidd_raw_stride5": Column("VIDD, not normalized, every 5th frame", "lower"),
    "vidd_cosine": Column("VIDD, 1 - cos", "lower"),
    "vidd_cosine_stride5": Column("VIDD, 1 - cos, every 5th frame", "lower"),
    "landmark_error": Column("Landmarks", "lower", "% of the outer-eye distance"),
    "warping_error": Column("Warping error", "lower"),
    "fvd": Column("FVD", "lower"),
}
"""Every column that a metric gives, in a table's order."""

METRICS = ("psnr", "ssim", "lpips", "lpips_alex", "colour", "ids", "landmarks", "warping", "fvd")
"""Names that `build_metrics` takes; each gives the columns of its own, `ids` those of VIDD, too."""


class BuiltMetrics(NamedTuple):
    """What can be computed here, and what cannot."""

    video: list[VideoMetric]
    sets: list[SetMetric]
    missing: dict[str, str]
    """Name of a metric -> why it cannot be computed, in one line."""


def build_metrics(names: Sequence[str] = METRICS, networks: Path | None = None, device: str = "cpu") -> BuiltMetrics:
    """Make metrics by name; one whose network is missing is named with its reason and left out.

    Args:
        names: from `METRICS`.
        networks: searched before $SVFR_NETWORKS and the user's cache.
        device: of the networks that run in torch.

    Raises:
        ValueError: an unknown name.
    """
    unknown = [name for name in names if name not in METRICS]
    if unknown:
        raise ValueError(f"unknown metric '{unknown[0]}': choose from {', '.join(METRICS)}")
    return BuiltMetrics([], [], dict.fromkeys(names, "not there yet"))
