"""Metrics of restored videos against their ground truth: `build_metrics` makes those that can be computed."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from svfr.metrics import colour, frechet, identity, image, landmarks, lpips, no_reference, temporal
from svfr.metrics.base import Chunk, Column, Metric, NetworkOptions, SetFeatures, SetMetric, VideoMetric
from svfr.networks import NetworkMissing

__all__ = ["COLUMNS", "METRICS", "BuiltMetrics", "Chunk", "Column", "SetFeatures", "SetMetric", "VideoMetric"]

# By name, each knows its columns. This table is all that a new metric has to be entered in.
METRICS: dict[str, type[Metric]] = {
    "psnr": image.PSNR,
    "ssim": image.SSIM,
    "lpips": lpips.LPIPS,
    "lpips_alex": lpips.LPIPSAlex,
    "gradients": image.Gradients,
    "colour": colour.Colour,
    "chroma_psnr": colour.ChromaPSNR,
    "colour_drift": no_reference.ColourDrift,
    "arniqa": no_reference.ArniqaScore,
    "sharpness": no_reference.Sharpness,
    "photo": no_reference.PhotoIdentity,
    "ids": identity.Identity,
    "landmarks": landmarks.LandmarkError,
    "warping": temporal.WarpingError,
    "fvd": frechet.FVD,
    "fid": frechet.FID,
}
# What compares with a ground truth, or belongs beside it.
DEFAULT_METRICS = tuple(name for name in METRICS if name not in ("arniqa", "sharpness", "photo"))
# What says something of a video without one.
NO_REFERENCE = tuple(name for name, metric in METRICS.items() if any(column.no_reference for column in metric.columns))
# In a table's order.
COLUMNS: dict[str, Column] = {column.name: column for metric in METRICS.values() for column in metric.columns}


class BuiltMetrics(NamedTuple):
    """What can be computed here, and what cannot."""

    video: list[VideoMetric]
    sets: list[SetMetric]
    missing: dict[str, str]  # name of a metric -> why it cannot be computed, in one line


def build_metrics(
    names: Sequence[str] = DEFAULT_METRICS,
    networks: Path | None = None,
    device: str = "cpu",
    *,
    recognizer: str = "auto",
    landmarker: str = "auto",
    download: bool = True,
    photo: Path | None = None,
) -> BuiltMetrics:
    """Make metrics by name, a ValueError if it is unknown; one that cannot be had is left out, with its reason.

    `networks` and `device` are `folder` and `device` of `NetworkOptions`, which says what the others are.
    """
    if unknown := [name for name in names if name not in METRICS]:
        raise ValueError(f"unknown metric '{unknown[0]}': choose from {', '.join(METRICS)}")
    options = NetworkOptions(networks, device, recognizer, landmarker, download, photo)
    built = BuiltMetrics([], [], {})
    for name in dict.fromkeys(names):
        try:
            metric = METRICS[name].build(options)
        except (NetworkMissing, ValueError) as error:
            built.missing[name] = str(error)
            continue
        if isinstance(metric, VideoMetric):
            built.video.append(metric)
        elif isinstance(metric, SetMetric):
            built.sets.append(metric)
    return built
