"""What the scripts show: a table at the end, errors and a line alone with --quiet, one JSON object with --json."""

import json
from pathlib import Path

import pytest
import train as train_script

import svfr
from tests import runs
from tests.scripts.test_eval import Eval, evaluate  # noqa: F401, a fixture
from tests.scripts.test_infer import Infer, add, infer, weights  # noqa: F401, fixtures


@pytest.fixture(autouse=True)
def loud(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(svfr, "quiet", False)


def test_infer_ends_with_a_table(infer: Infer) -> None:  # noqa: F811, asked for as a fixture
    add(infer, "a.mp4")
    (infer.input / "b.mp4").write_bytes(b"no video")
    outcome = infer()
    head, *rows, last = outcome.out.splitlines()
    assert head.split() == ["file", "status", "frames", "faces", "seconds", "notes"]
    assert [row.split()[:2] for row in rows] == [
        [str(infer.input / n), s] for n, s in (("b.mp4", "failed"), ("a.mp4", "done"))
    ]
    assert rows[0].split()[2:] == ["-", "-", "-", "0"]
    assert rows[1].split()[2:4] == ["3", "1"]
    assert last == f"1 done, 1 failed: {infer.output / 'report.json'}"
    assert "all: 100%" in outcome.err
    assert "2/2" in outcome.err


def test_quiet_infer(infer: Infer) -> None:  # noqa: F811, asked for as a fixture
    add(infer, "a.mp4")
    (infer.input / "b.mp4").write_bytes(b"no video")
    outcome = infer("--quiet")
    assert outcome.out == f"1 done, 1 failed: {infer.output / 'report.json'}\n"
    assert [line.split(": ")[0] for line in outcome.err.splitlines()] == [str(infer.input / "b.mp4")]


def test_infer_in_json(infer: Infer) -> None:  # noqa: F811, asked for as a fixture
    add(infer, "a.mp4")
    outcome = infer("--json")
    summary = json.loads(outcome.out)
    assert summary == infer.report["summary"]
    assert {"done": 1, "failed": 0, "num_frames": 3}.items() <= summary.items()
    assert summary["seconds"] > 0


def test_eval_in_json(evaluate: Eval) -> None:  # noqa: F811, asked for as a fixture
    shown = json.loads(evaluate("--restored", str(evaluate.folder / "r"), "--json").out)
    assert shown["aggregates"] == evaluate.results["aggregates"]
    assert (shown["rows"], shown["problems"]) == (len(evaluate.results["videos"]), 0)
    evaluate("--restored", str(evaluate.folder / "r"), "--quiet")
    assert evaluate.out == f"{shown['rows']} rows, 0 problems: {evaluate.output / 'report.html'}\n"
    assert all("not computed" in line for line in evaluate.err.splitlines())


def test_train_says_where_its_weights_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = runs.overrides(tmp_path, max_steps=2)
    assert train_script.main(["--quiet", *words]) == 0
    shown = capsys.readouterr()
    assert shown.out == f"{tmp_path / 'run' / 'weights'}: step 2\n"
    assert "train:" not in shown.err
    assert train_script.main(["--json", *words]) == 0
    assert json.loads(capsys.readouterr().out) == runs.metrics(tmp_path)[-1]
