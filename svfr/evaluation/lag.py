"""Whether results came some frames late or early."""

import numpy as np

FARTHEST = 3  # [frames] lag that is tried
CLEARLY = 0.75  # Assumption: share of the error that another lag may leave, or it is none


def best_lag(restored: np.ndarray, truth: np.ndarray) -> int:
    """By how many frames a restored video comes late (negative: early): the lag in -3..3 of least squared error.

    Each value's mean over time is taken off, so that motion alone counts. 0 unless another lag leaves less than 3/4 of
    the error of none.

    Args:
        restored: (f, d) float, small gray pictures.
        truth: (f, d) float, the same frames.
    """
    num_frames = len(truth)
    if num_frames < 4 * FARTHEST:
        return 0
    ours, theirs = restored - restored.mean(axis=0), truth - truth.mean(axis=0)
    inner = slice(FARTHEST, num_frames - FARTHEST)  # the same frames of the truth for every lag
    errors = {
        lag: float(np.square(ours[inner.start + lag : inner.stop + lag] - theirs[inner]).mean())
        for lag in range(-FARTHEST, FARTHEST + 1)
    }
    best = min(errors, key=lambda lag: (errors[lag], abs(lag)))
    return best if errors[best] < CLEARLY * errors[0] else 0
