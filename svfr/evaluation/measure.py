"""Compare one restored video with its ground truth, streaming, and keep the numbers."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice, repeat, zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from svfr import __version__
from svfr.data.detectors import FaceDetector
from svfr.data.frames import resize, resize_mask
from svfr.data.video import VideoError, VideoInfo, probe, read_frames
from svfr.evaluation import records
from svfr.evaluation.face_points import face_points
from svfr.evaluation.pairs import Pair
from svfr.evaluation.pictures import Pictures
from svfr.evaluation.records import FRAMES, PICTURES, Record
from svfr.evaluation.settings import EvalConfig
from svfr.files import digest, fingerprint
from svfr.inference.batch import RECORDS, describe_failure
from svfr.metrics import BuiltMetrics, Chunk, Column

MEASURED_BY = ("bicubic_factor", "ignore_fps", "strip_frames", "picture_size")  # settings that a record depends on
GRAY_SLACK = 2  # Assumption: levels by which the channels of a gray picture may differ (chroma rounding of codecs)


class FramePair(NamedTuple):
    """A restored frame beside the true one."""

    restored: np.ndarray  # (h, w, 3) uint8
    truth: np.ndarray  # (h, w, 3) uint8
    hole: np.ndarray | None  # (h, w) bool


@dataclass
class Evaluator:
    """Measures pairs and keeps their records."""

    built: BuiltMetrics
    detector: FaceDetector | None  # finds the faces of the ground truth; None if no metric asks for them
    settings: EvalConfig
    output: Path  # folder of the evaluation

    def cache_key(self, pair: Pair) -> str:
        """Digest of all that the record of a pair depends on; empty where a file is not there."""
        facts: dict[str, Any] = {
            "svfr": __version__,
            "method": pair.method,
            "metrics": [dict(metric.protocol) for metric in (*self.built.video, *self.built.sets)],
            "detector": self.detector and [self.detector.name, self.detector.source],
            "settings": [getattr(self.settings, key) for key in MEASURED_BY],
        }
        try:
            return digest({**facts, "files": [fingerprint(path) for path in (pair.truth, pair.restored, pair.mask)]})
        except OSError:
            return ""

    def evaluate(self, pair: Pair, on_frames: Callable[[int], None]) -> Record:
        """Measure a pair, or take the record that is there; `on_frames` is called with the number of frames done."""
        cache_key = self.cache_key(pair)
        kept = records.read_record(self.output, pair, cache_key)
        if kept is not None and kept.status == "done":
            on_frames(kept.num_frames)
            return kept
        record = Record(pair.method, pair.task, pair.name, "done", cache_key)
        try:
            self._measure(pair, record, records.start_record(self.output, pair), on_frames)
        except Exception as error:  # one pair never stops the rest
            reason, trace = describe_failure(error, "lower chunk_size")
            record = Record(pair.method, pair.task, pair.name, "failed", cache_key, reason=reason, trace=trace)
        records.write_record(self.output, pair, record)
        return record

    def _measure(self, pair: Pair, record: Record, folder: Path, on_frames: Callable[[int], None]) -> None:
        """Fill in the record, and write what belongs to it into its folder."""
        settings, info = self.settings, probe(pair.truth)
        record.width, record.height = info.width, info.height
        record.fps = float(info.fps) if info.kind == "video" else None  # frames have no rate of their own
        self._compare_infos(pair, info, record)
        points = None
        if self.detector is not None:
            cache = self.output / RECORDS / "face_points" / f"{pair.name}.npz"
            points = face_points(pair.truth, self.detector, cache)
        metrics = (*self.built.video, *self.built.sets)
        for metric in metrics:
            metric.reset()
        frame_values: dict[str, list[float | None]] = {}
        gray_restored = gray_truth = True
        has_hole = False
        pairs = self._frame_pairs(pair, info)
        is_truth = pair.method == "ground_truth"
        with Pictures(folder / PICTURES, info, settings.picture_size, settings.strip_frames, is_truth) as pictures:
            while frames := list(islice(pairs, settings.chunk_size)):
                chunk = _to_chunk(frames, None if points is None else points[record.num_frames :])
                for metric in metrics:
                    for name, values in metric.update(chunk).items():
                        frame_values.setdefault(name, []).extend(map(_finite, values))
                for frame in frames:
                    pictures.add(frame.restored, frame.truth)
                has_hole = has_hole or (chunk.mask is not None and bool(chunk.mask.any()))
                gray_restored = gray_restored and _is_gray(chunk.restored)
                gray_truth = gray_truth and _is_gray(chunk.truth)
                record.num_frames += len(frames)
                on_frames(len(frames))
            if not record.num_frames:
                raise VideoError(f"{pair.truth}: no frames")
        for video_metric in self.built.video:
            row = video_metric.compute()
            for column in video_metric.columns:
                value = row[column.name]
                record.metrics[column.name] = _finite(value)
                if _finite(value) is None:
                    why = _why_undefined(column, value, pair, record.num_frames, has_hole, points)
                    record.why_none[column.name] = why
        for index, set_metric in enumerate(self.built.sets):
            records.save_features(folder, index, set_metric.features(pair.name))
        arrays = {name: np.array(values, dtype=np.float64) for name, values in frame_values.items()}  # NaN for None
        records.save_arrays(folder / FRAMES, **arrays)
        if gray_restored and not gray_truth and pair.method not in ("degraded", "ground_truth"):
            record.problems.append("no colour in any frame, though the ground truth has some")
        if record.num_frames == 1 and info.kind != "image":
            record.problems.append("one frame only: what compares neighbouring frames is not defined")
        if points is not None and (unseen := int(np.isnan(points[:, 0, 0]).sum())):
            record.notes.append(f"no face in {unseen} of {record.num_frames} frames of the ground truth")

    def _compare_infos(self, pair: Pair, truth: VideoInfo, record: Record) -> None:
        """Compare sizes and rates before any frame is decoded.

        Raises:
            VideoError: they differ.
        """
        if pair.restored is None:
            return
        info = probe(pair.restored)
        if (info.width, info.height) != (truth.width, truth.height):
            size = f"{info.width}x{info.height}"
            if pair.method != "degraded":
                raise VideoError(
                    f"{pair.restored}: frames are {size}, the ground truth's {truth.width}x{truth.height}; "
                    "nothing is resized, restore at the ground truth's size"
                )
            record.notes.append(f"enlarged from {size} by bicubic interpolation")
        rates = {abs(float(video.fps)) for video in (info, truth) if video.kind == "video"}
        if len(rates) == 2 and not math.isclose(*rates, rel_tol=1e-3):
            differ = f"{float(info.fps):.5g} frames/s, the ground truth {float(truth.fps):.5g}"
            if not self.settings.ignore_fps:
                cure = "set ignore_fps=true to compare frame by frame all the same"
                raise VideoError(f"{pair.restored}: {differ}; {cure}")
            record.notes.append(f"says {differ}")

    def _frame_pairs(self, pair: Pair, info: VideoInfo) -> Iterator[FramePair]:
        """Frames of both videos, with their holes.

        Raises:
            VideoError: one ends before the other, or cannot be read.
        """
        truths = (frame.image for frame in read_frames(pair.truth))
        if pair.restored is None:
            factor = 1 if pair.method == "ground_truth" else self.settings.bicubic_factor
            yield from (FramePair(shrink_and_enlarge(truth, factor), truth, None) for truth in truths)
            return
        holes = _holes(pair.mask, info) if pair.mask else repeat(None)
        num_truth = num_restored = 0
        for truth, frame in zip_longest(truths, read_frames(pair.restored)):
            num_truth += truth is not None
            num_restored += frame is not None
            if num_truth == num_restored:
                hole = next(holes, None)
                if pair.mask and hole is None:
                    ends = f"the mask ends after {num_truth - 1} frames, the ground truth goes on"
                    raise VideoError(f"{pair.mask}: {ends}")
                yield FramePair(resize(frame.image, info.width, info.height), truth, hole)
        if num_truth != num_restored:
            differ = f"{num_restored} frames, the ground truth has {num_truth}"
            raise VideoError(f"{pair.restored}: {differ}; nothing is cut")


def shrink_and_enlarge(image: np.ndarray, factor: int) -> np.ndarray:
    """(h, w, 3) uint8 after bicubic down- and upsampling by `factor`, antialiased."""
    height, width = image.shape[:2]
    return resize(resize(image, max(1, round(width / factor)), max(1, round(height / factor))), width, height)


def _holes(mask: Path, info: VideoInfo) -> Iterator[np.ndarray]:
    """A hole (h, w) bool for each frame of the mask; that of a single one without end."""
    holes = (resize_mask(frame.image.max(axis=-1), info.width, info.height) for frame in read_frames(mask))
    return repeat(next(holes)) if probe(mask).num_frames == 1 else holes


def _to_chunk(frames: list[FramePair], points: np.ndarray | None) -> Chunk:
    both = torch.from_numpy(np.stack([(frame.restored, frame.truth) for frame in frames]))  # (n, 2, h, w, 3)
    restored, truth = both.movedim((1, -1), (0, 2)).contiguous()  # (n, 3, h, w) each
    holes = [frame.hole for frame in frames if frame.hole is not None]
    mask = torch.from_numpy(np.stack(holes)) if holes else None
    return Chunk(restored, truth, mask, None if points is None else torch.from_numpy(points[: len(frames)]))


def _is_gray(frames: torch.Tensor) -> bool:
    """Whether (n, 3, h, w) uint8 frames have no colour."""
    return int((frames.amax(1).int() - frames.amin(1).int()).max()) <= GRAY_SLACK


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def _why_undefined(
    column: Column, value: float | None, pair: Pair, num_frames: int, has_hole: bool, points: np.ndarray | None
) -> str:
    if value is not None:
        return "infinite: equal to the ground truth" if value == math.inf else f"not a number ({value})"
    if column.needs_holes and not has_hole:
        return "no holes" if pair.mask is None else "the mask has no holes"
    if column.needs_faces and (points is None or np.isnan(points).all()):
        return "no face found in the ground truth"
    return "one frame only" if num_frames == 1 else "not defined for this video"
