import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from svfr.demo.checks import Finding, judge_margins
from svfr.demo.ladder import Point, Record, choose, make_points, read_records, scores, summarize
from svfr.models.components import load_folder
from tests import tiny

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


def load_script(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"{name}_script", SCRIPTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


ladder, check_demo = load_script("ladder"), load_script("check_demo")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny.patch_pipeline().save_pretrained(folder)
    return folder


def record(method: str, calls: float, **metrics: float) -> Record:
    everything = {"psnr": 20.0, "ids": 0.5, "gmsd": 0.1, "gradient_energy": 0.9, "vidd": 0.3, "warping_error": 2.0}
    return Record(method, "bfr", 1, calls, 0.1, {**everything, **metrics})


def test_points_leave_out_what_is_the_same() -> None:
    names = [point.name for point in make_points([4, 1, 2], [1.0, 2.0], ["euler", "dpmpp_2m"])]
    assert names[0] == "euler 1 x 1"
    assert "dpmpp_2m 4 x 2" in names
    assert "dpmpp_2m 2 x 1" not in names
    assert len(names) == 8
    both = make_points([2, 1], [1.0], ["antithetic", "euler"])
    assert [p.name for p in both] == ["euler 1 x 1", "antithetic 1 x 1", "euler 2 x 1", "antithetic 2 x 1"]
    assert [p.name for p in make_points([1], [1.0], ["dpmpp_2m"])] == ["dpmpp_2m 1 x 1"]


def test_choice_is_the_cheapest_that_is_not_worse() -> None:
    found = [
        record("degraded", 0, psnr=30.0),
        record("euler 1 x 1", 1, psnr=24.0, gmsd=0.2, gradient_energy=0.3),
        record("euler 4 x 1", 4, psnr=23.9, gmsd=0.1),
        record("euler 30 x 1", 30, psnr=23.9, gmsd=0.0999),
    ]
    summary = summarize(found)
    assert choose(summary) == "euler 4 x 1"
    assert "degraded" not in scores(summary)
    assert scores(summary)["euler 1 x 1"] < scores(summary)["euler 4 x 1"]


def test_score_by_hand() -> None:
    summary = summarize(
        [record("euler 1 x 1", 1, gradient_energy=0.75), record("euler 2 x 1", 2, psnr=21.0, gradient_energy=1.25)]
    )
    # equal columns count full for both; psnr: 0 and 1 of fidelity's two; 0.75 and 1.25 are equally far from 1
    assert scores(summary)["euler 2 x 1"] == pytest.approx(1.0)
    assert scores(summary)["euler 1 x 1"] == pytest.approx(1 - 1 / 6)


def test_margins_are_judged_against_the_better_of_both() -> None:
    def row(psnr: float) -> dict[str, float | None]:
        return {"psnr": psnr, "ssim": 0.5, "gmsd": 0.1, "gradient_energy": 0.5, "ids": None}

    group = {"degraded": row(20.0), "trivial": row(22.0), "restored": row(24.5)}
    assert not [f for f in judge_margins({"colorization": group}) if "gmsd" in f.what]
    findings = judge_margins({"bfr": group})
    by_name = {finding.what: finding for finding in findings}
    assert by_name["bfr: psnr, degraded / trivial / restored"].holds
    assert not by_name["bfr: ssim, degraded / trivial / restored"].holds
    assert by_name["bfr: margin in psnr [dB], aim +3"] == Finding("bfr: margin in psnr [dB], aim +3", "+2.50", False)


def test_ladder_command_writes_its_files_and_goes_on(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["--weights", str(model), "--output", str(tmp_path), "--clips", "1", "--frames", "5"]
    call += ["--steps", "1", "2", "--guidance", "1", "2", "--samplers", "euler"]
    assert ladder.main(call) == 0
    printed = capsys.readouterr().out
    assert "| euler 2 x 2 |" in printed
    assert (tmp_path / "ladder.png").stat().st_size > 1000
    lines = (tmp_path / "records.jsonl").read_text().splitlines()
    assert len(lines) == 4 * 6
    assert json.loads(lines[0])["method"] == "degraded"
    (tmp_path / "records.jsonl").write_text("\n".join([*lines[:-1], lines[-1][:20]]))
    assert len(read_records(tmp_path / "records.jsonl")) == 23
    assert ladder.main([*call, "--set-default"]) == 0
    assert len(read_records(tmp_path / "records.jsonl")) == 24
    assert capsys.readouterr().out == printed
    chosen = printed.split("not worse than the best: ")[1].splitlines()[0]
    settings = load_folder(model).settings
    assert chosen == f"{settings.sampler} {settings.num_inference_steps} x {settings.guidance_scale:g}"
    assert settings.size == tiny.SIZE


def test_check_command_reports_what_does_not_hold(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["--weights", str(model), "--output", str(tmp_path), "--clips", "1", "--frames", "3"]
    assert check_demo.main([*call, "--long-clips", "1", "--long-frames", "9"]) == 1  # made weights restore nothing
    report = (tmp_path / "checks.md").read_text()
    for words in ("bfr: psnr", "margin in psnr_chroma", "by prompt", "right / another", "drift over 9 frames"):
        assert words in report
    assert "| NO |" in report
    assert report in capsys.readouterr().out


@pytest.mark.parametrize("command", [ladder, check_demo])
def test_wrong_calls(command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = ["--weights", str(tmp_path / "none"), "--output", str(tmp_path / "out")]
    assert command.main(call) == 2
    assert command.main([*call, "--clips", "0"]) == 2
    assert command.main([*call, "--frames", "0"]) == 2
    error = capsys.readouterr().err
    assert "none" in error
    assert "--frames 0" in error
    assert "has to be at least 1" in error


def test_names_of_points_are_those_of_records() -> None:
    assert Point(4, 1.5, "dpmpp_2m").name == "dpmpp_2m 4 x 1.5"
