"""Results of a whole evaluation: rows, means with their numbers of videos, the protocol; `results.json`."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

from svfr import __version__
from svfr.evaluation.measure import Evaluator
from svfr.evaluation.pairs import Matches, Pair, Problem
from svfr.evaluation.provenance import Provenance, cost_of
from svfr.evaluation.records import Record, compute_set, describe_capped, load_features
from svfr.evaluation.settings import BASELINES
from svfr.files import versions
from svfr.metrics import COLUMNS, METRICS, SetFeatures, SetMetric
from svfr.metrics.base import Row
from svfr.networks import describe

RESULTS = "results.json"
# What numbers may depend on.
PACKAGES = (
    *("torch", "torchvision", "numpy", "scipy", "scikit-image", "opencv-python", "av"),
    *("lpips", "onnxruntime", "insightface", "face-alignment"),
)
# Settings of other steps, whose own files say what they were, or that no number depends on.
NOT_MEASURING = ("testset", "restore", "workers")


@dataclass(frozen=True)
class Aggregate:
    """A method on a task."""

    method: str
    task: str
    num_videos: int  # that the means are over
    num_failed: int  # that could not be compared
    num_capped: int = 0  # frames of these videos whose PSNR is at its ceiling
    metrics: dict[str, float | None] = field(default_factory=dict)  # by column: the mean, or a set metric's number
    std: dict[str, float | None] = field(default_factory=dict)  # standard deviation over videos
    num_defined: dict[str, int] = field(default_factory=dict)  # videos for which the column has a number
    why_none: dict[str, str] = field(default_factory=dict)  # by column
    clips: list[dict[str, Any]] = field(default_factory=list)  # of a set metric: `video` and `starts`, first frames
    notes: list[str] = field(default_factory=list)  # what a reader should know, one line each
    cost: dict[str, Any] = field(default_factory=dict)  # of restoring, where it is known; see `cost_of`


@dataclass(frozen=True)
class Results:
    """All that tables and the report are made of."""

    protocol: dict[str, Any]  # how it was measured
    names: list[str]  # of all ground-truth videos
    rows: list[Record]  # one a method, task and video; baselines repeated for every task
    aggregates: list[Aggregate]  # one a method and task
    problems: list[Problem]  # what could not be compared, or not wholly
    missing: dict[str, str]  # name of a metric -> why it was not computed
    networks: dict[str, str]  # by column: name of its network, where there is a choice

    def of(self, task: str) -> list[Aggregate]:
        """The rows of a task, baselines first, then as the methods were given."""
        return [aggregate for aggregate in self.aggregates if aggregate.task == task]

    @property
    def tasks(self) -> list[str]:
        """In canonical order."""
        return list(dict.fromkeys(aggregate.task for aggregate in self.aggregates))

    @property
    def methods(self) -> list[str]:
        """In the order of rows: baselines, then the others as given."""
        return list(dict.fromkeys(aggregate.method for aggregate in self.aggregates))

    @property
    def columns(self) -> list[str]:
        """Those that any row has, with or without a figure, in a table's order."""
        return [column for column in COLUMNS if any(column in aggregate.metrics for aggregate in self.aggregates)]

    def as_json(self) -> dict[str, Any]:
        """For `results.json`."""
        hidden = ("cache_key", "trace")
        return {
            "protocol": self.protocol,
            "num_videos": len(self.names),
            "videos": [{key: value for key, value in asdict(row).items() if key not in hidden} for row in self.rows],
            "aggregates": [asdict(aggregate) for aggregate in self.aggregates],
            "problems": [asdict(problem) for problem in self.problems],
            "not_computed": self.missing,
        }


def gather(
    matches: Matches,
    records: dict[Pair, Record],
    evaluator: Evaluator,
    missing: dict[str, str],
    task: str,
    provenance: Provenance,
) -> Results:
    """Put the records of all pairs together, whichever process made them.

    `missing` has the reason for each metric that was not computed; `task` is that of baselines where no method names
    one.
    """
    rows: list[Record] = []
    aggregates: list[Aggregate] = []
    facts = {pair: provenance.facts[pair.restored] for pair in records if pair.restored in provenance.facts}
    for pair, known in facts.items():
        records[pair].cost = cost_of([known])
    for row_task, method in product(matches.tasks or [task], matches.methods):
        found = {p: r for p, r in records.items() if p.method == method and p.task in (row_task, "")}
        if found:
            rows += [replace(record, task=row_task) for record in found.values()]
            aggregates.append(_aggregate(method, row_task, found, evaluator))
            aggregates[-1].cost.update(cost_of([facts[pair] for pair in found if pair in facts]))
    for name, reason in missing.items():
        for aggregate, column in product(aggregates, METRICS[name].columns):
            aggregate.metrics[column.name], aggregate.why_none[column.name] = None, reason
    problems = list(matches.problems)
    for pair, record in records.items():
        reasons = [record.reason] if record.reason else record.problems
        problems += [Problem(pair.method, pair.task, pair.name, reason) for reason in reasons]
    protocol = describe_protocol(evaluator, provenance)
    networks = {
        column: metric["network"]["name"]
        for metric in protocol["metrics"]
        for column in metric["columns"]
        if "name" in metric.get("network", {})
    }
    return Results(protocol, matches.names, rows, aggregates, problems, missing, networks)


def _aggregate(method: str, task: str, records: dict[Pair, Record], evaluator: Evaluator) -> Aggregate:
    pairs = sorted((pair for pair in records if records[pair].status == "done"), key=lambda pair: pair.name)
    done = [records[pair] for pair in pairs]
    capped = sum(record.num_capped for record in done)
    result = Aggregate(method, task, len(done), len(records) - len(done), capped)
    for column in [column.name for metric in evaluator.built.video for column in metric.columns]:
        values = [value for record in done if (value := record.metrics.get(column)) is not None]
        result.metrics[column] = statistics.fmean(values) if values else None
        result.std[column] = statistics.stdev(values) if len(values) > 1 else None
        result.num_defined[column] = len(values)
        if not values:
            reasons = [record.why_none[column] for record in done if column in record.why_none]
            result.why_none[column] = reasons[0] if reasons else "no video"
    for index, metric in enumerate(evaluator.built.sets):
        loaded = [load_features(evaluator.output, pair, index) for pair in pairs]
        videos = [features for features in loaded if features is not None]
        row = compute_set(evaluator.output, metric, [video for video in videos if video.starts])
        _add_set_metric(result, metric, row, videos)
    if capped and method != "ground_truth":
        result.notes.append(f"{method}: {describe_capped(capped, sum(record.num_frames for record in done))}")
    return result


def _add_set_metric(result: Aggregate, metric: SetMetric, row: Row, videos: list[SetFeatures]) -> None:
    features = [video for video in videos if video.starts]
    result.metrics.update(row)
    result.why_none.update({column: "no video is long enough" for column, value in row.items() if value is None})
    if metric.samples == "clips":
        result.clips.extend({"video": video.video, "starts": list(video.starts)} for video in videos)
    title = metric.columns[0].title
    num_clips = sum(len(video.starts) for video in features)
    dimensions = features[0].truth.shape[1] if features else 0
    if 0 < num_clips < dimensions:
        result.notes.append(
            f"{title} of {num_clips} {metric.samples} in {dimensions} dimensions: its bias dominates, compare it only "
            f"with that of as many {metric.samples}"
        )
    if features and (short := len(videos) - len(features)):
        result.notes.append(f"{title} leaves out {short} of {len(videos)} videos, which are shorter than its clips")


def describe_protocol(evaluator: Evaluator, provenance: Provenance) -> dict[str, Any]:
    """All that a reader has to know to get the same numbers."""
    settings, detector = evaluator.settings, evaluator.detector
    metrics = (*evaluator.built.video, *evaluator.built.sets)
    known = {"test_set": provenance.test_set, "restored": provenance.restored}
    return {
        "svfr": __version__,
        "packages": versions(*PACKAGES),
        "name": settings.name,
        **{key: value for key, value in known.items() if value},
        "metrics": [{"columns": [column.name for column in m.columns], **m.protocol} for m in metrics],
        "face_detector": detector and {"name": detector.name, **describe(Path(detector.source))},
        "means": "of frames within a video, then of videos; set metrics as they say",
        "frames": "decoded to uint8 RGB, compared one by one, nothing cut or resized but smaller degraded inputs",
        "baselines": {
            "ground_truth": "the ground truth against itself",
            "degraded": "the degraded input, enlarged by bicubic interpolation where it is smaller",
            "bicubic": f"the ground truth, bicubic down- and upsampled by {settings.bicubic_factor}",
        },
        "settings": {key: value for key, value in asdict(settings).items() if key not in NOT_MEASURING},
    }


def with_figures(aggregates: Sequence[Aggregate], columns: Sequence[str]) -> list[str]:
    """Those of some columns in which a row has a figure."""
    return [column for column in columns if any(a.metrics.get(column) is not None for a in aggregates)]


def is_baseline(method: str) -> bool:
    """Whether a row is there for comparison only."""
    return method in BASELINES
