"""Compare one restored video with its ground truth, streaming, and keep the numbers."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from svfr import __version__
from svfr.data.detectors import FaceDetector
from svfr.data.frames import resize, resize_mask
from svfr.data.video import VideoError, VideoInfo, probe, read_frames
from svfr.evaluation.face_points import face_points
from svfr.evaluation.pairs import Pair
from svfr.evaluation.pictures import Pictures
from svfr.evaluation.records import (
    PICTURES,
    Record,
    read_record,
    record_folder,
    save_features,
    save_frames,
    start_record,
    write_record,
)
from svfr.evaluation.settings import EvalConfig
from svfr.files import digest, fingerprint
from svfr.inference.batch import RECORDS, describe_failure
from svfr.metrics import BuiltMetrics, Chunk, Column

GRAY_SLACK = 2  # Assumption: levels by which the channels of a gray picture may differ (chroma rounding of codecs)


class Sight(NamedTuple):
    """One frame of a pair."""

    restored: np.ndarray  # (h, w, 3) uint8
    truth: np.ndarray  # (h, w, 3) uint8
    hole: np.ndarray | None  # (h, w) bool


@dataclass
class Evaluator:
    """Measures pairs and keeps their records.

    Attributes:
        built: the metrics.
        detector: finds the faces of the ground truth; None if no metric asks for them.
        settings: of the evaluation.
        output: its folder.
    """

    built: BuiltMetrics
    detector: FaceDetector | None
    settings: EvalConfig
    output: Path

    def cache_key(self, pair: Pair) -> str:
        """Digest of all that the record of a pair depends on; empty where a file is not there."""
        settings = self.settings
        try:
            facts: dict[str, Any] = {
                "svfr": __version__,
                "files": [fingerprint(path) for path in (pair.truth, pair.restored, pair.mask)],
                "method": pair.method,
                "metrics": [
                    *(dict(m.protocol) for m in self.built.video),
                    *(dict(m.protocol) for m in self.built.sets),
                ],
                "detector": self.detector and [self.detector.name, self.detector.source],
                "settings": [
                    settings.bicubic_factor,
                    settings.ignore_fps,
                    settings.strip_frames,
                    settings.picture_size,
                ],
            }
        except OSError:
            return ""
        return digest(facts)

    def evaluate(self, pair: Pair, on_frames: Callable[[int], None]) -> tuple[Record, bool]:
        """Measure a pair, or take the record that is there.

        Args:
            pair: what to compare.
            on_frames: told of frames that are done.

        Returns:
            The record, and whether it was there before.
        """
        cache_key = self.cache_key(pair)
        kept = read_record(self.output, pair, cache_key)
        if kept is not None and kept.status == "done":
            on_frames(kept.num_frames)
            return kept, True
        start_record(self.output, pair)
        try:
            record = self._measure(pair, cache_key, on_frames)
        except Exception as error:  # one pair never stops the rest
            reason, trace = describe_failure(error, "lower chunk_size")
            record = Record(pair.method, pair.task, pair.name, "failed", cache_key, reason=reason, trace=trace)
        write_record(self.output, pair, record)
        return record, False

    def _measure(self, pair: Pair, cache_key: str, on_frames: Callable[[int], None]) -> Record:
        settings = self.settings
        info = probe(pair.truth)
        record = Record(
            pair.method,
            pair.task,
            pair.name,
            "done",
            cache_key,
            width=info.width,
            height=info.height,
            fps=float(info.fps),
        )
        self._check(pair, info, record)
        points = self._points(pair)
        folder = record_folder(self.output, pair)
        for metric in self.built.video:
            metric.reset()
        for set_metric in self.built.sets:
            set_metric.reset()
        frames: dict[str, list[float | None]] = {}
        gray = [True, True]
        has_hole = False
        pictures = Pictures(
            folder / PICTURES,
            info,
            settings.picture_size,
            settings.strip_frames,
            is_truth=pair.method == "ground_truth",
        )
        with pictures:
            for sights in _chunks(self._sights(pair, info), settings.chunk_size):
                chunk = _to_chunk(sights, None if points is None else points[record.num_frames :])
                for column, values in self._update(chunk).items():
                    frames.setdefault(column, []).extend(_finite(value) for value in values)
                for sight in sights:
                    pictures.add(sight.restored, sight.truth)
                has_hole = has_hole or (chunk.mask is not None and bool(chunk.mask.any()))
                gray = [gray[0] and _is_gray(chunk.restored), gray[1] and _is_gray(chunk.truth)]
                record.num_frames += len(sights)
                on_frames(len(sights))
            if not record.num_frames:
                raise VideoError(f"{pair.truth}: no frames")
        for metric in self.built.video:
            row = metric.compute()
            for column in metric.columns:
                value = row[column.name]
                record.metrics[column.name] = _finite(value)
                if record.metrics[column.name] is None:
                    record.why_none[column.name] = _why(column, value, pair, record.num_frames, has_hole, points)
        for index, set_metric in enumerate(self.built.sets):
            save_features(folder, index, set_metric.features(pair.name))
        save_frames(folder, frames)
        if gray[0] and not gray[1] and pair.method not in ("degraded", "ground_truth"):
            record.problems.append("no colour in any frame, though the ground truth has some")
        if record.num_frames == 1 and info.kind != "image":
            record.problems.append("one frame only: what compares neighbouring frames is not defined")
        if points is not None and (unseen := int(np.isnan(points[:, 0, 0]).sum())):
            record.notes.append(f"no face in {unseen} of {record.num_frames} frames of the ground truth")
        return record

    def _update(self, chunk: Chunk) -> dict[str, list[float | None]]:
        rows: dict[str, list[float | None]] = {}
        for metric in self.built.video:
            rows.update(metric.update(chunk))
        for set_metric in self.built.sets:
            set_metric.update(chunk)
        return rows

    def _check(self, pair: Pair, truth: VideoInfo, record: Record) -> None:
        """Compare sizes and rates before any frame is decoded.

        Raises:
            VideoError: they differ.
        """
        if pair.restored is None:
            return
        info = probe(pair.restored)
        if (info.width, info.height) != (truth.width, truth.height):
            if pair.method != "degraded":
                raise VideoError(
                    f"{pair.restored}: frames are {info.width}x{info.height}, the ground truth's "
                    f"{truth.width}x{truth.height}; nothing is resized, restore at the ground truth's size"
                )
            record.notes.append(f"enlarged from {info.width}x{info.height} by bicubic interpolation")
        rates = {abs(float(video.fps)) for video in (info, truth) if video.kind == "video"}
        if len(rates) == 2 and not math.isclose(*rates, rel_tol=1e-3):
            if not self.settings.ignore_fps:
                raise VideoError(
                    f"{pair.restored}: {float(info.fps):.5g} frames/s, the ground truth {float(truth.fps):.5g}; "
                    "set ignore_fps=true to compare frame by frame all the same"
                )
            record.notes.append(f"says {float(info.fps):.5g} frames/s, the ground truth {float(truth.fps):.5g}")

    def _points(self, pair: Pair) -> np.ndarray | None:
        if self.detector is None:
            return None
        cache = self.output / RECORDS / "face_points" / f"{pair.name}.npz"
        return face_points(pair.truth, self.detector, cache)

    def _sights(self, pair: Pair, info: VideoInfo) -> Iterator[Sight]:
        """Frames of both videos, with their holes.

        Raises:
            VideoError: one ends before the other, or cannot be read.
        """
        truths = read_frames(pair.truth)
        holes = _holes(pair, info)
        if pair.restored is None:
            factor = self.settings.bicubic_factor
            for frame in truths:
                image = frame.image
                restored = image if pair.method == "ground_truth" else shrink_and_enlarge(image, factor)
                yield Sight(restored, image, None)
            return
        others = read_frames(pair.restored)
        count = 0
        for frame in truths:
            other = next(others, None)
            if other is None:
                total = count + 1 + sum(1 for _ in truths)
                raise VideoError(f"{pair.restored}: {count} frames, the ground truth has {total}; nothing is cut")
            yield Sight(resize(other.image, info.width, info.height), frame.image, next(holes))
            count += 1
        if next(others, None) is not None:
            total = count + 1 + sum(1 for _ in others)
            raise VideoError(f"{pair.restored}: {total} frames, the ground truth has {count}; nothing is cut")


def shrink_and_enlarge(image: np.ndarray, factor: int) -> np.ndarray:
    """(h, w, 3) uint8 after bicubic down- and upsampling by `factor`, antialiased."""
    height, width = image.shape[:2]
    return resize(resize(image, max(1, round(width / factor)), max(1, round(height / factor))), width, height)


def _holes(pair: Pair, info: VideoInfo) -> Iterator[np.ndarray | None]:
    if pair.mask is None:
        yield from repeat(None)
        return
    masks = (frame.image.max(axis=-1) for frame in read_frames(pair.mask))
    if probe(pair.mask).num_frames == 1:
        hole = resize_mask(next(masks), info.width, info.height)
        yield from repeat(hole)
    count = 0
    for count, mask in enumerate(masks, start=1):  # noqa: B007 (told after the loop)
        yield resize_mask(mask, info.width, info.height)
    raise VideoError(f"{pair.mask}: the mask ends after {count} frames, the ground truth goes on")


def _chunks(sights: Iterator[Sight], size: int) -> Iterator[list[Sight]]:
    chunk: list[Sight] = []
    for sight in sights:
        chunk.append(sight)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _to_chunk(sights: list[Sight], points: np.ndarray | None) -> Chunk:
    def stack(images: list[np.ndarray]) -> torch.Tensor:
        return torch.from_numpy(np.stack(images)).movedim(-1, 1).contiguous()

    holes = [sight.hole for sight in sights if sight.hole is not None]
    return Chunk(
        restored=stack([sight.restored for sight in sights]),
        truth=stack([sight.truth for sight in sights]),
        mask=torch.from_numpy(np.stack(holes)) if holes else None,
        landmarks=None if points is None else torch.from_numpy(points[: len(sights)]),
    )


def _is_gray(frames: torch.Tensor) -> bool:
    """Whether (n, 3, h, w) uint8 frames have no colour."""
    return int((frames.amax(1).int() - frames.amin(1).int()).max()) <= GRAY_SLACK


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def _why(
    column: Column, value: float | None, pair: Pair, num_frames: int, has_hole: bool, points: np.ndarray | None
) -> str:
    """Why a column of a video has no number."""
    if value is not None:
        return "infinite: equal to the ground truth" if value == math.inf else f"not a number ({value})"
    if column.needs_holes and not has_hole:
        return "no holes" if pair.mask is None else "the mask has no holes"
    if column.needs_faces and (points is None or np.isnan(points).all()):
        return "no face found in the ground truth"
    if num_frames == 1:
        return "one frame only"
    return "not defined for this video"
