"""The quality ladder: steps x guidance x sampler on held-out clips, quality against runs of the UNet."""

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from svfr.demo.clips import DegradedClip, held_out_clip, trivial_baseline
from svfr.demo.quality import SHOWN, counted_calls, mean_row, measure
from svfr.inference.pipeline import SVFRPipeline
from svfr.metrics.base import Row, VideoMetric

TASK_SETS: tuple[tuple[str, ...], ...] = (
    ("bfr",),
    ("colorization",),
    ("inpainting",),
    ("bfr", "colorization", "inpainting"),
)
BASELINES = ("degraded", "trivial")
# Which columns a choice weighs: fidelity, detail and stability alike.
JUDGED = {"fidelity": ("psnr", "ids"), "detail": ("gmsd", "gradient_energy"), "stability": ("vidd", "warping_error")}
TOLERANCE = 0.05  # Assumption: of the range between the worst and the best point, that nobody sees


@dataclass(frozen=True)
class Point:
    """One setting of sampling."""

    steps: int
    guidance: float
    sampler: str

    @property
    def name(self) -> str:
        """In tables and records."""
        return f"{self.sampler} {self.steps} x {self.guidance:g}"


@dataclass(frozen=True)
class Record:
    """One clip under one setting, or by a baseline."""

    method: str
    tasks: str
    seed: int
    calls: float
    """Runs of the UNet per frame of the result."""
    seconds: float
    """Per frame of the result."""
    metrics: Row


def make_points(steps: Sequence[int], guidances: Sequence[float], samplers: Sequence[str]) -> list[Point]:
    """All settings, cheapest first; with one or two steps, DPM++ 2M is Euler's method, and is left out."""
    found = [
        Point(number, guidance, sampler)
        for number, guidance, sampler in product(sorted(set(steps)), sorted(set(guidances)), dict.fromkeys(samplers))
        if sampler != "dpmpp_2m" or number > 2 or "euler" not in samplers
    ]

    def calls(point: Point) -> int:
        return (point.steps + (point.sampler == "antithetic")) * (1 if point.guidance == 1 else 2)

    return sorted(found, key=calls)


def restore(pipe: SVFRPipeline, clip: DegradedClip, **options: Any) -> np.ndarray:
    """A clip restored as a user's would be; (f, s, s, 3) uint8. Options: see `SVFRPipeline.__call__`."""
    restored = pipe(clip.blurred, clip.tasks, mask=clip.mask, **options)
    assert isinstance(restored, np.ndarray)
    return restored


def climb(
    pipe: SVFRPipeline,
    metrics: Sequence[VideoMetric],
    points: Sequence[Point],
    records: Path,
    *,
    num_clips: int,
    num_frames: int,
    preset: str,
    on_record: Callable[[], None],
    task_sets: Sequence[tuple[str, ...]] = TASK_SETS,
) -> list[Record]:
    """Measure the baselines and every point on the same clips; what `records` holds is not measured again.

    Args:
        pipe: the model.
        metrics: of `build_quality`.
        points: settings.
        records: JSON lines, appended to.
        num_clips: held-out clips of each task.
        num_frames: of a clip; more than the model's clip length, or guidance has no reference to guide by.
        preset: of the degradations of bfr.
        on_record: called after each measurement.
        task_sets: combinations of tasks.

    Returns:
        All records of this call's clips and settings.
    """
    done = {(r.method, r.tasks, r.seed): r for r in read_records(records)}
    wanted: list[Record] = []
    records.parent.mkdir(parents=True, exist_ok=True)
    if records.is_file() and not records.read_text().endswith("\n"):
        with records.open("a") as file:
            file.write("\n")  # after a line that was cut off
    size = pipe.parts.settings.size
    with records.open("a") as file:
        for tasks, index in product(task_sets, range(num_clips)):
            clip = held_out_clip(index, tasks, num_frames, size, preset)
            methods: list[str | Point] = [*BASELINES, *points]
            for method in methods:
                name = method if isinstance(method, str) else method.name
                record = done.get((name, ",".join(tasks), clip.seed))
                if record is None:
                    record = _measure(pipe, metrics, method, clip)
                    file.write(json.dumps(asdict(record)) + "\n")
                    file.flush()
                wanted.append(record)
                on_record()
    return wanted


def read_records(path: Path) -> list[Record]:
    """The records of a file; a line that was cut off is left out."""
    found = []
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            found.append(Record(**json.loads(line)))
        except (ValueError, TypeError):
            continue
    return found


def _measure(pipe: SVFRPipeline, metrics: Sequence[VideoMetric], method: str | Point, clip: DegradedClip) -> Record:
    start, calls = time.perf_counter(), [0]
    if isinstance(method, Point):
        with counted_calls(pipe.parts) as calls:
            restored = restore(
                pipe,
                clip,
                num_inference_steps=method.steps,
                guidance_scale=method.guidance,
                sampler=method.sampler,
            )
    else:
        restored = clip.degraded if method == "degraded" else trivial_baseline(clip)
    seconds = (time.perf_counter() - start) / len(restored)
    name = method if isinstance(method, str) else method.name
    row = measure(metrics, restored, clip)
    shown = {column: row.get(column) for column, _, _ in SHOWN}
    return Record(name, ",".join(clip.tasks), clip.seed, sum(calls) / len(restored), seconds, shown)


def summarize(records: Iterable[Record], tasks: str | None = None) -> dict[str, Record]:
    """Means over clips by method, of one combination of tasks or of all."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        if tasks is None or record.tasks == tasks:
            groups.setdefault(record.method, []).append(record)
    return {
        method: Record(
            method,
            tasks or "all",
            len(group),
            float(np.mean([record.calls for record in group])),
            float(np.mean([record.seconds for record in group])),
            mean_row([record.metrics for record in group]),
        )
        for method, group in groups.items()
    }


def scores(summary: dict[str, Record]) -> dict[str, float]:
    """How good each point is, from 0 to 1: of every judged column, where it lies between the worst and the best
    point; the mean over the columns of fidelity, detail and stability, then over these three."""
    points = {method: record for method, record in summary.items() if method not in BASELINES}
    better = {column: direction for column, _, direction in SHOWN}
    total = dict.fromkeys(points, 0.0)
    for columns in JUDGED.values():
        for column in columns:
            badness = {}
            for method, record in points.items():
                value = record.metrics.get(column)
                if value is None:
                    continue
                badness[method] = -value if better[column] else value if better[column] is False else abs(value - 1)
            worst, best = max(badness.values(), default=0.0), min(badness.values(), default=0.0)
            for method in points:
                share = (worst - badness.get(method, worst)) / (worst - best) if worst > best else 1.0
                total[method] += share / len(columns) / len(JUDGED)
    return total


def choose(summary: dict[str, Record]) -> str:
    """The cheapest point whose score is within `TOLERANCE` of the best one's."""
    scored = scores(summary)
    best = max(scored.values())
    good = [method for method, score in scored.items() if score >= best - TOLERANCE]
    return min(good, key=lambda method: (summary[method].calls, -scored[method]))


def to_table(summary: dict[str, Record]) -> str:
    """Markdown; baselines first, then the points as they were measured."""
    columns = [(c, title) for c, title, _ in SHOWN if any(r.metrics.get(c) is not None for r in summary.values())]
    scored = scores(summary)
    lines = [
        "| sampler, steps x guidance | UNet runs / frame | " + " | ".join(title for _, title in columns) + " | score |",
        "|---" * (len(columns) + 3) + "|",
    ]
    for method, record in summary.items():
        values = [record.metrics.get(column) for column, _ in columns]
        cells = ["-" if value is None else f"{value:.4g}" for value in values]
        score = f"{scored[method]:.2f}" if method in scored else "-"
        lines.append(f"| {method} | {record.calls:.2f} | " + " | ".join(cells) + f" | {score} |")
    return "\n".join(lines) + "\n"


def plot(summary: dict[str, Record], path: Path) -> None:
    """Draw each column against the runs of the UNet, with the baselines as dashed lines.

    Raises:
        ValueError: matplotlib is not installed.
    """
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError as error:
        raise ValueError("matplotlib is not installed: pip install 'svfr[eval]'") from error
    shown = [column for column in SHOWN if any(r.metrics.get(column[0]) is not None for r in summary.values())]
    figure, grid = pyplot.subplots(3, -(-len(shown) // 3), figsize=(14, 10), squeeze=False)
    lines: dict[tuple[str, str], list[Record]] = {}
    for method, record in summary.items():
        if method not in BASELINES:
            sampler, _, _, guidance = method.split()
            lines.setdefault((sampler, guidance), []).append(record)
    samplers, guidances = (list(dict.fromkeys(names)) for names in zip(*lines, strict=True))
    for axes, (column, title, _) in zip(grid.flat, shown, strict=False):
        for (sampler, guidance), records in sorted(lines.items()):
            known = sorted((r.calls, v) for r in records if (v := r.metrics.get(column)) is not None)
            axes.plot(
                [c for c, _ in known],
                [v for _, v in known],
                color=f"C{samplers.index(sampler)}",
                alpha=1 - 0.75 * guidances.index(guidance) / len(guidances),
                marker="o^svDP*"[guidances.index(guidance) % 7],
                markersize=4,
                label=f"{sampler}, guidance {guidance}",
            )
        for method, style in zip(BASELINES, ("--", ":"), strict=True):
            value = summary[method].metrics.get(column) if method in summary else None
            if value is not None:
                axes.axhline(value, linestyle=style, color="gray", label=method)
        axes.set(xscale="log", title=title, xlabel="UNet runs per frame")
    for axes in list(grid.flat)[len(shown) :]:
        axes.set_axis_off()
    names = grid.flat[0].get_legend_handles_labels()
    figure.legend(*names, loc="lower center", ncols=5, fontsize=8)
    figure.tight_layout(rect=(0, 0.07, 1, 1))
    figure.savefig(path, dpi=90)
    pyplot.close(figure)
