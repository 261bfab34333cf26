import cv2
import numpy as np
import pytest
import torch

from svfr.metrics.base import Chunk
from svfr.metrics.image import Gradients, gmsd, gradient_energy, gradient_magnitude
from tests.metrics.made import frames, measure, noisy, video

WEIGHTS = np.array([0.299, 0.587, 0.114])  # of luma, ITU-R 601
PREWITT = np.array([[1.0, 0, -1]] * 3) / 3


def magnitude(frame: np.ndarray) -> np.ndarray:
    """Gradient magnitude of (3, h, w) by OpenCV's filter, the border cut off."""
    luma = np.tensordot(WEIGHTS, frame.astype(float), 1)
    return np.hypot(*(cv2.filter2D(luma, -1, kernel)[1:-1, 1:-1] for kernel in (PREWITT, PREWITT.T)))


def test_against_opencvs_filters() -> None:
    chunk = video(3, 40)
    both = gradient_magnitude(chunk.restored), gradient_magnitude(chunk.truth)
    values = gmsd(*both), gradient_energy(*both)
    for at, (restored, truth) in enumerate(zip(chunk.restored.numpy(), chunk.truth.numpy(), strict=True)):
        a, b = magnitude(restored), magnitude(truth)
        assert values[0][at].item() == pytest.approx(((2 * a * b + 170) / (a**2 + b**2 + 170)).std(), rel=1e-9)
        assert values[1][at].item() == pytest.approx((a**2).mean() / (b**2).mean(), rel=1e-9)


def test_an_edge_by_hand() -> None:
    truth = torch.zeros(1, 3, 5, 6, dtype=torch.uint8)
    truth[..., 3:] = 30  # gradient 30 in two of four columns
    restored = truth // 3  # 10
    ours, theirs = gradient_magnitude(restored), gradient_magnitude(truth)
    assert gradient_energy(ours, theirs).item() == pytest.approx(1 / 9)
    assert gradient_energy(theirs, ours).item() == pytest.approx(9)
    similarity = (2 * 30 * 10 + 170) / (30**2 + 10**2 + 170)  # there, and 1 elsewhere
    assert gmsd(ours, theirs).item() == pytest.approx((1 - similarity) / 2)


def test_noise_is_rough_and_blur_smooth() -> None:
    truth = frames(0, 2, 40, 40)
    blurred = torch.nn.functional.avg_pool2d(truth.float(), 9, 1, 4).round().to(torch.uint8)
    assert measure(Gradients(), [Chunk(truth, truth)])[0] == {"gmsd": 0, "gradient_energy": 1}
    noise = [measure(Gradients(), [Chunk(noisy(truth, sigma), truth)])[0] for sigma in (2, 8, 32)]
    assert 0 < noise[0]["gmsd"] < noise[1]["gmsd"] < noise[2]["gmsd"]
    assert noise[2]["gradient_energy"] > 1.2
    assert measure(Gradients(), [Chunk(blurred, truth)])[0]["gradient_energy"] < 0.9


def test_flat_or_tiny_frames_have_no_number() -> None:
    flat, tiny = torch.full((1, 3, 8, 8), 9, dtype=torch.uint8), frames(0, 1, 2, 9)
    assert measure(Gradients(), [Chunk(noisy(flat, 5), flat)])[0]["gradient_energy"] is None
    assert measure(Gradients(), [Chunk(tiny, tiny)])[0] == {"gmsd": None, "gradient_energy": None}
