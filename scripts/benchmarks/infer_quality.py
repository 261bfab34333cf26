"""Quality beside cost: the default setting against the released algorithm at its own steps, on rendered clips."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from svfr.demo.clips import DegradedClip, held_out_clip
from svfr.demo.ladder import TASK_SETS, restore
from svfr.demo.quality import SHOWN, build_quality, counted_calls, mean_row, measure
from svfr.inference.options import RELEASED_STEPS
from svfr.inference.pipeline import SVFRPipeline
from svfr.metrics.base import Row
from svfr.models.sources import find_model

from .infer_measure import GUIDANCE, Setup, load

PRESET = "svfr"
DEGRADED, DEFAULT, RELEASED = "degraded", "default", "released"
OPTIONS: dict[str, dict[str, Any]] = {
    DEFAULT: {},
    RELEASED: {"strategy": "released", "num_inference_steps": RELEASED_STEPS, "guidance_scale": GUIDANCE},
}


@dataclass(frozen=True)
class Quality:
    """Means of one method over held-out clips."""

    method: str
    tasks: str
    """Which were restored; "all": the mean over all combinations."""
    seconds: float
    """Per frame."""
    branch_frames: float
    """Per frame."""
    metrics: Row


def measure_quality(setup: Setup, num_clips: int) -> list[Quality]:
    """Restore the same held-out clips by the default and by the released algorithm, `num_clips` of each task.

    A clip has two clips of the model's length, so that both algorithms have a reference.
    """
    pipe = load(setup)
    settings = pipe.components.settings
    metrics = build_quality(find_model(setup.weights), settings.untrained)
    restore(pipe, held_out_clip(0, TASK_SETS[0], 1, settings.size, PRESET))  # warms up
    rows: list[Quality] = []
    for tasks, index in product(TASK_SETS, range(num_clips)):
        clip = held_out_clip(index, tasks, 2 * settings.clip_length - 1, settings.size, PRESET)
        rows.append(Quality(DEGRADED, ",".join(tasks), 0.0, 0.0, _shown(measure(metrics, clip.degraded, clip))))
        for method, options in OPTIONS.items():
            rows.append(_restored(pipe, method, options, clip, metrics))
    groups = [*(",".join(tasks) for tasks in TASK_SETS), "all"]
    return [_mean(rows, method, tasks) for tasks in groups for method in (DEGRADED, *OPTIONS)]


def print_quality(found: Sequence[Quality], num_clips: int) -> None:
    """The tables, and what the default saves."""
    columns = [(name, title) for name, title, _ in SHOWN if any(row.metrics.get(name) is not None for row in found)]
    first, second = RELEASED_STEPS
    print(
        f"\nQuality: the weights' own default and the released algorithm ({first} + {second} steps, guidance "
        f"{GUIDANCE:g}), {num_clips} held-out rendered clips a task"
    )
    for row in found:
        if row.method == DEGRADED:
            print(f"\n{row.tasks}\n{'':26}" + "".join(f"{method:>12}" for method in (DEGRADED, *OPTIONS)))
            group = [other for other in found if other.tasks == row.tasks]
            print(f"{'s / frame':26}" + "".join(f"{other.seconds:12.3f}" for other in group))
            print(f"{'branch-frames / frame':26}" + "".join(f"{other.branch_frames:12.1f}" for other in group))
            for name, title in columns:
                values = [other.metrics.get(name) for other in group]
                if any(value is not None for value in values):
                    print(f"{title:26}" + "".join(f"{'-' if v is None else f'{v:.4g}':>12}" for v in values))
    ours, theirs = (row for row in found if row.tasks == "all" and row.method in OPTIONS)
    print(
        f"\nreleased / default: {theirs.branch_frames / ours.branch_frames:.1f}x branch-frames, "
        f"{theirs.seconds / ours.seconds:.1f}x seconds"
    )


def _restored(
    pipe: SVFRPipeline, method: str, options: dict[str, Any], clip: DegradedClip, metrics: Sequence[Any]
) -> Quality:
    started = time.perf_counter()
    with counted_calls(pipe.components) as frames:
        restored = restore(pipe, clip, **options)
    seconds, count = time.perf_counter() - started, len(restored)
    row = _shown(measure(metrics, restored, clip))
    return Quality(method, ",".join(clip.tasks), seconds / count, sum(frames) / count, row)


def _shown(row: Row) -> Row:
    return {name: row.get(name) for name, _, _ in SHOWN}


def _mean(rows: Sequence[Quality], method: str, tasks: str) -> Quality:
    group = [row for row in rows if row.method == method and tasks in (row.tasks, "all")]
    return Quality(
        method,
        tasks,
        sum(row.seconds for row in group) / len(group),
        sum(row.branch_frames for row in group) / len(group),
        mean_row([row.metrics for row in group]),
    )
