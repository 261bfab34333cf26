import numpy as np
import pytest
import torch
from torch import Tensor

from svfr.metrics.base import Chunk
from svfr.metrics.temporal import WarpingError, sources, temporal_slice, warping_error
from tests.metrics.made import check_streaming, frames, measure, noisy, video


def panning(num_frames: int, step: int, side: int = 96) -> Tensor:
    """A camera that moves to the left over a picture by `step` px a frame."""
    wide = frames(5, 1, side, 2 * side)[0].float()
    texture = torch.from_numpy(np.random.default_rng(1).normal(0, 1, (1, 1, side // 2, side)))
    grain = torch.nn.functional.interpolate(texture, size=(side, 2 * side), mode="bicubic")[0] * 25
    picture = (wide * 0.6 + 50 + grain).clamp(0, 255).to(torch.uint8)
    return torch.stack([picture[:, :, side - at * step : 2 * side - at * step] for at in range(num_frames)])


def test_flow_of_a_known_motion() -> None:
    before, after = panning(2, 3).permute(0, 2, 3, 1).contiguous().numpy()
    source, trusted = sources(before, after)
    motion = source - np.stack(np.meshgrid(np.arange(96), np.arange(96)), axis=-1)
    inner = motion[8:-8, 12:-12]  # the picture moves to the right: pixels come from the left
    assert np.median(inner[..., 0]) == pytest.approx(-3, abs=0.1)
    assert np.median(inner[..., 1]) == pytest.approx(0, abs=0.1)
    assert trusted[8:-8, 12:-12].mean() > 0.95
    assert not trusted[:, :2].any(), "what has come into the picture has no source"


def test_error_by_hand() -> None:
    before, after = np.zeros((2, 4, 3), np.uint8), np.zeros((2, 4, 3), np.uint8)
    before[0, 1], after[0, 2] = (51, 102, 0), (51, 0, 0)  # 0.2 and 0.4
    x, y = np.meshgrid(np.arange(4), np.arange(2))
    source = np.stack([x - 1, y], axis=-1).astype(np.float32)
    trusted = np.ones((2, 4), bool)
    assert warping_error(before, after, source, trusted) == pytest.approx(1000 * 0.4**2 / (8 * 3))
    trusted[0, 2] = False
    assert warping_error(before, after, source, trusted) == 0
    assert warping_error(before, after, source, np.zeros((2, 4), bool)) is None


def test_a_video_that_moves_as_the_truth_does_costs_little_and_flicker_what_it_is() -> None:
    truth = panning(6, 2)
    still = truth[:1].expand(6, -1, -1, -1)
    own = measure(WarpingError(), [Chunk(truth, truth)])[0]["warping_error"]
    assert own < 0.5
    flicker = truth.clamp(20, 235).clone()
    flicker[1::2] += 10
    cost = measure(WarpingError(), [Chunk(flicker, truth)])[0]["warping_error"]
    assert cost == pytest.approx(1000 * (10 / 255) ** 2, rel=0.2)
    frozen = measure(WarpingError(), [Chunk(still, truth)])[0]["warping_error"]
    assert frozen > 5 * own, "a picture that doesn't follow the motion"
    assert measure(WarpingError(), [Chunk(still, still)])[0]["warping_error"] == 0
    costs = [measure(WarpingError(), [Chunk(noisy(truth, s), truth)])[0]["warping_error"] for s in (0, 2, 8, 20)]
    assert costs == sorted(costs)
    jumbled = truth[[0, 3, 1, 4, 2, 5]]
    assert measure(WarpingError(), [Chunk(jumbled, truth)])[0]["warping_error"] > 5 * own


def test_noise_on_a_still_video_costs_what_theory_says() -> None:
    still = frames(0, 1, 64, 64).clamp(60, 190).expand(4, -1, -1, -1)
    cost = measure(WarpingError(), [Chunk(noisy(still, 5), still)])[0]["warping_error"]
    assert cost == pytest.approx(1000 * 2 * (5**2 + 1 / 12) / 255**2, rel=0.02)  # two frames' noise, and its rounding


def test_cutting_the_video_does_not_matter() -> None:
    chunk = video(7, 48)
    assert check_streaming(WarpingError(), chunk)["warping_error"] > 0
    assert measure(WarpingError(), [video(1, 48)])[0] == {"warping_error": None}
    assert measure(WarpingError(), [video(3, 12)])[0] == {"warping_error": None}, "too small for a flow"


def test_slice_shows_a_line_over_time() -> None:
    clip = frames(0, 5, 8, 11).permute(0, 2, 3, 1).numpy()
    column = temporal_slice(iter(clip))
    assert column.shape == (8, 5, 3)
    for at, frame in enumerate(clip):
        np.testing.assert_array_equal(column[:, at], frame[:, 5])
