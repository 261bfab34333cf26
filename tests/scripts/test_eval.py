"""`scripts/eval.py` on good and bad input: exit codes, one line for each fault, the same numbers in any split."""

import importlib.util
import json
import re
import shutil
import signal
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from svfr.data.detectors import FaceDetector
from svfr.evaluation import records
from svfr.evaluation.settings import EvalConfig
from svfr.inference import folder
from svfr.metrics import METRICS, BuiltMetrics, SetFeatures
from svfr.metrics.frechet import FVD
from svfr.metrics.image import PSNR
from svfr.metrics.no_reference import Sharpness
from svfr.metrics.temporal import WarpingError
from svfr.networks import NetworkMissing
from tests import tiny
from tests.clips import MarkDetector, scene, truncated, video
from tests.evaluation.stand_in import MeanColour, Motion, Psnr, built
from tests.metrics.test_fvd import SmallNetwork

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "eval.py"
FRAMES = 7


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("eval_script", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def clip(seed: int, frames: int = FRAMES, size: int = 64) -> list[np.ndarray]:
    faces: list[tuple[int, int, int] | None] = [(10 + 2 * index + seed, 12, 30) for index in range(frames)]
    return scene(frames, faces, size, size)


def png(folder: Path, images: list[np.ndarray]) -> Path:
    folder.mkdir(parents=True)
    for index, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{index:06d}.png")
    return folder


def noisy(images: list[np.ndarray], level: float) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [np.clip(image + random.normal(0, level, image.shape), 0, 255).astype(np.uint8) for image in images]


class Eval:
    """Calls of the script in this process, on stand-in metrics."""

    def __init__(self, folder: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.folder, self.output = folder, folder / "out"
        self._capture = capture
        self.script = load_script()
        self.script.load_detector = lambda name, networks: MarkDetector()  # type: ignore[attr-defined]
        self.script.build_metrics = lambda *_, **__: built()  # type: ignore[attr-defined]
        self.err = self.out = ""

    def __call__(self, *more: str, output: Path | None = None, truth: Path | None = None, code: int = 0) -> "Eval":
        before = signal.getsignal(signal.SIGTERM)
        words = [*more, "--output", str(output or self.output)]
        words += ["--ground-truth", str(truth or self.folder / "gt")] if truth != Path() else []
        try:
            result = self.script.main([*words, "picture_size=32"])
        finally:
            signal.signal(signal.SIGTERM, before)
        self.out, self.err = self._capture.readouterr()
        assert "Traceback" not in self.out + self.err
        assert result == code, self.err
        return self

    @property
    def results(self) -> dict[str, Any]:
        return json.loads((self.output / "results.json").read_text(), parse_constant=_no_constant)

    def rows(self, method: str = "restored", task: str = "bfr") -> dict[str, dict[str, Any]]:
        rows = [row for row in self.results["videos"] if row["method"] == method and row["task"] == task]
        return {row["name"]: row for row in rows}

    def aggregate(self, method: str = "restored", task: str = "bfr") -> dict[str, Any]:
        found = [a for a in self.results["aggregates"] if (a["method"], a["task"]) == (method, task)]
        assert len(found) == 1
        return found[0]

    def reason(self, method: str, task: str, name: str = "") -> str:
        place = (method, task, name)
        [reason] = [p["reason"] for p in self.results["problems"] if (p["method"], p["task"], p["name"]) == place]
        return reason

    @property
    def problems(self) -> dict[str, str]:
        return {problem["name"]: problem["reason"] for problem in self.results["problems"]}


def _no_constant(name: str) -> float:
    raise AssertionError(f"{name} in results.json")


@pytest.fixture
def evaluate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Eval:
    for seed, name in enumerate("abc"):
        png(tmp_path / "gt" / name, clip(seed))
        png(tmp_path / "lq" / name, noisy(clip(seed), 20))
        png(tmp_path / "r" / name, noisy(clip(seed), 5 + seed))
    return Eval(tmp_path, capsys)


def test_defaults_name_every_metric() -> None:
    assert set(METRICS) - set(EvalConfig().metrics) == {"arniqa", "sharpness", "photo"}  # for footage without a truth


def test_numbers_rows_and_files(evaluate: Eval, tmp_path: Path) -> None:
    evaluate("--restored", str(tmp_path / "r"), "--degraded", str(tmp_path / "lq"))
    results = evaluate.results
    assert [a["method"] for a in results["aggregates"]] == ["ground_truth", "degraded", "bicubic", "restored"]
    for name, row in evaluate.rows().items():
        truth, restored = (
            np.stack([np.asarray(Image.open(file)) for file in sorted((tmp_path / kind / name).iterdir())]).astype(
                float
            )
            for kind in ("gt", "r")
        )
        expected = np.mean(10 * np.log10(255**2 / ((truth - restored) ** 2).mean((1, 2, 3))))
        assert row["metrics"]["psnr"] == pytest.approx(expected, abs=1e-9)
        assert (row["num_frames"], row["width"], row["height"], row["fps"]) == (FRAMES, 64, 64, None)
    means = {method: evaluate.aggregate(method)["metrics"]["psnr"] for method in ("restored", "degraded", "bicubic")}
    assert means["restored"] == pytest.approx(np.mean([r["metrics"]["psnr"] for r in evaluate.rows().values()]))
    assert means["restored"] > means["degraded"] + 5
    truth_row = evaluate.rows("ground_truth")["a"]
    assert truth_row["metrics"]["psnr"] is None
    assert truth_row["why_none"]["psnr"] == "infinite: equal to the ground truth"
    assert truth_row["metrics"]["vidd"] > 0
    assert evaluate.aggregate()["metrics"]["lpips"] is None
    assert evaluate.aggregate("ground_truth")["metrics"]["fvd"] == 0
    clips = evaluate.aggregate()["clips"]
    assert clips == [{"video": name, "starts": list(range(FRAMES))} for name in "abc"]
    assert evaluate.aggregate()["notes"] == []
    assert results["not_computed"] == {"lpips": "network 'lpips_vgg' is missing"}
    assert results["protocol"]["settings"]["chunk_size"] == 4

    vidd = {method: evaluate.aggregate(method)["metrics"]["vidd"] for method in ("restored", "ground_truth")}
    table = (evaluate.output / "table.md").read_text()
    ours = next(line for line in table.splitlines() if line.startswith("| restored"))
    assert [cell.strip() for cell in ours.split("|")[1:-1]] == [
        "restored",
        f"{means['restored']:.3f}",
        "-",
        "not computed",
        "-",
        f"{vidd['restored']:.3f} ({vidd['restored'] - vidd['ground_truth']:+.3f})",
        f"{evaluate.aggregate()['metrics']['fvd']:.2f}",
        "3",
    ]
    assert "| SVFR       | 29.563 / 23.079 / 29.119" in table
    assert "| multi         | 28.936 / 22.921 / 28.303" in table
    assert "| Inpaint      | 9.907" in table

    page = (evaluate.output / "report.html").read_text()
    assert not re.search(r"(src|href)=\"(?!#|report_files/)", page)  # nothing is loaded
    files = {path.relative_to(evaluate.output).as_posix() for path in (evaluate.output / "report_files").rglob("*.*")}
    assert len(files) > 3 * 4 * (3 + 6)  # clips, strips, slices, six frames of each video and row, and the worst
    assert set(re.findall(r"report_files/[^\"]*?\.\w+", page)) == files
    kept = np.asarray(Image.open(evaluate.output / "report_files" / "restored" / "bfr" / "a" / "frame_000006.png"))
    assert np.array_equal(kept, np.asarray(Image.open(tmp_path / "r" / "a" / "000006.png")))
    [curves, *_] = [json.loads(text) for text in re.findall(r"<script[^>]*>(\{.*?\})</script>", page)]
    assert curves["last"] == FRAMES - 1
    assert set(curves["curves"]["PSNR [dB] ↑"]) == {"degraded input", "bicubic", "restored"}  # the truth's is infinite
    assert len(curves["curves"]["PSNR [dB] ↑"]["restored"]) == FRAMES
    assert page.count("data-value=") == 3 * 3 + 3 * 4  # PSNR but for the truth, VIDD
    assert f"{means['restored']:.3f}" in (evaluate.output / "table.tex").read_text()
    assert (evaluate.output / "table.csv").read_text().count("\n") == 1 + 4
    assert page.count('class="strip"') == page.count("<video ") == 3 * 4
    assert len(re.findall(r"src=\"report_files/[^\"]*/clip.mp4\"", page)) == 3 * 4
    assert "network &#39;lpips_vgg&#39; is missing" in page


def test_tasks_and_methods(evaluate: Eval, tmp_path: Path) -> None:
    for task in ("bfr", "colorization+bfr"):
        shutil.copytree(tmp_path / "r", tmp_path / "ours" / task)
    shutil.copytree(tmp_path / "lq", tmp_path / "theirs" / "bfr")
    evaluate("--restored", f"ours={tmp_path / 'ours'}", "--restored", f"theirs={tmp_path / 'theirs'}")
    places = [(a["method"], a["task"]) for a in evaluate.results["aggregates"]]
    assert places == [
        ("ground_truth", "bfr"),
        ("bicubic", "bfr"),
        ("ours", "bfr"),
        ("theirs", "bfr"),
        ("ground_truth", "bfr+colorization"),
        ("bicubic", "bfr+colorization"),
        ("ours", "bfr+colorization"),
    ]


def test_a_method_that_misses_videos_is_not_the_best(evaluate: Eval, tmp_path: Path) -> None:
    png(tmp_path / "best" / "a", noisy(clip(0), 1))
    shutil.copytree(tmp_path / "lq" / "b", tmp_path / "best" / "b")
    words = ["--restored", f"x={tmp_path / 'r'}", "--restored", f"y={tmp_path / 'best'}"]
    evaluate(*words, "--restored", f"z={tmp_path / 'lq'}", code=1)
    psnr = {method: evaluate.aggregate(method)["metrics"]["psnr"] for method in "xyz"}
    assert psnr["y"] > psnr["x"] > psnr["z"]
    page = (evaluate.output / "report.html").read_text()
    assert f'<td class="best">{psnr["x"]:.3f}' in page
    assert f"<td>{psnr['y']:.3f}" in page
    assert page.count("<li>y: no result of this name</li>") == 1  # in the card of video c
    common = {method: np.mean([evaluate.rows(method)[name]["metrics"]["psnr"] for name in "ab"]) for method in "xyz"}
    assert "Of the videos that all methods have" in page
    assert f'<td class="best">{common["y"]:.3f}' in page
    tex = (evaluate.output / "table.tex").read_text()
    assert f"\\textbf{{{common['y']:.3f}}}" in tex
    assert f"\\underline{{{common['x']:.3f}}}" in tex
    rows = [
        line.split("|")[1:3] for line in (evaluate.output / "table.md").read_text().splitlines() if "2 of 3" in line
    ]
    assert [row[1].strip() for row in rows if row[0].strip() == "x"] == [f"{common['x']:.3f}"]
    assert evaluate.out.rstrip().endswith(f"14 rows, 1 problem: {evaluate.output / 'report.html'}")


def test_a_flat_video_is_not_the_most_stable(evaluate: Eval, tmp_path: Path) -> None:
    for name in "abc":
        png(tmp_path / "flat" / name, [np.full((64, 64, 3), (0, 0, 40), np.uint8)] * FRAMES)
    metrics = BuiltMetrics([Psnr(), Motion(), WarpingError()], [], {})
    evaluate.script.build_metrics = lambda *_, **__: metrics  # type: ignore[attr-defined]
    words = ["--restored", f"flat={tmp_path / 'flat'}", "--restored", f"x={tmp_path / 'r'}"]
    evaluate(*words, "--restored", f"y={tmp_path / 'lq'}")
    table = (evaluate.output / "table.md").read_text()
    page = (evaluate.output / "report.html").read_text()
    for column in ("vidd", "warping_error"):
        own, flat, best, other = (
            evaluate.aggregate(method)["metrics"][column] for method in ("ground_truth", "flat", "x", "y")
        )
        assert flat == 0 < own < best < other, "by size alone, the flat one were the best"
        assert f'<td class="best">{best:.3f} ({best - own:+.3f})' in page
        assert f"<td>{flat:.3f} ({-own:+.3f})" in page
        assert f"{best:.3f} ({best - own:+.3f})" in table
        assert f"| {own:.3f} " in table
    evaluate.output = tmp_path / "without"
    evaluate(*words, "baselines=[]")  # nothing to be near to
    assert 'class="best">0.000' not in (evaluate.output / "report.html").read_text()


def test_the_papers_vidd_is_marked_as_of_an_unknown_variant(evaluate: Eval, tmp_path: Path) -> None:
    evaluate("--restored", str(tmp_path / "r"))
    for file in ("table.md", "report.html"):
        text = (evaluate.output / file).read_text()
        assert "does not say which variant of VIDD" in text, file


def test_frames_at_the_cap_are_in_the_tables(evaluate: Eval, tmp_path: Path) -> None:
    metrics = BuiltMetrics([PSNR()], [], {})
    evaluate.script.build_metrics = lambda *_, **__: metrics  # type: ignore[attr-defined]
    Image.fromarray(clip(0)[2]).save(tmp_path / "r" / "a" / "000002.png")
    evaluate("--restored", str(tmp_path / "r"))
    line = "1 of 21 frames equal the truth (PSNR capped at 100 dB)"
    assert evaluate.aggregate()["notes"] == [f"restored: {line}"]
    assert evaluate.aggregate()["num_capped"] == 1
    assert {name: row["num_capped"] for name, row in evaluate.rows().items()} == {"a": 1, "b": 0, "c": 0}
    assert line in (evaluate.output / "table.md").read_text()
    assert line in (evaluate.output / "report.html").read_text()
    assert evaluate.aggregate("ground_truth")["notes"] == []


def test_a_set_metric_is_computed_again_only_for_other_features(evaluate: Eval, tmp_path: Path) -> None:
    computed: list[int] = []

    class Counted(MeanColour):
        def compute(self, features: Sequence[SetFeatures]) -> dict[str, float | None]:
            computed.append(len(features))
            return super().compute(features)

    metrics = BuiltMetrics([Psnr()], [Counted()], {})
    evaluate.script.build_metrics = lambda *_, **__: metrics  # type: ignore[attr-defined]
    evaluate("--restored", str(tmp_path / "r"))
    assert computed == [3, 3, 3]
    first = evaluate.aggregate()["metrics"]["fvd"]
    evaluate("--restored", str(tmp_path / "r"), "--restored", f"y={tmp_path / 'lq'}")
    assert computed == [3] * 4, "y alone is new"
    shutil.rmtree(tmp_path / "r" / "b")
    png(tmp_path / "r" / "b", noisy(clip(1), 60))
    evaluate("--restored", f"restored={tmp_path / 'r'}")
    assert computed == [3] * 5
    assert evaluate.aggregate()["metrics"]["fvd"] != first


def test_networks_are_those_of_the_settings(evaluate: Eval, tmp_path: Path) -> None:
    asked: dict[str, Any] = {}

    def build(*_: Any, **more: Any) -> BuiltMetrics:
        asked.update(more)
        return built()

    evaluate.script.build_metrics = build  # type: ignore[attr-defined]
    evaluate("--restored", str(tmp_path / "r"), "recognizer=a.onnx", "landmarker=onnx", "download=false")
    assert asked == {"recognizer": "a.onnx", "landmarker": "onnx", "download": False, "photo": None}


def numbers(results: dict[str, Any]) -> list[float | None]:
    rows = [*results["videos"], *results["aggregates"]]
    return [value for row in rows for _, value in sorted(row["metrics"].items())]


def test_numbers_do_not_depend_on_chunks(evaluate: Eval, tmp_path: Path) -> None:
    evaluate("--restored", str(tmp_path / "r"))
    first = numbers(evaluate.results)
    for chunk_size in (1, 3):
        evaluate.output = tmp_path / f"chunk{chunk_size}"
        evaluate("--restored", str(tmp_path / "r"), f"chunk_size={chunk_size}")
        assert numbers(evaluate.results) == pytest.approx(first, abs=1e-6)


def test_numbers_do_not_depend_on_names_or_the_order_of_files(
    evaluate: Eval, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = BuiltMetrics([Psnr(), WarpingError()], [FVD(SmallNetwork(), clip_length=4)], {})
    evaluate.script.build_metrics = lambda *_, **__: metrics  # type: ignore[attr-defined]
    for seed, name in enumerate("de", start=3):
        png(tmp_path / "gt" / name, clip(seed, 9 + seed))
        png(tmp_path / "r" / name, noisy(clip(seed, 9 + seed), 5 + seed))
        png(tmp_path / "lq" / name, noisy(clip(seed, 9 + seed), 20))
    words = ["--restored", f"x={tmp_path / 'r'}", "--restored", f"y={tmp_path / 'lq'}"]
    evaluate(*words)
    methods = ("ground_truth", "bicubic", "x", "y")
    rows = {method: evaluate.rows(method) for method in methods}
    sets = {method: evaluate.aggregate(method)["metrics"] for method in methods}
    assert sets["x"]["fvd_clips"] == 9
    assert sets["x"]["fvd_spread_low"] < sets["x"]["fvd"] < sets["x"]["fvd_spread_high"]

    renamed = {"a": "z", "b": "m/k", "c": "m/a", "d": "0", "e": "c"}
    for kind in ("gt", "r", "lq"):
        for name, other in renamed.items():
            shutil.copytree(tmp_path / kind / name, tmp_path / "renamed" / kind / other)
    match, listing = evaluate.script.match, Path.iterdir

    def backwards(*arguments: Any, **more: Any) -> Any:
        matches = match(*arguments, **more)
        matches.names.reverse()
        matches.pairs.reverse()
        return matches

    evaluate.script.match = backwards  # type: ignore[attr-defined]
    monkeypatch.setattr(Path, "iterdir", lambda folder: iter(sorted(listing(folder), reverse=True)))
    evaluate.output = tmp_path / "again"
    words = [f"y={tmp_path / 'renamed' / 'lq'}", "--restored", f"x={tmp_path / 'renamed' / 'r'}"]
    evaluate("--restored", *words, truth=tmp_path / "renamed" / "gt")
    for method in methods:
        again = evaluate.rows(method)
        for name, row in rows[method].items():
            assert again[renamed[name]]["metrics"] == pytest.approx(row["metrics"], abs=1e-6), (method, name)
        assert evaluate.aggregate(method)["metrics"] == pytest.approx(sets[method], abs=1e-6), method


def test_the_clips_of_fvd_are_written_down(evaluate: Eval, tmp_path: Path) -> None:
    metrics = BuiltMetrics([Psnr()], [FVD(SmallNetwork(), clip_length=4)], {})
    evaluate.script.build_metrics = lambda *_, **__: metrics  # type: ignore[attr-defined]
    png(tmp_path / "gt" / "long", clip(3, 13))
    png(tmp_path / "r" / "long", noisy(clip(3, 13), 5))
    png(tmp_path / "gt" / "short", clip(4, 3))
    png(tmp_path / "r" / "short", noisy(clip(4, 3), 5))
    evaluate("--restored", str(tmp_path / "r"))
    aggregate = evaluate.aggregate()
    starts = {entry["video"]: entry["starts"] for entry in aggregate["clips"]}
    assert starts == {"a": [0], "b": [0], "c": [0], "long": [0, 4, 8], "short": []}
    assert aggregate["metrics"]["fvd_clips"] == 6
    assert evaluate.results["protocol"]["metrics"][1]["clip_length"] == 4
    few, short = aggregate["notes"]
    assert few.startswith("FVD of 6 clips in 12 dimensions: its bias dominates")
    assert short == "FVD leaves out 1 of 5 videos, which are shorter than its clips"
    assert short in (evaluate.output / "table.md").read_text()
    assert short in (evaluate.output / "report.html").read_text()


def test_a_second_run_measures_only_what_changed(
    evaluate: Eval, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[str] = []
    start_record = records.start_record

    def spy(output: Path, pair: Any) -> Path:
        measured.append(f"{pair.method}/{pair.name}")
        return start_record(output, pair)

    monkeypatch.setattr(records, "start_record", spy)
    evaluate("--restored", str(tmp_path / "r"))
    assert len(measured) == 9
    before = (evaluate.output / "results.json").read_bytes()
    page = (evaluate.output / "report.html").read_bytes()
    measured.clear()
    evaluate("--restored", str(tmp_path / "r"))
    assert measured == []
    assert (evaluate.output / "results.json").read_bytes() == before
    assert (evaluate.output / "report.html").read_bytes() == page
    shutil.rmtree(tmp_path / "r" / "b")
    png(tmp_path / "r" / "b", clip(1))
    evaluate("--restored", str(tmp_path / "r"))
    assert measured == ["restored/b"]
    assert evaluate.rows()["b"]["metrics"]["psnr"] is None


def test_bad_inputs_are_named_and_the_rest_is_evaluated(evaluate: Eval, tmp_path: Path) -> None:
    results = tmp_path / "r"
    for name in ("short", "long", "small", "slow", "gray", "none", "broken", "single", "nan"):
        frames = 1 if name == "single" else FRAMES
        if name == "slow":
            video(tmp_path / "gt" / "slow.mp4", clip(5), fps=Fraction(30))
        else:
            png(tmp_path / "gt" / name, clip(5, frames))
    png(results / "short", clip(5)[:-2])
    png(results / "long", clip(5, FRAMES + 1))
    png(results / "small", clip(5, size=32))
    video(results / "slow.mp4", clip(5), fps=Fraction(24))
    png(results / "gray", [np.asarray(Image.fromarray(image).convert("L")) for image in clip(5)])
    truncated(results / "broken.mp4", video(tmp_path / "whole.mp4", clip(5), options={"movflags": "+faststart"}))
    png(results / "single", noisy(clip(5, 1), 5))
    png(results / "extra", clip(5))
    (results / "nan").mkdir()
    for index in range(FRAMES):
        Image.fromarray(np.full((64, 64), np.nan, np.float32)).save(results / "nan" / f"{index}.tif")
    (results / "text").mkdir()
    (results / "text" / "notes.txt").write_text("no video")
    evaluate("--restored", str(results), code=1)
    problems = evaluate.problems
    assert problems["short"].endswith("5 frames, the ground truth has 7; nothing is cut")
    assert problems["long"].endswith("8 frames, the ground truth has 7; nothing is cut")
    assert "frames are 32x32, the ground truth's 64x64" in problems["small"]
    assert "24 frames/s, the ground truth 30; set ignore_fps=true" in problems["slow"]
    assert "no colour in any frame" in problems["gray"]
    assert problems["none"] == "no result of this name"
    assert problems["extra"] == "no ground truth of this name"
    assert "truncated or corrupt" in problems["broken"]
    assert "one frame only" in problems["single"]
    assert "pixels that are no numbers" in problems["nan"]
    assert set(problems) == {"short", "long", "small", "slow", "gray", "none", "extra", "broken", "single", "nan"}
    rows = evaluate.rows()
    done = {name for name, row in rows.items() if row["status"] == "done"}
    assert done == {"a", "b", "c", "gray", "single"}
    assert rows["single"]["metrics"]["vidd"] is None
    assert rows["single"]["why_none"]["vidd"] == "one frame only"
    assert rows["single"]["metrics"]["psnr"] > 20
    aggregate = evaluate.aggregate()
    assert (aggregate["num_videos"], aggregate["num_failed"]) == (5, 6)
    assert "5 of 12" in (evaluate.output / "table.md").read_text()
    for name, reason in problems.items():
        assert any(name in line and reason in line for line in evaluate.err.splitlines()), name
    assert "problems" in (evaluate.output / "report.html").read_text()

    evaluate("--restored", str(results), "ignore_fps=true", code=1)
    assert evaluate.rows()["slow"]["status"] == "done"
    assert evaluate.rows()["slow"]["notes"][0].startswith("says 24 frames/s, the ground truth 30")


@pytest.mark.parametrize(("task", "expected"), [("BFR+", "bfr"), ("colorization&bfr", "bfr+colorization")])
def test_the_task_of_folders_without_one_in_any_spelling(
    evaluate: Eval, tmp_path: Path, task: str, expected: str
) -> None:
    evaluate("--restored", str(tmp_path / "r"), f"task={task}")
    assert {row["task"] for row in evaluate.results["videos"]} == {expected}


def test_results_in_another_methods_layout(evaluate: Eval, tmp_path: Path) -> None:
    for name in "abc":
        for inner in ("restored_faces", "cropped_faces"):
            shutil.copytree(tmp_path / "r" / name, tmp_path / "k" / name / inner)
    evaluate("--collect", f"KEEP={tmp_path / 'k'}", "--restored", f"x={tmp_path / 'r'}")
    assert "--collect KEEP: bfr: .png files (21); left out: cropped_faces/ (3)" in evaluate.err.splitlines()
    assert evaluate.aggregate("KEEP")["metrics"] == evaluate.aggregate("x")["metrics"]
    evaluate("--collect", f"KEEP={tmp_path / 'k'}", "--restored", f"KEEP={tmp_path / 'r'}", code=2)
    assert "is there twice" in evaluate.err


def test_gray_colorization_is_a_result(evaluate: Eval, tmp_path: Path) -> None:
    """For other tasks it is a fault of the input, see the test above."""
    for seed, name in enumerate("abc"):
        png(tmp_path / "c" / "Colorization" / name, [image[..., :1].repeat(3, 2) for image in clip(seed)])
    evaluate("--restored", str(tmp_path / "c"))
    notes = "no colour in any frame, though the ground truth has some"
    assert evaluate.rows(task="colorization")["a"]["notes"] == [notes]
    assert f"restored, Colorization: {notes} (3 videos)" in (evaluate.output / "table.md").read_text()


@pytest.mark.parametrize(("lag", "words"), [(1, "1 frame late"), (-2, "2 frames early")])
def test_results_shifted_in_time_are_named(evaluate: Eval, tmp_path: Path, lag: int, words: str) -> None:
    truth = clip(0, 24)
    png(tmp_path / "gt" / "d", truth)
    png(tmp_path / "r" / "d", noisy([truth[min(max(i - lag, 0), 23)] for i in range(24)], 5))
    evaluate("--restored", str(tmp_path / "r"), code=1)
    assert evaluate.problems["d"].startswith(f"fits the ground truth best if taken to be {words}:")
    assert len(evaluate.problems) == 1
    assert evaluate.rows()["d"]["metrics"]["psnr"] > 10


def test_a_broken_ground_truth_fails_alone(evaluate: Eval, tmp_path: Path) -> None:
    (tmp_path / "gt" / "b" / "000003.png").write_bytes(b"broken")
    evaluate("--restored", str(tmp_path / "r"), code=1)
    assert {name for name, row in evaluate.rows().items() if row["status"] == "done"} == {"a", "c"}
    assert "000003.png" in evaluate.problems["b"]


def test_smaller_degraded_inputs_are_enlarged_and_say_so(evaluate: Eval, tmp_path: Path) -> None:
    for seed, name in enumerate("abc"):
        png(tmp_path / "small" / name, clip(seed, size=32))
    evaluate("--restored", str(tmp_path / "r"), "--degraded", str(tmp_path / "small"))
    row = evaluate.rows("degraded")["a"]
    assert row["notes"] == ["enlarged from 32x32 by bicubic interpolation"]
    assert row["metrics"]["psnr"] > 5


def test_frames_without_a_face_are_counted(evaluate: Eval, tmp_path: Path) -> None:
    png(tmp_path / "gt" / "d", scene(FRAMES, [None], 64, 64))
    png(tmp_path / "r" / "d", noisy(scene(FRAMES, [None], 64, 64), 3))
    evaluate("--restored", str(tmp_path / "r"))
    assert evaluate.rows()["d"]["notes"] == ["no face in 7 of 7 frames of the ground truth"]
    assert evaluate.rows()["a"]["notes"] == []


def test_run_restores_every_task_first(evaluate: Eval, tmp_path: Path) -> None:
    tiny.pipeline().save_pretrained(tmp_path / "weights")
    for task in ("bfr", "inpainting"):
        shutil.copytree(tmp_path / "lq", tmp_path / "set" / task)
    hole = np.zeros((64, 64), np.uint8)
    hole[20:40, 20:40] = 255
    (tmp_path / "masks").mkdir()
    for name in "abc":
        Image.fromarray(hole).save(tmp_path / "masks" / f"{name}.png")
    shutil.rmtree(tmp_path / "set" / "bfr" / "b")
    (tmp_path / "set" / "bfr" / "b.mp4").write_bytes(b"broken")
    (tmp_path / "set" / "colorization").mkdir()
    words = ["--run", "--weights", f"tiny={tmp_path / 'weights'}", "--degraded", str(tmp_path / "set")]
    words += ["--masks", str(tmp_path / "masks"), "restore.num_inference_steps=1", "--restored", f"x={tmp_path / 'r'}"]
    evaluate(*words, code=1)
    assert set(evaluate.rows("tiny", "inpainting")) == {"a", "b", "c"}
    assert set(evaluate.rows("tiny", "bfr")) == {"a", "c"}
    line = f"{tmp_path / 'set' / 'bfr' / 'b.mp4'}: {evaluate.reason('tiny', 'bfr', 'b')}"
    assert (evaluate.out + evaluate.err).splitlines().count(line) == 1
    assert "tiny/bfr/b" not in evaluate.out + evaluate.err
    assert "damaged, cut off, or no video at all" in evaluate.reason("tiny", "bfr", "b")
    assert evaluate.reason("tiny", "bfr", "b") in (evaluate.output / "report.html").read_text()
    assert evaluate.reason("tiny", "colorization").endswith("no videos, images or frame folders in it")
    restored = evaluate.output / "restored" / "tiny" / "inpainting" / "a"
    frame = np.asarray(Image.open(restored / "000000.png"))
    given = np.asarray(Image.open(tmp_path / "lq" / "a" / "000000.png"))
    assert np.array_equal(frame[hole == 0], given[hole == 0])  # known pixels are kept
    assert not np.array_equal(frame, given)
    times = {file: file.stat().st_mtime_ns for file in restored.parent.rglob("*.png")}
    evaluate(*words, code=1)
    assert {file: file.stat().st_mtime_ns for file in times} == times
    (tmp_path / "set" / "bfr" / "a" / "000001.png").write_bytes(b"broken")
    evaluate(*words, code=1)  # the older result is there still, and is no result of this input
    assert set(evaluate.rows("tiny", "bfr")) == {"c"}
    assert "000001.png" in evaluate.reason("tiny", "bfr", "a")
    evaluate("--run", "--degraded", str(tmp_path / "set"), "--weights", "tiny=a", "--weights", "tiny=b", code=2)
    assert "'tiny' is taken" in evaluate.err


def test_a_named_detector_that_is_missing_is_one_line(
    evaluate: Eval, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str, networks: Path | None) -> FaceDetector:
        raise NetworkMissing(f"network '{name}' is missing")

    monkeypatch.setattr(folder, "load_detector", missing)
    tiny.pipeline().save_pretrained(tmp_path / "weights")
    words = ["--run", "--weights", str(tmp_path / "weights"), "--degraded", str(tmp_path / "lq")]
    evaluate(*words, "restore.detector=yunet", code=2)
    assert evaluate.err == "eval.py: network 'yunet' is missing\n"


def test_names_are_shown_as_text(evaluate: Eval, tmp_path: Path) -> None:
    shutil.copytree(tmp_path / "r", tmp_path / "<b>&x")
    evaluate("--restored", str(tmp_path / "<b>&x"), "--restored", str(tmp_path / "r"), "name=<i>")
    page = (evaluate.output / "report.html").read_text()
    assert "<title>&lt;i&gt;</title>" in page
    assert "<td>&lt;b&gt;&amp;x</td>" in page
    assert "<b>&x" not in page


def test_footage_without_ground_truth(evaluate: Eval, tmp_path: Path) -> None:
    """The metrics are real ones; each video's flow is its own."""
    metrics = BuiltMetrics([WarpingError(), Sharpness(), Psnr()], [], {"arniqa": "network 'arniqa' is missing"})
    asked: list[Any] = []

    def build(names: list[str], *_: Any, **more: Any) -> BuiltMetrics:
        asked.append((names, more["photo"]))
        return metrics

    evaluate.script.build_metrics = build  # type: ignore[attr-defined]
    for name in "abc":
        still = [np.asarray(Image.open(tmp_path / "gt" / name / "000000.png"))] * FRAMES
        png(tmp_path / "still" / "bfr" / name, still)
    words = ["--no-reference", "--restored", f"x={tmp_path / 'r'}", "--restored", f"still={tmp_path / 'still'}"]
    evaluate(*words, "--degraded", str(tmp_path / "lq"), f"photo={tmp_path / 'gt/a/000000.png'}", truth=Path())
    assert asked == [
        (["colour", "colour_drift", "arniqa", "sharpness", "ids", "warping", "photo"], tmp_path / "gt/a/000000.png")
    ]
    assert [a["method"] for a in evaluate.results["aggregates"]] == ["degraded", "x", "still"]
    assert evaluate.aggregate("still")["metrics"]["warping_error"] == 0
    means = {method: evaluate.aggregate(method)["metrics"] for method in ("degraded", "x")}
    assert means["degraded"]["warping_error"] > means["x"]["warping_error"] > 0
    assert means["degraded"]["sharpness"] > means["x"]["sharpness"]  # noise
    assert means["x"]["psnr"] is None
    assert evaluate.results["problems"] == []
    assert "| Methods" in evaluate.out
    assert "Warping error" in evaluate.out
    assert "PSNR" not in evaluate.out
    page = (evaluate.output / "report.html").read_text()
    assert "Videos without ground truth" in page
    assert "(Table 2, quoted)" not in page
    assert "Warping error" in (evaluate.output / "table.tex").read_text()
    evaluate("--no-reference", "--restored", str(tmp_path / "r"), code=2)
    assert "give --ground-truth DIR, or --no-reference" in evaluate.err


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "nothing to evaluate"),
        (["--restored", "x={r}", "--restored", "x={r}"], "there twice"),
        (["--restored", "{r}/none"], "no such file or folder"),
        (["--restored", "{r}", "--masks", "{r}/none"], "no such file or folder"),
        (["--restored", "{r}", "photo={r}/none.jpg"], "none.jpg: no such file or folder"),
        (["--restored", "{r}", "slice_column=2"], "slice_column=2.0: has to be at most 1"),
        (["--collect", "Other={r}"], "the name begins with one of gpen, keep, codeformer, dicface, pgtformer"),
        (["--restored", "{r}", "metrix=[psnr]"], "'metrix' is no setting. Did you mean: 'metrics'?"),
        (["--restored", "{r}", "chunk_size=0"], "chunk_size=0"),
        (["--restored", "{r}", "metrics=[]"], "metrics: name at least one of psnr"),
        (["--restored", "{r}", "task=foo"], "task=foo: unknown task 'foo'"),
        (["--restored", "{r}", "task=bfr+foo"], "task=bfr+foo: unknown task 'foo'"),
        (["--restored", "{r}", "workers=0"], "workers=0"),
        (["--restored", "{r}", "detector=insightface/buffalo"], "choose from auto, insightface, insightface/buffalo_l"),
        (["--restored", "{r}", "num_videos=50"], "3 videos, the protocol has 50"),
        (["--restored", "{r}", "--weights", "demo"], "--weights is for --run"),
        (["--run"], "give --degraded"),
    ],
)
def test_wrong_calls_are_one_line(evaluate: Eval, tmp_path: Path, words: list[str], line: str) -> None:
    evaluate(*(word.format(r=tmp_path / "r") for word in words), code=2)
    assert evaluate.out == ""
    assert evaluate.err.count("\n") == 1
    assert line in evaluate.err


def test_a_report_that_cannot_be_written_is_one_line(evaluate: Eval, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    evaluate("--restored", str(tmp_path / "r"), output=tmp_path / "file", code=2)
    assert (
        evaluate.err == f"eval.py: {tmp_path / 'file'}: no folder for the results can be made here (Not a directory)\n"
    )


def test_no_ground_truth_is_one_line(evaluate: Eval, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    evaluate("--restored", str(tmp_path / "r"), truth=tmp_path / "empty", code=2)
    assert "no videos, images or frame folders" in evaluate.err
