"""Metrics as simple as can be, for tests of what is around them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from svfr.metrics import BuiltMetrics, Chunk, SetFeatures
from svfr.metrics.base import FrameMeans, FrameRows, Row


class Psnr(FrameMeans):
    """Mean of the frames' PSNR."""

    columns: tuple[str, ...] = ("psnr",)
    protocol: Mapping[str, Any] = {"range": 255}

    def __init__(self) -> None:
        self.reset()

    def update(self, chunk: Chunk) -> FrameRows:
        error = (chunk.restored.double() - chunk.truth.double()).square().mean((1, 2, 3)).numpy()
        with np.errstate(divide="ignore"):
            return self.take({"psnr": [float(value) for value in 10 * np.log10(255**2 / error)]})


class Motion(FrameMeans):
    """Stands for what compares neighbouring frames."""

    columns: tuple[str, ...] = ("vidd",)
    protocol: Mapping[str, Any] = {"stride": 1}

    def reset(self) -> None:
        super().reset()
        self._last: Any = None

    def update(self, chunk: Chunk) -> FrameRows:
        values: list[float | None] = []
        for frame in chunk.restored.double():
            values.append(None if self._last is None else float((frame - self._last).abs().mean()))
            self._last = frame
        return self.take({"vidd": values})


class MeanColour:
    """Stands for FVD: distance between mean colours."""

    columns: tuple[str, ...] = ("fvd",)
    protocol: Mapping[str, Any] = {"features": "mean colour"}

    def reset(self, video: str) -> None:
        self._video = video
        self._pairs: list[tuple[np.ndarray, np.ndarray]] = []

    def update(self, chunk: Chunk) -> None:
        for restored, truth in zip(chunk.restored, chunk.truth, strict=True):
            self._pairs.append((restored.double().mean((1, 2)).numpy(), truth.double().mean((1, 2)).numpy()))

    def features(self) -> SetFeatures:
        restored, truth = (np.stack(side) for side in zip(*self._pairs, strict=True))
        return SetFeatures(self._video, tuple(range(len(self._pairs))), restored, truth)

    def compute(self, features: Sequence[SetFeatures]) -> Row:
        if not features:
            return {"fvd": None}
        means = [np.concatenate([getattr(f, side) for f in features]).mean(0) for side in ("restored", "truth")]
        return {"fvd": float(np.abs(means[0] - means[1]).sum())}


def built(missing: dict[str, str] | None = None) -> BuiltMetrics:
    psnr, motion = Psnr(), Motion()
    motion.reset()
    return BuiltMetrics([psnr, motion], [MeanColour()], missing or {"lpips": "network 'lpips_vgg' is missing"})
