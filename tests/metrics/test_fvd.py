from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor, nn

from svfr.metrics.base import Chunk, SetFeatures
from svfr.metrics.fvd import FVD, frechet_distance
from tests.metrics.made import frames, noisy, split

RNG = np.random.default_rng(0)


def gaussian(n: int, mean: np.ndarray, covariance: np.ndarray, seed: int) -> np.ndarray:
    """Samples whose mean and covariance (by n - 1) are exactly these."""
    raw = np.random.default_rng(seed).normal(size=(n, len(mean)))
    raw -= raw.mean(axis=0)
    raw = raw @ np.linalg.inv(np.linalg.cholesky(np.cov(raw, rowvar=False))).T
    return raw @ np.linalg.cholesky(covariance).T + mean


def by_sqrtm(first: np.ndarray, second: np.ndarray) -> float:
    """As the field computes it."""
    s1, s2 = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    root = scipy.linalg.sqrtm(s1 @ s2)
    return float(((first.mean(0) - second.mean(0)) ** 2).sum() + np.trace(s1 + s2 - 2 * root.real))


@pytest.mark.parametrize(("n", "m", "d"), [(60, 50, 8), (200, 90, 24)])
def test_against_scipys_sqrtm(n: int, m: int, d: int) -> None:
    first = RNG.normal(size=(n, d)) @ RNG.normal(size=(d, d))
    second = RNG.normal(size=(m, d)) @ RNG.normal(size=(d, d)) + 1
    assert frechet_distance(first, second) == pytest.approx(by_sqrtm(first, second), rel=1e-8)


def test_against_the_closed_form_of_gaussians() -> None:
    d = 5
    variances = (np.arange(1.0, 6), np.array([4.0, 1, 9, 2, 5]))
    means = (np.zeros(d), np.arange(d) / 2)
    first, second = (
        gaussian(40, mean, np.diag(v), seed) for seed, (mean, v) in enumerate(zip(means, variances, strict=True))
    )
    expected = ((means[0] - means[1]) ** 2).sum() + ((np.sqrt(variances[0]) - np.sqrt(variances[1])) ** 2).sum()
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-10)
    assert frechet_distance(first, first + 3) == pytest.approx(9 * d, rel=1e-10)
    assert frechet_distance(first, (first - first.mean(0)) * 2 + first.mean(0)) == pytest.approx(variances[0].sum())


@pytest.mark.parametrize(("n", "d"), [(27, 400), (500, 40)])
def test_a_set_with_itself(n: int, d: int) -> None:
    features = RNG.normal(size=(n, d)) * 5 + 100
    assert abs(frechet_distance(features, features)) < 1e-9
    assert abs(frechet_distance(features, features[::-1])) < 1e-9


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (np.zeros((1, 3)), np.zeros((4, 3)), "no Fréchet distance between features of"),
        (np.zeros((4, 2)), np.zeros((4, 3)), "no Fréchet distance between features of"),
        (np.full((4, 2), np.nan), np.zeros((4, 2)), "not finite"),
    ],
)
def test_what_has_no_distance(first: np.ndarray, second: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        frechet_distance(first, second)


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


def test_interval() -> None:
    metric = FVD(SmallNetwork())
    row = metric.compute(collect(metric, videos(lambda t: noisy(t, 10), 12)))
    low, value, high = row["fvd_low"], row["fvd"], row["fvd_high"]
    assert low is not None
    assert value is not None
    assert high is not None
    assert 0 <= low < value < high
    assert row["fvd_clips"] == 24
    assert FVD(SmallNetwork(), seed=1).compute(collect(metric, videos(lambda t: noisy(t, 10), 12))) != row
    one = metric.compute(collect(metric, videos(lambda t: noisy(t, 10), 1)))
    assert one["fvd"] is not None
    assert one["fvd_low"] is one["fvd_high"] is None


def test_one_clip_has_no_distance() -> None:
    metric = FVD(SmallNetwork())
    assert metric.compute(collect(metric, videos(lambda t: t, 1, 31))) == {
        "fvd": None,
        "fvd_low": None,
        "fvd_high": None,
        "fvd_clips": 1,
    }
    assert metric.compute([])["fvd"] is None
