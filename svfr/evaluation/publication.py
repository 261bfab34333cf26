"""`table.tex` and `table.csv`, and what a paper says beside its means."""

import csv
import io

from svfr.evaluation.markdown import markdown_table
from svfr.evaluation.results import Results, is_baseline, ordered_columns
from svfr.evaluation.statistics import by_video, half_width, paired_p, places
from svfr.evaluation.tables import (
    NOT_COMPUTED,
    UNDEFINED,
    main_columns,
    methods_of,
    name_of,
    paper_table,
    show_cell,
    task_title,
    tasks_of,
    title,
)

LATEX = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}"},
    **{">": r"\textgreater{}", "|": r"\textbar{}", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "∞": r"$\infty$"},
    **{"\u2212": "$-$", "±": r"$\pm$", "Δ": r"$\Delta$"},
}
MARKS = ("\\textbf{%s}", "\\underline{%s}")  # of the best and the second


def latex(text: str) -> str:
    """Text as LaTeX prints it."""
    return "".join(LATEX.get(sign, sign) for sign in text)


def table_tex(results: Results) -> str:
    """The table of means for booktabs: a block a task, the best of our rows bold, the second underlined."""
    columns = [c for c in main_columns(results) if any(a.metrics.get(c) is not None for a in results.aggregates)]
    lines = [
        "% Needs \\usepackage{booktabs}. Means over videos; the best is bold, the second underlined.",
        f"\\begin{{tabular}}{{l{'r' * len(columns)}}}",
        "\\toprule",
        " & ".join(["Method", *(latex(title(column, results)) for column in columns)]) + r" \\",
    ]
    for task in tasks_of(results):
        aggregates = [aggregate for aggregate in results.aggregates if aggregate.task == task]
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
    columns = ordered_columns(results)
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
    for method in [method for method in methods_of(results) if not is_baseline(method)]:
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


def comparison_markdown(results: Results, common: Results) -> str:
    """What `table.md` says beside the means: the common videos if they are fewer, and the paired tests over these."""
    parts = []
    if common is not results:
        parts += ["## Of the videos that all methods have", paper_table(common)]
    for task in tasks_of(common):
        if rows := wilcoxon_table(common, task):
            parts += [f"## Paired Wilcoxon signed-rank tests: {task_title(task)}", markdown_table(rows)]
    return "\n\n".join(["", *parts]) + "\n" if parts else ""
