import numpy as np
import pytest
import torch

from svfr.demo.quality import (
    chroma_psnr,
    counted_calls,
    gradient_energy_ratio,
    gradient_magnitude_deviation,
    mean_row,
)
from svfr.inference.pipeline import SVFRPipeline
from svfr.models.components import Components
from tests import tiny


def frames(seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(tiny.clip(3, 24, 20, seed)).movedim(-1, 1)


def gmsd_by_loops(restored: np.ndarray, truth: np.ndarray) -> float:
    """One frame (3, h, w), word for word after the paper's code, without its downsampling."""
    magnitudes = []
    for image in (restored, truth):
        y = 0.299 * image[0] + 0.587 * image[1] + 0.114 * image[2]
        height, width = y.shape
        magnitude = np.zeros((height - 2, width - 2))
        for i in range(1, height - 1):
            for j in range(1, width - 1):
                across = sum(y[i + k, j - 1] - y[i + k, j + 1] for k in (-1, 0, 1)) / 3
                down = sum(y[i - 1, j + k] - y[i + 1, j + k] for k in (-1, 0, 1)) / 3
                magnitude[i - 1, j - 1] = np.hypot(across, down)
        magnitudes.append(magnitude)
    a, b = magnitudes
    return float(((2 * a * b + 170) / (a**2 + b**2 + 170)).std())


def test_gmsd_against_plain_loops() -> None:
    one, other = frames(0), frames(1)
    given = gradient_magnitude_deviation(one, other)
    for index in range(len(one)):
        expected = gmsd_by_loops(one[index].double().numpy(), other[index].double().numpy())
        assert given[index].item() == pytest.approx(expected, rel=1e-9)
    assert gradient_magnitude_deviation(one, one).abs().max() == 0


def test_gradient_energy_of_half_the_contrast_is_a_quarter() -> None:
    truth = (frames() // 2) * 2
    torch.testing.assert_close(gradient_energy_ratio(truth // 2, truth), torch.full((3,), 0.25, dtype=torch.float64))


def test_chroma_psnr_sees_colour_and_not_brightness() -> None:
    truth = frames().clamp(20, 200)
    assert (chroma_psnr(truth + 10, truth) == 100).all()
    redder = truth.clone()
    redder[:, 0] += 10
    expected = 10 * np.log10(255**2 / (100 * (0.5**2 + 0.168736**2) / 2))
    torch.testing.assert_close(chroma_psnr(redder, truth), torch.full((3,), expected, dtype=torch.float64))


def test_mean_row_leaves_out_what_is_not_defined() -> None:
    assert mean_row([{"a": 1.0, "b": None}, {"a": 3.0, "b": 5.0}, {"a": 2.0, "c": None}]) == {
        "a": 2.0,
        "b": 5.0,
        "c": None,
    }


def test_calls_of_the_unet_are_counted(pipe: SVFRPipeline, components: Components, clip: np.ndarray) -> None:
    with counted_calls(components) as calls:
        pipe(clip[:7], num_inference_steps=3, guidance_scale=2.0, overlap=1)
    assert calls == [4] * 3 + [4, 4] * 3  # the first clip has no reference; the second has two branches
    pipe(clip[:2], num_inference_steps=1)
    assert len(calls) == 9
