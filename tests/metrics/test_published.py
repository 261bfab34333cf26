"""Published values; those of networks that cannot be had everywhere are held where their files are there."""

import numpy as np
import pytest
import torch

from svfr.metrics.base import Chunk
from svfr.metrics.frechet import FVD, load_i3d_features
from svfr.metrics.image import PSNR, SSIM
from svfr.metrics.lpips import LPIPSAlex
from svfr.networks import NetworkMissing, find
from tests import assets
from tests.metrics.made import measure

# Black against white clips of 64 px, by the field's code (JunyaoHu/common_metrics_on_video_quality, README).
BLACK = torch.zeros((16, 3, 64, 64), dtype=torch.uint8)
BLACK_AGAINST_WHITE = Chunk(BLACK, BLACK + 255)
LPIPS_ALEX = {"I03": 0.7237, "I04": 0.2572, "I06": 0.05079, "I08": 0.05205, "I19": 0.4253}  # iqa_calibration


def there(name: str) -> bool:
    try:
        return find(name, download=False).is_file()
    except NetworkMissing:
        return False


needs_alexnet = pytest.mark.skipif(
    not there("alexnet"), reason="LPIPS' AlexNet is not there: published values unchecked"
)
needs_i3d = pytest.mark.skipif(not there("i3d"), reason="I3D is not there: its published FVD unchecked")


def test_black_against_white() -> None:
    assert measure(PSNR(), [BLACK_AGAINST_WHITE])[0]["psnr"] == pytest.approx(0, abs=1e-9)
    assert measure(SSIM(), [BLACK_AGAINST_WHITE])[0]["ssim"] == pytest.approx(9.999000099990664e-05, rel=1e-6)


@needs_i3d
def test_fvd_of_black_against_white() -> None:
    metric = FVD(load_i3d_features(download=False))
    videos = []
    for name in ("a", "b"):
        metric.reset()
        metric.update(BLACK_AGAINST_WHITE)
        videos.append(metric.features(name))
    assert metric.compute(videos)["fvd"] == pytest.approx(153.11023578170108, rel=1e-3)


@needs_alexnet
def test_lpips_of_black_against_white() -> None:
    row = measure(LPIPSAlex(find("alexnet", download=False)), [BLACK_AGAINST_WHITE])[0]
    assert row["lpips_alex"] == pytest.approx(0.8140146732330322, rel=1e-3)


@needs_alexnet
@assets.needs_assets
def test_lpips_of_the_calibration_pairs() -> None:
    metric = LPIPSAlex(find("alexnet", download=False))
    for pair, published in LPIPS_ALEX.items():
        images = [
            assets.photo(assets.ASSETS / "iqa_calibration" / f"{kind}_dir_{pair}.bmp") for kind in ("dist", "ref")
        ]
        restored, truth = (torch.from_numpy(np.moveaxis(image, 2, 0).copy())[None] for image in images)
        assert measure(metric, [Chunk(restored, truth)])[0]["lpips_alex"] == pytest.approx(published, abs=1e-3)
