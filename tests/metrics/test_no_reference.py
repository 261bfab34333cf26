"""Numbers of a video by itself, held against hand-computed ones."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.color import rgb2lab

from svfr.metrics import build_metrics
from svfr.metrics.base import Chunk
from svfr.metrics.identity import Identity
from svfr.metrics.no_reference import EVERY, ArniqaScore, ColourDrift, PhotoIdentity, Sharpness
from tests.clips import MarkDetector, scene
from tests.metrics.made import check_streaming, measure, video
from tests.metrics.test_identity import TURN, Dial, flat, template


class Brightness:
    """Stands for ARNIQA's network."""

    sha256 = "0"

    def __call__(self, image: np.ndarray) -> float:
        return float(image.mean()) / 255


def test_arniqa_is_the_mean_over_every_eighth_frame() -> None:
    levels = list(range(0, 200, 10))
    chunk = Chunk(flat(levels), flat(levels))
    row, by_frame = measure(ArniqaScore(Brightness()), [chunk])
    assert [at for at, value in enumerate(by_frame["arniqa"]) if value is not None] == [0, EVERY, 2 * EVERY]
    assert row["arniqa"] == pytest.approx(np.mean([0, 80, 160]) / 255)
    check_streaming(ArniqaScore(Brightness()), chunk)
    small = Chunk(flat(levels)[..., :60], flat(levels)[..., :60])
    assert measure(ArniqaScore(Brightness()), [small])[0]["arniqa"] is None


def test_sharpness_falls_with_blur_and_is_the_slope_of_a_ramp() -> None:
    ramp = (torch.arange(20) * 5).byte().expand(2, 3, 10, 20)
    assert measure(Sharpness(), [Chunk(ramp, ramp)])[0]["sharpness"] == pytest.approx(10.0, abs=1e-3)
    noise = torch.randint(0, 256, (2, 3, 40, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    blurred = torch.nn.functional.avg_pool2d(noise.float(), 3, 1).byte()
    sharp, soft = (measure(Sharpness(), [Chunk(x, x)])[0]["sharpness"] for x in (noise, blurred))
    assert soft < 0.6 * sharp
    check_streaming(Sharpness(), video())


def test_drift_of_identity_and_colour_is_from_the_first_frame() -> None:
    levels = [100, 110, 100, 130]
    chunk = Chunk(flat(levels), flat([0, 9, 9, 9]), None, template(4))
    _, by_frame = measure(Identity(Dial()), [chunk])
    assert by_frame["id_drift"][1:] == pytest.approx([1 - math.cos((x - 100) * TURN) for x in levels[1:]], abs=1e-6)
    _, by_frame = measure(ColourDrift(), [chunk])
    light = [float(rgb2lab(np.full((1, 1, 3), x, np.uint8))[0, 0, 0]) for x in levels]
    assert by_frame["colour_drift"][1:] == pytest.approx([abs(x - light[0]) for x in light[1:]], abs=1e-6)
    assert by_frame["colour_drift"][0] is None
    check_streaming(ColourDrift(), chunk)
    check_streaming(Identity(Dial()), chunk)


def test_likeness_to_a_photo(tmp_path: Path) -> None:
    """The photo's face is found and aligned; its crop's middle is a mark."""
    [image] = scene(1, [(20, 16, 60)])
    Image.fromarray(image).save(tmp_path / "photo.png")
    metric = PhotoIdentity(tmp_path / "photo.png", MarkDetector(), Dial())
    chunk = Chunk(flat([255, 200]), flat([255, 200]), None, template(2))
    _, by_frame = measure(metric, [chunk])
    assert by_frame["photo_ids"] == pytest.approx([1, math.cos(55 * TURN)], abs=1e-6)
    check_streaming(metric, chunk)
    [empty] = scene(1, [None])
    Image.fromarray(empty).save(tmp_path / "empty.png")
    with pytest.raises(ValueError, match=r"empty.png: no face found in it"):
        PhotoIdentity(tmp_path / "empty.png", MarkDetector(), Dial())
    assert build_metrics(["photo"], tmp_path, download=False).missing == {"photo": "no photo is given: photo=FILE"}
