"""The Fréchet distance between Gaussians fitted to features, which FVD and FID share."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Gaussian(NamedTuple):
    """A normal distribution."""

    mean: np.ndarray  # (d,)
    root: np.ndarray  # (k, d), k <= d: root.T @ root is the covariance


def fit(parts: Sequence[np.ndarray]) -> Gaussian:
    """The Gaussian of features (n, d) that come in parts, in float64, the covariance by n - 1.

    Of more rows than dimensions, one part after the other is read, and (d, d) is what is held.

    Raises:
        ValueError: fewer than two rows, other dimensions, or values that aren't finite.
    """
    shapes = [part.shape for part in parts]
    num_rows = sum(shape[0] for shape in shapes)
    if num_rows < 2 or len({shape[1:] for shape in shapes}) != 1 or len(shapes[0]) != 2:
        raise ValueError(f"no Fréchet distance of features of {', '.join(map(str, shapes)) or 'nothing'}")
    mean = sum(part.sum(axis=0, dtype=np.float64) for part in parts) / num_rows
    if not np.isfinite(mean).all():
        raise ValueError("no Fréchet distance: the features are not finite")
    if num_rows <= len(mean):
        return Gaussian(mean, (np.concatenate(parts) - mean) / np.sqrt(num_rows - 1))
    scatter = np.zeros((len(mean), len(mean)))
    for part in parts:
        centred = part - mean
        scatter += centred.T @ centred
    scatter /= num_rows - 1
    try:
        return Gaussian(mean, np.linalg.cholesky(scatter).T)
    except np.linalg.LinAlgError:  # not of full rank: ten times as slow
        values, vectors = np.linalg.eigh(scatter)
        return Gaussian(mean, np.sqrt(np.maximum(values, 0))[:, None] * vectors.T)


def frechet_distance(first: Gaussian, second: Gaussian) -> float:
    """Squared Fréchet distance: |m1 - m2|^2 + Tr(S1 + S2 - 2 sqrt(S1 S2)), never below 0.

    The last trace is the nuclear norm of A B^T, A and B the roots: exact and stable also for covariances without full
    rank.
    """
    common = np.linalg.svd(first.root @ second.root.T, compute_uv=False).sum()
    spread = np.square(first.root).sum() + np.square(second.root).sum()
    return max(0.0, float(np.square(first.mean - second.mean).sum() + spread - 2 * common))
