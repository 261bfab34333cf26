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
    """Consecutive frames of a restored video beside the ground truth; a ValueError if types or shapes don't fit."""

    restored: Tensor  # (n, 3, h, w) uint8 RGB
    truth: Tensor  # (n, 3, h, w) uint8 RGB
    mask: Tensor | None = None  # (n, h, w) bool, True is a hole; None if nothing was filled in
    landmarks: Tensor | None = None  # (n, 5, 2) float [px] of the truth: eyes, nose, mouth corners; NaN without a face
    # What was computed of the truth, by name: one dictionary for all chunks of the same true frames.
    shared: dict[str, Any] = field(default_factory=dict, kw_only=True)

    def __post_init__(self) -> None:
        n, _, h, w = shape = self.truth.shape
        for name, found, expected, kind in (
            ("ground truth", self.truth, (n, 3, h, w), torch.uint8),
            ("restored frames", self.restored, shape, torch.uint8),
            ("mask", self.mask, (n, h, w), torch.bool),
            ("landmarks", self.landmarks, (n, 5, 2), None),
        ):
            if found is not None and (found.shape != expected or found.dtype != (kind or found.dtype)):
                about = f"{tuple(found.shape)} {found.dtype}"
                raise ValueError(f"{name}: {about}, where the ground truth asks for {tuple(expected)} {kind or ''}")

    def __len__(self) -> int:
        return self.truth.shape[0]

    def of_truth(self, name: str, compute: Callable[[], T]) -> T:
        """What depends on the truth alone, computed by the first that asks for it under this name."""
        if name not in self.shared:
            self.shared[name] = compute()
        return self.shared[name]

    def both(self, name: str, at: int, compute: Callable[[Tensor], T]) -> tuple[T, T]:
        """What is computed of frame number `at`, (1, 3, h, w), by itself: the restored one's, and the truth's, once."""
        truth = self.of_truth(f"{name} {at}", lambda: compute(self.truth[at : at + 1]))
        return truth if self.restored is self.truth else compute(self.restored[at : at + 1]), truth

    def on(self, device: str, at: int) -> tuple[Tensor, Tensor]:
        """The restored and the true frame number `at`, (1, 3, h, w), on a device."""
        return self.both(f"frame on {device}", at, lambda frame: frame.to(device))

    def face(self, at: int) -> np.ndarray | None:
        """Landmarks (5, 2) float64 [px] of frame number `at`; None without a face."""
        points = None if self.landmarks is None else self.landmarks[at].double().cpu().numpy()
        return points if points is not None and np.isfinite(points).all() else None


class NetworkOptions(NamedTuple):
    """Where networks lie, where they run, and which of them a metric uses."""

    folder: Path | None  # searched before $SVFR_NETWORKS, the user's cache and PyTorch's
    device: str  # of those that run in torch
    recognizer: str  # of `ids`, as `svfr.metrics.identity.load_face_network` takes it
    landmarker: str  # of `landmarks`, as `svfr.data.landmarks.load_landmarker` takes it
    download: bool  # whether missing ones may be downloaded
    photo: Path | None = None  # of the person, for `photo`


class Metric(ABC):
    """What metrics have in common; one object serves video after video, with a `reset` before each."""

    columns: ClassVar[tuple[Column, ...]]  # the numbers that it gives, in a table's order
    device: str = "cpu"  # where pixels are computed with in float64
    protocol: Mapping[str, Any]  # what a report has to state: variant, window, network with its file's sha256 (JSON)

    @classmethod
    def build(cls, options: NetworkOptions) -> "Metric":
        """Make it with its networks.

        NetworkMissing if one is not there, ValueError if it is something else or a package is not installed.
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
        """Take the next frames, and give their values; that of a pair of frames counts for the later one."""


class VideoMetric(Metric):
    """A metric of single videos: the mean over the frames for which it is defined.

    Frames are computed with one by one, so that no number depends on how a video is cut, to the last bit.
    """

    @abstractmethod
    def _measure(self, chunk: Chunk, at: int) -> Row:
        """The numbers of frame number `at` of a chunk, the next of the video; columns that are not defined may lack."""

    def reset(self) -> None:
        """Start with the next video."""
        self._num_frames = 0  # so far
        self._sums = {column.name: 0.0 for column in self.columns}
        self._counts = dict.fromkeys(self._sums, 0)

    def update(self, chunk: Chunk) -> FrameRows:
        """Take the next frames, and give their values."""
        rows: FrameRows = {column: [] for column in self._sums}
        for at in range(len(chunk)):
            row = self._measure(chunk, at)
            for column, values in rows.items():
                values.append(value := row.get(column))
                if value is not None:
                    self._sums[column] += value
                    self._counts[column] += 1
            self._num_frames += 1
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
        """The features of the frames so far, under the name of their video; a ValueError if they aren't finite."""
        found = np.stack([*self._features.values()], axis=1) if self._features else np.zeros((2, 0, 0))
        if not np.isfinite(found).all():
            raise ValueError(f"{self.columns[0].title}: the network's features of this video are not finite")
        return SetFeatures(video, tuple(self._features), found[0], found[1])

    @abstractmethod
    def compute(self, features: Sequence[SetFeatures]) -> Row:
        """The numbers of a set of videos."""


def to_number(value: Tensor) -> float | None:
    """A tensor of one number as such, None for NaN."""
    return None if value.isnan() else value.item()


def to_image(frame: Tensor) -> np.ndarray:
    """(1, 3, h, w) -> (h, w, 3)."""
    return frame[0].permute(1, 2, 0).contiguous().cpu().numpy()
