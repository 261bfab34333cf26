"""`table.md`: results in the layout of the paper's tables, with the paper's own figures beside them."""

from collections.abc import Sequence

from svfr.evaluation import paper
from svfr.evaluation.results import Aggregate, Results, is_baseline, ordered_columns
from svfr.metrics import COLUMNS

ARROWS = {"higher": "↑", "lower": "↓", "truth": ""}
NOT_COMPUTED, UNDEFINED = "not computed", "-"
HEADS = {"bfr": "BFR", "colorization": "Colorization", "inpainting": "Inpainting"}
NAMES = {"ground_truth": "ground truth", "degraded": "degraded input", "bicubic": "bicubic"}


def show_number(column: str, value: float | None) -> str:
    """A figure as tables print it."""
    return UNDEFINED if value is None else f"{value:.{COLUMNS[column].digits}f}"


def show_cell(aggregate: Aggregate | None, column: str, missing: bool) -> str:
    """A method's figure on one task; says where there is none."""
    if aggregate is None:
        return UNDEFINED
    value = aggregate.metrics.get(column)
    if value is None:
        if aggregate.why_none.get(column, "").startswith("infinite"):
            return "∞"
        return NOT_COMPUTED if missing else UNDEFINED
    return show_number(column, value)


def title(column: str) -> str:
    """A column's head: its name, an arrow to the better side, its unit."""
    about = COLUMNS[column]
    unit = f" [{about.unit}]" if about.unit else ""
    return f"{about.title}{unit} {ARROWS[about.better]}".strip()


def task_title(task: str) -> str:
    """ "bfr+colorization" -> "BFR + Colorization"."""
    return " + ".join(HEADS[part] for part in task.split("+"))


def name_of(method: str) -> str:
    """A method's name in tables."""
    return NAMES.get(method, method)


def is_missing(results: Results, column: str) -> bool:
    """Whether no method has the column, since a network or package is missing."""
    reasons = set(results.missing.values())
    return any(aggregate.why_none.get(column) in reasons for aggregate in results.aggregates)


def tasks_of(results: Results) -> list[str]:
    """Tasks in canonical order."""
    return list(dict.fromkeys(aggregate.task for aggregate in results.aggregates))


def methods_of(results: Results) -> list[str]:
    """Methods in the order of rows: baselines, then the others as given."""
    return list(dict.fromkeys(aggregate.method for aggregate in results.aggregates))


def best_values(results: Results, task: str, column: str) -> float | None:
    """The best figure of the methods that restore, of as many videos each; None if there is no choice."""
    better = COLUMNS[column].better
    restoring = [a for a in results.aggregates if a.task == task and not is_baseline(a.method)]
    most = max((aggregate.num_videos for aggregate in restoring), default=0)
    values = [
        value
        for aggregate in restoring
        if aggregate.num_videos == most and (value := aggregate.metrics.get(column)) is not None
    ]
    if len(values) < 2 or better not in ("higher", "lower"):
        return None
    return max(values) if better == "higher" else min(values)


def table_markdown(results: Results) -> str:
    """The whole of `table.md`."""
    name = results.protocol["name"] or "Evaluation"
    parts = [f"# {name}", *_ours(results), *_all_columns(results)]
    parts += ["## Quoted from the paper", f"Not measured here: {paper.SOURCE}. Its protocol is not published."]
    parts += ["### Table 2, VFHQ-test: BFR / Colorization / Inpainting", quoted_table(paper.TABLE_2)]
    parts += ["### Table 3, ablation: BFR / Colorization / Inpainting", quoted_table(paper.TABLE_3)]
    header = ["GVFR subtask", "FID without prior ↓", "FID with prior ↓"]
    rows = [[task, f"{without:.3f}", f"{prior:.3f}"] for task, without, prior in paper.TABLE_1]
    parts += ["### Table 1, pilot study with GPEN", markdown([header, *rows])]
    return "\n\n".join(parts) + "\n"


def paper_table(results: Results) -> str:
    """Our rows in the paper's columns; a cell has a figure for each task, as the paper's has."""
    tasks = tasks_of(results)
    by_place = {(aggregate.method, aggregate.task): aggregate for aggregate in results.aggregates}
    rows = [["Methods", *(title(column) for column in paper.COLUMNS), "videos"]]
    for method in methods_of(results):
        row = [name_of(method)]
        for column in paper.COLUMNS:
            cells = [show_cell(by_place.get((method, task)), column, is_missing(results, column)) for task in tasks]
            row.append(NOT_COMPUTED if NOT_COMPUTED in cells else " / ".join(cells))
        row.append(" / ".join(count_of(by_place.get((method, task)), len(results.names)) for task in tasks))
        rows.append(row)
    return markdown(rows)


def _ours(results: Results) -> list[str]:
    heads = " / ".join(task_title(task) for task in tasks_of(results))
    lines = [f"## In the columns of the paper: {heads}", paper_table(results)]
    if notes := notes_of(results):
        lines.append("\n".join(f"- {note}" for note in notes))
    if results.missing:
        lines.append("Not computed:")
        lines.append("\n".join(f"- {name}: {reason}" for name, reason in results.missing.items()))
    if results.problems:
        lines.append(f"Problems ({len(results.problems)}):")
        lines.append("\n".join(f"- {problem}" for problem in results.problems))
    return lines


def notes_of(results: Results) -> list[str]:
    """What a reader should know of the figures, each line once."""
    return list(dict.fromkeys(note for aggregate in results.aggregates for note in aggregate.notes))


def count_of(aggregate: Aggregate | None, total: int) -> str:
    """Number of videos behind a mean, of all if not all."""
    if aggregate is None:
        return UNDEFINED
    return str(aggregate.num_videos) if aggregate.num_videos == total else f"{aggregate.num_videos} of {total}"


def _all_columns(results: Results) -> list[str]:
    columns = [column for column in ordered_columns(results) if not is_missing(results, column)]
    lines = []
    for task in tasks_of(results):
        aggregates = [aggregate for aggregate in results.aggregates if aggregate.task == task]
        shown = [c for c in columns if any(aggregate.metrics.get(c) is not None for aggregate in aggregates)]
        header = ["", *(name_of(aggregate.method) for aggregate in aggregates)]
        rows = [[title(column), *(show_cell(a, column, False) for a in aggregates)] for column in shown]
        rows.append(["videos", *(count_of(a, len(results.names)) for a in aggregates)])
        lines += [f"## All columns: {task_title(task)}", markdown([header, *rows])]
    return lines


def quoted_table(rows: Sequence[paper.QuotedRow]) -> str:
    """A table of the paper, as it is printed."""
    header = ["Methods", *(title(column) for column in paper.COLUMNS)]
    body = [[row.method, *(quoted_cell(column, cell) for column, cell in _cells(row))] for row in rows]
    return markdown([header, *body])


def quoted_cell(column: str, cell: paper.Triple) -> str:
    """Three figures of the paper."""
    return " / ".join(show_number(column, value) for value in cell)


def _cells(row: paper.QuotedRow) -> list[tuple[str, paper.Triple]]:
    return list(zip(paper.COLUMNS, row.cells, strict=True))


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Rows, the head first, as an aligned Markdown table."""
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in escaped) for column in range(len(escaped[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in escaped
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])
