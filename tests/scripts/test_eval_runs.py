"""`scripts/eval.py` on several processes; where its numbers come from; `--run` with settings, costs and provenance."""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import eval as script  # scripts/eval.py, under a name that workers find, too
import pytest

from svfr import config
from svfr.evaluation import settings as evaluation_settings
from svfr.evaluation import testset
from svfr.evaluation.settings import EvalConfig
from svfr.files import sha256_of, sha256_of_all
from svfr.inference.processes import Processes
from svfr.metrics import BuiltMetrics
from svfr.models.sources import weights_files
from tests import tiny
from tests.clips import NTSC, MarkDetector, video
from tests.evaluation.stand_in import Motion, Psnr, built
from tests.scripts.test_eval import FRAMES, SCRIPT, Eval, clip, noisy, png

ROOT = SCRIPT.parents[1]
START_LIMIT = 240  # [s] for a process to start on a busy machine
SMALL = ("metrics=[psnr,ssim,warping]", "picture_size=32")  # without networks


@pytest.fixture
def evaluate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Eval:
    for seed, name in enumerate("abc"):
        png(tmp_path / "gt" / name, clip(seed))
        png(tmp_path / "r" / name, noisy(clip(seed), 5 + seed))
    return Eval(tmp_path, capsys)


def words(folder: Path, output: str) -> list[str]:
    places = ["--ground-truth", str(folder / "gt"), "--restored", str(folder / "r"), "--output", str(folder / output)]
    return [*places, *SMALL]


# Processes


@pytest.mark.slow
def test_two_ranks_and_two_workers_give_the_results_of_one(evaluate: Eval, tmp_path: Path) -> None:
    (tmp_path / "r" / "b" / "000003.png").write_bytes(b"broken")
    before = signal.getsignal(signal.SIGTERM)
    assert script.main(words(tmp_path, "one")) == 1
    assert script.main([*words(tmp_path, "workers"), "workers=2"]) == 1
    signal.signal(signal.SIGTERM, before)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(SCRIPT)]
    done = subprocess.run(
        [*launch, *words(tmp_path, "ranks")],
        capture_output=True,
        text=True,
        timeout=2 * START_LIMIT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    assert done.stdout.count("8 rows, 1 problem: ") == 1, done.stderr  # the main process alone speaks
    assert "another call" not in done.stderr  # as if each took itself for the only one
    assert done.stderr.count("restored/bfr/b: ") == 1
    one, workers, ranks = (
        json.loads((tmp_path / name / "results.json").read_text()) for name in ("one", "workers", "ranks")
    )
    assert ranks == workers == one


def test_a_second_call_on_the_same_folder_is_one_line(evaluate: Eval, tmp_path: Path) -> None:
    with Processes().alone_in(evaluate.output):
        evaluate("--restored", str(tmp_path / "r"), code=2)
        line = f"eval.py: {evaluate.output}: another call writes here (process {os.getpid()} on "
        assert evaluate.err.startswith(line)
        assert evaluate.err.count("\n") == 1
        assert not (evaluate.output / "results.json").exists()
    evaluate("--restored", str(tmp_path / "r"))


def test_a_filesystem_without_locks_is_said(evaluate: Eval, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    evaluate("--restored", str(tmp_path / "r"))
    assert f"{evaluate.output}: no locks on this filesystem" in evaluate.err


# Where the numbers come from


def test_the_test_set_is_described_by_what_made_it(
    evaluate: Eval, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(testset, "load_detector", lambda name, networks: MarkDetector())
    (tmp_path / "source" / "deep").mkdir(parents=True)
    for name, rate in (("a", NTSC), ("deep/b", Fraction(24))):
        video(tmp_path / "source" / f"{name}.mp4", clip(0), fps=rate)
    png(tmp_path / "source" / "frames", clip(0))
    made = tmp_path / "set"
    settings = evaluation_settings.TestsetConfig(alignment="ffhq", size=48, tasks=["bfr"])
    testset.make_testset(tmp_path / "source", made, settings)
    evaluate("--restored", str(made / "degraded"), truth=made / "ground_truth")
    protocol = evaluate.results["protocol"]
    assert protocol["test_set"]["settings"]["alignment"] == "ffhq"
    assert protocol["test_set"]["settings"]["size"] == 48
    assert protocol["test_set"]["manifest_sha256"] == sha256_of(made / "manifest.jsonl")
    rates = {name: row["fps"] for name, row in evaluate.rows().items()}
    assert rates == {"a": pytest.approx(float(NTSC)), "deep/b": 24.0, "frames": None}
    assert "29.97 frames/s" in (evaluate.output / "report.html").read_text()
    evaluate("--restored", str(made / "degraded" / "bfr" / "deep" / "b"), truth=made / "ground_truth" / "deep" / "b")
    assert [row["fps"] for row in evaluate.rows().values()] == [24.0]


def test_what_is_not_known_is_absent(evaluate: Eval, tmp_path: Path) -> None:
    (tmp_path / "manifest.jsonl").write_text('{"id": "of training clips"}\n')
    (tmp_path / "r" / "report.json").write_text('["of someone else"]')
    evaluate("--restored", str(tmp_path / "r"))
    protocol = evaluate.results["protocol"]
    assert not {"test_set", "restored"} & protocol.keys()
    assert not {"testset", "restore"} & protocol["settings"].keys()
    assert protocol["packages"].keys() >= {"torch", "numpy", "av"}
    assert evaluate.aggregate()["cost"] == {}
    assert {row["fps"] for row in evaluate.results["videos"]} == {None}
    assert "UNet runs" not in (evaluate.output / "table.md").read_text() + evaluate.out


# --run


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    tiny.pipeline().save_pretrained(tmp_path / "weights")
    return tmp_path / "weights"


def test_each_run_has_its_settings_its_cost_and_its_provenance(evaluate: Eval, tmp_path: Path, weights: Path) -> None:
    for task in ("bfr", "colorization"):
        png(tmp_path / "lq" / task / "a", noisy(clip(0), 20))
    (tmp_path / "gt" / "b").rename(tmp_path / "b")
    (tmp_path / "gt" / "c").rename(tmp_path / "c")
    few = "num_inference_steps=1,reference_frame=none"
    runs = [f"ours={weights}", f"ours:bfr={weights},{few}", f"single:bfr={weights},{few}"]
    runs += [f"original={weights},strategy=released,num_inference_steps=[2,1]"]
    named = [word for run in runs for word in ("--weights", run)]
    evaluate("--run", "--degraded", str(tmp_path / "lq"), *named)
    restored = evaluate.results["protocol"]["restored"]
    assert {method: list(tasks) for method, tasks in restored.items()} == {
        "ours": ["bfr", "colorization"],
        "single": ["bfr"],
        "original": ["bfr", "colorization"],
    }
    assert restored["ours"]["bfr"]["settings"]["num_inference_steps"] == 1
    assert restored["ours"]["colorization"]["settings"]["num_inference_steps"] == tiny.STEPS
    assert restored["ours"]["colorization"]["settings"]["reference_frame"] == "best"
    assert restored["original"]["bfr"]["settings"]["strategy"] == "released"
    assert restored["original"]["bfr"]["settings"]["clip_length"] == tiny.CLIP
    expected = sha256_of_all(weights_files(weights))
    assert {about["weights_sha256"] for tasks in restored.values() for about in tasks.values()} == {expected}

    # Clips of frames 0 to 3 and 3 to 6, a step each, a branch each.
    row = evaluate.rows("ours")["a"]
    assert row["cost"]["unet_runs"] == pytest.approx(8 / FRAMES)
    # Two passes: 2 steps of the first clip, 1 of windows over all frames, with two branches each.
    assert evaluate.aggregate("original")["cost"]["unet_runs"] > (2 * 4 * 2 + 7 * 2) / FRAMES - 1e-9
    for cost in (row["cost"], evaluate.aggregate("single")["cost"]):
        assert 0 < cost["seconds"] < 60
        assert 0.05 < cost["peak_gib"] < 16
        assert cost["memory"] == "resident"
        assert cost["device"]
    page = (evaluate.output / "report.html").read_text()
    for text in ((evaluate.output / "table.md").read_text(), evaluate.out):
        [line] = [line for line in text.splitlines() if line.startswith("| single") and "resident" in line]
        assert [cell.strip() for cell in line.split("|")][1:4] == ["single", "BFR", f"{8 / FRAMES:.2f}"]
    assert "<h3>What restoring took</h3>" in page

    evaluate("--run", "--degraded", str(tmp_path / "lq"), "--weights", f"ours:bfr={weights},{few}", code=2)
    old = evaluate.output / "restored" / "ours" / "colorization"
    assert evaluate.err == f"eval.py: {old}: an earlier call's; remove it, or name the task\n"

    # What infer.py has restored says the same of itself.
    evaluate("--restored", f"again={evaluate.output / 'restored' / 'single'}", output=tmp_path / "again")
    results = json.loads((tmp_path / "again" / "results.json").read_text())
    assert results["protocol"]["restored"]["again"]["bfr"] == restored["single"]["bfr"]


@pytest.mark.parametrize(
    ("named", "line"),
    [
        (["x=demo,stratgy=released"], "Did you mean: 'strategy'?"),
        (["x=demo,strategy=relesed"], "choose from chained, released"),
        (["x:bfrr=demo"], "NAME:TASK=WEIGHTS"),
        (["x:bfr=demo", "x:bfr=demo"], "'x:bfr' is taken"),
        (["demo", "demo"], "'svfr' is taken"),
        (["x:inpainting=demo"], "has no such task, but bfr"),
        (["x="], "NAME=WEIGHTS"),
    ],
)
def test_wrong_weights_are_one_line(evaluate: Eval, tmp_path: Path, named: list[str], line: str) -> None:
    png(tmp_path / "lq" / "bfr" / "a", clip(0))
    options = [word for weights in named for word in ("--weights", weights)]
    evaluate("--run", "--degraded", str(tmp_path / "lq"), *options, code=2)
    assert evaluate.err.count("\n") == 1
    assert f"--weights {named[-1].partition('=')[0]}" in evaluate.err
    assert line in evaluate.err


# Networks


def test_a_network_that_is_missing_stops_a_protocol_before_it_restores(
    evaluate: Eval, tmp_path: Path, weights: Path
) -> None:
    png(tmp_path / "lq" / "a", clip(0))
    run = ["--run", "--weights", str(weights), "--degraded", str(tmp_path / "lq"), "restore.num_inference_steps=1"]
    evaluate(*run, "missing=fail", code=2)
    reason = "network 'lpips_vgg' is missing"
    assert evaluate.err == f"eval.py: lpips cannot be computed, missing=note goes on without; lpips: {reason}\n"
    assert not (evaluate.output / "restored").exists()
    evaluate(*run, "missing=note", code=1)
    assert evaluate.results["not_computed"] == {"lpips": reason}

    def not_installed(name: str, networks: Path | None) -> None:
        raise ValueError(f"the detector '{name}' is not installed")

    evaluate.script.load_detector = not_installed  # type: ignore[attr-defined]
    evaluate(*run, "missing=fail", "detector=insightface/buffalo_l", code=2)
    reason = "the detector 'insightface/buffalo_l' is not installed"
    assert evaluate.err.startswith(
        "eval.py: ids, landmarks, lpips cannot be computed, missing=note goes on without; ids: "
    )
    assert evaluate.err.endswith(f"{reason}\n")
    evaluate(*run, "missing=note", "detector=insightface/buffalo_l", code=1)
    assert evaluate.results["not_computed"]["ids"] == reason


def test_the_title_names_the_network(evaluate: Eval, tmp_path: Path) -> None:
    class Recognized(Motion):
        protocol = {"network": {"name": "insightface/made", "file": "made.onnx"}}  # noqa: RUF012

    metrics = BuiltMetrics([Psnr(), Recognized()], built().sets, {})
    evaluate.script.build_metrics = lambda *_, **__: metrics  # type: ignore[attr-defined]
    evaluate("--restored", str(tmp_path / "r"))
    for text in ((evaluate.output / "table.md").read_text(), (evaluate.output / "report.html").read_text()):
        assert "VIDD, insightface/made" in text
        assert "PSNR [dB] ↑" in text


def test_the_papers_protocol_names_its_networks() -> None:
    settings = config.load(EvalConfig, ROOT / "configs" / "eval_vfhq.yaml")
    assert settings.missing == "fail"
    assert settings.detector == settings.testset.detector == settings.recognizer == "insightface/buffalo_l"
    assert settings.landmarker == "face_alignment"
