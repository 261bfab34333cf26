"""What a metric is: it takes a video chunk by chunk, and says one number a column at the end.

A number that isn't defined (no hole in the mask, no face, a single frame) is None, never 0 or NaN. Nothing depends on
how a video is cut into chunks beyond 1e-6, and no metric keeps frames beyond the few it needs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

Row = dict[str, float | None]  # a number by column; None where it isn't defined
FrameRows = dict[str, list[float | None]]  # the same for each frame of a chunk


@dataclass(frozen=True)
class Chunk:
    """Consecutive frames of a restored video beside the ground truth.

    Attributes:
        restored: (n, 3, h, w) uint8 RGB.
        truth: (n, 3, h, w) uint8 RGB.
        mask: (n, h, w) bool, True is a hole; None if nothing was filled in.
        landmarks: (n, 5, 2) float [px] of the truth: eyes, nose, mouth corners; NaN in frames without a face; None if
            they were not searched.
    """

    restored: Tensor
    truth: Tensor
    mask: Tensor | None = None
    landmarks: Tensor | None = None

    def __post_init__(self) -> None:
        for name, frames in (("restored", self.restored), ("truth", self.truth)):
            if frames.dtype != torch.uint8 or frames.ndim != 4 or frames.shape[1] != 3:
                raise ValueError(f"{name} frames have to be (n, 3, h, w) uint8, not {describe_tensor(frames)}")
        if self.restored.shape != self.truth.shape:
            ours, theirs = tuple(self.restored.shape), tuple(self.truth.shape)
            raise ValueError(f"restored frames {ours} and ground truth {theirs} differ in number or size")
        n, _, h, w = self.truth.shape
        if self.mask is not None and (self.mask.dtype != torch.bool or self.mask.shape != (n, h, w)):
            raise ValueError(f"the mask has to be {(n, h, w)} bool, not {describe_tensor(self.mask)}")
        if self.landmarks is not None and self.landmarks.shape != (n, 5, 2):
            raise ValueError(f"landmarks have to be {(n, 5, 2)}, not {describe_tensor(self.landmarks)}")

    def __len__(self) -> int:
        return self.truth.shape[0]


class VideoMetric(Protocol):
    """A metric of single videos; one object serves video after video."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the numbers it gives."""
        ...

    @property
    def protocol(self) -> Mapping[str, Any]:
        """What a report has to state of it: variant, window, network with its file's sha256 (JSON)."""
        ...

    def reset(self) -> None:
        """Forget the last video."""
        ...

    def update(self, chunk: Chunk) -> FrameRows:
        """Take the next frames.

        Returns:
            For the columns that are defined for single frames, their values in this chunk, for distributions and worst
            frames first; what is defined for pairs of frames counts for the later one.
        """
        ...

    def compute(self) -> Row:
        """The numbers of the video so far."""
        ...


@dataclass(frozen=True)
class SetFeatures:
    """What a set metric has to know of one video; small, and all that a resumed or split evaluation keeps.

    Attributes:
        video: name of the video.
        starts: first frames of the clips that were sampled, in order.
        restored: (len(starts), d) float64 features of the restored clips.
        truth: (len(starts), d) float64 features of the same clips of the ground truth.
    """

    video: str
    starts: tuple[int, ...]
    restored: np.ndarray
    truth: np.ndarray


class SetMetric(Protocol):
    """A metric of a whole set of videos, like FVD.

    Each video gives its `features`, in any order and in any process; `compute` puts them together.
    """

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the numbers it gives."""
        ...

    @property
    def protocol(self) -> Mapping[str, Any]:
        """What a report has to state of it (JSON)."""
        ...

    def reset(self, video: str) -> None:
        """Start with the next video, by its name."""
        ...

    def update(self, chunk: Chunk) -> None:
        """Take the next frames."""
        ...

    def features(self) -> SetFeatures:
        """The features of the video so far."""
        ...

    def compute(self, features: Sequence[SetFeatures]) -> Row:
        """The numbers of a set: the metric, the ends of its bootstrap interval and the number of clips."""
        ...


@dataclass(frozen=True)
class Column:
    """How a column is to be read.

    Attributes:
        title: in tables.
        better: "higher", "lower", or "truth" (the nearer to the ground truth's own value).
        unit: "" if it has none.
    """

    title: str
    better: str
    unit: str = ""


class Mean:
    """Running mean of one column; None values don't count."""

    def __init__(self) -> None:
        self.total = 0.0
        self.count = 0

    def add(self, values: Sequence[float | None]) -> None:
        """Take values in their order."""
        for value in values:
            if value is not None:
                self.total += value
                self.count += 1

    @property
    def value(self) -> float | None:
        """The mean, None before the first value."""
        return self.total / self.count if self.count else None


class FrameMeans:
    """The common part of metrics that are a mean over frames: means by column."""

    columns: tuple[str, ...] = ()

    def reset(self) -> None:
        """Forget the last video."""
        self._means = {column: Mean() for column in self.columns}

    def take(self, rows: FrameRows) -> FrameRows:
        """Add a chunk's values, and give them back."""
        for column, values in rows.items():
            self._means[column].add(values)
        return rows

    def compute(self) -> Row:
        """The mean of each column over the frames so far."""
        return {column: self._means[column].value for column in self.columns}


def to_row(values: Tensor) -> list[float | None]:
    """(n,) float -> numbers, None for NaN."""
    return [None if value != value else value for value in values.double().tolist()]


def describe_tensor(tensor: Tensor) -> str:
    """Shape and type of a tensor for an error's line."""
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
