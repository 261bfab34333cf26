import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import bench
import numpy as np
import pytest
import torch
from benchmarks import common, infer, infer_measure, released
from benchmarks.infer_measure import (
    Run,
    Setup,
    Stopwatch,
    chained_branch_frames,
    measure_run,
    released_branch_frames,
    write_video,
)
from benchmarks.svd_xt import random_svd_xt

from svfr.inference.chain import released_windows
from svfr.inference.pipeline import SVFRPipeline
from svfr.models.components import Components
from tests import tiny

STEPS = 4  # the released windows overlap in the first three


@pytest.fixture(scope="module")
def weights(pipe: SVFRPipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    pipe.save_pretrained(folder)
    return folder


def in_this_process(function: Any, *arguments: Any) -> Any:
    """In the place of a new process, which takes seconds to import all that is imported here."""
    return function(*arguments)


# Formulas


@pytest.mark.parametrize("strategy", ["chained", "released"])
@pytest.mark.parametrize("num_frames", [1, 4, 5, 9])
def test_formula_is_what_is_counted(weights: Path, tmp_path: Path, strategy: str, num_frames: int) -> None:
    video = tmp_path / "in.mp4"
    write_video(video, num_frames, 48)
    run = measure_run(Setup(str(weights), None, None, STEPS, "cpu", "float32", 1), strategy, video, num_frames)
    assert run.branch_frames == run.formula > 0
    assert all(seconds > 0 for seconds in run.seconds.values())
    assert 0 < run.loaded_rss <= run.peak_rss == run.peak


def test_formulas_by_hand() -> None:
    assert chained_branch_frames(16, 16, 1, 30) == 30 * 16
    assert chained_branch_frames(17, 16, 1, 30) == 30 * (16 + 2 * 2)  # one new frame, one shared
    assert chained_branch_frames(17, 16, 1, 30, guided=False) == 30 * (16 + 2)
    assert chained_branch_frames(46, 16, 1, 30) == 30 * (16 + 2 * 2 * 16)
    # Windows of 16: two in each of the first 3 steps, as their stride is 13, and one in the 27 others; two passes
    assert released_branch_frames(16, 16, 3, 30) == 2 * (2 * 16 * (3 * 2 + 27))


@pytest.mark.parametrize("num_steps", [1, 3, 30])
def test_released_formula_has_the_windows_of_the_sampler(num_steps: int) -> None:
    for num_frames in range(1, 120):
        passes = [released_windows(n, 16, 3, num_steps) for n in (min(num_frames, 16), num_frames)]
        frames = sum(len(window) for steps in passes for windows in steps for window in windows)
        assert released_branch_frames(num_frames, 16, 3, num_steps) == 2 * frames


def released_over_chained(num_frames: int) -> float:
    """At the released code's size."""
    return released_branch_frames(num_frames, 16, 3, 30) / chained_branch_frames(num_frames, 16, 1, 30)


def test_chained_spends_less_on_short_videos() -> None:
    assert released_over_chained(16) >= 4
    assert released_over_chained(64) >= 1.35
    assert min(released_over_chained(n) for n in range(1, 17)) >= 4  # also below a clip: released fills its windows


def test_chained_spends_at_most_5_percent_more_at_any_length() -> None:
    worst = max(1 / released_over_chained(n) for n in range(1, 3001))
    assert 1 < worst <= 1.05
    # In the long run 16 / 15 by the shared frame, less the released windows' overlap in 3 of 30 steps.
    in_the_long_run = (16 / 15) / (0.9 + 0.1 * 16 / 13)
    assert 1 / released_over_chained(10**8) == pytest.approx(in_the_long_run, rel=1e-5)
    assert worst < in_the_long_run <= 1.05


# Measuring


def test_stopwatch_gives_time_to_the_innermost_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(infer_measure.time, "perf_counter", lambda: now)
    watch = Stopwatch(torch.device("cpu"))
    with watch.stage("io"):
        now += 1
        with watch.stage("other"):
            now += 10
            with watch.stage("unet"):
                now += 100
            now += 10
        now += 1
    now += 1000
    with watch.stage("vae"):
        now += 5
    assert watch.seconds == {"io": 2, "other": 20, "unet": 100, "vae": 5}


def test_stopwatch_pulls_all_items() -> None:
    watch = Stopwatch(torch.device("cpu"))
    assert list(watch.pull(iter([1, None, 3]), "io")) == [1, None, 3]
    assert watch.seconds["io"] > 0


def test_memory_of_a_measurement_is_its_own() -> None:
    ballast = np.ones(2**27)  # 1 GiB
    assert common.in_new_process(common.peak_rss) < common.peak_rss()
    assert common.peak_rss() > ballast.nbytes


def test_svd_xt_has_the_published_size() -> None:
    components = random_svd_xt(torch.device("meta"), torch.bfloat16)
    unet = components.model.unet
    widened = 4 * 320 * 9  # weights of conv_in's 4 reference channels
    assert sum(p.numel() for p in unet.parameters()) - widened == 1_524_623_082
    assert {p.dtype for part in components.parts.values() for p in part.parameters()} == {torch.bfloat16}
    assert torch.get_default_dtype() == torch.float32


# The command


def test_infer_prints_a_table_and_writes_all_figures(
    weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(infer, "in_new_process", in_this_process)
    output = tmp_path / "results.json"
    arguments = ("--frames", "2,5", "--steps", "1", "--weights", str(weights), "--device", "cpu")
    assert bench.main(["infer", *arguments, "--output", str(output)]) == 0
    shown = capsys.readouterr().out
    for line in ("   2 chained ", "   2 released ", "   5 chained ", "   5 released ", "both branches, stock / fixed"):
        assert line in shown
    results = json.loads(output.read_text())
    assert [(run["num_frames"], run["strategy"]) for run in results["runs"]] == [
        (2, "chained"),
        (2, "released"),
        (5, "chained"),
        (5, "released"),
    ]
    assert [run["branch_frames"] for run in results["runs"]] == [2, 32, 8, 32 + 40]
    assert results["machine"]["torch"] == torch.__version__
    assert results["setup"]["clip_length"] == tiny.CLIP
    assert results["key_values"]["saving"] > 0


def test_a_count_that_differs_from_its_formula_is_an_error(
    weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def measure(*arguments: Any) -> Run:
        return replace(measure_run(*arguments), formula=7)

    monkeypatch.setattr(infer, "in_new_process", in_this_process)
    monkeypatch.setattr(infer, "measure_run", measure)
    arguments = ("--frames", "2", "--steps", "1", "--weights", str(weights), "--device", "cpu")
    assert bench.main(["infer", *arguments]) == 1
    assert "chained, 2 frames: counted 2 branch-frames, the formula has 7" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", [("--frames", "0"), ("--frames", "4,x"), ("--steps", "0")])
def test_wrong_call_is_one_line(
    wrong: tuple[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench.main(["infer", *wrong]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def tiny_in_the_place_of_svd_xt(device: torch.device, dtype: torch.dtype) -> Components:
    return tiny.pipeline(heads=False).components


def test_released_writes_loads_and_restores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(released, "in_new_process", in_this_process)
    monkeypatch.setattr(released, "random_svd_xt", tiny_in_the_place_of_svd_xt)
    arguments = ("--size", str(tiny.SIZE), "--frames", "4", "--steps", "1", "--device", "cpu")
    assert bench.main(["released", *arguments, "--folder", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "loaded in" in shown
    assert f"4 frames of {tiny.SIZE} px" in shown
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("wrong", [("--frames", "0"), ("--folder", "nowhere"), ("--size", "7")])
def test_released_wrong_call_is_one_line(
    wrong: tuple[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(released, "in_new_process", in_this_process)
    monkeypatch.setattr(released, "random_svd_xt", tiny_in_the_place_of_svd_xt)
    assert bench.main(["released", "--device", "cpu", *wrong]) == 2
    assert capsys.readouterr().err.count("\n") == 1
