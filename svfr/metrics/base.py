"""What a metric is: it takes a video chunk by chunk, and gives one number a column at the end.

A number that isn't defined (no hole in the mask, no face, a single frame) is None, never 0 or NaN. Nothing depends on
how a video is cut into chunks, and no metric keeps frames beyond the few it needs. What is computed of the ground truth
alone is asked of the chunk, which computes it once for all videos that are measured beside it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

Row = dict[str, float | None]  # a number by column; None where it isn't defined
FrameRows = dict[str, list[float | None]]  # the same for each frame of a chunk
T = TypeVar("T")


@dataclass(frozen=True)
class Column:
    """A number that a metric gives, and how it is to be read."""

    name: str  # in results.json
    title: str  # in tables
    better: Literal["higher", "lower", "truth", "none"]  # "truth": the nearer to the ground truth's own value
    unit: str = ""
    digits: int = 3  # after the point, in tables
    needs_faces: bool = False  # not defined without the landmarks of a face
    needs_holes: bool = False  # not defined without a hole in the mask
    no_reference: bool = False  # computed of the restored video alone: the ground truth has a value of its own


@dataclass(frozen=True)
class Chunk:
    """Consecutive frames of a restored video beside the ground truth.

    Raises:
        ValueError: tensors of another type or shape.
    """

    restored: Tensor  # (n, 3, h, w) uint8 RGB
    truth: Tensor  # (n, 3, h, w) uint8 RGB
    mask: Tensor | None = None  # (n, h, w) bool, True is a hole; None if nothing was filled in
    landmarks: Tensor | None = None  # (n, 5, 2) float [px] of the truth: eyes, nose, mouth corners; NaN without a face
    # What was computed of the truth, by name: one dictionary for all chunks of the same true frames.
    shared: dict[str, Any] = field(default_factory=dict, kw_only=True)
    _own: dict[str, Any] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        for name, frames in (("restored", self.restored), ("truth", self.truth)):
            if frames.dtype != torch.uint8 or frames.ndim != 4 or frames.shape[1] != 3:
                raise ValueError(f"{name} frames have to be (n, 3, h, w) uint8, not {_shape_and_type(frames)}")
        if self.restored.shape != self.truth.shape:
            ours, theirs = tuple(self.restored.shape), tuple(self.truth.shape)
            raise ValueError(f"restored frames {ours} and ground truth {theirs} differ in number or size")
        n, _, h, w = self.truth.shape
        if self.mask is not None and (self.mask.dtype != torch.bool or self.mask.shape != (n, h, w)):
            raise ValueError(f"the mask has to be {(n, h, w)} bool, not {_shape_and_type(self.mask)}")
        if self.landmarks is not None and self.landmarks.shape != (n, 5, 2):
            raise ValueError(f"landmarks have to be {(n, 5, 2)}, not {_shape_and_type(self.landmarks)}")

    def __len__(self) -> int:
        return self.truth.shape[0]

    def of_truth(self, name: str, compute: Callable[[], T]) -> T:
        """What depends on the truth alone, computed by the first that asks for it under this name."""
        if name not in self.shared:
            self.shared[name] = compute()
        return self.shared[name]

    def both(self, name: str, compute: Callable[[Tensor], T]) -> tuple[T, T]:
        """What is computed of frames (n, 3, h, w) by themselves: the restored ones' and the truth's, each once."""
        truth = self.of_truth(name, lambda: compute(self.truth))
        if self.restored is self.truth:
            return truth, truth
        if name not in self._own:
            self._own[name] = compute(self.restored)
        return self._own[name], truth

    def on(self, device: str) -> tuple[Tensor, Tensor]:
        """The restored and the true frames on a device."""
        return self.both(f"frames on {device}", lambda frames: frames.to(device))

    def faces(self) -> list[tuple[int, np.ndarray]]:
        """Indices of the frames with a face, and its landmarks (5, 2) float64 [px]."""
        if self.landmarks is None:
            return []
        found = enumerate(self.landmarks.double().cpu().numpy())
        return [(index, points) for index, points in found if np.isfinite(points).all()]


class NetworkOptions(NamedTuple):
    """Where networks lie, where they run, and which of them a metric uses."""

    folder: Path | None
    device: str
    recognizer: str
    landmarker: str
    download: bool
    photo: Path | None = None


class Metric(ABC):
    """What metrics have in common; one object serves video after video, with a `reset` before each."""

    columns: ClassVar[tuple[Column, ...]]  # the numbers that it gives, in a table's order
    device: str = "cpu"  # where pixels are computed with in float64
    protocol: Mapping[str, Any]  # what a report has to state: variant, window, network with its file's sha256 (JSON)

    @classmethod
    def build(cls, options: NetworkOptions) -> "Metric":
        """Make it with its networks.

        Raises:
            NetworkMissing: a network is not there.
            ValueError: a file that is something else, or a package that is not installed.
        """
        metric = cls()
        if torch.device(options.device).type != "mps":  # which has no float64
            metric.device = options.device
        return metric

    @abstractmethod
    def reset(self) -> None:
        """Start with the next video."""

    @abstractmethod
    def update(self, chunk: Chunk) -> FrameRows:
        """Take the next frames.

        Returns:
            Their values of the columns that single frames have; what pairs of frames have counts for the later one.
        """


class VideoMetric(Metric):
    """A metric of single videos: the mean over the frames for which it is defined."""

    @abstractmethod
    def _measure(self, chunk: Chunk) -> FrameRows:
        """The values of the next frames, by column."""

    def reset(self) -> None:
        """Start with the next video."""
        self._sums = {column.name: 0.0 for column in self.columns}
        self._counts = dict.fromkeys(self._sums, 0)

    def update(self, chunk: Chunk) -> FrameRows:
        """Take the next frames, and give their values."""
        rows = self._measure(chunk)
        for column, values in rows.items():
            for value in values:
                if value is not None:
                    self._sums[column] += value
                    self._counts[column] += 1
        return rows

    def compute(self) -> Row:
        """The mean of each column over the frames so far, None where there is none."""
        return {column: self._sums[column] / count if count else None for column, count in self._counts.items()}


@dataclass(frozen=True)
class SetFeatures:
    """What a set metric has to know of one video; small, and all that a resumed or split evaluation keeps."""

    video: str  # its name
    starts: tuple[int, ...]  # first frames of the samples (clips, or single frames) that were taken, in order
    restored: np.ndarray  # (len(starts), d) float features of the restored samples
    truth: np.ndarray  # (len(starts), d) float features of the same samples of the ground truth


class FeatureNetwork(Protocol):
    """What sees samples, each by itself: (n, ..., 3, h, w) uint8 RGB frames or clips -> (n, d) features on the CPU."""

    protocol: dict[str, Any]  # what a report has to state of it (JSON)

    def __call__(self, samples: Tensor, /) -> Tensor:
        """The features of samples."""


class SetMetric(Metric):
    """A metric of a whole set of videos, like FVD: each gives its features, in any order and in any process."""

    samples: ClassVar[str]  # what features are of: clips | frames

    def reset(self) -> None:
        """Start with the next video."""
        self._features: dict[int, tuple[np.ndarray, np.ndarray]] = {}  # restored, true (d,) by the sample's first frame

    def features(self, video: str) -> SetFeatures:
        """The features of the frames so far, under the name of their video.

        Raises:
            ValueError: they aren't finite.
        """
        found = np.stack([*self._features.values()], axis=1) if self._features else np.zeros((2, 0, 0))
        if not np.isfinite(found).all():
            raise ValueError(f"{self.columns[0].title}: the network's features of this video are not finite")
        return SetFeatures(video, tuple(self._features), found[0], found[1])

    @abstractmethod
    def compute(self, features: Sequence[SetFeatures]) -> Row:
        """The numbers of a set of videos."""


def to_numbers(values: Tensor) -> list[float | None]:
    """(n,) float -> numbers, None for NaN."""
    return [None if value != value else value for value in values.double().tolist()]


def to_images(frames: Tensor) -> np.ndarray:
    """(n, 3, h, w) -> (n, h, w, 3)."""
    return frames.permute(0, 2, 3, 1).contiguous().cpu().numpy()


def _shape_and_type(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
