"""What a paper prints beside the means, held against hand-computed figures; `table.tex` against a small parser."""

import csv
import io
import re
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path

import pytest

from svfr.evaluation.pairs import Pair
from svfr.evaluation.records import Record
from svfr.evaluation.results import Aggregate, Results, common_videos
from svfr.evaluation.settings import EvalConfig
from svfr.evaluation.statistics import by_video, half_width, paired_p, places
from svfr.evaluation.tables import latex, table_csv, table_markdown, table_tex, wilcoxon_table


def made(figures: dict[str, dict[str, list[float | None]]], task: str = "bfr") -> Results:
    """Results of figures of videos, by method and column."""
    rows, aggregates = [], []
    for method, columns in figures.items():
        count = max(map(len, columns.values()))
        for index in range(count):
            metrics = {column: values[index] for column, values in columns.items()}
            rows.append(Record(method, task, f"v{index}", "done", "", metrics=metrics))
        known = {column: [value for value in values if value is not None] for column, values in columns.items()}
        means = {column: sum(values) / len(values) if values else None for column, values in known.items()}
        aggregates.append(Aggregate(method, task, count, 0, metrics=means))
    names = sorted({row.name for row in rows})
    return Results({"name": "", "settings": asdict(EvalConfig())}, names, rows, aggregates, [], {}, {})


FIGURES: dict[str, dict[str, list[float | None]]] = {
    "ground_truth": {"psnr": [None] * 6, "lpips": [0.0] * 6, "colourfulness": [20.0] * 6},
    "A_1": {"psnr": [30.0, 31, 32, 33, 34, 35], "lpips": [0.2] * 6, "colourfulness": [18.0] * 6},
    "B&C": {"psnr": [29.0, 29, 29, 29, 29, 29], "lpips": [0.1] * 6, "colourfulness": [21.0] * 6},
    "D": {"psnr": [20.0] * 6, "lpips": [0.1] * 6, "colourfulness": [29.0] * 6},
}


def test_interval_of_the_mean() -> None:
    assert half_width([1, 2, 3, 4, 5]) == pytest.approx(2.7764451 * 1.5811388 / 5**0.5, abs=1e-6)
    assert half_width([1.0]) is None
    rows = list(csv.DictReader(io.StringIO(table_csv(made(FIGURES)))))
    [ours] = [row for row in rows if row["method"] == "A_1"]
    half = half_width([30.0, 31, 32, 33, 34, 35])
    assert half is not None
    assert (float(ours["psnr"]), float(ours["psnr_from"])) == (32.5, pytest.approx(32.5 - half))
    assert float(ours["psnr_to"]) == pytest.approx(32.5 + half)
    assert (ours["task"], ours["videos"]) == ("bfr", "6")


def test_paired_tests_are_over_common_videos() -> None:
    first = {f"v{i}": float(i + 2) for i in range(7)}
    second = {f"v{i}": 1.0 for i in range(6)}
    assert paired_p(first, second) == (pytest.approx(2 / 2**6), 6)  # all of one sign
    assert paired_p(second, second) == (1.0, 6)
    assert paired_p(first, {"v0": 1.0}) is None


def test_places_and_judged_distances() -> None:
    results = made(FIGURES)
    assert places(results, "bfr", "psnr") == {"A_1": 0, "B&C": 1, "D": 2}
    assert places(results, "bfr", "lpips") == {"A_1": 1, "B&C": 0, "D": 0}  # what prints alike is equal
    assert places(results, "bfr", "colourfulness") == {"A_1": 1, "B&C": 0, "D": 2}  # the nearest to the truth's own
    assert by_video(results, "bfr", "A_1", "colourfulness", judged=True) == {f"v{i}": 2.0 for i in range(6)}
    without = made({name: columns for name, columns in FIGURES.items() if name != "ground_truth"})
    assert places(without, "bfr", "colourfulness") == {}
    assert places(made({"A": FIGURES["D"]}), "bfr", "psnr") == {}
    rows = wilcoxon_table(results, "bfr")
    assert [row[:2] for row in rows[1:]] == [["A_1", "best"], ["B&C", "p = 0.031, n = 6"], ["D", "p = 0.031, n = 6"]]


def parse(text: str) -> list[list[str]]:
    """Cells of the rows of a tabular; fails on what LaTeX would fail on."""
    body = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    assert re.findall(r"\\(begin|end)\{(\w+)\}", body) == [("begin", "tabular"), ("end", "tabular")]
    assert body.isascii()
    plain = re.sub(r"\\[&%$#_{}]", "", body)
    assert not re.search(r"[#_%^~]", plain), "not escaped"
    assert plain.count("$") % 2 == 0
    depth = 0
    for sign in plain:
        depth += (sign == "{") - (sign == "}")
        assert depth >= 0
    assert depth == 0
    columns = re.search(r"\\begin\{tabular\}\{(\w+)\}", body)
    assert columns is not None
    width = len(columns[1])
    rows = [line.removesuffix(r" \\") for line in body.splitlines() if line.endswith(r"\\")]
    table = []
    for row in rows:
        span = re.match(r"\\multicolumn\{(\d+)\}", row)
        cells = [row] if span else re.split(r"(?<!\\)&", row)
        assert (int(span[1]) if span else len(cells)) == width, row
        table.append([cell.strip() for cell in cells])
    commands = set(re.findall(r"\\([a-z]+)", body))
    known = {
        "begin",
        "end",
        "toprule",
        "midrule",
        "bottomrule",
        "multicolumn",
        "textit",
        "textbf",
        "underline",
        "addlinespace",
    }
    assert commands <= known | {"uparrow", "downarrow", "textbackslash"}
    return table


def test_the_latex_table() -> None:
    other = made({"A_1": FIGURES["A_1"], "B&C": FIGURES["B&C"]}, "bfr+colorization")
    results = made(FIGURES)
    results.aggregates.extend(other.aggregates)
    text = table_tex(results)
    table = parse(text)
    assert table[0] == ["Method", r"PSNR [dB] $\uparrow$", r"LPIPS, VGG $\downarrow$"]  # no column without a figure
    assert table[1] == [r"\multicolumn{3}{l}{\textit{BFR, 6 videos}}"]
    assert [row[0] for row in table[2:]] == ["ground truth", r"A\_1", r"B\&C", "D", table[6][0], r"A\_1", r"B\&C"]
    assert [row[1] for row in table[2:6]] == ["--", r"\textbf{32.500}", r"\underline{29.000}", "20.000"]
    assert [row[2] for row in table[3:6]] == [r"\underline{0.200}", r"\textbf{0.100}", r"\textbf{0.100}"]
    assert text.splitlines()[text.splitlines().index(r"\addlinespace") - 1].startswith("ground truth")
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == 1
    assert latex("50% of {x}_y \\ ~ → ↑") == r"50\% of \{x\}\_y \textbackslash{} \textasciitilde{} → $\uparrow$"


def test_only_videos_that_all_methods_have() -> None:
    """Each task by itself; a method without results counts for nothing."""
    done = {"A": ["v0", "v1", "v2"], "B": ["v1", "v2", "v3"], "ground_truth": ["v0", "v1", "v2", "v3"], "C": []}
    records = {}
    for method, names in done.items():
        for name in ("v0", "v1", "v2", "v3"):
            pair = Pair(method, "" if method == "ground_truth" else "bfr", name, Path("gt"), None)
            status = "done" if name in names else "failed"
            records[pair] = Record(method, pair.task, name, status, "", metrics={"psnr": float(name[1])})

    def results_of(records: dict[Pair, Record]) -> Results:
        figures: dict[str, dict[str, list[float | None]]] = {}
        for pair, record in records.items():
            if record.status == "done":
                figures.setdefault(pair.method, {"psnr": []})["psnr"].append(record.metrics["psnr"])
        return made(figures)

    results, kept = results_of(records), results_of(common_videos(records))
    common = replace(results, rows=kept.rows, aggregates=kept.aggregates)
    assert {a.method: a.metrics["psnr"] for a in common.aggregates} == {"A": 1.5, "B": 1.5, "ground_truth": 1.5}
    assert {a.num_videos for a in common.aggregates} == {2}
    _, text = table_markdown(results, common).split("## Of the videos that all methods have")
    rows = [line.split("|") for line in text.splitlines() if line.startswith(("| A ", "| B "))]
    assert [row[-2].strip() for row in rows][:2] == ["2 of 4", "2 of 4"]
    whole = {pair: record for pair, record in records.items() if pair.name in ("v1", "v2") and record.status == "done"}
    assert common_videos(whole) == whole
    assert "that all methods have" not in table_markdown(common, common)


def test_blocks_are_apart() -> None:
    lines = table_tex(made(FIGURES)).splitlines()
    assert not any(a == b == "\\midrule" for a, b in pairwise(lines))
