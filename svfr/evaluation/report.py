"""`report.html`: it opens from disk, with all figures inside; pictures and clips lie beside it."""

import json
import math
import shutil
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined

from svfr.evaluation import paper, tables
from svfr.evaluation.measure import Evaluator
from svfr.evaluation.pairs import Pair
from svfr.evaluation.records import FRAMES, PICTURES, Record, load_arrays, record_folder
from svfr.evaluation.results import Aggregate, Results, is_baseline, with_figures
from svfr.evaluation.statistics import by_video, half_width, places
from svfr.evaluation.tables import main_columns, show_number
from svfr.files import replacing
from svfr.metrics import COLUMNS

# Okabe and Ito's colours, which people with colour blindness tell apart.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5195", "#8C6D31")
GRAY = "#8a97a6"
FILES = "report_files"  # folder beside the page
CURVE_POINTS = 300  # of a curve over frames; of longer videos every 2nd frame, every 3rd, ...
WORST_FRAMES = 12  # in the gallery
SHOWN_VIDEOS = 12  # of each task, in pictures, worst first


def report_html(results: Results, common: Results, records: dict[Pair, Record], evaluator: Evaluator) -> str:
    """The whole page; what it shows of the records, made by `evaluator`, is copied beside it into `FILES`.

    `results` are of all videos, `common` of those that all methods have.
    """
    environment = Environment(
        loader=PackageLoader("svfr", "assets/report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.policies["json.dumps_kwargs"] = {}  # in our order
    environment.filters.update(task_title=tables.task_title, name_of=tables.name_of)
    environment.globals.update(tables=tables, columns=COLUMNS, paper=paper, limit=SHOWN_VIDEOS, results=results)
    page = Page(results, records, evaluator.output)
    other = page if common is results else Page(common, records, evaluator.output)
    text = environment.get_template("report.html").render(page=page, common=other)
    with replacing(evaluator.output / FILES) as partial:
        partial.mkdir()
        for place, source in page.files.items():
            (partial / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, partial / place)
    return text


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
        self.restoring = [method for method in results.methods if not is_baseline(method)]
        self.of_videos = {column for row in results.rows for column in row.metrics}
        self.files: dict[str, Path] = {}  # what `file` was asked for, by its place in `FILES`
        self.protocol = json.dumps(results.protocol, indent=2, default=str, ensure_ascii=False)

    def columns(self, task: str) -> tuple[list[str], list[str]]:
        """The main columns, and all others that have a figure."""
        columns = self.results.columns
        first = [column for column in main_columns(self.results) if column in columns]
        return first, [column for column in with_figures(self.results.of(task), columns) if column not in first]

    def cell(self, aggregate: Aggregate, column: str) -> Cell:
        """A method's figure, with half of the 95% interval of the mean or with FVD's spread of the sample."""
        text = tables.show_cell(self.results, aggregate, column)
        if aggregate.metrics.get(column) is None:
            return Cell(text, "none", hint=aggregate.why_none.get(column, ""))
        is_best = places(self.results, aggregate.task, column).get(aggregate.method) == 0
        half = half_width(list(by_video(self.results, aggregate.task, aggregate.method, column).values()))
        spread = f"± {show_number(column, half)}" if half is not None else ""
        ends = [aggregate.metrics.get(f"{column}_spread_{end}") for end in ("low", "high")]
        if None not in ends:
            spread = " to ".join(show_number(column, end) for end in ends)
        return Cell(text, "best" if is_best else "", spread)

    def quoted(self, task: str, columns: Sequence[str]) -> list[tuple[str, dict[str, float | None]]]:
        """The paper's own rows that have a figure in these columns: label, and figure by column."""
        if self.results.protocol["settings"]["no_reference"]:
            return []
        rows = []
        for source, table in (("Table 2", paper.TABLE_2), ("Table 3", paper.TABLE_3)):
            for method, figures in ((method, row[task]) for method, row in table.items() if task in row):
                if method != paper.ROW_OF_BOTH and not figures.keys().isdisjoint(columns):
                    rows.append((f"{method} ({source}, quoted)", {column: figures.get(column) for column in columns}))
        return rows

    def worst_frames(self) -> list[tuple[str, str]]:
        """Labels and pictures, lowest PSNR first."""
        found: list[tuple[float, str, Pair, str]] = []
        for pair, record in self.records.items():
            if is_baseline(pair.method) or record.status != "done":
                continue
            folder = record_folder(self.output, pair)
            psnr = dict(enumerate(load_arrays(folder / FRAMES).get("psnr", ())))
            for file in sorted((folder / PICTURES).glob("worst_*")):
                index = int(file.stem.removeprefix("worst_"))
                value = float(psnr.get(index, math.nan))
                label = f"{tables.name_of(pair.method)} · {tables.task_title(pair.task)} · {pair.name} · frame {index}"
                known = (value, f"{label}, {value:.2f} dB") if math.isfinite(value) else (math.inf, label)
                found.append((*known, pair, file.name))
        worst = sorted(found, key=lambda entry: entry[:2])[:WORST_FRAMES]
        return [(label, self.file(pair, name)) for _, label, pair, name in worst]

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
        done = {pair: record for pair, record in self.records.items() if record.status == "done"}
        return {pair: record for pair, record in done.items() if pair.name == name and pair.task in (task, "")}

    def numbers(self, record: Record) -> list[str]:
        """A video's figures in the main columns."""
        columns = main_columns(self.results)[:6]
        found = {column: value for column in columns if (value := record.metrics.get(column)) is not None}
        return [f"{COLUMNS[c].title.split(',')[0]} {show_number(c, value)}" for c, value in found.items()]

    def file(self, pair: Pair, name: str) -> str:
        """The URL of a picture or a clip beside the page; empty if it is not there."""
        source = record_folder(self.output, pair) / PICTURES / name
        if not source.is_file():
            return ""
        place = f"{pair.method}/{pair.task or 'all'}/{pair.name}/{name}"
        self.files[place] = source
        return quote(f"{FILES}/{place}")

    def frames(self, pair: Pair) -> dict[str, str]:
        """The URLs of a video's frames of full size, by index."""
        files = sorted((record_folder(self.output, pair) / PICTURES).glob("frame_*.png"))
        return {file.stem.removeprefix("frame_").lstrip("0") or "0": self.file(pair, file.name) for file in files}

    def curves(self, shown: dict[Pair, Record]) -> dict[str, dict[str, list[float | None]]]:
        """Figures of frames by column's title and method, thinned; of columns in which frames have figures."""
        curves: dict[str, dict[str, list[float | None]]] = {}
        for pair in shown:
            for column, values in load_arrays(record_folder(self.output, pair) / FRAMES).items():
                is_perfect = pair.method == "ground_truth" and not COLUMNS[column].no_reference
                thin = values[:: math.ceil(len(values) / CURVE_POINTS)].tolist()
                if not is_perfect and any(map(math.isfinite, thin)):
                    points = [float(f"{value:.4g}") if math.isfinite(value) else None for value in thin]
                    curves.setdefault(column, {})[tables.name_of(pair.method)] = points
        return {tables.title(column, self.results): curves[column] for column in COLUMNS if column in curves}

    def colour(self, method: str) -> str:
        """The same colour for a method wherever it is shown; gray for baselines."""
        return GRAY if is_baseline(method) else PALETTE[self.restoring.index(method) % len(PALETTE)]
