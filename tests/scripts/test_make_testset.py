"""`scripts/make_testset.py`: whole sets, twice the same, DicFace's layout, and bad input."""

import importlib.util
import json
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from svfr.config import load
from svfr.data.alignment import FFHQ_TEMPLATE
from svfr.data.video import probe
from svfr.evaluation import testset
from svfr.evaluation.settings import EvalConfig
from tests.clips import NTSC, MarkDetector, pixels, scene, truncated, video

ROOT = Path(__file__).resolve().parents[2]


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_testset", ROOT / "scripts" / "make_testset.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Make:
    def __init__(self, folder: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capture = folder, capture
        self.script = load_script()
        self.err = self.out = ""

    def __call__(self, *more: str, truth: str = "gt", output: str = "set", code: int = 0) -> list[dict[str, Any]]:
        words = ["--ground-truth", str(self.folder / truth), "--output", str(self.folder / output), *more]
        result = self.script.main(words)
        self.out, self.err = self._capture.readouterr()
        assert "Traceback" not in self.out + self.err
        assert result == code, self.err
        manifest = self.folder / output / "manifest.jsonl"
        return [json.loads(line) for line in manifest.read_text().splitlines()] if manifest.exists() else []


@pytest.fixture
def make(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Make:
    monkeypatch.setattr(testset, "load_detector", lambda name, networks: MarkDetector())
    (tmp_path / "gt" / "deep").mkdir(parents=True)
    for index, name in enumerate(("a", "deep/b")):
        faces: list[tuple[int, int, int] | None] = [(30 + index + step, 25, 36) for step in range(4)]
        video(tmp_path / "gt" / f"{name}.mp4", scene(4, faces))
    return Make(tmp_path, capsys)


def test_inputs_as_videos_too(make: Make, tmp_path: Path) -> None:
    make("--videos", "tasks=[bfr]", "max_frames=3")
    for name in ("a", "deep/b"):
        made = tmp_path / "set" / "videos" / "bfr" / f"{name}.mp4"
        assert np.array_equal(pixels(made), pixels(tmp_path / "set" / "degraded" / "bfr" / name))
        assert probe(made).fps == NTSC


def test_a_whole_set_twice(make: Make, tmp_path: Path) -> None:
    words = ("alignment=ffhq", "size=48", "tasks=[bfr,inpainting,colorization+bfr]", "max_frames=3")
    entries = make(*words)
    assert [entry["name"] for entry in entries] == ["a", "deep/b"]
    made = tmp_path / "set"
    for entry in entries:
        assert (entry["num_frames"], entry["width"], entry["height"]) == (3, 48, 48)
        assert entry["tasks"].keys() == {"bfr", "inpainting", "bfr+colorization"}
        assert entry["tasks"]["bfr"]["degradation"]["preset"] == "vfhq"
        assert np.array(entry["matrices"]).shape == (1, 2, 3)
        for folder in ("ground_truth", "degraded/bfr", "degraded/inpainting", "degraded/bfr+colorization"):
            assert pixels(made / folder / entry["name"]).shape == (3, 48, 48, 3)
        assert (made / "masks" / f"{entry['name']}.png").is_file()
    settings = json.loads((made / "testset.json").read_text())
    assert settings["settings"]["preset"] == "vfhq"
    assert settings["packages"].keys() == {"numpy", "opencv-python", "av", "pillow"}

    # Another lab
    again = make(*words, "--expect", str(made / "manifest.jsonl"), output="other")
    assert again == entries
    assert "all pixels as expected" in make.out
    make(*words[:-1], "max_frames=2", "--expect", str(made / "manifest.jsonl"), output="third", code=1)
    assert "a: ground_truth has other pixels" in make.err


def test_a_second_run_does_only_what_is_left(make: Make, tmp_path: Path) -> None:
    make()
    files = {file: file.stat().st_mtime_ns for file in (tmp_path / "set" / "degraded").rglob("*.png")}
    make()
    assert {file: file.stat().st_mtime_ns for file in files} == files
    assert make.err.count("done before, skipped") + make.out.count("done before, skipped") == 2
    entries = make("seed=1")
    assert {entry["seed"] for entry in entries} == {1}
    assert any(file.stat().st_mtime_ns != time for file, time in files.items())


def test_bad_clips_are_named_and_the_rest_is_made(make: Make, tmp_path: Path) -> None:
    truncated(
        tmp_path / "gt" / "cut.mp4", video(tmp_path / "w.mp4", scene(9, [None]), options={"movflags": "+faststart"})
    )
    video(tmp_path / "gt" / "faceless.mp4", scene(3, [None]))
    entries = make("alignment=ffhq", "size=48", code=1)
    assert [entry["name"] for entry in entries] == ["a", "deep/b"]
    report = json.loads((tmp_path / "set" / "report.json").read_text())
    reasons = {Path(record["input"]).name: record["reason"] for record in report["videos"] if record["reason"]}
    assert reasons.keys() == {"cut.mp4", "faceless.mp4"}
    assert reasons["faceless.mp4"] == "no face found to align by"
    assert f"cut.mp4: {reasons['cut.mp4']}" in make.out + make.err


def test_dicface_layout(make: Make, tmp_path: Path) -> None:
    root = tmp_path / "test_data"
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 200, (2, 64, 64, 3), dtype=np.uint8)
    hole = np.zeros((64, 64), bool)
    hole[20:40, 24:50] = True
    painted = np.where(hole[..., None], np.uint8(255), truth)
    small = truth[:, ::4, ::4]
    sets = {
        "TEST_DATA": truth,
        "LR_Blind": small,
        "vfhq_test_color_input": truth,
        "vfhq_test_inpaint_input_512": painted,
    }
    for folder, frames in sets.items():
        (root / folder / "Clip+x").mkdir(parents=True)
        for index, frame in enumerate(frames):
            Image.fromarray(frame).save(root / folder / "Clip+x" / f"{index:08d}.png")
    (root / "vfhq_test_landmarks").mkdir()
    points = np.stack([FFHQ_TEMPLATE / 8, FFHQ_TEMPLATE / 8 + 2])  # the second frame is moved by (2, 2)
    np.savetxt(root / "vfhq_test_landmarks" / "Clip+x.txt", points.reshape(2, 10))
    (entry,) = make("layout=dicface", "alignment=ffhq_frames", "size=64", truth="test_data")
    assert entry["tasks"]["bfr"] == {"source": "LR_Blind"}
    assert entry["notes"][0] == "bfr: enlarged from 16x16 by bicubic interpolation"
    aligned = pixels(tmp_path / "set" / "ground_truth" / "Clip+x")
    assert np.array_equal(aligned[0], truth[0])
    assert np.array_equal(aligned[1, :60, :60], truth[1, 2:62, 2:62])
    mask = pixels(tmp_path / "set" / "masks" / "Clip+x")[..., 0]
    assert np.array_equal(mask[0] > 0, hole)
    assert np.array_equal(mask[1, :60, :60] > 0, hole[2:62, 2:62])
    shutil.rmtree(root / "LR_Blind")
    make("layout=dicface", "alignment=ffhq_frames", "size=64", truth="test_data", output="again", code=1)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["preset=none"], "preset=none: choose from vfhq"),
        (["tasks=[bfr,blur]"], "'blur' is not made of"),
        (["num_videos=50"], "2 videos, the protocol has 50"),
        (["sead=1"], "sead"),
        (["--expect", "nowhere.jsonl"], "nowhere.jsonl: no such file"),
    ],
)
def test_wrong_calls_are_one_line(make: Make, words: list[str], line: str) -> None:
    make(*words, code=2)
    assert make.err.count("\n") == 1
    assert line in make.err


def test_a_file_that_is_no_manifest_is_one_line(make: Make) -> None:
    make("--expect", __file__, code=2)
    assert make.err.splitlines()[-1] == f"make_testset.py: {__file__}: no manifest of a test set"


def test_the_protocol_of_the_papers_table() -> None:
    settings = load(EvalConfig, ROOT / "configs" / "eval_vfhq.yaml")
    assert settings.num_videos == settings.testset.num_videos == 50
    assert settings.testset.tasks == ["bfr", "colorization", "inpainting"]
    assert (settings.testset.alignment, settings.testset.size) == ("ffhq", 512)
