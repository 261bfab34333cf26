"""What means alone do not say: intervals, paired tests, places."""

from collections.abc import Callable

import numpy as np
from scipy import stats

from svfr.evaluation.results import Results, is_baseline
from svfr.metrics import COLUMNS

CONFIDENCE = 0.95


def by_video(results: Results, task: str, method: str, column: str, judged: bool = False) -> dict[str, float]:
    """A method's figures by video; if `judged`, how far they are from the truth's own where that is what counts."""
    rows = [row for row in results.rows if row.task == task]
    figures, truth = (
        {row.name: value for row in rows if row.method == name and (value := row.metrics.get(column)) is not None}
        for name in (method, "ground_truth")
    )
    if not judged or COLUMNS[column].better != "truth":
        return figures
    return {name: abs(value - truth[name]) for name, value in figures.items() if name in truth}


def half_width(values: list[float]) -> float | None:
    """Half of the 95% interval of a mean over videos (Student's t); None for less than two."""
    if len(values) < 2:
        return None
    error = float(np.std(values, ddof=1)) / len(values) ** 0.5
    return error * float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1))


def paired_p(first: dict[str, float], second: dict[str, float]) -> tuple[float, int] | None:
    """Two-sided Wilcoxon signed-rank test over the videos that both have: p, and their number; None for one."""
    names = sorted(first.keys() & second.keys())
    if len(names) < 2:
        return None
    differences = np.array([first[name] - second[name] for name in names])
    return (float(stats.wilcoxon(differences).pvalue) if differences.any() else 1.0), len(names)


def truth_value(results: Results, task: str, column: str) -> float | None:
    """The ground truth's own figure in a column where what is nearest to it is best; None in others."""
    own = [aggregate.metrics.get(column) for aggregate in results.of(task) if aggregate.method == "ground_truth"]
    return own[0] if own and COLUMNS[column].better == "truth" else None


def places(results: Results, task: str, column: str) -> dict[str, int]:
    """The place of each method that restores, of as many videos each: 0 is best; those that print alike share one.

    Empty if there is no choice, or no saying what is better.
    """
    about = COLUMNS[column]
    rows = [aggregate for aggregate in results.of(task) if aggregate.metrics.get(column) is not None]
    restoring = [aggregate for aggregate in rows if not is_baseline(aggregate.method)]
    most = max((aggregate.num_videos for aggregate in restoring), default=0)
    far: dict[str, Callable[[float], float]] = {"higher": lambda value: -value, "lower": lambda value: value}
    if (truth := truth_value(results, task, column)) is not None:
        far["truth"] = lambda value: abs(value - truth)
    ours = {a.method: value for a in restoring if a.num_videos == most and (value := a.metrics[column]) is not None}
    if len(ours) < 2 or about.better not in far:
        return {}
    distances = {method: round(far[about.better](value), about.digits) for method, value in ours.items()}
    order = sorted(set(distances.values()))
    return {method: order.index(distance) for method, distance in distances.items()}
