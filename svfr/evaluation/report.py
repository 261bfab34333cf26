"""`report.html`: one file that opens from disk, with all tables, distributions, pictures and clips inside."""

import base64
import json
import math
import statistics
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from svfr.evaluation import paper, tables
from svfr.evaluation.measure import Evaluator
from svfr.evaluation.pairs import Pair
from svfr.evaluation.plots import DotPlot, colour_of, dot_plot
from svfr.evaluation.records import PICTURES, Record, load_frames, picture_files, record_folder
from svfr.evaluation.results import Aggregate, Results, is_baseline, ordered_columns
from svfr.evaluation.tables import show_number
from svfr.metrics import COLUMNS

WORST_FRAMES = 12  # in the gallery
TABLE_WIDTH = 7  # columns of a table that is not the paper's
MIME = {".jpg": "image/jpeg", ".png": "image/png", ".mp4": "video/mp4"}


class Cell(NamedTuple):
    """A figure of a table."""

    text: str
    kind: str = ""  # best | none
    spread: str = ""
    hint: str = ""


class Line(NamedTuple):
    """A line of a table."""

    kind: str  # baseline | method | quoted | quoted rule
    label: str
    cells: list[Cell]
    count: str


class Table(NamedTuple):
    """A table and the titles of its columns."""

    titles: list[str]
    lines: list[Line]


def report_html(results: Results, records: dict[Pair, Record], evaluator: Evaluator) -> str:
    """The whole page; pictures come from the folder of the records."""
    output, methods = evaluator.output, tables.methods_of(results)

    def shown_pairs(task: str, name: str) -> dict[Pair, Record]:
        mine = {pair: record for pair, record in records.items() if pair.name == name and pair.task in (task, "")}
        return {pair: record for pair, record in mine.items() if record.status == "done"}

    environment = Environment(
        loader=PackageLoader("svfr", "assets/report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters.update(data_url=data_url, task_title=tables.task_title)
    return environment.get_template("report.html").render(
        name=results.protocol["name"] or "Restored videos against their ground truth",
        results=results,
        tables=tables,
        paper=paper,
        tasks=tables.tasks_of(results),
        restoring=[method for method in methods if not is_baseline(method)],
        tables_of=partial(_tables, results),
        plots_of=partial(_plots, results),
        worst_frames=_worst_frames(records, output),
        worst_first=partial(_worst_first, results),
        limit=evaluator.settings.report_videos,
        shown_pairs=shown_pairs,
        picture=lambda pair, name: data_url(record_folder(output, pair) / PICTURES / name),
        numbers=_numbers,
        colours={method: colour_of(method, methods) for method in methods},
        protocol=json.dumps(results.protocol, indent=2, default=str, ensure_ascii=False),
    )


def data_url(file: Path) -> str:
    """A picture or a clip as a URL that holds it; empty if it is not there."""
    try:
        return f"data:{MIME[file.suffix]};base64,{base64.b64encode(file.read_bytes()).decode()}"
    except OSError:
        return ""


def _tables(results: Results, task: str) -> list[Table]:
    """The columns of the paper with its own figures, then all others that have one."""
    aggregates = sorted((a for a in results.aggregates if a.task == task), key=lambda a: not is_baseline(a.method))
    columns = ordered_columns(results)
    first = [column for column in paper.COLUMNS if column in columns]
    others = [c for c in columns if c not in first and any(a.metrics.get(c) is not None for a in aggregates)]
    parts = [first, *(others[start : start + TABLE_WIDTH] for start in range(0, len(others), TABLE_WIDTH))]
    result = []
    for part in parts:
        lines = []
        for aggregate in aggregates:
            kind = "baseline" if is_baseline(aggregate.method) else "method"
            cells = [_cell(results, aggregate, column) for column in part]
            count = tables.count_of(aggregate, len(results.names))
            lines.append(Line(kind, tables.name_of(aggregate.method), cells, count))
        result.append(Table([tables.title(column) for column in part], lines))
    result[0].lines.extend(_quoted_lines(task, first))
    return result


def _cell(results: Results, aggregate: Aggregate, column: str) -> Cell:
    value, std = aggregate.metrics.get(column), aggregate.std.get(column)
    text = tables.show_cell(aggregate, column, tables.is_missing(results, column))
    if value is None:
        return Cell(text, "none", hint=aggregate.why_none.get(column, ""))
    is_best = not is_baseline(aggregate.method) and value == tables.best_values(results, aggregate.task, column)
    spread = f"± {show_number(column, std)}" if std is not None else ""
    ends = [aggregate.metrics.get(f"{column}_{end}") for end in ("low", "high")]
    if None not in ends:
        spread = " to ".join(show_number(column, end) for end in ends)
    return Cell(text, "best" if is_best else "", spread)


def _quoted_lines(task: str, columns: Sequence[str]) -> list[Line]:
    if task not in paper.TASKS:
        return []
    lines: list[Line] = []
    for source, table in (("Table 2", paper.TABLE_2), ("Table 3", paper.TABLE_3[:-1])):
        for row in table:
            figures = dict(zip(paper.COLUMNS, row.cells, strict=True))
            values = {column: figures[column][paper.TASKS.index(task)] for column in columns}
            if any(value is not None for value in values.values()):
                cells = [Cell(show_number(column, value)) for column, value in values.items()]
                kind = "quoted" if lines else "quoted rule"
                lines.append(Line(kind, f"{row.method} ({source}, quoted)", cells, "50"))
    return lines


def _plots(results: Results, task: str) -> tuple[dict[str, DotPlot], dict[str, DotPlot]]:
    """By column: those of the paper and of holes, and the others."""
    methods = tables.methods_of(results)
    first, others = {}, {}
    for column in ordered_columns(results):
        series: dict[str, dict[str, float]] = {method: {} for method in methods}
        for row in results.rows:
            value = row.metrics.get(column)
            is_perfect = row.method == "ground_truth" and not COLUMNS[column].no_reference
            if row.task == task and value is not None and not is_perfect:  # perfect: would squeeze the others
                series[row.method][row.name] = value
        series = {method: points for method, points in series.items() if points}
        if series:
            group = first if column in paper.COLUMNS or COLUMNS[column].needs_holes else others
            group[column] = dot_plot(series, methods, column)
    return first, others


def _worst_frames(records: dict[Pair, Record], output: Path) -> list[tuple[str, Path]]:
    """Labels and pictures, lowest PSNR first."""
    found: list[tuple[float, str, Path]] = []
    for pair, record in records.items():
        if is_baseline(pair.method) or record.status != "done":
            continue
        folder = record_folder(output, pair)
        psnr = load_frames(folder).get("psnr", [])
        for file in picture_files(folder, "worst_"):
            index = int(file.stem.removeprefix("worst_"))
            value = float(psnr[index]) if index < len(psnr) else math.nan
            label = f"{tables.name_of(pair.method)} · {tables.task_title(pair.task)} · {pair.name} · frame {index}"
            known = not math.isnan(value)
            found.append((value if known else math.inf, f"{label}, {value:.2f} dB" if known else label, file))
    return [(label, file) for _, label, file in sorted(found)[:WORST_FRAMES]]


def _numbers(record: Record) -> list[str]:
    """A video's figures in the columns of the paper."""
    found = {column: value for column in paper.COLUMNS if (value := record.metrics.get(column)) is not None}
    return [f"{COLUMNS[c].title.split(',')[0]} {show_number(c, value)}" for c, value in found.items()]


def _worst_first(results: Results, task: str) -> list[str]:
    """Names of the task's videos by the mean LPIPS of all methods, by PSNR without it."""
    rows = [r for r in results.rows if r.task == task and r.status == "done" and not is_baseline(r.method)]
    column = next((c for c in ("lpips", "psnr") if any(r.metrics.get(c) is not None for r in rows)), "")
    sign = 1.0 if column == "psnr" else -1.0
    means: dict[str, float] = {}
    for name in {row.name for row in rows}:
        values = [value for row in rows if row.name == name and (value := row.metrics.get(column)) is not None]
        means[name] = sign * statistics.fmean(values) if values else 0.0
    return sorted(means, key=lambda name: (means[name], name))
