"""`table.md`, with the paper's own figures beside ours, `table.tex` and `table.csv`."""

import csv
import io
import re
from collections.abc import Sequence

from svfr.evaluation import paper
from svfr.evaluation.markdown import markdown_table
from svfr.evaluation.results import Aggregate, Results, is_baseline, with_figures
from svfr.evaluation.statistics import by_video, half_width, paired_p, places, truth_value
from svfr.metrics import COLUMNS, METRICS

ARROWS = {"higher": "↑", "lower": "↓", "truth": "", "none": ""}
NOT_COMPUTED, UNDEFINED = "not computed", "-"
HEADS = {"bfr": "BFR", "colorization": "Colorization", "inpainting": "Inpainting"}
NAMES = {"ground_truth": "ground truth", "degraded": "degraded input", "bicubic": "bicubic"}
LATEX = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}"},
    **{">": r"\textgreater{}", "|": r"\textbar{}", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "∞": r"$\infty$"},
    **{"\u2212": "$-$", "±": r"$\pm$", "Δ": r"$\Delta$"},
}
MARKS = ("\\textbf{%s}", "\\underline{%s}")  # of the best and the second


def show_number(column: str, value: float | None, sign: str = "") -> str:
    """A figure as tables print it, never as a negative zero; with "+" as `sign`, its sign comes first."""
    digits = COLUMNS[column].digits
    return UNDEFINED if value is None else f"{round(value, digits) + 0.0:{sign}.{digits}f}"


def show_cell(results: Results, aggregate: Aggregate | None, column: str, beside_truth: bool = True) -> str:
    """A method's figure on one task, with its difference to the truth's own; says where there is none."""
    if aggregate is None:
        return UNDEFINED
    if (value := aggregate.metrics.get(column)) is None:
        if aggregate.why_none.get(column, "").startswith("infinite"):
            return "∞"
        is_missing = any(column == other.name for name in results.missing for other in METRICS[name].columns)
        return NOT_COMPUTED if is_missing else UNDEFINED
    own = truth_value(results, aggregate.task, column) if beside_truth else None
    if own is None or aggregate.method == "ground_truth":
        return show_number(column, value)
    return f"{show_number(column, value)} ({show_number(column, value - own, '+')})"


def title(column: str, results: Results | None = None) -> str:
    """A column's head: its name, its network where there is a choice, its unit, an arrow to the better side."""
    about = COLUMNS[column]
    unit = f" [{about.unit}]" if about.unit else ""
    network = f", {results.networks[column]}" if results and column in results.networks else ""
    return f"{about.title}{network}{unit} {ARROWS[about.better]}".strip()


def task_title(task: str) -> str:
    """ "bfr+colorization" -> "BFR + Colorization"."""
    return " + ".join(HEADS[part] for part in task.split("+"))


def name_of(method: str) -> str:
    """A method's name in tables."""
    return NAMES.get(method, method)


def notes_of(results: Results) -> list[str]:
    """What a reader should know of the figures, each line once, of single videos with their number."""
    notes: dict[str, None] = dict.fromkeys(note for aggregate in results.aggregates for note in aggregate.notes)
    rows = {(row.method, "" if is_baseline(row.method) else row.task, row.name): row for row in results.rows}
    alike: dict[str, list[str]] = {}  # those that differ in numbers alone are one line
    for (method, task, _), row in rows.items():
        place = f"{name_of(method)}{', ' * bool(task)}{task and task_title(task)}"
        for note in row.notes:
            alike.setdefault(re.sub(r"\d+", "…", f"{place}: {note}"), []).append(f"{place}: {note}")
    for pattern, found in alike.items():
        text = found[0] if len(set(found)) == 1 else pattern
        notes[f"{text} ({len(found)} video{'s'[: len(found) > 1]})"] = None
    return list(notes)


def main_columns(results: Results) -> list[str]:
    """The columns of the paper; of footage without ground truth, all that have a figure."""
    if not results.protocol["settings"]["no_reference"]:
        return list(paper.COLUMNS)
    return with_figures(results.aggregates, results.columns)


def count_of(aggregate: Aggregate | None, total: int) -> str:
    """Number of videos behind a mean, of all if not all."""
    if aggregate is None:
        return UNDEFINED
    return str(aggregate.num_videos) if aggregate.num_videos == total else f"{aggregate.num_videos} of {total}"


def table_markdown(results: Results, common: Results) -> str:
    """The whole of `table.md`; `results` are of all videos, `common` of those that all methods have."""
    heads = " / ".join(task_title(task) for task in results.tasks)
    parts = [f"# {results.protocol['name'] or 'Evaluation'}"]
    parts += [f"## In the columns of the paper: {heads}", paper_table(results)]
    parts += filter(None, [markdown_table(cost_rows(results)), _bullets(notes_of(results))])
    if results.missing:
        parts += ["Not computed:", _bullets([f"{name}: {reason}" for name, reason in results.missing.items()])]
    if results.problems:
        parts += [f"Problems ({len(results.problems)}):", _bullets([str(problem) for problem in results.problems])]
    for task in results.tasks:
        parts += [f"## All columns: {task_title(task)}", _all_columns(results, task)]
    parts += ["## Quoted from the paper", f"Not measured here: {paper.SOURCE}. {paper.NOTE}"]
    parts += ["### Table 2, VFHQ-test: BFR / Colorization / Inpainting", _quoted_table(paper.TABLE_2)]
    parts += ["### Table 3, ablation: BFR / Colorization / Inpainting", _quoted_table(paper.TABLE_3)]
    header = ["GVFR subtask", "FID without prior ↓", "FID with prior ↓"]
    rows = [[task, f"{without:.3f}", f"{prior:.3f}"] for task, without, prior in paper.TABLE_1]
    parts += ["### Table 1, pilot study with GPEN", markdown_table([header, *rows])]
    if common is not results:
        parts += ["## Of the videos that all methods have", paper_table(common)]
    for task in common.tasks:
        if paired := wilcoxon_table(common, task):
            parts += [f"## Paired Wilcoxon signed-rank tests: {task_title(task)}", markdown_table(paired)]
    return "\n\n".join(parts) + "\n"


def paper_table(results: Results) -> str:
    """Our rows in the paper's columns; a cell has a figure for each task, as the paper's has."""
    tasks = results.tasks
    by_place = {(aggregate.method, aggregate.task): aggregate for aggregate in results.aggregates}
    columns = main_columns(results)
    rows = [["Methods", *(title(column, results) for column in columns), "videos"]]
    for method in results.methods:
        aggregates = [by_place.get((method, task)) for task in tasks]
        row = [name_of(method)]
        for column in columns:
            cells = [show_cell(results, aggregate, column) for aggregate in aggregates]
            row.append(NOT_COMPUTED if NOT_COMPUTED in cells else " / ".join(cells))
        rows.append([*row, " / ".join(count_of(aggregate, len(results.names)) for aggregate in aggregates)])
    return markdown_table(rows)


def cost_rows(results: Results) -> list[list[str]]:
    """What restoring took, where it is known: the heads, and a row for each method and task; [] if nothing is."""
    rows = [["Methods", "task", "UNet runs / frame", "s / frame", "peak memory [GiB]", "device"]]
    for aggregate in results.aggregates:
        if cost := aggregate.cost:
            figures = f"{cost['unet_runs']:.2f}", f"{cost['seconds']:.3g}", f"{cost['peak_gib']:.2f} {cost['memory']}"
            rows.append([name_of(aggregate.method), task_title(aggregate.task), *figures, cost["device"]])
    return rows if len(rows) > 1 else []


def _all_columns(results: Results, task: str) -> str:
    """A row a column, a column a method, for all that have a figure."""
    aggregates = results.of(task)
    rows = [["", *(name_of(aggregate.method) for aggregate in aggregates)]]
    for column in with_figures(aggregates, results.columns):
        rows.append([title(column, results), *(show_cell(results, aggregate, column) for aggregate in aggregates)])
    return markdown_table([*rows, ["videos", *(count_of(a, len(results.names)) for a in aggregates)]])


def _quoted_table(quoted: paper.Quoted) -> str:
    """A table of the paper, as it is printed."""
    table = [["Methods", *(title(column) for column in paper.COLUMNS)]]
    for method, row in quoted.items():
        cells = ([show_number(c, row.get(task, {}).get(c)) for task in paper.TASKS] for c in paper.COLUMNS)
        table.append([method, *map(" / ".join, cells)])
    return markdown_table(table)


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def latex(text: str) -> str:
    """Text as LaTeX prints it."""
    return "".join(LATEX.get(sign, sign) for sign in text)


def table_tex(results: Results) -> str:
    """The table of means for booktabs: a block a task, the best of our rows bold, the second underlined."""
    columns = with_figures(results.aggregates, main_columns(results))
    lines = [
        "% Needs \\usepackage{booktabs}. Means over videos; the best is bold, the second underlined.",
        f"\\begin{{tabular}}{{l{'r' * len(columns)}}}",
        "\\toprule",
        " & ".join(["Method", *(latex(title(column, results)) for column in columns)]) + r" \\",
    ]
    for task in results.tasks:
        aggregates = results.of(task)
        restoring = [a for a in aggregates if not is_baseline(a.method)]
        count = max((a.num_videos for a in restoring or aggregates), default=0)
        head = f"{latex(task_title(task))}, {count} video{'s'[: count > 1]}"
        lines += ["\\midrule", f"\\multicolumn{{{len(columns) + 1}}}{{l}}{{\\textit{{{head}}}}} \\\\"]
        ranks = {column: places(results, task, column) for column in columns}
        for aggregate in aggregates:
            if restoring and aggregate is restoring[0] is not aggregates[0]:
                lines.append("\\addlinespace")  # below the baselines
            cells = [latex(name_of(aggregate.method))]
            for column in columns:
                text = show_cell(results, aggregate, column, beside_truth=False)
                cell = "--" if text in (UNDEFINED, NOT_COMPUTED) else latex(text)
                place = ranks[column].get(aggregate.method, len(MARKS))
                cells.append(MARKS[place] % cell if place < len(MARKS) else cell)
            lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", ""])


def table_csv(results: Results) -> str:
    """A row a task and method: number of videos, each figure, and the ends of a mean's 95% interval."""
    columns = results.columns
    heads = (f"{column}{end}" for column in columns for end in ("", "_from", "_to"))
    table: list[list[object]] = [["task", "method", "videos", *heads]]
    for aggregate in results.aggregates:
        row: list[object] = [aggregate.task, aggregate.method, aggregate.num_videos]
        for column in columns:
            mean = aggregate.metrics.get(column)
            half = half_width(list(by_video(results, aggregate.task, aggregate.method, column).values()))
            row += [mean, None, None] if mean is None or half is None else [mean, mean - half, mean + half]
        table.append(row)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(table)
    return text.getvalue()


def wilcoxon_table(results: Results, task: str) -> list[list[str]]:
    """The paired tests of each method against the best of each column: heads, and a row a method; [] without any."""
    columns = [column for column in main_columns(results) if places(results, task, column)]
    rows = [["against the best", *(title(column, results) for column in columns)]]
    for method in [method for method in results.methods if not is_baseline(method)]:
        cells = []
        for column in columns:
            ranks = places(results, task, column)
            best = min(ranks, key=lambda name: ranks[name])
            values = [by_video(results, task, name, column, judged=True) for name in (method, best)]
            test = paired_p(values[0], values[1]) if method != best else None
            cells.append("best" if method == best else f"p = {test[0]:.2g}, n = {test[1]}" if test else UNDEFINED)
        if set(cells) != {UNDEFINED}:
            rows.append([name_of(method), *cells])
    return rows if columns else []
