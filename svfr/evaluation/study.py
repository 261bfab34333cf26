"""What a study shows: differences between ways of training, seed by seed, in tables and plain sentences."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from typing import Any

from svfr.evaluation.tables import markdown_table as markdown, show_number, task_title, title
from svfr.metrics import COLUMNS

SEED_MARK = "_seed"  # between a way of training and its seed, in the names of methods
SHOWN = ("psnr", "ssim", "lpips", "ciede2000", "ids", "vidd", "warping_error", "fvd")
WAYS = {
    "single": "single task",
    "multi": "multi",
    "multi_ulr": "multi + ULR",
    "multi_ulr_fpl": "multi + ULR + FPL",
    "no_reference": "multi + ULR + FPL, no reference",
    "prior": "single task, from another task's weights",
}


@dataclass(frozen=True)
class Question:
    """One claim of the paper, as a comparison of two ways of training.

    Attributes:
        text: the question.
        place: of the claim in the paper.
        new: the way that should be better.
        old: than this one.
    """

    text: str
    place: str
    new: str
    old: str


QUESTIONS = (
    Question("Does training on all tasks help each of them?", "Table 3", "multi", "single"),
    Question("Does the unified latent regularization help?", "Table 3", "multi_ulr", "multi"),
    Question("Does facial prior learning help?", "Table 3", "multi_ulr_fpl", "multi_ulr"),
    Question("Does all of it together help?", "Table 3", "multi_ulr_fpl", "single"),
    Question("Does the self-referred reference help?", "Figure 6", "multi_ulr_fpl", "no_reference"),
    Question("Does another task's training help?", "Table 1", "prior", "single"),
)


@dataclass(frozen=True)
class Answer:
    """A question on one task and column.

    Attributes:
        task: name.
        column: name.
        differences: new minus old, a seed each.
        wins: in how many seeds the new way is the better one.
    """

    task: str
    column: str
    differences: list[float]
    wins: int

    def verdict(self) -> str:
        """What the seeds say."""
        total = sum(difference != 0 for difference in self.differences)
        if total == 0:
            return "equal"
        ending = "" if len(self.differences) > 1 else " (one seed)"
        if self.wins in (0, total):
            return f"{'better' if self.wins else 'worse'}{ending}"
        return f"better in {self.wins} of {total}"


def by_way(results: dict[str, Any]) -> dict[tuple[str, str, str], dict[int, float]]:
    """Means by (way, task, column), then by seed, from the content of results.json."""
    found: dict[tuple[str, str, str], dict[int, float]] = {}
    for aggregate in results["aggregates"]:
        way, mark, seed = aggregate["method"].rpartition(SEED_MARK)
        if not mark:
            continue
        for column, value in aggregate["metrics"].items():
            if value is not None:
                found.setdefault((way, aggregate["task"], column), {})[int(seed)] = value
    return found


def answers(values: dict[tuple[str, str, str], dict[int, float]], question: Question) -> list[Answer]:
    """The answers to a question on all tasks and columns that both ways have; seeds are paired."""
    found = []
    tasks = list(dict.fromkeys(task for way, task, _ in values if way == question.new))
    for task in tasks:
        for column in SHOWN:
            new, old = (values.get((way, task, column), {}) for way in (question.new, question.old))
            seeds = sorted(new.keys() & old.keys())
            if not seeds or COLUMNS[column].better not in ("higher", "lower"):
                continue
            differences = [new[seed] - old[seed] for seed in seeds]
            sign = 1 if COLUMNS[column].better == "higher" else -1
            found.append(Answer(task, column, differences, sum(sign * d > 0 for d in differences)))
    return found


def sentence(question: Question, found: Sequence[Answer]) -> str:
    """One plain sentence that states what was seen, whatever it is."""
    if not found:
        return "Not answered: nothing to compare."
    wins = sum(answer.wins for answer in found)
    total = sum(difference != 0 for answer in found for difference in answer.differences)
    line = (
        f"{WAYS[question.new]} is better than {WAYS[question.old]} in {wins} of {total} comparisons "
        "(task x column x seed, equal ones left out)"
    )
    # Two-sided sign test. Comparisons of one training are not independent, so it only tells what is clearly chance.
    p = min(1.0, 2 * sum(math.comb(total, k) for k in range(max(wins, total - wins), total + 1)) / 2**total)
    if p > 0.05:
        return f"{line}: chance gives as much."
    return f"{line}: {'more' if 2 * wins > total else 'less'} than chance gives."


def spread(values: dict[int, float], column: str) -> str:
    """Mean over seeds, with their standard deviation if there are several."""
    mean = show_number(column, statistics.fmean(values.values()))
    return mean if len(values) < 2 else f"{mean} ± {show_number(column, statistics.stdev(values.values()))}"


def tables(results: dict[str, Any]) -> list[tuple[str, list[list[str]]]]:
    """(title, rows with their head) for each task: a row a way of training."""
    values = by_way(results)
    out = []
    for task in dict.fromkeys(task for _, task, _ in values):
        columns = [column for column in SHOWN if any(key[1:] == (task, column) for key in values)]
        rows = [["", *(title(column) for column in columns)]]
        for way, label in WAYS.items():
            cells = [values.get((way, task, column)) for column in columns]
            if any(cells):
                rows.append(
                    [label, *(spread(c, column) if c else "-" for c, column in zip(cells, columns, strict=True))]
                )
        for aggregate in results["aggregates"]:
            if aggregate["task"] == task and SEED_MARK not in aggregate["method"]:
                cells_of = [aggregate["metrics"].get(column) for column in columns]
                shown = [show_number(column, value) for column, value in zip(columns, cells_of, strict=True)]
                rows.append([aggregate["method"].replace("_", " "), *shown])
        out.append((task_title(task), rows))
    return out


def answer_rows(found: Sequence[Answer]) -> list[list[str]]:
    """A question's answers as rows with their head."""
    rows = [["task", "column", "mean difference", "seeds"]]
    for answer in found:
        mean = statistics.fmean(answer.differences)
        rows.append([task_title(answer.task), title(answer.column), f"{mean:+.4g}", answer.verdict()])
    return rows


def study_markdown(results: dict[str, Any], about: str) -> str:
    """study.md."""
    values = by_way(results)
    parts = ["# Small-scale study", about]
    for name, rows in tables(results):
        parts += [f"## {name}", markdown(rows)]
    for question in QUESTIONS:
        if found := answers(values, question):
            parts += [f"## {question.text} ({question.place})", sentence(question, found), markdown(answer_rows(found))]
    return "\n\n".join(parts) + "\n"


def study_html(results: dict[str, Any], about: str, report: str) -> str:
    """study.html; `report` is the address of the full report beside it."""
    values = by_way(results)
    body = ["<h1>Small-scale study</h1>", f'<p class="facts">{escape(about)}</p>']
    body.append(f'<nav><a href="{escape(report)}">All rows, pictures and clips</a></nav>')
    for question in QUESTIONS:
        if found := answers(values, question):
            body.append(f"<h2>{escape(question.text)}</h2>")
            body.append(f'<p class="hint">{escape(question.place)}. {escape(sentence(question, found))}</p>')
            body.append(f"<details><summary>Column by column</summary>{_html_table(answer_rows(found))}</details>")
    body.append("<h2>Means over held-out clips, ± over seeds</h2>")
    for name, rows in tables(results):
        body += [f"<h3>{escape(name)}</h3>", _html_table(rows)]
    style = files("svfr").joinpath("assets/report/style.css").read_text()
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>Small-scale study</title>\n'
        f"<style>\n{style}</style>\n</head>\n<body>\n<main>\n" + "\n".join(body) + "\n</main>\n</body>\n</html>\n"
    )


def _html_table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = rows
    lines = ["<tr>" + "".join(f"<th>{escape(cell)}</th>" for cell in head) + "</tr>"]
    lines += ["<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in body]
    return f'<div class="card scroll"><table>{"".join(lines)}</table></div>'
