"""Metrics of restored videos against their ground truth: `build_metrics` makes those that can be computed."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from svfr.data.landmarks import load_landmarker
from svfr.metrics.base import Chunk, Column, FrameRows, Row, SetFeatures, SetMetric, VideoMetric
from svfr.metrics.fvd import FVD
from svfr.metrics.i3d import load_i3d_features
from svfr.metrics.identity import Identity, load_face_network
from svfr.metrics.image import LPIPS, LPIPS_BACKBONES, PSNR, SSIM, Colour
from svfr.metrics.landmarks import LandmarkError
from svfr.metrics.temporal import WarpingError
from svfr.networks import NetworkMissing, find

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
    "warping_error": Column("Warping error", "lower", "1/1000"),
    "fvd": Column("FVD", "lower"),
    "fvd_low": Column("FVD, lower end", "lower"),
    "fvd_high": Column("FVD, upper end", "lower"),
    "fvd_clips": Column("FVD, clips", "truth"),
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


def build_metrics(
    names: Sequence[str] = METRICS,
    networks: Path | None = None,
    device: str = "cpu",
    *,
    recognizer: str = "auto",
    landmarker: str = "auto",
    download: bool = True,
) -> BuiltMetrics:
    """Make metrics by name; one that cannot be had is named with its reason and left out.

    Args:
        names: from `METRICS`.
        networks: searched before $SVFR_NETWORKS, the user's cache and PyTorch's.
        device: of the networks that run in torch.
        recognizer: the network of `ids`, as `svfr.metrics.identity.load_face_network` takes it.
        landmarker: the network of `landmarks`, as `svfr.data.landmarks.load_landmarker` takes it.
        download: whether missing networks may be downloaded.

    Raises:
        ValueError: an unknown name.
    """

    def lpips(net: str) -> VideoMetric:
        return LPIPS(net, find(LPIPS_BACKBONES[net], networks, download), device)

    builders: dict[str, Callable[[], VideoMetric]] = {
        "psnr": PSNR,
        "ssim": SSIM,
        "lpips": lambda: lpips("vgg"),
        "lpips_alex": lambda: lpips("alex"),
        "colour": Colour,
        "ids": lambda: Identity(load_face_network(recognizer, networks, device, download)),
        "landmarks": lambda: LandmarkError(load_landmarker(landmarker, networks, download, device)),
        "warping": WarpingError,
    }
    unknown = [name for name in names if name not in METRICS]
    if unknown:
        raise ValueError(f"unknown metric '{unknown[0]}': choose from {', '.join(METRICS)}")
    built = BuiltMetrics([], [], {})
    for name in dict.fromkeys(names):
        try:
            if name in builders:
                built.video.append(builders[name]())
            else:
                built.sets.append(FVD(load_i3d_features(networks, device, download)))
        except (NetworkMissing, ValueError) as error:
            built.missing[name] = str(error)
    return built
