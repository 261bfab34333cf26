"""Made videos and the checks that every metric has to pass."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from svfr.metrics.base import Chunk, VideoMetric

Row = dict[str, Any]  # not Row of the package: tests know which numbers are defined


def frames(seed: int, num_frames: int, height: int, width: int) -> Tensor:
    """Smooth random frames (n, 3, h, w) uint8 that move a little."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.uniform(0, 255, (1, 3, 8, 8)))
    drift = torch.from_numpy(rng.uniform(-20, 20, (num_frames, 3, 8, 8)))
    large = torch.nn.functional.interpolate(coarse + drift, size=(height, width), mode="bicubic")
    return large.clamp(0, 255).to(torch.uint8)


def noisy(truth: Tensor, sigma: float, seed: int = 0) -> Tensor:
    """The frames with Gaussian noise of `sigma` levels."""
    noise = torch.from_numpy(np.random.default_rng(seed).normal(0, sigma, truth.shape))
    return (truth + noise).round().clamp(0, 255).to(torch.uint8)


def video(num_frames: int = 9, side: int = 48, landmarks: bool = False) -> Chunk:
    """A noisy video with holes in all frames but the second."""
    truth = frames(0, num_frames, side, side)
    mask = torch.zeros(num_frames, side, side, dtype=torch.bool)
    mask[:, side // 4 : side // 2, side // 3 :] = True
    mask[1:2] = False
    points = torch.tensor([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]]) * side
    drift = torch.arange(num_frames)[:, None, None] * 0.2
    return Chunk(noisy(truth, 12), truth, mask, points + drift if landmarks else None)


def split(chunk: Chunk, lengths: list[int]) -> list[Chunk]:
    """The video in pieces."""
    pieces, at = [], 0
    for length in lengths:
        part = slice(at, at + length)
        mask = None if chunk.mask is None else chunk.mask[part]
        landmarks = None if chunk.landmarks is None else chunk.landmarks[part]
        pieces.append(Chunk(chunk.restored[part], chunk.truth[part], mask, landmarks))
        at += length
    assert at == len(chunk)
    return pieces


def measure(metric: VideoMetric, chunks: list[Chunk]) -> tuple[Row, dict[str, list[Any]]]:
    """The numbers of a video and those of its frames."""
    metric.reset()
    rows: dict[str, list[Any]] = {}
    for chunk in chunks:
        for column, values in metric.update(chunk).items():
            assert len(values) == len(chunk)
            rows.setdefault(column, []).extend(values)
    result = metric.compute()
    assert list(result) == [column.name for column in metric.columns]
    return result, rows


def check_streaming(metric: VideoMetric, chunk: Chunk) -> Row:
    """Cut in any way, alone or after another video, the numbers stay; returns them."""
    whole, frames_whole = measure(metric, [chunk])
    for lengths in ([1] * len(chunk), [2] * (len(chunk) // 2) + [1] * (len(chunk) % 2), [1, len(chunk) - 1]):
        again, frames_again = measure(metric, split(chunk, lengths))
        for column, value in whole.items():
            assert same(again[column], value), f"{column} of chunks {lengths}: {again[column]} is not {value}"
        for column, values in frames_whole.items():
            assert all(same(a, b) for a, b in zip(values, frames_again[column], strict=True)), column
    return whole


def same(a: float | None, b: float | None) -> bool:
    """Equal within 1e-6."""
    return a is b is None or (a is not None and b is not None and abs(a - b) <= 1e-6 * max(1, abs(b)))
