"""FVD (Unterthiner et al. 2018): the Fréchet distance between the features of all restored and of all true clips."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from svfr.metrics.base import Chunk, Column, FrameRows, NetworkOptions, Row, SetFeatures, SetMetric
from svfr.metrics.i3d import load_i3d_features

CLIP_LENGTH = 16  # frames, of StyleGAN-V's protocol
BOOTSTRAPS = 200
CONFIDENCE = 0.95


class ClipNetwork(Protocol):
    """What sees a clip: (b, f, 3, h, w) uint8 RGB -> (b, d) features, each of its clip alone."""

    protocol: dict[str, Any]  # what a report has to state of it (JSON)

    def __call__(self, clips: Tensor) -> Tensor:  # noqa: D102
        ...


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Squared Fréchet distance between the Gaussians fitted to two sets of features.

    |m1 - m2|^2 + Tr(S1 + S2 - 2 sqrt(S1 S2)), where the last trace is the nuclear norm of A B^T, A and B the centred
    features over sqrt(n - 1): exact and stable also for fewer rows than dimensions.

    Args:
        first: (n, d), n >= 2.
        second: (m, d), m >= 2.

    Raises:
        ValueError: fewer than two rows, other dimensions, or values that aren't finite.
    """
    first, second = (np.asarray(features, dtype=np.float64) for features in (first, second))
    if first.ndim != 2 or first.shape[1:] != second.shape[1:] or min(len(first), len(second)) < 2:
        raise ValueError(f"no Fréchet distance between features of {first.shape} and {second.shape}")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise ValueError("no Fréchet distance: the features are not finite")
    means = [features.mean(axis=0) for features in (first, second)]
    a, b = (
        (features - mean) / np.sqrt(len(features) - 1) for features, mean in zip((first, second), means, strict=True)
    )
    spread = (a**2).sum() + (b**2).sum()
    # With more rows than dimensions, the triangular factors have the same covariance and are smaller.
    a, b = (np.linalg.qr(x).R if len(x) > x.shape[1] else x for x in (a, b))
    common = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    return float(((means[0] - means[1]) ** 2).sum() + spread - 2 * common)


class FVD(SetMetric):
    """FVD over the clips of all videos.

    Every video is cut into clips of `clip_length` frames, one after the other from its first frame; what is left at
    its end doesn't count. The interval is the spread of FVD when whole videos are drawn anew (bootstrap), put around
    the value; it doesn't show the bias, which is upwards and large for few clips.

    Args:
        network: I3D (`svfr.metrics.i3d.load_i3d_features`), or any other.
        clip_length: frames.
        seed: of the interval.
    """

    columns = (
        Column("fvd", "FVD", "lower", digits=2),
        Column("fvd_low", "FVD, lower end", "lower", digits=2),
        Column("fvd_high", "FVD, upper end", "lower", digits=2),
        Column("fvd_clips", "FVD, clips", "truth", digits=0),
    )

    @classmethod
    def build(cls, options: NetworkOptions) -> "FVD":
        """Make it with I3D."""
        return cls(load_i3d_features(options.folder, options.device, options.download))

    def __init__(self, network: ClipNetwork, clip_length: int = CLIP_LENGTH, seed: int = 0) -> None:
        self._network, self._length, self._seed = network, clip_length, seed
        self.protocol = {
            **network.protocol,
            "clip_length": clip_length,
            "clips": f"{clip_length} frames, one after the other from a video's first, the rest left out",
            "distance": "one Fréchet distance over all clips of the set, float64, covariance by n - 1",
            "interval": f"{CONFIDENCE:.0%}, {BOOTSTRAPS} bootstraps of videos, seed {seed}",
        }
        self.reset()

    def reset(self) -> None:
        """Start with the next video."""
        self._pending: list[Tensor] = []  # (2, 3, h, w), the restored and the true frames of the clip so far
        self._features: list[np.ndarray] = []  # (2, d)

    def update(self, chunk: Chunk) -> FrameRows:
        """Take the next frames; none has a number of its own."""
        for pair in torch.stack([chunk.restored, chunk.truth], dim=1):
            self._pending.append(pair)
            if len(self._pending) == self._length:
                clips = torch.stack(self._pending, dim=1)  # (2, f, 3, h, w)
                both = [self._network(clip[None])[0] for clip in clips]  # one by one: a batch may round otherwise
                self._features.append(torch.stack(both).double().cpu().numpy())
                self._pending = []
        return {}

    def features(self, video: str) -> SetFeatures:
        """The features of the frames so far, under the name of their video.

        Raises:
            ValueError: they aren't finite.
        """
        found = np.stack(self._features, axis=1) if self._features else np.zeros((2, 0, 0))
        if not np.isfinite(found).all():
            raise ValueError("FVD: the network's features of this video are not finite")
        starts = tuple(range(0, self._length * len(self._features), self._length))
        return SetFeatures(video, starts, found[0], found[1])

    def compute(self, features: Sequence[SetFeatures]) -> Row:
        """FVD of a set, the ends of its interval, and the number of clips; None with fewer than two clips."""
        videos = sorted((video for video in features if video.starts), key=_content)
        num_clips = sum(len(video.starts) for video in videos)
        row: Row = {column.name: None for column in self.columns}
        row["fvd_clips"] = num_clips
        if num_clips < 2:
            return row
        row["fvd"] = value = _distance(videos)
        rng = np.random.default_rng(self._seed)
        draws = []
        for _ in range(BOOTSTRAPS if len(videos) > 1 else 0):
            drawn = [videos[index] for index in rng.integers(len(videos), size=len(videos))]
            if sum(len(video.starts) for video in drawn) > 1:
                draws.append(_distance(drawn))
        if draws:
            tail = (1 - CONFIDENCE) / 2
            low, high = np.quantile(draws, [tail, 1 - tail]) - np.mean(draws)
            row["fvd_low"], row["fvd_high"] = max(0.0, value + float(low)), value + float(high)
        return row


def _content(video: SetFeatures) -> tuple[list[float], list[float]]:
    """Sorts videos by what they show, so that neither names nor the order of files decide what is drawn."""
    return video.truth.tolist(), video.restored.tolist()


def _distance(videos: Sequence[SetFeatures]) -> float:
    restored, truth = (np.concatenate([getattr(video, name) for video in videos]) for name in ("restored", "truth"))
    return frechet_distance(restored, truth)
