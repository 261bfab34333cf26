"""`report.html`: one file that opens from disk, with all tables, distributions, pictures and clips inside."""

import base64
import json
from html import escape
from importlib.resources import files
from pathlib import Path

from svfr.evaluation import paper
from svfr.evaluation.measure import Evaluator
from svfr.evaluation.pairs import Pair, Problem
from svfr.evaluation.plots import colour_of, dot_plot
from svfr.evaluation.records import PICTURES, Record, load_frames, picture_files, record_folder
from svfr.evaluation.results import Aggregate, Results, is_baseline, ordered_columns
from svfr.evaluation.tables import (
    best_values,
    count_of,
    is_missing,
    methods_of,
    name_of,
    notes_of,
    show_cell,
    show_number,
    task_title,
    tasks_of,
    title,
)
from svfr.metrics import COLUMNS

SHOWN_PROBLEMS = 8  # the others are one click away
WORST_FRAMES = 12  # in the gallery
MIME = {".jpg": "image/jpeg", ".png": "image/png", ".mp4": "video/mp4"}


def report_html(results: Results, records: dict[Pair, Record], evaluator: Evaluator) -> str:
    """The whole page; pictures come from the folder of the records."""
    name = results.protocol["name"] or "Restored videos against their ground truth"
    tasks = tasks_of(results)
    restoring = [method for method in methods_of(results) if not is_baseline(method)]
    facts = [
        f"{len(results.names)} ground-truth videos",
        f"{len(restoring)} {'method' if len(restoring) == 1 else 'methods'}: {', '.join(restoring)}",
        ", ".join(task_title(task) for task in tasks),
    ]
    anchors = [("tables", "Tables"), ("distributions", "Distributions"), ("worst", "Worst frames")]
    anchors += [("videos", "Videos"), ("protocol", "Protocol")]
    body = [
        f"<h1>{escape(name)}</h1>",
        f'<p class="facts">{escape(" · ".join(facts))}</p>',
        "<nav>" + "".join(f'<a href="#{anchor}">{label}</a>' for anchor, label in anchors) + "</nav>",
        *_problems(results),
        *_tables(results, tasks),
        *_missing(results),
        *_distributions(results, tasks),
        *_worst_frames(records, evaluator.output),
        *_videos(results, records, evaluator, tasks),
        *_protocol(results),
    ]
    style, script = (files("svfr").joinpath("assets/report", name).read_text() for name in ("style.css", "script.js"))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(name)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(body)
        + f"\n</main>\n<script>\n{script}</script>\n</body>\n</html>\n"
    )


def _problems(results: Results) -> list[str]:
    if not results.problems:
        return []
    lines = [f"<li>{escape(str(problem))}</li>" for problem in results.problems]
    first, rest = "".join(lines[:SHOWN_PROBLEMS]), "".join(lines[SHOWN_PROBLEMS:])
    more = f'<details><summary>All of them</summary><ul class="lines">{rest}</ul></details>' if rest else ""
    count = f"{len(lines)} problem{'s' if len(lines) > 1 else ''} with the inputs"
    return [f'<section class="card problems"><h3>{count}</h3><ul class="lines">{first}</ul>{more}</section>']


def _missing(results: Results) -> list[str]:
    if not results.missing:
        return []
    lines = "".join(f"<li><b>{escape(name)}</b>: {escape(why)}</li>" for name, why in results.missing.items())
    return [f'<h3>Not computed</h3><section class="card"><ul class="lines">{lines}</ul></section>']


def _tables(results: Results, tasks: list[str]) -> list[str]:
    parts = [
        '<h2 id="tables">Tables</h2>',
        '<p class="hint">Means over videos. The best of our rows is marked, among those with the most videos. Rows in '
        "italics are quoted from the paper; its protocol is not published, so compare across the line with care.</p>",
    ]
    columns = ordered_columns(results)
    first = [column for column in paper.COLUMNS if column in columns]
    others = [column for column in columns if column not in first and not is_missing(results, column)]
    for task in tasks:
        parts.append(f"<h3>{escape(task_title(task))}</h3>")
        parts.append(_table(results, task, first, quoted=True))
        shown = [c for c in others if any(a.metrics.get(c) is not None for a in _of(results, task))]
        if shown:
            parts.append("<details><summary>All other columns</summary>")
            for start in range(0, len(shown), 7):
                parts.append(_table(results, task, shown[start : start + 7], quoted=False))
            parts.append("</details>")
    if notes := notes_of(results):
        parts.append('<ul class="lines">' + "".join(f"<li>{escape(note)}</li>" for note in notes) + "</ul>")
    rows = "".join(
        f'<tr class="quoted"><td>{task}</td><td>{without:.3f}</td><td>{prior:.3f}</td></tr>'
        for task, without, prior in paper.TABLE_1
    )
    head = "<tr><th>GPEN on</th><th>FID without prior ↓</th><th>FID with prior ↓</th></tr>"
    parts.append(
        "<details><summary>Table 1 of the paper, quoted: does a task help from another task's weights?</summary>"
        f'<div class="card scroll"><table>{head}{rows}</table></div></details>'
    )
    return parts


def _of(results: Results, task: str) -> list[Aggregate]:
    return [aggregate for aggregate in results.aggregates if aggregate.task == task]


def _table(results: Results, task: str, columns: list[str], quoted: bool) -> str:
    head = "".join(f"<th>{escape(title(column))}</th>" for column in columns)
    rows = []
    best = {column: best_values(results, task, column) for column in columns}
    for aggregate in sorted(_of(results, task), key=lambda aggregate: not is_baseline(aggregate.method)):
        kind = "baseline" if is_baseline(aggregate.method) else "method"
        cells = []
        for column in columns:
            value, std = aggregate.metrics.get(column), aggregate.std.get(column)
            text = escape(show_cell(aggregate, column, is_missing(results, column)))
            if value is None:
                cells.append(f'<td class="none" title="{escape(aggregate.why_none.get(column, ""))}">{text}</td>')
                continue
            marked = ' class="best"' if kind == "method" and value == best[column] else ""
            spread = f' <span class="std">± {show_number(column, std)}</span>' if std is not None else ""
            ends = [aggregate.metrics.get(f"{column}_{end}") for end in ("low", "high")]
            if all(end is not None for end in ends):
                spread = f' <span class="std">{" to ".join(show_number(column, end) for end in ends)}</span>'
            cells.append(f"<td{marked}>{text}{spread}</td>")
        count = count_of(aggregate, len(results.names))
        rows.append(
            f'<tr class="{kind}"><td>{escape(name_of(aggregate.method))}</td>{"".join(cells)}<td>{count}</td></tr>'
        )
    if quoted and task in paper.TASKS:
        rows += _quoted_rows(task, columns)
    return f'<div class="card scroll"><table><tr><th></th>{head}<th>videos</th></tr>{"".join(rows)}</table></div>'


def _quoted_rows(task: str, columns: list[str]) -> list[str]:
    place = paper.TASKS.index(task)
    rows: list[str] = []
    for source, table in (("Table 2", paper.TABLE_2), ("Table 3", paper.TABLE_3[:-1])):
        for row in table:
            cells = dict(zip(paper.COLUMNS, row.cells, strict=True))
            if all(cells[column][place] is None for column in columns):
                continue
            values = "".join(f"<td>{show_number(column, cells[column][place])}</td>" for column in columns)
            rule = " rule" if not rows else ""
            rows.append(
                f'<tr class="quoted{rule}"><td>{escape(row.method)} ({source}, quoted)</td>{values}<td>50</td></tr>'
            )
    return rows


def _distributions(results: Results, tasks: list[str]) -> list[str]:
    parts = ['<h2 id="distributions">Distributions</h2>']
    parts.append('<p class="hint">One dot a video, the line is the mean. Point at a dot to see which video it is.</p>')
    columns = ordered_columns(results)
    first = [column for column in columns if column in paper.COLUMNS or column.endswith("_mask")]
    for task in tasks:
        parts.append(f"<h3>{escape(task_title(task))}</h3>")
        parts.append(f'<div class="plots">{_plots(results, task, first)}</div>')
        if others := _plots(results, task, [column for column in columns if column not in first]):
            parts.append(f'<details><summary>Other columns</summary><div class="plots">{others}</div></details>')
    return parts


def _plots(results: Results, task: str, columns: list[str]) -> str:
    methods = methods_of(results)
    figures = []
    for column in columns:
        series = {}
        for method in methods:
            if method == "ground_truth" and not COLUMNS[column].no_reference:
                continue  # perfect, and would squeeze the others
            points = [
                (row.name, value)
                for row in results.rows
                if row.method == method and row.task == task and (value := row.metrics.get(column)) is not None
            ]
            if points:
                series[method] = points
        if series:
            caption = f"<figcaption>{escape(title(column))}</figcaption>"
            figures.append(f"<figure>{caption}{dot_plot(series, methods, column)}</figure>")
    return "".join(figures)


def _worst_frames(records: dict[Pair, Record], output: Path) -> list[str]:
    found: list[tuple[float, str, Path]] = []
    for pair, record in records.items():
        if is_baseline(pair.method) or record.status != "done":
            continue
        folder = record_folder(output, pair)
        psnr = load_frames(folder).get("psnr")
        for file in picture_files(folder, "worst_"):
            index = int(file.stem.removeprefix("worst_"))
            value = float(psnr[index]) if psnr is not None and index < len(psnr) else float("nan")
            shown = f", {value:.2f} dB" if value == value else ""
            label = f"{name_of(pair.method)} · {task_title(pair.task)} · {pair.name} · frame {index}{shown}"
            found.append((value if value == value else float("inf"), label, file))
    if not found:
        return []
    figures = [
        f'<figure><img alt="" src="{_data(file)}"><figcaption>{escape(label)}</figcaption></figure>'
        for _, label, file in sorted(found, key=lambda entry: (entry[0], entry[1]))[:WORST_FRAMES]
    ]
    return [
        '<h2 id="worst">Worst frames</h2>',
        '<p class="hint">Lowest PSNR first: the restored frame at the left, the ground truth at the right.</p>',
        f'<div class="card worst">{"".join(figures)}</div>',
    ]


def _videos(results: Results, records: dict[Pair, Record], evaluator: Evaluator, tasks: list[str]) -> list[str]:
    limit = evaluator.settings.report_videos
    parts = ['<h2 id="videos">Videos</h2>']
    parts.append(
        '<p class="hint">Worst first. The slices show the middle column of pixels of each frame, time from left to '
        "right: what is steady in time is smooth, flicker is a comb.</p>"
    )
    for task in tasks:
        names = _worst_first(results, task)
        shown = names[:limit]
        more = f" ({len(shown)} of {len(names)})" if len(shown) < len(names) else ""
        if shown:
            parts.append(f"<h3>{escape(task_title(task) + more)}</h3>")
        for name in shown:
            pairs = [pair for pair in records if pair.name == name and pair.task in (task, "")]
            problems = [problem for problem in results.problems if problem.name == name and problem.task in (task, "")]
            shown_records = {pair: records[pair] for pair in pairs}
            parts.append(_video(name, shown_records, problems, evaluator.output, methods_of(results)))
    return parts


def _worst_first(results: Results, task: str) -> list[str]:
    """Names of the task's videos by the mean LPIPS of all methods, by PSNR without it."""
    rows = [r for r in results.rows if r.task == task and r.status == "done" and not is_baseline(r.method)]
    column = next((c for c in ("lpips", "psnr") if any(r.metrics.get(c) is not None for r in rows)), None)
    sign = 1.0 if column == "psnr" else -1.0
    scores: dict[str, list[float]] = {row.name: [] for row in rows}
    for row in rows:
        value = row.metrics.get(column) if column else None
        if value is not None:
            scores[row.name].append(sign * value)
    return sorted(scores, key=lambda name: (sum(scores[name]) / len(scores[name]) if scores[name] else 0.0, name))


def _video(name: str, records: dict[Pair, Record], problems: list[Problem], output: Path, methods: list[str]) -> str:
    clips, rows = [], []
    size = ""
    for pair, record in records.items():
        if record.status != "done":
            continue
        size = f"{record.num_frames} frames, {record.width}x{record.height}, {record.fps:.5g} frames/s"
        folder = record_folder(output, pair) / PICTURES
        label = escape(name_of(pair.method))
        clips.append(
            f'<figure><video muted loop playsinline preload="metadata" src="{_data(folder / "clip.mp4")}"></video>'
            f"<figcaption>{label}</figcaption></figure>"
        )
        numbers = [
            f"{COLUMNS[column].title.split(',')[0]} {show_number(column, value)}"
            for column in paper.COLUMNS
            if (value := record.metrics.get(column)) is not None
        ]
        lines = "<br>".join(" · ".join(numbers[start : start + 2]) for start in range(0, len(numbers), 2))
        rows.append(
            f'<div class="label"><b style="color:{colour_of(pair.method, methods)}">{label}</b>'
            f"<small>{lines}</small></div>"
            f'<img class="strip" alt="" src="{_data(folder / "strip.jpg")}">'
            f'<img class="slice" alt="" src="{_data(folder / "slice.jpg")}">'
        )
    head = (
        f'<div class="video-head"><h3>{escape(name)}</h3><p class="facts">{size}</p>'
        '<button data-play type="button">play together</button></div>'
    )
    lines = "".join(f"<li>{escape(f'{name_of(p.method)}: {p.reason}')}</li>" for p in problems)
    missing = f'<ul class="lines">{lines}</ul>' if lines else ""
    heads = '<div class="head"></div><div class="head">frames</div><div class="head">slice over time</div>'
    return (
        f'<section class="card">{head}<div class="clips">{"".join(clips)}</div>'
        f'<div class="rows">{heads}{"".join(rows)}</div>{missing}</section>'
    )


def _protocol(results: Results) -> list[str]:
    text = json.dumps(results.protocol, indent=2, default=str, ensure_ascii=False)
    quoted = f"Quoted figures: {paper.SOURCE}."
    return [
        '<h2 id="protocol">Protocol</h2>',
        f'<p class="hint">All that is needed to get the same numbers; also in results.json. {escape(quoted)}</p>',
        f'<div class="card"><details><summary>Show</summary><pre>{escape(text)}</pre></details></div>',
    ]


def _data(file: Path) -> str:
    """A file as a data URL; empty if it is not there."""
    try:
        content = base64.b64encode(file.read_bytes()).decode()
    except OSError:
        return ""
    return f"data:{MIME[file.suffix]};base64,{content}"
