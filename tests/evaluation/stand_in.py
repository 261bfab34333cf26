"""Metrics as simple as can be, for tests of what is around them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from svfr.metrics import COLUMNS, BuiltMetrics, Chunk, SetFeatures, SetMetric, VideoMetric
from svfr.metrics.base import FrameRows, Row


class Psnr(VideoMetric):
    """Mean of the frames' PSNR."""

    columns = (COLUMNS["psnr"],)
    protocol: Mapping[str, Any] = {"range": 255}

    def _measure(self, chunk: Chunk, at: int) -> Row:
        error = (chunk.restored[at].double() - chunk.truth[at].double()).square().mean().numpy()
        with np.errstate(divide="ignore"):
            return {"psnr": float(10 * np.log10(255**2 / error))}


class Motion(VideoMetric):
    """Stands for what compares neighbouring frames."""

    columns = (COLUMNS["vidd"],)
    protocol: Mapping[str, Any] = {"stride": 1}

    def reset(self) -> None:
        super().reset()
        self._last: Any = None

    def _measure(self, chunk: Chunk, at: int) -> Row:
        last, self._last = self._last, chunk.restored[at].double()
        return {} if last is None else {"vidd": float((self._last - last).abs().mean())}


class MeanColour(SetMetric):
    """Stands for FVD: distance between mean colours."""

    columns, samples = (COLUMNS["fvd"],), "clips"
    protocol: Mapping[str, Any] = {"features": "mean colour"}

    def reset(self) -> None:
        self._pairs: list[tuple[np.ndarray, np.ndarray]] = []

    def update(self, chunk: Chunk) -> FrameRows:
        for restored, truth in zip(chunk.restored, chunk.truth, strict=True):
            self._pairs.append((restored.double().mean((1, 2)).numpy(), truth.double().mean((1, 2)).numpy()))
        return {}

    def features(self, video: str) -> SetFeatures:
        restored, truth = (np.stack(side) for side in zip(*self._pairs, strict=True))
        return SetFeatures(video, tuple(range(len(self._pairs))), restored, truth)

    def compute(self, features: Sequence[SetFeatures]) -> Row:
        if not features:
            return {"fvd": None}
        means = [np.concatenate([getattr(f, side) for f in features]).mean(0) for side in ("restored", "truth")]
        return {"fvd": float(np.abs(means[0] - means[1]).sum())}


def built(missing: dict[str, str] | None = None) -> BuiltMetrics:
    return BuiltMetrics([Psnr(), Motion()], [MeanColour()], missing or {"lpips": "network 'lpips_vgg' is missing"})
