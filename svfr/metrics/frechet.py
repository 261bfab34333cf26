"""Fréchet distances between the features of all restored and of all true samples of a set: FVD and FID."""

import io
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from svfr.files import sha256_of
from svfr.metrics.base import Chunk, Column, FeatureNetwork, FrameRows, NetworkOptions, Row, SetFeatures, SetMetric
from svfr.models.weights import read_state
from svfr.networks import describe, find

SIDE = 224  # [px] of I3D's input
CLIP_LENGTH = 16  # frames, of StyleGAN-V's protocol
BOOTSTRAPS, SEED = 200, 0
TAIL = 0.025  # of the bootstraps on each side that the spread leaves out


class Gaussian(NamedTuple):
    """A normal distribution that is fitted to features."""

    mean: np.ndarray  # (d,)
    root: np.ndarray  # (k, d), k <= d: root.T @ root is the covariance


def fit(parts: Sequence[np.ndarray]) -> Gaussian:
    """The Gaussian of features (n, d) that come in parts, in float64, the covariance by n - 1.

    Of more rows than dimensions, one part after the other is read, and (d, d) is what is held. ValueError if there are
    fewer than two rows, other dimensions, or values that aren't finite.
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


def distance_of(videos: Sequence[SetFeatures]) -> float:
    """The Fréchet distance between the restored and the true features of videos."""
    return frechet_distance(*(fit([getattr(video, side) for video in videos]) for side in ("restored", "truth")))


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
    """FVD's network, or NetworkMissing. TorchScript is code: a ValueError if its sha256 is not that of the table."""
    path = find("i3d", networks, download)  # checks it
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # new PyTorch prefers other formats; the field's is this
        network = torch.jit.load(path, map_location="cpu")
    return I3DFeatures(network, path, device)


class FVD(SetMetric):
    """FVD (Unterthiner et al. 2018) over the clips of all videos.

    The spread is that of FVD when whole videos of this sample are drawn anew (bootstrap), put around the value. It is
    no interval of what many videos would give: FVD is biased upwards, much for few clips, and such an interval held the
    true value in none of 60 trials.
    """

    samples = "clips"
    columns = (
        Column("fvd", "FVD", "lower", digits=2),
        Column("fvd_spread_low", f"FVD, spread of the sample, {TAIL:.1%}", "none", digits=2),
        Column("fvd_spread_high", f"FVD, spread of the sample, {1 - TAIL:.1%}", "none", digits=2),
        Column("fvd_clips", "FVD, clips", "none", digits=0),
    )

    @classmethod
    def build(cls, options: NetworkOptions) -> "FVD":
        """Make it with I3D."""
        return cls(load_i3d_features(options.folder, options.device, options.download))

    def __init__(self, network: FeatureNetwork, clip_length: int = CLIP_LENGTH) -> None:
        self._network, self._length = network, clip_length
        self.protocol = {
            **network.protocol,
            "clip_length": clip_length,
            "clips": f"{clip_length} frames, one after the other from a video's first, the rest left out",
            "distance": "one Fréchet distance over all clips of the set, float64, covariance by n - 1",
            "spread": f"of the sample, not an interval of the truth: {1 - 2 * TAIL:.0%} of {BOOTSTRAPS} bootstraps of "
            f"videos, seed {SEED}",
        }
        self.reset()

    def reset(self) -> None:
        """Start with the next video."""
        super().reset()
        self._pending: list[tuple[Tensor, Tensor]] = []  # the restored and the true frames of the clip so far

    def update(self, chunk: Chunk) -> FrameRows:
        """Take the next frames; none has a number of its own."""
        for at, frames in enumerate(zip(chunk.restored, chunk.truth, strict=True)):
            self._pending.append(frames)
            if len(self._pending) == self._length:
                restored, truth = map(torch.stack, zip(*self._pending, strict=True))
                theirs = chunk.of_truth(f"fvd {at}", partial(self._embed, truth))
                ours = theirs if chunk.restored is chunk.truth else self._embed(restored)
                self._features[self._length * len(self._features)] = ours, theirs
                self._pending = []
        return {}

    def _embed(self, clip: Tensor) -> np.ndarray:
        return self._network(clip[None])[0].double().cpu().numpy()  # one by one: a batch may round otherwise

    def compute(self, features: Sequence[SetFeatures]) -> Row:
        """FVD of a set, the ends of its spread, and the number of clips; None with fewer than two clips."""
        # Sorted by what they show, so that neither names nor the order of files decide what is drawn.
        videos = sorted((v for v in features if v.starts), key=lambda v: (v.truth.tolist(), v.restored.tolist()))
        num_clips = sum(len(video.starts) for video in videos)
        row: Row = {column.name: None for column in self.columns} | {"fvd_clips": num_clips}
        if num_clips < 2:
            return row
        row["fvd"] = value = distance_of(videos)
        rng = np.random.default_rng(SEED)
        draws = []
        for _ in range(BOOTSTRAPS if len(videos) > 1 else 0):
            drawn = [videos[index] for index in rng.integers(len(videos), size=len(videos))]
            if sum(len(video.starts) for video in drawn) > 1:
                draws.append(distance_of(drawn))
        if draws:
            low, high = np.quantile(draws, [TAIL, 1 - TAIL]) - np.mean(draws)
            row["fvd_spread_low"], row["fvd_spread_high"] = max(0.0, value + float(low)), value + float(high)
        return row


class InceptionFeatures:
    """Features of the Inception-2015 network of FID's authors, as torch-fidelity rebuilt it after TensorFlow's.

    ValueError if torch-fidelity is not installed, or the file holds another network.
    """

    def __init__(self, path: Path, device: str = "cpu") -> None:
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
        except ImportError as error:
            raise ValueError("torch-fidelity is not installed: pip install 'svfr[eval]'") from error
        # The package unpickles the file that it is given: it is given what was read without unpickling.
        torch.save(read_state(path), buffer := io.BytesIO())
        buffer.seek(0)
        try:
            self._network: nn.Module = FeatureExtractorInceptionV3("fid", ["2048"], buffer).to(device)
        except RuntimeError as error:
            raise ValueError(f"{path}: not the Inception network of FID") from error
        self._device = device
        self.protocol = {
            "features": "Inception-2015 of the authors of FID, last average pooling (2048), by torch-fidelity",
            "input": "299 x 299 px, bilinear as TensorFlow 1 resizes, (x - 128) / 128",
            "network": describe(path),
        }

    @torch.inference_mode()
    def __call__(self, frames: Tensor) -> Tensor:
        """(n, 3, h, w) uint8 -> (n, 2048) float32 on the CPU."""
        return self._network(frames.to(self._device))[0].float().cpu()


class FID(SetMetric):
    """FID (Heusel et al. 2017) over the frames of all videos.

    A video's features are kept as they are: up to 4,000 frames, of 8 kB each, they are smaller than their covariance.
    """

    samples = "frames"
    columns = (Column("fid", "FID", "lower"), Column("fid_frames", "FID, frames", "none", digits=0))

    @classmethod
    def build(cls, options: NetworkOptions) -> "FID":
        """Make it with Inception."""
        return cls(InceptionFeatures(find("inception", options.folder, options.download), options.device))

    def __init__(self, network: FeatureNetwork) -> None:
        self._network = network
        self.protocol = {
            **network.protocol,
            "distance": "one Fréchet distance over all frames of the set, float64, covariance by n - 1",
        }
        self.reset()

    def update(self, chunk: Chunk) -> FrameRows:
        """Take the next frames; none has a number of its own."""
        for at in range(len(chunk)):  # one by one: a batch may round otherwise
            self._features[len(self._features)] = chunk.both("fid", at, lambda frame: self._network(frame)[0].numpy())
        return {}

    def compute(self, features: Sequence[SetFeatures]) -> Row:
        """FID of a set, and the number of frames; None with fewer than two frames."""
        num_frames = sum(len(video.starts) for video in features)
        return {"fid": distance_of(features) if num_frames > 1 else None, "fid_frames": num_frames}
