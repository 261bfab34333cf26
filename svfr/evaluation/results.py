"""Results of a whole evaluation: rows, means with their numbers of videos, the protocol; `results.json`."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from svfr import __version__
from svfr.data.detectors import FaceDetector
from svfr.evaluation.measure import Evaluator
from svfr.evaluation.pairs import Matches, Pair, Problem
from svfr.evaluation.records import Record, load_features, record_folder
from svfr.evaluation.settings import BASELINES, EvalConfig
from svfr.metrics import COLUMNS, METRICS, BuiltMetrics
from svfr.networks import describe

RESULTS = "results.json"


@dataclass(frozen=True)
class Aggregate:
    """A method on a task.

    Attributes:
        method: see `Pair`.
        task: of the restored videos.
        num_videos: that the means are over.
        num_failed: that could not be compared.
        metrics: mean over videos by column; a set metric's own number; None where there is none.
        std: standard deviation over videos.
        num_defined: videos for which the column has a number.
        why_none: reason by column.
        clips: first frames of the clips that a set metric took, by video; none of a video that is too short.
        notes: what a reader should know, one line each.
    """

    method: str
    task: str
    num_videos: int
    num_failed: int
    metrics: dict[str, float | None] = field(default_factory=dict)
    std: dict[str, float | None] = field(default_factory=dict)
    num_defined: dict[str, int] = field(default_factory=dict)
    why_none: dict[str, str] = field(default_factory=dict)
    clips: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Results:
    """All that tables and the report are made of.

    Attributes:
        protocol: how it was measured.
        names: of all ground-truth videos.
        rows: one a method, task and video; baselines repeated for every task.
        aggregates: one a method and task.
        problems: what could not be compared, or not wholly.
        missing: name of a metric -> why it was not computed.
    """

    protocol: dict[str, Any]
    names: list[str]
    rows: list[Record]
    aggregates: list[Aggregate]
    problems: list[Problem]
    missing: dict[str, str]

    def as_json(self) -> dict[str, Any]:
        """For `results.json`."""
        hidden = ("cache_key", "trace")
        videos = [{key: value for key, value in asdict(row).items() if key not in hidden} for row in self.rows]
        return {
            "protocol": self.protocol,
            "num_videos": len(self.names),
            "videos": videos,
            "aggregates": [asdict(aggregate) for aggregate in self.aggregates],
            "problems": [asdict(problem) for problem in self.problems],
            "not_computed": self.missing,
        }


def gather(
    matches: Matches, records: dict[Pair, Record], evaluator: Evaluator, missing: dict[str, str], task: str
) -> Results:
    """Put the records of all pairs together, whoever made them.

    Args:
        matches: what was compared.
        records: of every pair.
        evaluator: that made them.
        missing: metrics that cannot be computed.
        task: of the rows of baselines where no method names one.
    """
    tasks = matches.tasks or [task]
    by_place: dict[tuple[str, str], dict[str, tuple[Pair, Record]]] = {}
    for pair, record in records.items():
        for row_task in [pair.task] if pair.task else tasks:
            by_place.setdefault((pair.method, row_task), {})[pair.name] = (pair, record)
    rows: list[Record] = []
    aggregates: list[Aggregate] = []
    for row_task in tasks:
        for method in matches.methods:
            found = by_place.get((method, row_task))
            if found:
                rows += [Record(**{**asdict(record), "task": row_task}) for _, record in found.values()]
                aggregates.append(_aggregate(method, row_task, found, evaluator.built, evaluator.output, missing))
    problems = list(matches.problems)
    for pair, record in records.items():
        for reason in [record.reason] if record.reason else record.problems:
            problems.append(Problem(pair.method, pair.task, pair.name, reason))
    protocol = describe_protocol(evaluator.settings, evaluator.built, evaluator.detector)
    return Results(protocol, matches.names, rows, aggregates, problems, missing)


def _aggregate(
    method: str,
    task: str,
    found: dict[str, tuple[Pair, Record]],
    built: BuiltMetrics,
    output: Path,
    missing: dict[str, str],
) -> Aggregate:
    done = [(pair, record) for pair, record in sorted(found.values(), key=lambda entry: entry[0].name)]
    done = [(pair, record) for pair, record in done if record.status == "done"]
    result = Aggregate(method, task, len(done), len(found) - len(done))
    for metric in built.video:
        for column in (column.name for column in metric.columns):
            values = [value for _, record in done if (value := record.metrics.get(column)) is not None]
            result.metrics[column] = statistics.fmean(values) if values else None
            result.std[column] = statistics.stdev(values) if len(values) > 1 else None
            result.num_defined[column] = len(values)
            if not values:
                result.why_none[column] = next(
                    (record.why_none[column] for _, record in done if column in record.why_none), "no video"
                )
    for index, set_metric in enumerate(built.sets):
        loaded = [load_features(record_folder(output, pair), index, pair.name) for pair, _ in done]
        kept = [each for each in loaded if each is not None]
        features = [each for each in kept if each.starts]
        row = set_metric.compute(features)
        result.metrics.update(row)
        result.clips.extend({"video": each.video, "starts": list(each.starts)} for each in kept)
        title = set_metric.columns[0].title
        num_clips = sum(len(each.starts) for each in features)
        dimensions = features[0].truth.shape[1] if features else 0
        if 0 < num_clips < dimensions:
            result.notes.append(
                f"{title} of {num_clips} clips in {dimensions} dimensions: its bias dominates, compare it only with "
                "that of as many clips"
            )
        if features and len(features) < len(kept):
            short = len(kept) - len(features)
            result.notes.append(f"{title} leaves out {short} of {len(kept)} videos, which are shorter than its clips")
        for column in row:
            if row.get(column) is None:
                result.why_none[column] = "no video is long enough"
    for column, reason in _missing_columns(missing).items():
        result.metrics[column] = None
        result.why_none[column] = reason
    return result


def _missing_columns(missing: dict[str, str]) -> dict[str, str]:
    return {column.name: reason for name, reason in missing.items() for column in METRICS[name].columns}


def describe_protocol(settings: EvalConfig, built: BuiltMetrics, detector: FaceDetector | None) -> dict[str, Any]:
    """All that a reader has to know to get the same numbers."""
    metrics: Sequence[Any] = (*built.video, *built.sets)
    return {
        "svfr": __version__,
        "name": settings.name,
        "metrics": [{"columns": [column.name for column in metric.columns], **metric.protocol} for metric in metrics],
        "face_detector": detector and {"name": detector.name, **_file(Path(detector.source))},
        "means": "of frames within a video, then of videos; set metrics as they say",
        "frames": "decoded to uint8 RGB, compared one by one, nothing cut or resized but smaller degraded inputs",
        "baselines": {
            "ground_truth": "the ground truth against itself",
            "degraded": "the degraded input, enlarged by bicubic interpolation where it is smaller",
            "bicubic": f"the ground truth, bicubic down- and upsampled by {settings.bicubic_factor}",
        },
        "settings": asdict(settings),
    }


def _file(path: Path) -> dict[str, Any]:
    return describe(path) if path.is_file() else {"file": path.name}


def ordered_columns(results: Results) -> list[str]:
    """Columns that at least one row has, in a table's order."""
    there = {column for aggregate in results.aggregates for column in aggregate.metrics}
    return [column for column in COLUMNS if column in there]


def is_baseline(method: str) -> bool:
    """Whether a row is there for comparison only."""
    return method in BASELINES
