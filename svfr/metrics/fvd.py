"""FVD (Unterthiner et al. 2018): the Fréchet distance between the features of all restored and of all true clips."""

import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from svfr.files import sha256_of
from svfr.metrics.base import Chunk, Column, FeatureNetwork, FrameRows, NetworkOptions, Row, SetFeatures, SetMetric
from svfr.metrics.frechet import fit, frechet_distance
from svfr.networks import find

SIDE = 224  # [px]
CLIP_LENGTH = 16  # frames, of StyleGAN-V's protocol
BOOTSTRAPS = 200
TAIL = 0.025  # of the bootstraps on each side that the spread leaves out


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
    its end doesn't count. The spread is that of FVD when whole videos of this sample are drawn anew (bootstrap), put
    around the value. It is no interval of what many videos would give: FVD is biased upwards, much for few clips, and
    such an interval held the true value in none of 60 trials.

    Args:
        network: I3D, or any other.
        clip_length: frames.
        seed: of the spread.
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

    def __init__(self, network: FeatureNetwork, clip_length: int = CLIP_LENGTH, seed: int = 0) -> None:
        self._network, self._length, self._seed = network, clip_length, seed
        self.protocol = {
            **network.protocol,
            "clip_length": clip_length,
            "clips": f"{clip_length} frames, one after the other from a video's first, the rest left out",
            "distance": "one Fréchet distance over all clips of the set, float64, covariance by n - 1",
            "spread": f"of the sample, not an interval of the truth: {1 - 2 * TAIL:.0%} of {BOOTSTRAPS} bootstraps of "
            f"videos, seed {seed}",
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
        lengths = [len(video.starts) for video in videos]
        row: Row = {column.name: None for column in self.columns}
        row["fvd_clips"] = sum(lengths)
        if sum(lengths) < 2:
            return row
        restored, truth = ([getattr(video, name) for video in videos] for name in ("restored", "truth"))
        row["fvd"] = value = frechet_distance(fit(restored), fit(truth))
        rng = np.random.default_rng(self._seed)
        draws = []
        for _ in range(BOOTSTRAPS if len(videos) > 1 else 0):
            drawn = rng.integers(len(videos), size=len(videos))
            if sum(lengths[index] for index in drawn) > 1:
                both = (fit([side[index] for index in drawn]) for side in (restored, truth))
                draws.append(frechet_distance(*both))
        if draws:
            low, high = np.quantile(draws, [TAIL, 1 - TAIL]) - np.mean(draws)
            row["fvd_spread_low"], row["fvd_spread_high"] = max(0.0, value + float(low)), value + float(high)
        return row
