"""The Fréchet distance between Gaussians fitted to features, which FVD and FID share."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Gaussian(NamedTuple):
    """A normal distribution."""

    mean: np.ndarray  # (d,)
    root: np.ndarray  # (k, d), k <= d: root.T @ root is the covariance


def fit(parts: Sequence[np.ndarray]) -> Gaussian:
    """The Gaussian of features that come in parts, in float64, the covariance by n - 1.

    Of more rows than dimensions, one part after the other is read, and (d, d) is what is held.

    Args:
        parts: (n, d) each, at least two rows in all.

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
    return Gaussian(mean, _root(scatter / (num_rows - 1)))


def frechet_distance(first: Gaussian, second: Gaussian) -> float:
    """Squared Fréchet distance: |m1 - m2|^2 + Tr(S1 + S2 - 2 sqrt(S1 S2)), never below 0.

    The last trace is the nuclear norm of A B^T, A and B the roots: exact and stable also for covariances without full
    rank.
    """
    common = np.linalg.svd(first.root @ second.root.T, compute_uv=False).sum()
    spread = np.square(first.root).sum() + np.square(second.root).sum()
    return max(0.0, float(np.square(first.mean - second.mean).sum() + spread - 2 * common))


def drawn_distances(first: np.ndarray, second: np.ndarray, counts: Sequence[np.ndarray]) -> list[float]:
    """Fréchet distances when rows of two sets are drawn anew, both the same.

    In the space of all rows, which is small for few of them, and by eigenvalues of covariances, which are quicker than
    `frechet_distance` and good to about 1e-6.

    Args:
        first: (n, d) features.
        second: (n, d) features.
        counts: how often each of the n rows is drawn, (n,) whole numbers with a sum of at least two.
    """
    center = (first.mean(axis=0) + second.mean(axis=0)) / 2
    both = np.concatenate([first, second]) - center
    if len(both) < both.shape[1]:
        both = np.linalg.qr(both.T).R.T  # the same lengths and angles in fewer dimensions
    distances = []
    for count in counts:
        means, covariances = [], []
        for rows in np.split(both, 2):
            means.append(count @ rows / count.sum())
            centred = (rows - means[-1]) * np.sqrt(count / (count.sum() - 1))[:, None]
            covariances.append(centred.T @ centred)
        try:
            root = np.linalg.cholesky(covariances[0]).T  # a tenth of the time
        except np.linalg.LinAlgError:  # not of full rank
            root = _root(covariances[0])
        common = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ covariances[1] @ root.T), 0)).sum()
        spread = np.trace(covariances[0]) + np.trace(covariances[1])
        distances.append(max(0.0, float(np.square(means[0] - means[1]).sum() + spread - 2 * common)))
    return distances


def _root(covariance: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(covariance)
    return np.sqrt(np.maximum(values, 0))[:, None] * vectors.T
