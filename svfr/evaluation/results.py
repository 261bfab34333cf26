"""Results of a whole evaluation: rows, means with their numbers of videos, the protocol; `results.json`."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from svfr import __version__
from svfr.evaluation.measure import BICUBIC_FACTOR, Evaluator
from svfr.evaluation.pairs import Matches, Pair, Problem, task_folders
from svfr.evaluation.records import Record, compute_set, describe_capped, load_features
from svfr.evaluation.settings import BASELINES
from svfr.evaluation.testset import GROUND_TRUTH, MANIFEST, SETTINGS, read_manifest
from svfr.files import read_json, sha256_of, versions
from svfr.inference.batch import REPORT
from svfr.metrics import COLUMNS, METRICS, SetFeatures, SetMetric
from svfr.networks import describe

RESULTS = "results.json"
# What numbers may depend on.
PACKAGES = (
    *("torch", "torchvision", "numpy", "scipy", "scikit-image", "opencv-python", "av"),
    *("lpips", "onnxruntime", "insightface", "face-alignment"),
)
# Settings of other steps, whose own files say what they were, or that no number depends on.
NOT_MEASURING = ("testset", "restore", "workers")
# Of a report.json.
KEPT = ("svfr", "weights", "weights_sha256", "detector", "settings", "dtype", "packages")
GIB = 2**30  # [bytes]


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


class Provenance(NamedTuple):
    """Where what is compared comes from. What is not known is absent, never a default."""

    test_set: dict[str, Any]  # testset.json and the manifest's sha256; empty if it was not made by make_testset
    rates: dict[Path, float]  # [1/s] by the resolved path of a ground truth, for those whose source has a rate
    restored: dict[str, dict[str, Any]]  # by method and task: weights with their hash, resolved settings, packages
    facts: dict[Path, dict[str, Any]]  # `VideoReport`, by the path of a result


def find_provenance(truth: Path | None, methods: Mapping[str, Path], task: str) -> Provenance:
    """Look beside the ground truth, a folder or one of its videos, and the results; arguments as `match` takes them.

    ValueError for a manifest that is none.
    """
    found = Provenance({}, {}, {}, {})
    places = [truth.resolve(), *truth.resolve().parents] if truth else []
    folder = next((place for place in places if place.name == GROUND_TRUTH), None)
    if folder is not None and (manifest := folder.parent / MANIFEST).is_file():
        found.test_set.update(read_json(folder.parent / SETTINGS), manifest_sha256=sha256_of(manifest))
        rates = {folder / name: entry.get("fps") for name, entry in read_manifest(manifest).items()}
        found.rates.update({path: rate for path, rate in rates.items() if rate is not None})
    for method, results in methods.items():
        for task_name, place in task_folders(results, task)[0].items():
            report = read_json(place / REPORT)
            if {"svfr", "videos"} <= report.keys():  # or it is someone else's
                found.restored.setdefault(method, {})[task_name] = {key: report[key] for key in KEPT if key in report}
                done = [video for video in report["videos"] if video["status"] == "done"]
                found.facts.update({place / video["output"]: video["facts"] for video in done})
    return found


def cost_of(facts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What restoring took, of `VideoReport`s of a method; empty without, or with ones of an older version.

    `unet_runs` (passes through the UNet) and `seconds` a frame, `peak_gib` (the highest) and its `memory` (see
    `svfr.inference.cost`), and `device`.
    """
    costs = [entry["cost"] for entry in facts if "cost" in entry]
    if not costs or len(costs) < len(facts):
        return {}
    num_frames = sum(entry["num_frames"] for entry in facts)
    return {
        "unet_runs": sum(cost["unet_frames"] for cost in costs) / num_frames,
        "seconds": sum(entry["seconds"] for entry in facts) / num_frames,
        "peak_gib": max(cost["peak_memory"] for cost in costs) / GIB,
        **{key: ", ".join(sorted({cost[key] for cost in costs})) for key in ("memory", "device")},
    }


def gather(
    matches: Matches, records: dict[Pair, Record], evaluator: Evaluator, missing: dict[str, str], provenance: Provenance
) -> tuple[Results, Results]:
    """Put the records of all pairs together, whichever process made them; `missing` says why metrics are not computed.

    Gives the results of all videos, and of those of each task that all methods have, baselines too; the same object if
    all have all.
    """
    facts = {pair: provenance.facts[pair.restored] for pair in records if pair.restored in provenance.facts}
    for pair, known in facts.items():
        records[pair].cost = cost_of([known])

    def put_together(by_task: dict[str, dict[Pair, Record]]) -> tuple[list[Record], list[Aggregate]]:
        rows: list[Record] = []
        aggregates: list[Aggregate] = []
        for task, method in product(by_task, matches.methods):
            if found := {pair: record for pair, record in by_task[task].items() if pair.method == method}:
                rows += [replace(record, task=task) for record in found.values()]
                aggregates.append(_aggregate(method, task, found, evaluator))
                aggregates[-1].cost.update(cost_of([facts[pair] for pair in found if pair in facts]))
        for name, reason in missing.items():
            for aggregate, column in product(aggregates, METRICS[name].columns):
                aggregate.metrics[column.name], aggregate.why_none[column.name] = None, reason
        return rows, aggregates

    tasks = matches.tasks or [evaluator.settings.task]
    by_task = {task: {pair: r for pair, r in records.items() if pair.task in (task, "")} for task in tasks}
    problems = [*matches.problems, *(problem for record in records.values() for problem in record.all_problems())]
    protocol = describe_protocol(evaluator, provenance)
    networks = {
        column: metric["network"]["name"]
        for metric in protocol["metrics"]
        for column in metric["columns"]
        if "name" in metric.get("network", {})
    }
    results = Results(protocol, matches.names, *put_together(by_task), problems, missing, networks)
    common = {task: common_videos(found) for task, found in by_task.items()}
    if sum(map(len, common.values())) == sum(row.status == "done" for row in results.rows):
        return results, results
    rows, aggregates = put_together(common)
    return results, replace(results, rows=rows, aggregates=aggregates)


def common_videos(records: dict[Pair, Record]) -> dict[Pair, Record]:
    """The records of a task's videos that all methods have, of those methods that have any."""
    done = {pair: record for pair, record in records.items() if record.status == "done"}
    names = [{pair.name for pair in done if pair.method == method} for method in {pair.method for pair in done}]
    return {pair: record for pair, record in done.items() if all(pair.name in of_method for of_method in names)}


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
            reasons = (record.why_none[column] for record in done if column in record.why_none)
            result.why_none[column] = next(reasons, "no video")
    for index, metric in enumerate(evaluator.built.sets):
        loaded = (load_features(evaluator.output, pair, index) for pair in pairs)
        _add_set_metric(result, metric, [features for features in loaded if features is not None], evaluator.output)
    if capped and method != "ground_truth":
        result.notes.append(f"{method}: {describe_capped(capped, sum(record.num_frames for record in done))}")
    return result


def _add_set_metric(result: Aggregate, metric: SetMetric, videos: list[SetFeatures], output: Path) -> None:
    features = [video for video in videos if video.starts]
    row = compute_set(output, metric, features)
    result.metrics.update(row)
    result.why_none.update({column: "no video is long enough" for column, value in row.items() if value is None})
    if metric.samples == "clips":
        result.clips.extend({"video": video.video, "starts": list(video.starts)} for video in videos)
    if not features:
        return
    title, samples = metric.columns[0].title, metric.samples
    num_samples, dimensions = sum(len(video.starts) for video in features), features[0].truth.shape[1]
    if num_samples < dimensions:
        bias = f"its bias dominates, compare it only with that of as many {samples}"
        result.notes.append(f"{title} of {num_samples} {samples} in {dimensions} dimensions: {bias}")
    if short := len(videos) - len(features):
        result.notes.append(f"{title} leaves out {short} of {len(videos)} videos, which are shorter than its clips")


def describe_protocol(evaluator: Evaluator, provenance: Provenance) -> dict[str, Any]:
    """All that a reader has to know to get the same numbers."""
    settings, detector = evaluator.settings, evaluator.detector
    metrics = (*evaluator.built.video, *evaluator.built.sets)
    return {
        "svfr": __version__,
        "packages": versions(*PACKAGES),
        "name": settings.name,
        **({"test_set": provenance.test_set} if provenance.test_set else {}),
        **({"restored": provenance.restored} if provenance.restored else {}),
        "metrics": [{"columns": [column.name for column in m.columns], **m.protocol} for m in metrics],
        "face_detector": detector and {"name": detector.name, **describe(Path(detector.source))},
        "means": "of frames within a video, then of videos; set metrics as they say",
        "frames": "decoded to uint8 RGB, compared one by one, nothing cut or resized but smaller degraded inputs",
        "baselines": {
            "ground_truth": "the ground truth against itself",
            "degraded": "the degraded input, enlarged by bicubic interpolation where it is smaller",
            "bicubic": f"the ground truth, bicubic down- and upsampled by {BICUBIC_FACTOR}",
        },
        "settings": {key: value for key, value in asdict(settings).items() if key not in NOT_MEASURING},
    }


def with_figures(aggregates: Sequence[Aggregate], columns: Sequence[str]) -> list[str]:
    """Those of some columns in which a row has a figure."""
    return [column for column in columns if any(a.metrics.get(column) is not None for a in aggregates)]


def is_baseline(method: str) -> bool:
    """Whether a row is there for comparison only."""
    return method in BASELINES
