"""What means alone do not say: intervals, paired tests, common sets of videos, places."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from scipy import stats

from svfr.evaluation.pairs import Matches, Pair
from svfr.evaluation.records import Record
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


def places(results: Results, task: str, column: str) -> dict[str, int]:
    """The place of each method that restores, of as many videos each: 0 is best; those that print alike share one.

    Empty if there is no choice, or no saying what is better.
    """
    about = COLUMNS[column]
    figures = {
        a.method: (a, v) for a in results.aggregates if a.task == task and (v := a.metrics.get(column)) is not None
    }
    restoring = {method: found for method, found in figures.items() if not is_baseline(method)}
    most = max((aggregate.num_videos for aggregate, _ in restoring.values()), default=0)
    far: dict[str, Callable[[float], float]] = {"higher": lambda value: -value, "lower": lambda value: value}
    if "ground_truth" in figures:
        truth = figures["ground_truth"][1]
        far["truth"] = lambda value: abs(value - truth)
    ours = {method: value for method, (a, value) in restoring.items() if a.num_videos == most}
    if len(ours) < 2 or about.better not in far:
        return {}
    distances = {method: round(far[about.better](value), about.digits) for method, value in ours.items()}
    order = sorted(set(distances.values()))
    return {method: order.index(distance) for method, distance in distances.items()}


def on_common_videos(
    matches: Matches,
    records: dict[Pair, Record],
    results: Results,
    gather: Callable[[Matches, dict[Pair, Record]], Results],
) -> Results:
    """The results of those videos of each task that all methods have, baselines too; `results` itself if all have all.

    `gather` puts records together, see `svfr.evaluation.results.gather`.
    """
    parts, all_alike = [], True
    for task in dict.fromkeys(aggregate.task for aggregate in results.aggregates):
        done = {pair: r for pair, r in records.items() if pair.task in (task, "") and r.status == "done"}
        sets = [names for m in matches.methods if (names := {pair.name for pair in done if pair.method == m})]
        common = set.intersection(*sets) if sets else set()
        all_alike = all_alike and all(names == common for names in sets)
        parts.append((task, {pair: record for pair, record in done.items() if pair.name in common}))
    if all_alike:
        return results
    gathered = [gather(replace(matches, tasks=[task]), kept) for task, kept in parts]
    rows = [row for part in gathered for row in part.rows]
    return replace(results, rows=rows, aggregates=[a for part in gathered for a in part.aggregates])
