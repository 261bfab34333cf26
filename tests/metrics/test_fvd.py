from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from svfr.metrics.base import Chunk, SetFeatures
from svfr.metrics.frechet import FVD, fit, frechet_distance
from tests.metrics.made import frames, noisy, split


class SmallNetwork:
    """Random features of a clip's look and of its motion, 12 of them, in the place of I3D."""

    def __init__(self) -> None:
        self.protocol = {"features": "made"}
        torch.manual_seed(0)
        self.look, self.motion = nn.Conv2d(3, 6, 5, 2), nn.Conv3d(3, 6, (3, 5, 5), (1, 2, 2))
        self.shapes: set[tuple[int, ...]] = set()

    @torch.inference_mode()
    def __call__(self, clips: Tensor) -> Tensor:
        assert clips.dtype == torch.uint8
        self.shapes.add(tuple(clips.shape))
        x = clips.float() / 127.5 - 1
        look = self.look(x.flatten(0, 1)).relu().unflatten(0, clips.shape[:2]).mean(dim=(1, 3, 4))
        motion = self.motion(x.diff(dim=1).transpose(1, 2)).abs().mean(dim=(2, 3, 4))
        return torch.cat([look, 3 * motion], dim=1) * 10


def collect(metric: FVD, videos: dict[str, Chunk], lengths: list[int] | None = None) -> list[SetFeatures]:
    result = []
    for name, chunk in videos.items():
        metric.reset()
        for part in split(chunk, lengths or [len(chunk)]):
            metric.update(part)
        result.append(metric.features(name))
    return result


def videos(change: Any, num: int = 6, length: int = 37) -> dict[str, Chunk]:
    truths = {f"v{i}": frames(i, length, 24, 24) for i in range(num)}
    return {name: Chunk(change(truth), truth) for name, truth in truths.items()}


def shuffle(truth: Tensor) -> Tensor:
    return truth[torch.randperm(len(truth), generator=torch.Generator().manual_seed(0))]


def moving(seed: int) -> Tensor:
    """A picture that moves by a pixel a frame, so that shuffling its frames changes its motion."""
    picture = frames(seed, 1, 24, 24)[0]
    return torch.stack([picture.roll(at, dims=2) for at in range(37)])


def test_grows_with_noise_blur_and_shuffled_frames() -> None:
    truths = {f"v{i}": moving(i) for i in range(6)}

    def fvd(change: Any) -> Any:
        metric = FVD(SmallNetwork())
        return metric.compute(collect(metric, {name: Chunk(change(t), t) for name, t in truths.items()}))["fvd"]

    def blur(size: int) -> Any:
        return lambda t: nn.functional.avg_pool2d(t.float(), size, 1, size // 2).round().to(torch.uint8)

    assert abs(fvd(lambda t: t)) < 1e-3
    assert 1e-3 < fvd(lambda t: noisy(t, 3)) < fvd(lambda t: noisy(t, 12)) < fvd(lambda t: noisy(t, 48))
    assert 1e-4 < fvd(blur(3)) < fvd(blur(7)) < fvd(blur(13))
    assert fvd(shuffle) > 0.01


def test_clips_follow_one_another() -> None:
    network = SmallNetwork()
    metric = FVD(network)
    found = collect(metric, {**videos(lambda t: t, 1, 50), "b/short": Chunk(frames(1, 15, 8, 8), frames(1, 15, 8, 8))})
    assert network.shapes == {(1, 16, 3, 24, 24)}
    assert [video.starts for video in found] == [(0, 16, 32), ()]
    assert found[0].restored.dtype == np.float64
    assert [video.video for video in found] == ["v0", "b/short"]
    clip = videos(lambda t: t, 1, 50)["v0"].truth[16:32][None]
    np.testing.assert_allclose(found[0].truth[1], network(clip)[0].numpy(), rtol=1e-6)
    assert collect(FVD(network, clip_length=9), videos(lambda t: t, 1, 50))[0].starts == (0, 9, 18, 27, 36)


def test_nothing_depends_on_chunks_names_or_order() -> None:
    metric = FVD(SmallNetwork())
    noise = videos(lambda t: noisy(t, 10))
    whole = collect(metric, noise)
    row = metric.compute(whole)
    for lengths in ([1] * 37, [20, 17], [5, 16, 16]):
        found = collect(metric, noise, lengths)
        renamed = [replace(video, video=f"v{9 - at}") for at, video in enumerate(found)]
        again = metric.compute(renamed[2:] + renamed[:2])
        assert again == {column: pytest.approx(value, rel=1e-6) for column, value in row.items()}


class BrokenNetwork(SmallNetwork):
    def __call__(self, clips: Tensor) -> Tensor:
        return super().__call__(clips) * torch.nan


def test_features_that_are_not_finite_are_refused() -> None:
    metric = FVD(BrokenNetwork())
    metric.update(videos(lambda t: t, 1)["v0"])
    with pytest.raises(ValueError, match="features of this video are not finite"):
        metric.features("v0")


def test_spread() -> None:
    metric = FVD(SmallNetwork())
    row = metric.compute(collect(metric, videos(lambda t: noisy(t, 10), 12)))
    low, value, high = row["fvd_spread_low"], row["fvd"], row["fvd_spread_high"]
    assert low is not None
    assert value is not None
    assert high is not None
    assert 0 <= low < value < high
    assert row["fvd_clips"] == 24
    one = metric.compute(collect(metric, videos(lambda t: noisy(t, 10), 1)))
    assert one["fvd"] is not None
    assert one["fvd_spread_low"] is one["fvd_spread_high"] is None


def test_the_spread_is_that_of_drawn_videos_and_says_so() -> None:
    found = collect(FVD(SmallNetwork()), videos(lambda t: noisy(t, 10), 8))
    row = FVD(SmallNetwork()).compute(found)
    ordered = sorted(found, key=lambda v: (v.truth.tolist(), v.restored.tolist()))
    rng, draws = np.random.default_rng(0), []
    for _ in range(200):
        drawn = [ordered[index] for index in rng.integers(8, size=8)]
        draws.append(frechet_distance(fit([v.restored for v in drawn]), fit([v.truth for v in drawn])))
    low, high = np.quantile(draws, [0.025, 0.975]) - np.mean(draws)
    assert row["fvd"] is not None
    assert row["fvd_spread_low"] == pytest.approx(max(0, row["fvd"] + low), rel=1e-5)
    assert row["fvd_spread_high"] == pytest.approx(row["fvd"] + high, rel=1e-5)
    titles = [column.title for column in FVD.columns]
    assert titles[1:3] == ["FVD, spread of the sample, 2.5%", "FVD, spread of the sample, 97.5%"]
    assert not any("interval" in column.name + column.title for column in FVD.columns)
    assert "not an interval of the truth" in FVD(SmallNetwork()).protocol["spread"]


def test_one_clip_has_no_distance() -> None:
    metric = FVD(SmallNetwork())
    assert metric.compute(collect(metric, videos(lambda t: t, 1, 31))) == {
        "fvd": None,
        "fvd_spread_low": None,
        "fvd_spread_high": None,
        "fvd_clips": 1,
    }
    assert metric.compute([])["fvd"] is None
