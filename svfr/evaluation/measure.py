"""Compare restored videos with their ground truth, streaming, and keep the numbers; in one process or in several."""

import math
import shutil
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from copy import copy
from dataclasses import dataclass
from functools import partial
from itertools import islice, repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch

from svfr import __version__
from svfr.data.detectors import FaceDetector
from svfr.data.frames import resize, resize_mask
from svfr.data.masks import read_masks
from svfr.data.video import ReadOptions, VideoError, VideoInfo, probe, read_frames
from svfr.evaluation import records
from svfr.evaluation.pairs import Pair
from svfr.evaluation.pictures import Pictures
from svfr.evaluation.records import FRAMES, PICTURES, Record, describe_capped
from svfr.evaluation.settings import EvalConfig
from svfr.evaluation.testset import find_points
from svfr.files import digest, fingerprint, sweep
from svfr.inference.batch import RECORDS, describe_failure
from svfr.inference.workers import Process, Task, Workers
from svfr.metrics import BuiltMetrics, Chunk, Column
from svfr.metrics.base import to_image
from svfr.metrics.image import PSNR_CEILING

# Settings that a record depends on.
MEASURED_BY = ("ignore_fps", "no_reference", "slice_column", "picture_size")
BICUBIC_FACTOR = 4  # by which the row "bicubic" shrinks and enlarges the ground truth
GRAY_SLACK = 2  # Assumption: levels by which the channels of a gray picture may differ (chroma rounding of codecs)


Measuring = Generator[None, Chunk | None, None]  # takes the truth's frames beside themselves, None at its end


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

    def evaluate(self, pairs: Sequence[Pair], on_frames: Callable[[int], None]) -> list[Record]:
        """Measure the pairs of one ground truth in one pass over its frames, or take the records that are there.

        What is computed of the truth alone serves all of them. A pair that fails stops no other; interrupted, the pairs
        of this one ground truth are begun anew. `on_frames` is called with the number of frames done, of each pair.
        """
        found: dict[Pair, Record] = {}
        running: dict[Pair, Measuring] = {}
        for pair in pairs:
            key = self.cache_key(pair)
            kept = records.read_record(self.output, pair, key)
            if kept is not None and kept.status == "done":
                on_frames(kept.num_frames)
                found[pair] = kept
            else:
                found[pair] = Record(pair.method, pair.task, pair.name, "done", key)
                running[pair] = self._measure(pair, found[pair], on_frames)
        try:
            for news in self._true_frames(pairs[0]) if running else ():
                for pair, measuring in list(running.items()):
                    try:
                        _ = measuring.throw(news) if isinstance(news, Exception) else measuring.send(news)
                        continue
                    except StopIteration:
                        pass
                    except Exception as error:  # one pair never stops the rest
                        reason, trace = describe_failure(error, "lower chunk_size")
                        key = found[pair].cache_key
                        found[pair] = Record(pair.method, pair.task, pair.name, "failed", key, reason, trace)
                    del running[pair]
                    records.write_record(self.output, pair, found[pair])
                if not running:
                    break
        finally:  # interrupted: what is half-written is removed
            for measuring in running.values():
                measuring.close()
        return [found[pair] for pair in pairs]

    def _true_frames(self, pair: Pair) -> Iterator[Chunk | Exception | None]:
        """None to begin with, the frames of a ground truth, and None at its end or the error that ended it."""
        yield None
        try:
            points = self._face_points(pair)
            images, start = (frame.image for frame in read_frames(pair.truth)), 0
            while some := list(islice(images, self.settings.chunk_size)):
                landmarks = None if points is None else torch.from_numpy(points[start : start + len(some)])
                frames = _to_frames(some)
                yield Chunk(frames, frames, None, landmarks)
                start += len(some)
            yield None if start else VideoError(f"{pair.truth}: no frames")
        except Exception as error:
            yield error

    def _face_points(self, pair: Pair) -> np.ndarray | None:
        """The points of a ground truth (see `find_points`), which a file keeps for this video and this detector."""
        detector, file = self.detector, self.output / RECORDS / "face_points" / f"{pair.name}.npz"
        if detector is None:
            return None
        key = digest({"files": fingerprint(pair.truth), "detector": [detector.name, detector.source]})
        kept = records.load_arrays(file)
        if str(kept.get("key")) == key:
            return kept["points"]
        images = (frame.image for frame in read_frames(pair.truth))
        points = find_points(images, detector, float(probe(pair.truth).fps))
        records.save_arrays(file, points=points, key=np.array(key))
        return points

    def _measure(self, pair: Pair, record: Record, on_frames: Callable[[int], None]) -> Measuring:
        """Fill in the record, and write what belongs to it into its folder."""
        folder, settings = records.start_record(self.output, pair), self.settings
        info = probe(pair.truth)
        width, height = record.width, record.height = info.width, info.height
        small = [max(1, round(side / BICUBIC_FACTOR)) for side in (width, height)]
        record.fps = float(info.fps) if info.kind == "video" else None  # frames have no rate of their own
        self._compare_infos(pair, info, record)
        # Copies: each pair has its own sums, and all have the same networks.
        videos, sets = [copy(metric) for metric in self.built.video], [copy(metric) for metric in self.built.sets]
        for metric in (*videos, *sets):
            metric.reset()
        frame_values: dict[str, list[float | None]] = {}
        gray_restored, gray_truth, has_hole = True, True, False
        num_faces = num_truth = 0
        restored = (resize(frame.image, width, height) for frame in read_frames(pair.restored or pair.truth))
        holes = _holes(pair.mask, info) if pair.mask else None
        is_truth = pair.method == "ground_truth" or settings.no_reference
        with Pictures(folder / PICTURES, info, settings, is_truth) as pictures:
            while (truth := (yield)) is not None:
                num_truth += len(truth)
                images = true_images = [truth.both("image", at, to_image)[1] for at in range(len(truth))]
                if pair.restored is not None:
                    images = list(islice(restored, len(truth)))
                elif not is_truth:
                    images = [resize(resize(image, *small), width, height) for image in images]
                record.num_frames += len(images)
                if record.num_frames < num_truth:
                    continue  # it has ended; by how much too early is known at the truth's end
                mask = None
                if holes is not None:
                    some = list(islice(holes, len(images)))
                    if len(some) < len(images):
                        ended = num_truth - len(images) + len(some)
                        raise VideoError(f"{pair.mask}: the mask ends after {ended} frames, the ground truth goes on")
                    mask = torch.from_numpy(np.stack(some))
                frames = truth.truth if is_truth else _to_frames(images)
                chunk = Chunk(frames, truth.truth, mask, truth.landmarks, shared=truth.shared)
                for metric in (*videos, *sets):
                    for name, values in metric.update(chunk).items():
                        frame_values.setdefault(name, []).extend(map(_finite, values))
                for at, image in enumerate(images):
                    pictures.add(image, true_images[at])
                    ours, theirs = chunk.both("gray", at, _is_gray)
                    gray_restored, gray_truth = gray_restored and ours, gray_truth and theirs
                    num_faces += chunk.face(at) is not None
                has_hole = has_hole or (mask is not None and bool(mask.any()))
                on_frames(len(images))
            if pair.restored is not None:
                record.num_frames += sum(1 for _ in restored)
            if record.num_frames != num_truth:
                differ = f"{record.num_frames} frames, the ground truth has {num_truth}"
                raise VideoError(f"{pair.restored}: {differ}; nothing is cut")
        for video_metric in videos:
            row = video_metric.compute()
            for column in video_metric.columns:
                if settings.no_reference and not column.no_reference:
                    continue  # it was compared with itself
                record.metrics[column.name] = value = _finite(row[column.name])
                if value is None:
                    why = _why_undefined(column, row[column.name], pair, record.num_frames, has_hole, num_faces)
                    record.why_none[column.name] = why
        for index, set_metric in enumerate(sets):
            records.save_features(self.output, pair, index, set_metric.features(pair.name))
        arrays = {
            name: np.array(values, dtype=np.float64)  # NaN for None
            for name, values in frame_values.items()
            if not settings.no_reference or name in record.metrics
        }
        records.save_arrays(folder / FRAMES, **arrays)
        if gray_restored and not gray_truth and pair.method not in ("degraded", "ground_truth"):
            grey = record.notes if "colorization" in pair.task else record.problems  # there, a result like others
            grey.append("no colour in any frame, though the ground truth has some")
        if lag := pictures.lag():
            late = f"{abs(lag)} frame{'s'[: abs(lag) > 1]} {'late' if lag > 0 else 'early'}"
            record.problems.append(f"fits the ground truth best if taken to be {late}: are frames missing or twice?")
        if record.num_frames == 1 and info.kind != "image":
            record.problems.append("one frame only: what compares neighbouring frames is not defined")
        record.num_capped = sum(value is not None and value >= PSNR_CEILING for value in frame_values.get("psnr", ()))
        if record.num_capped and not is_truth:
            record.notes.append(describe_capped(record.num_capped, record.num_frames))
        if self.detector is not None and (unseen := record.num_frames - num_faces):
            where = "" if settings.no_reference else " of the ground truth"
            record.notes.append(f"no face in {unseen} of {record.num_frames} frames{where}")

    def _compare_infos(self, pair: Pair, truth: VideoInfo, record: Record) -> None:
        """Compare sizes and rates before any frame is decoded; a VideoError if they differ."""
        if pair.restored is None:
            return
        info = probe(pair.restored)
        if (info.width, info.height) != (truth.width, truth.height):
            size = f"{info.width}x{info.height}"
            if pair.method != "degraded":
                differ = f"frames are {size}, the ground truth's {truth.width}x{truth.height}"
                cure = "nothing is resized, restore at the ground truth's size"
                raise VideoError(f"{pair.restored}: {differ}; {cure}")
            record.notes.append(f"enlarged from {size} by bicubic interpolation")
        rates = {abs(float(video.fps)) for video in (info, truth) if video.kind == "video"}
        if len(rates) == 2 and not math.isclose(*rates, rel_tol=1e-3):
            differ = f"{float(info.fps):.5g} frames/s, the ground truth {float(truth.fps):.5g}"
            if not self.settings.ignore_fps:
                cure = "set ignore_fps=true to compare frame by frame all the same"
                raise VideoError(f"{pair.restored}: {differ}; {cure}")
            record.notes.append(f"says {differ}")


def _holes(mask: Path, info: VideoInfo) -> Iterator[np.ndarray]:
    """A hole (h, w) bool for each frame of the mask; that of a single one without end."""
    holes = (resize_mask(hole, info.width, info.height) for hole in read_masks(mask, ReadOptions()))
    return repeat(next(holes)) if probe(mask).num_frames == 1 else holes


def _to_frames(images: Sequence[np.ndarray]) -> torch.Tensor:
    """(h, w, 3) uint8 each -> (n, 3, h, w)."""
    return torch.from_numpy(np.stack(images)).movedim(-1, 1).contiguous()


def _is_gray(frames: torch.Tensor) -> bool:
    """Whether (n, 3, h, w) uint8 frames have no colour."""
    return int((frames.amax(1).int() - frames.amin(1).int()).max()) <= GRAY_SLACK


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def _why_undefined(
    column: Column, value: float | None, pair: Pair, num_frames: int, has_hole: bool, num_faces: int
) -> str:
    if value is not None:
        return "infinite: equal to the ground truth" if value == math.inf else f"not a number ({value})"
    if column.needs_holes and not has_hole:
        return "no holes" if pair.mask is None else "the mask has no holes"
    if column.needs_faces and not num_faces:
        return "no face found in the ground truth"
    return "one frame only" if num_frames == 1 else "not defined for this video"


Make = Callable[[], tuple[Evaluator, object]]  # makes the evaluator of a worker; importable
_made: list[Evaluator] = []  # of a worker's process, once it is needed


def measure_in_workers(
    evaluator: Evaluator, make: Make, count: int, groups: Sequence[list[Pair]]
) -> Generator[Record, None, None]:
    """Measure by `count` processes. A pair that ends its process has failed; another process goes on with the rest.

    `groups` are pairs of a ground truth each; `evaluator` is this process's, which knows the keys of records. Yields
    the record of each pair, once its group is done. Closing it ends the processes.
    """
    keys = {pair: evaluator.cache_key(pair) for group in groups for pair in group}

    def read(pair: Pair) -> Record | None:
        return records.read_record(evaluator.output, pair, keys[pair])

    done = {pair: record for pair in keys if (record := read(pair)) and record.status == "done"}
    yield from done.values()
    for pair in keys.keys() - done:  # what failed before would count as this call's
        shutil.rmtree(records.record_folder(evaluator.output, pair), ignore_errors=True)
    todo = [pairs for group in groups if (pairs := [pair for pair in group if pair not in done])]
    threads = max(1, torch.get_num_threads() // count)
    try:
        with closing(Workers(partial(Process, __name__, "svfr.evaluation.restoring"), count)) as workers:
            while todo:
                alone: list[list[Pair]] = []  # those of a group whose process ended, to know which one ended it
                tasks = [Task(pairs, partial(_measure, make, pairs), threads=threads) for pairs in todo]
                for task, _, why in workers.run(tasks):
                    found = {pair: record for pair in task.key if (record := read(pair))}
                    yield from found.values()
                    left = [pair for pair in task.key if pair not in found]
                    if len(left) == 1:
                        failed = Record(left[0].method, left[0].task, left[0].name, "failed", keys[left[0]])
                        failed.reason = f"{why}: lower workers or chunk_size" if why else "its files are gone"
                        records.write_record(evaluator.output, left[0], failed)
                        yield failed
                    else:
                        alone += [[pair] for pair in left]
                todo = alone
    finally:
        for pair in keys.keys() - done:  # whose processes were ended
            sweep(records.record_folder(evaluator.output, pair))


def _measure(make: Make, pairs: list[Pair]) -> None:
    if not _made:
        _made.append(make()[0])
    _made[0].evaluate(pairs, lambda _: None)
