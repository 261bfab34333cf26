import tracemalloc

import numpy as np
import pytest
import scipy.linalg

from svfr.metrics import frechet
from svfr.metrics.frechet import fit

RNG = np.random.default_rng(0)


def distance(first: np.ndarray, second: np.ndarray) -> float:
    return frechet.frechet_distance(fit([first]), fit([second]))


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
    assert distance(first, second) == pytest.approx(by_sqrtm(first, second), rel=1e-8)


def test_against_the_closed_form_of_gaussians() -> None:
    d = 5
    variances = (np.arange(1.0, 6), np.array([4.0, 1, 9, 2, 5]))
    means = (np.zeros(d), np.arange(d) / 2)
    first, second = (
        gaussian(40, mean, np.diag(v), seed) for seed, (mean, v) in enumerate(zip(means, variances, strict=True))
    )
    expected = ((means[0] - means[1]) ** 2).sum() + ((np.sqrt(variances[0]) - np.sqrt(variances[1])) ** 2).sum()
    assert distance(first, second) == pytest.approx(expected, rel=1e-10)
    assert distance(first, first + 3) == pytest.approx(9 * d, rel=1e-10)
    assert distance(first, (first - first.mean(0)) * 2 + first.mean(0)) == pytest.approx(variances[0].sum())


@pytest.mark.parametrize(("n", "d"), [(27, 400), (500, 40)])
def test_a_set_with_itself(n: int, d: int) -> None:
    features = RNG.normal(size=(n, d)) * 5 + 100
    assert distance(features, features) < 1e-9
    assert distance(features, features[::-1]) < 1e-9


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (np.zeros((1, 3)), np.zeros((4, 3)), "no Fréchet distance of features of"),
        (np.full((4, 2), np.nan), np.zeros((4, 2)), "not finite"),
    ],
)
def test_what_has_no_distance(first: np.ndarray, second: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        distance(first, second)


def test_parts_are_one_set_and_rounding_is_never_negative() -> None:
    features = RNG.normal(size=(90, 20)) + 1e4
    parts = np.split(features, [5, 50, 51])
    whole, again = fit([features]), fit(parts)
    np.testing.assert_allclose(again.mean, whole.mean, rtol=1e-12)
    np.testing.assert_allclose(again.root.T @ again.root, np.cov(features, rowvar=False), atol=1e-9)
    flat = features @ RNG.normal(size=(20, 20)) * (np.arange(20) < 7)  # not of full rank
    np.testing.assert_allclose(fit([flat]).root.T @ fit([flat]).root, np.cov(flat, rowvar=False), atol=1e-5)
    assert distance(flat, flat[::-1]) < 1e-4
    values = [frechet.frechet_distance(fit([x]), fit([x[::-1].copy()])) for x in RNG.normal(size=(50, 30, 8)) * 1e3]
    assert min(values) >= 0
    assert f"{min(values):.2f}" == f"{max(values):.2f}" == "0.00"
    with pytest.raises(ValueError, match="no Fréchet distance of features of"):
        fit([features, features[:, 1:]])
    with pytest.raises(ValueError, match="no Fréchet distance of features of nothing"):
        fit([])


def test_memory_is_that_of_dimensions_not_of_rows() -> None:
    part = RNG.normal(size=(400, 16)).astype(np.float32)
    tracemalloc.start()
    fit([part] * 500)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20 * part.nbytes  # all rows would be 500
