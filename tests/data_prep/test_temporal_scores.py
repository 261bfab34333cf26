import numpy as np

from svfr.data.landmarks import OUTLIER, temporal_scores
from svfr.synthetic import TEST_SEEDS, render_clip


def moving(length: int, speed: float) -> np.ndarray:
    points = render_clip(TEST_SEEDS, 1, 64).landmarks[0]
    return points + np.arange(length)[:, None, None] * speed * np.ones(2)


def test_a_steady_motion_is_trusted() -> None:
    np.testing.assert_allclose(temporal_scores(moving(20, 5.0)), 1, atol=1e-5)


def test_outliers_alone_are_not() -> None:
    points = moving(20, 1.0)
    points[7] += 30
    points[12, :40] = np.nan
    scores = temporal_scores(points)
    assert np.flatnonzero(scores == 0).tolist() == [7, 12]
    assert np.delete(scores, [7, 12]).min() > 0.5


def test_the_score_falls_with_the_distance() -> None:
    points = moving(9, 0.0)
    eyes = np.linalg.norm(points[0, 36] - points[0, 45])
    points[4, :, 0] += OUTLIER / 2 * eyes
    np.testing.assert_allclose(temporal_scores(points)[4], 0.5, atol=1e-4)


def test_short_clips() -> None:
    assert temporal_scores(moving(1, 0)).tolist() == [1]
    assert temporal_scores(np.full((3, 68, 2), np.nan)).tolist() == [0, 0, 0]
    assert temporal_scores(np.zeros((0, 68, 2))).shape == (0,)
