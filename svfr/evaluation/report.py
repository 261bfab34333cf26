"""`report.html`: one file that opens from disk, with all tables, distributions, pictures and clips inside."""

import base64
import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from svfr.evaluation import paper, tables
from svfr.evaluation.measure import Evaluator
from svfr.evaluation.pairs import Pair
from svfr.evaluation.plots import Axis, colour_of
from svfr.evaluation.records import FRAMES, PICTURES, Record, load_arrays, record_folder
from svfr.evaluation.results import Aggregate, Results, is_baseline, ordered_columns
from svfr.evaluation.tables import show_number
from svfr.metrics import COLUMNS

WORST_FRAMES = 12  # in the gallery
Series = dict[str, dict[str, float]]  # a column's values by method and video
MIME = {".jpg": "image/jpeg", ".png": "image/png", ".mp4": "video/mp4"}


def report_html(results: Results, records: dict[Pair, Record], evaluator: Evaluator) -> str:
    """The whole page; pictures come from the folder of the records."""
    environment = Environment(
        loader=PackageLoader("svfr", "assets/report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters.update(task_title=tables.task_title, name_of=tables.name_of)
    return environment.get_template("report.html").render(
        page=Page(results, records, evaluator.output),
        results=results,
        tables=tables,
        paper=paper,
        limit=evaluator.settings.report_videos,
    )


class Cell(NamedTuple):
    """A figure of a table."""

    text: str
    kind: str = ""  # best | none
    spread: str = ""
    hint: str = ""


class Page:
    """What the template shows; a task and a column are given by name."""

    def __init__(self, results: Results, records: dict[Pair, Record], output: Path) -> None:
        self.results, self.records, self.output = results, records, output
        self.tasks, self.methods = tables.tasks_of(results), tables.methods_of(results)
        self.restoring = [method for method in self.methods if not is_baseline(method)]
        self.protocol = json.dumps(results.protocol, indent=2, default=str, ensure_ascii=False)

    def aggregates(self, task: str) -> list[Aggregate]:
        """The rows of a table, baselines first."""
        return sorted((a for a in self.results.aggregates if a.task == task), key=lambda a: not is_baseline(a.method))

    def columns(self, task: str) -> tuple[list[str], list[str]]:
        """The columns of the paper, and all others that have a figure."""
        columns = ordered_columns(self.results)
        first = [column for column in paper.COLUMNS if column in columns]
        aggregates = self.aggregates(task)
        others = [c for c in columns if c not in first and any(a.metrics.get(c) is not None for a in aggregates)]
        return first, others

    def cell(self, aggregate: Aggregate, column: str) -> Cell:
        """A method's figure, with its spread over videos or FVD's spread of the sample."""
        value, std = aggregate.metrics.get(column), aggregate.std.get(column)
        own = tables.truth_value(self.results, aggregate.task, column)
        text = tables.show_cell(aggregate, column, tables.is_missing(self.results, column), own)
        if value is None:
            return Cell(text, "none", hint=aggregate.why_none.get(column, ""))
        best = tables.best_value(self.results, aggregate.task, column)
        is_best = value == best and not is_baseline(aggregate.method)
        spread = f"± {show_number(column, std)}" if std is not None else ""
        ends = [aggregate.metrics.get(f"{column}_spread_{end}") for end in ("low", "high")]
        if None not in ends:
            spread = " to ".join(show_number(column, end) for end in ends)
        return Cell(text, "best" if is_best else "", spread)

    def quoted(self, task: str, columns: Sequence[str]) -> list[tuple[str, dict[str, float | None]]]:
        """The paper's own rows that have a figure in these columns: label, and figure by column."""
        if task not in paper.TASKS:
            return []
        place = paper.TASKS.index(task)
        rows = []
        for source, table in (("Table 2", paper.TABLE_2), ("Table 3", paper.TABLE_3[:-1])):
            for row in table:
                cells = dict(zip(paper.COLUMNS, row.cells, strict=True))
                figures = {column: cells[column][place] for column in columns}
                if any(figure is not None for figure in figures.values()):
                    rows.append((f"{row.method} ({source}, quoted)", figures))
        return rows

    def plots(self, task: str) -> tuple[dict[str, Series], dict[str, Series]]:
        """By column: those of the paper and of holes, and the others."""
        first, others = dict[str, Series](), dict[str, Series]()
        for column in ordered_columns(self.results):
            series: Series = {method: {} for method in self.methods}
            for row in self.results.rows:
                value = row.metrics.get(column)
                is_perfect = row.method == "ground_truth" and not COLUMNS[column].no_reference
                if row.task == task and value is not None and not is_perfect:  # perfect: would squeeze the others
                    series[row.method][row.name] = value
            if any(series.values()):
                group = first if column in paper.COLUMNS or COLUMNS[column].needs_holes else others
                group[column] = {method: points for method, points in series.items() if points}
        return first, others

    def axis(self, series: Series) -> Axis:
        """The axis of a plot."""
        return Axis([value for points in series.values() for value in points.values()])

    def worst_frames(self) -> list[tuple[str, str]]:
        """Labels and pictures, lowest PSNR first."""
        found: list[tuple[float, str, Path]] = []
        for pair in self.records:
            if is_baseline(pair.method) or self.records[pair].status != "done":
                continue
            folder = record_folder(self.output, pair)
            psnr = list(load_arrays(folder / FRAMES).get("psnr", []))
            for file in sorted((folder / PICTURES).glob("worst_*")):
                index = int(file.stem.removeprefix("worst_"))
                value = float(psnr[index]) if index < len(psnr) else math.nan
                label = f"{tables.name_of(pair.method)} · {tables.task_title(pair.task)} · {pair.name} · frame {index}"
                known = not math.isnan(value)
                found.append((value if known else math.inf, f"{label}, {value:.2f} dB" if known else label, file))
        return [(label, data_url(file)) for _, label, file in sorted(found)[:WORST_FRAMES]]

    def worst_first(self, task: str) -> list[str]:
        """Names of the task's videos by the mean LPIPS of all methods, by PSNR without it."""
        rows = [r for r in self.results.rows if r.task == task and r.status == "done" and not is_baseline(r.method)]
        column = next((c for c in ("lpips", "psnr") if any(r.metrics.get(c) is not None for r in rows)), "")
        sign = 1.0 if column == "psnr" else -1.0
        means: dict[str, float] = {}
        for name in {row.name for row in rows}:
            values = [value for row in rows if row.name == name and (value := row.metrics.get(column)) is not None]
            means[name] = sign * statistics.fmean(values) if values else 0.0
        return sorted(means, key=lambda name: (means[name], name))

    def compared(self, task: str, name: str) -> dict[Pair, Record]:
        """What there is of a video, by method."""
        mine = {pair: record for pair, record in self.records.items() if pair.name == name and pair.task in (task, "")}
        return {pair: record for pair, record in mine.items() if record.status == "done"}

    def numbers(self, record: Record) -> list[str]:
        """A video's figures in the columns of the paper."""
        found = {column: value for column in paper.COLUMNS if (value := record.metrics.get(column)) is not None}
        return [f"{COLUMNS[c].title.split(',')[0]} {show_number(c, value)}" for c, value in found.items()]

    def picture(self, pair: Pair, name: str) -> str:
        """The URL of a picture or clip."""
        return data_url(record_folder(self.output, pair) / PICTURES / name)

    def colour(self, method: str) -> str:
        """A method's colour on the page."""
        return colour_of(method, self.methods)


def data_url(file: Path) -> str:
    """A picture or a clip as a URL that holds it; empty if it is not there."""
    try:
        return f"data:{MIME[file.suffix]};base64,{base64.b64encode(file.read_bytes()).decode()}"
    except OSError:
        return ""
