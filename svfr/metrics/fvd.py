"""FVD (Unterthiner et al. 2018): the Fréchet distance between the features of all restored and of all true clips."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from svfr.files import sha256_of
from svfr.metrics.base import Chunk, Column, FrameRows, NetworkOptions, Row, SetFeatures, SetMetric
from svfr.networks import find

SIDE = 224  # [px]
CLIP_LENGTH = 16  # frames, of StyleGAN-V's protocol
BOOTSTRAPS = 200
CONFIDENCE = 0.95


class ClipNetwork(Protocol):
    """What sees a clip: (b, f, 3, h, w) uint8 RGB -> (b, d) features, each of its clip alone."""

    protocol: dict[str, Any]  # what a report has to state of it (JSON)

    def __call__(self, clips: Tensor) -> Tensor:
        """The features of clips."""


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


class I3DFeatures:
    """Logits of I3D (Carreira & Zisserman 2017) of clips that are resized to 224 px, bilinear without antialiasing.

    The network is the TorchScript module that the field uses, the source the file that it was loaded from.
    """

    def __init__(self, network: nn.Module, source: Path, device: str = "cpu") -> None:
        self._network, self._device = network.to(device).eval(), device
        self.protocol = {
            "features": "I3D, Kinetics-400 logits, before the softmax",
            "input": f"{SIDE} x {SIDE} px, bilinear, [-1, 1]",
            "network": {"file": source.name, "sha256": sha256_of(source)},
        }

    @torch.inference_mode()
    def __call__(self, clips: Tensor) -> Tensor:
        """(b, f, 3, h, w) uint8 -> (b, 400) float32 on the CPU; f >= 9."""
        b, f = clips.shape[:2]
        x = clips.to(self._device).flatten(0, 1).float()
        x = functional.interpolate(x, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
        x = (x / 127.5 - 1).unflatten(0, (b, f)).transpose(1, 2)  # (b, 3, f, 224, 224)
        # Its own resizing and scaling stay off: they are done.
        return self._network(x, rescale=False, resize=False, return_features=True).float().cpu()


def load_i3d_features(networks: Path | None = None, device: str = "cpu", download: bool = True) -> I3DFeatures:
    """FVD's network. TorchScript is code, so it is run only if its sha256 is the one of the table.

    Raises:
        NetworkMissing: it is not there, and cannot be downloaded.
        ValueError: the file is something else.
    """
    path = find("i3d", networks, download)  # checks its sha256
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # new PyTorch prefers other formats; the field's is this
        network = torch.jit.load(path, map_location="cpu")
    return I3DFeatures(network, path, device)


class FVD(SetMetric):
    """FVD over the clips of all videos.

    Every video is cut into clips of `clip_length` frames, one after the other from its first frame; what is left at
    its end doesn't count. The interval is the spread of FVD when whole videos are drawn anew (bootstrap), put around
    the value; it doesn't show the bias, which is upwards and large for few clips.

    Args:
        network: I3D, or any other.
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
        # Sorted by what they show, so that neither names nor the order of files decide what is drawn.
        videos = sorted((v for v in features if v.starts), key=lambda v: (v.truth.tolist(), v.restored.tolist()))
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


def _distance(videos: Sequence[SetFeatures]) -> float:
    restored, truth = (np.concatenate([getattr(video, name) for video in videos]) for name in ("restored", "truth"))
    return frechet_distance(restored, truth)
