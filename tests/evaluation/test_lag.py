"""The lag that fits best, of motion, of noise, of too little."""

import numpy as np
import pytest

from svfr.evaluation.pictures import best_lag


@pytest.mark.parametrize("lag", [-3, -1, 0, 2])
def test_the_lag_that_fits_best(lag: int) -> None:
    random = np.random.default_rng(0)
    motion = np.cumsum(random.normal(0, 4, (40, 64)), axis=0)
    truth, restored = motion[5:35], motion[5 - lag : 35 - lag]
    assert best_lag(restored + random.normal(0, 2, restored.shape), truth) == lag
    assert best_lag(0.5 * restored + 30, truth) == lag  # another tone


def test_what_stands_still_or_is_short_has_no_lag() -> None:
    random = np.random.default_rng(0)
    still = np.full((30, 64), 7.0)
    for seed in range(20):
        noise = np.random.default_rng(seed).normal(0, 3, (2, 30, 64))
        assert best_lag(still + noise[0], still + 0.1 * noise[1]) == 0
    assert best_lag(still, still) == 0
    motion = random.normal(0, 9, (7, 64))
    assert best_lag(np.roll(motion, 1, axis=0), motion) == 0
