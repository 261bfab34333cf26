"""FID (Heusel et al. 2017): the Fréchet distance between the features of all restored and of all true frames."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from svfr.metrics.base import Chunk, Column, FeatureNetwork, FrameRows, NetworkOptions, Row, SetFeatures, SetMetric
from svfr.metrics.frechet import fit, frechet_distance
from svfr.models.weights import read_state
from svfr.networks import describe, find


class InceptionFeatures:
    """Features of the Inception-2015 network of FID's authors, as torch-fidelity rebuilt it after TensorFlow's.

    Raises:
        ValueError: torch-fidelity is not installed, or the file holds another network.
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
    """FID over the frames of all videos.

    A video's features are kept as they are: at 8 kB a frame they are smaller than their covariance (34 MB) up to 4,000
    frames. Those of the set are read video by video.
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
        for pair in zip(*chunk.both("fid", self._embed), strict=True):
            self._features[len(self._features)] = pair
        return {}

    def _embed(self, frames: Tensor) -> list[np.ndarray]:
        return [self._network(frame[None])[0].numpy() for frame in frames]  # one by one: a batch may round otherwise

    def compute(self, features: Sequence[SetFeatures]) -> Row:
        """FID of a set, and the number of frames; None with fewer than two frames."""
        num_frames = sum(len(video.starts) for video in features)
        row: Row = {"fid": None, "fid_frames": num_frames}
        if num_frames > 1:
            ours, theirs = ([getattr(video, name) for video in features] for name in ("restored", "truth"))
            row["fid"] = frechet_distance(fit(ours), fit(theirs))
        return row
