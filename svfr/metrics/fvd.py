"""FVD (Unterthiner et al. 2018): the Fréchet distance between the features of all restored and of all true clips."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from svfr.metrics.base import Chunk, Row, SetFeatures

CLIP_LENGTH = 16  # frames, of StyleGAN-V's protocol
BOOTSTRAPS = 200
CONFIDENCE = 0.95

logger = logging.getLogger(__name__)


class ClipNetwork(Protocol):
    """What sees a clip: (b, f, 3, h, w) uint8 RGB -> (b, d) features, each of its clip alone."""

    @property
    def protocol(self) -> Mapping[str, Any]:
        """What a report has to state of it (JSON)."""
        ...

    def __call__(self, clips: Tensor) -> Tensor:
        """The features of clips."""
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


class FVD:
    """FVD over the clips of all videos.

    Every video is cut into clips of `clip_length` frames, one after the other from its first frame; what is left at
    its end doesn't count. The interval is the spread of FVD when whole videos are drawn anew (bootstrap), put around
    the value; it doesn't show the bias, which is upwards and large for few clips.

    Args:
        network: I3D (`svfr.metrics.i3d.load_i3d_features`), or any other.
        clip_length: frames.
        max_clips: of each video, its first ones; None takes all.
        seed: of the interval.
    """

    columns = ("fvd", "fvd_low", "fvd_high", "fvd_clips")

    def __init__(
        self, network: ClipNetwork, clip_length: int = CLIP_LENGTH, max_clips: int | None = None, seed: int = 0
    ) -> None:
        self._network, self._length, self._max_clips, self._seed = network, clip_length, max_clips, seed
        self.protocol: dict[str, Any] = {
            **network.protocol,
            "clip_length": clip_length,
            "clips": f"{clip_length} frames, one after the other from a video's first, the rest left out",
            "max_clips": max_clips,
            "distance": "one Fréchet distance over all clips of the set, float64, covariance by n - 1",
            "interval": f"{CONFIDENCE:.0%}, {BOOTSTRAPS} bootstraps of videos, seed {seed}",
        }
        self.reset("")

    def reset(self, video: str) -> None:
        """Start with the next video, by its name."""
        self._video, self._num_frames = video, 0
        self._pending: list[Tensor] = []  # (2, 3, h, w), the restored and the true frames of the clip so far
        self._features: list[np.ndarray] = []  # (2, d)

    def update(self, chunk: Chunk) -> None:
        """Take the next frames."""
        for pair in torch.stack([chunk.restored, chunk.truth], dim=1):
            if self._max_clips is not None and len(self._features) >= self._max_clips:
                return
            self._pending.append(pair)
            if len(self._pending) == self._length:
                clips = torch.stack(self._pending, dim=1)  # (2, f, 3, h, w)
                both = [self._network(clip[None])[0] for clip in clips]  # one by one: a batch may round otherwise
                self._features.append(torch.stack(both).double().cpu().numpy())
                self._pending = []

    def features(self) -> SetFeatures:
        """The features of the video so far.

        Raises:
            ValueError: they aren't finite.
        """
        found = np.stack(self._features, axis=1) if self._features else np.zeros((2, 0, 0))
        if not np.isfinite(found).all():
            raise ValueError("FVD: the network's features of this video are not finite")
        starts = tuple(range(0, self._length * len(self._features), self._length))
        return SetFeatures(self._video, starts, found[0], found[1])

    def compute(self, features: Sequence[SetFeatures]) -> Row:
        """FVD of a set, the ends of its interval, and the number of clips; None with fewer than two clips."""
        videos = sorted((video for video in features if video.starts), key=_content)
        num_clips = sum(len(video.starts) for video in videos)
        row: Row = dict.fromkeys(self.columns)
        row["fvd_clips"] = num_clips
        if num_clips < 2:
            return row
        dimensions = videos[0].truth.shape[1]
        if num_clips < dimensions:
            logger.warning(
                "FVD: %d clips for %d dimensions: its bias dominates; compare only with FVD of as many clips",
                num_clips,
                dimensions,
            )
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


def clip_manifest(features: Iterable[SetFeatures]) -> list[dict[str, Any]]:
    """Which clips FVD was computed of: video and first frames, sorted by name (JSON)."""
    return [
        {"video": video.video, "starts": list(video.starts)}
        for video in sorted(features, key=lambda video: video.video)
    ]


def _content(video: SetFeatures) -> tuple[list[float], list[float]]:
    """Sorts videos by what they show, so that neither names nor the order of files decide what is drawn."""
    return video.truth.tolist(), video.restored.tolist()


def _distance(videos: Sequence[SetFeatures]) -> float:
    restored, truth = (np.concatenate([getattr(video, name) for video in videos]) for name in ("restored", "truth"))
    return frechet_distance(restored, truth)
