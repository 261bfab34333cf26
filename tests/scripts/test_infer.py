"""The command line on good and bad input: exit codes, one line for each fault, nothing lost by an interruption."""

import importlib.util
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import pytest
from PIL import Image

from svfr.data.detectors import load_detector
from svfr.files import sha256_of_all
from svfr.inference import folder
from svfr.inference.processes import Processes
from svfr.models.sources import weights_files
from tests import tiny
from tests.assets import ASSETS, NETWORKS, PHOTOS, needs_assets
from tests.clips import MarkDetector, audio_only, facts, no_frames, pixels, scene, truncated, video

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "infer.py"
FACE = (40, 30, 30)  # x, y, side [px]
START_LIMIT = 240  # [s] for a process to start on a busy machine


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("infer", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Outcome(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def only_line(self) -> str:
        """What a wrong call prints: one line."""
        assert self.out == ""
        assert self.err.count("\n") == 1, self.err
        return self.err.removeprefix("infer.py: ").rstrip()


class Infer:
    """Calls of the script on `in`, with results in `out`, in this process."""

    def __init__(self, folder: Path, weights: Path | None, capture: pytest.CaptureFixture[str]) -> None:
        self.folder, self.weights = folder, weights
        self.input, self.output = folder / "in", folder / "out"
        self.input.mkdir()
        self._capture = capture
        self.script = load_script()
        self.detects_marks = True

    def words(self, *more: str, tasks: str = "bfr", **options: Any) -> list[str]:
        options = {"input": self.input, "output": self.output, **options}
        if self.weights is not None:
            options = {"weights": self.weights, **options}
        named = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        return [*named, "--tasks", tasks, "num_inference_steps=1", *more]

    def __call__(self, *more: str, **options: Any) -> Outcome:
        before = signal.getsignal(signal.SIGTERM)
        try:
            made = MarkDetector if self.detects_marks else None
            with patch.object(folder, "load_detector", lambda *which: made() if made else load_detector(*which)):
                code = self.script.main(self.words(*more, **options))
        finally:
            signal.signal(signal.SIGTERM, before)
        outcome = Outcome(code, *self._capture.readouterr())
        assert "Traceback" not in outcome.out + outcome.err
        assert not any(file.name.startswith(".") and "partial" in file.name for file in self.output.rglob("*"))
        return outcome

    @property
    def report(self) -> dict[str, Any]:
        return json.loads((self.output / "report.json").read_text())

    @property
    def reasons(self) -> dict[str, str | None]:
        return {Path(video["input"]).name: video["reason"] for video in self.report["videos"]}

    def files(self) -> dict[str, bytes]:
        """All results, by name."""
        found = [file for file in self.output.rglob("*") if file.is_file() and file.suffix in (".png", ".mp4")]
        return {str(file.relative_to(self.output)): file.read_bytes() for file in sorted(found)}


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model's folder; not to be changed."""
    folder = tmp_path_factory.mktemp("weights") / "tiny"
    tiny.pipeline().save_pretrained(folder)
    return folder


@pytest.fixture
def infer(tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]) -> Infer:
    return Infer(tmp_path, weights, capsys)


def add(infer: Infer, name: str, num_frames: int = 3, **about: Any) -> Path:
    path = infer.input / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in (".png", ".jpg"):
        Image.fromarray(scene(1, [FACE])[0]).save(path)
        return path
    return video(path, scene(num_frames, [FACE]), **about)


# Good input


def test_a_tree_of_mixed_things(infer: Infer) -> None:
    names = ("one video.mp4", "sub/deep/Gesicht-\u4eba\U0001f600.mp4", "-dash.mp4", "a.mp4", "a.mov", "photo.jpg")
    for name in names:
        add(infer, name)
    for index in range(3):
        add(infer, f"shots/{index}.png")
    (infer.input / "notes.txt").write_text("no video")
    assert infer(output=infer.input / "results").code == 0
    infer.output = infer.input / "results"
    assert list(infer.files()) == sorted(
        ["-dash.mp4", "a.mov.mp4", "a.mp4.mp4", "one video.mp4", "photo.png", "shots.mp4", *names[1:2]]
    )
    assert (infer.report["done"], infer.report["failed"]) == (7, 0)
    assert infer(output=infer.output).code == 0
    assert infer.report["done"] == 7


def test_one_video_keeps_what_it_has(infer: Infer) -> None:
    source = add(infer, "a.mp4", 9, sound=True)
    source.chmod(0o400)
    assert infer(input=source).code == 0
    assert facts(infer.output / "a.mp4") == facts(source)
    [entry] = infer.report["videos"]
    assert entry["facts"]["restored_frames"] == entry["facts"]["num_frames"] == 9
    assert infer.report["detector"] == {"name": "marks", "file": "made"}
    assert infer.report["weights_sha256"] == sha256_of_all(weights_files(infer.weights or ""))
    assert infer.report["packages"].keys() >= {"torch", "diffusers", "av"}


def test_the_bundled_model_restores(infer: Infer) -> None:
    add(infer, "a.mp4", 1)
    assert infer("face=aligned", weights="demo").code == 0


@needs_assets
def test_a_real_face(infer: Infer) -> None:
    infer.detects_marks = False
    images = pixels(ASSETS / "clips_lq" / "svfr_lq1.mp4")[:6]
    source = video(infer.input / "a.mp4", images)
    assert infer("format=png", networks=NETWORKS).code == 0
    assert infer.report["videos"][0]["facts"]["restored_frames"] == 6
    assert infer.report["detector"]["name"] == "yunet"
    assert (pixels(infer.output / "a") != pixels(source)).any()


def test_a_dry_run_plans_and_restores_nothing(infer: Infer) -> None:
    add(infer, "a.mp4", 9)
    (infer.input / "bad.mp4").write_text("no video")
    outcome = infer("--dry-run")
    assert outcome.code == 1
    for words in ("9 frames, 1 shots", "person 1: frames 0-8", "clips of 4 frames at 32 px", "about", "bad.mp4: "):
        assert words in outcome.out
    assert [file.name for file in infer.output.rglob("*")] == ["a.plan.png"]
    assert Image.open(infer.output / "a.plan.png").size[0] > 50


def test_no_face_is_no_error(infer: Infer) -> None:
    source = video(infer.input / "a.mp4", scene(4, [None]))
    outcome = infer("format=png")
    assert outcome.code == 0
    [entry] = infer.report["videos"]
    assert entry["facts"]["restored_frames"] == 0
    assert "no face found" in entry["facts"]["notes"][0]
    assert "no face found" in outcome.err
    assert (pixels(infer.output / "a") == pixels(source)).all()


def test_seed(infer: Infer) -> None:
    add(infer, "a.mp4", 6)
    results = []
    for seed in (0, 0, 1):
        shutil.rmtree(infer.output, ignore_errors=True)
        assert infer(f"seed={seed}", "format=png").code == 0
        results.append(infer.files())
    assert len(results[0]) == 6
    assert results[0] == results[1]
    assert all(results[0][name] != results[2][name] for name in results[0])


def test_crf(infer: Infer) -> None:
    add(infer, "a.mp4", 6)
    sizes = []
    for crf in (5, 45):
        assert infer(f"crf={crf}", "face=aligned").code == 0
        sizes.append((infer.output / "a.mp4").stat().st_size)
    assert sizes[0] > 2 * sizes[1]


# Masks and photos


def save_mask(path: Path, hole: slice) -> Path:
    mask = np.zeros((50, 64), dtype=np.uint8)
    mask[:, hole] = 255
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(mask).save(path)
    return path


def test_a_mask_for_each_input(infer: Infer) -> None:
    left, right = slice(0, 32), slice(32, 64)
    for name, hole in (("a", left), ("b", right)):
        add(infer, f"{name}.mp4")
        save_mask(infer.folder / "masks" / f"{name}.png", hole)
    add(infer, "c.mp4")
    video(infer.folder / "masks" / "c.mp4", [np.full((32, 32, 3), 255, dtype=np.uint8)] * 3)
    add(infer, "d.mp4")
    outcome = infer("face=aligned", "format=png", tasks="inpainting", mask=infer.folder / "masks")
    assert outcome.code == 1
    assert infer.reasons["d.mp4"] is not None
    assert "no mask for d.mp4" in infer.reasons["d.mp4"]
    sides = {
        name: (pixels(infer.output / name) != pixels(infer.input / f"{name}.mp4")).any(axis=(0, 1, 3)) for name in "abc"
    }
    assert [sides["a"][:64].any(), sides["a"][64:].any()] == [True, False]
    assert [sides["b"][:64].any(), sides["b"][64:].any()] == [False, True]
    assert sides["c"].all()


def test_a_changed_mask_is_seen(infer: Infer) -> None:
    for name in "ab":
        add(infer, f"{name}.mp4")
        save_mask(infer.folder / "masks" / f"{name}.png", slice(0, 32))
    options = {"tasks": "inpainting", "mask": infer.folder / "masks"}
    assert infer("face=aligned", **options).code == 0
    before = infer.files()
    save_mask(infer.folder / "masks" / "b.png", slice(32, 64))
    outcome = infer("face=aligned", **options)
    after = infer.files()
    assert "a.mp4: done before" in outcome.err
    assert before["a.mp4"] == after["a.mp4"]
    assert before["b.mp4"] != after["b.mp4"]


def test_a_photo_changes_the_result(infer: Infer) -> None:
    add(infer, "a.mp4")
    results = []
    for index, faces in enumerate([None, (20, 20, 60), (50, 10, 40)]):
        options = {}
        if faces:
            options["reference"] = infer.folder / f"photo{index}.png"
            Image.fromarray(scene(index, [faces])[-1]).save(options["reference"])
        assert infer("format=png", **options).code == 0
        results.append(infer.files())
    assert results[0] != results[1]
    assert results[1] != results[2]


@needs_assets
def test_a_real_photo(infer: Infer) -> None:
    add(infer, "a.mp4", 1)
    infer.detects_marks = False
    assert infer(networks=NETWORKS, reference=PHOTOS[0]).code == 0


def test_photos_that_cannot_be_used(infer: Infer) -> None:
    add(infer, "a.mp4")
    no_face, text = infer.folder / "no_face.png", infer.folder / "text.png"
    Image.fromarray(scene(1, [None])[0]).save(no_face)
    text.write_text("no image")
    for photo, reason in (
        (no_face, "no face found"),
        (text, "not a readable image"),
        ("/no/photo.png", "no such file"),
    ):
        outcome = infer(reference=photo)
        assert outcome.code == 2
        assert reason in outcome.only_line
    assert not infer.files()


# Wrong calls: exit code 2 and one line


@pytest.mark.parametrize(
    ("more", "options", "reason"),
    [
        ([], {"input": "/no/such.mp4"}, "no such file"),
        ([], {"tasks": "bfr,colour"}, "colorization"),
        ([], {"tasks": ""}, "task"),
        ([], {"tasks": "inpainting"}, "needs a mask"),
        ([], {"mask": ROOT}, "inpainting is not among the tasks"),
        ([], {"tasks": "inpainting", "mask": "/no/mask.png"}, "no such file"),
        (["sed=1"], {}, "seed"),
        (["seed=abc"], {}, "seed"),
        (["seed=-1"], {}, "at least 0"),
        (["size=33"], {}, "multiple"),
        (["size=0"], {}, "at least 1"),
        (["crf=52"], {}, "at most 51"),
        (["format=avi"], {}, "mp4, png"),
        (["strategy=best"], {}, "chained"),
        (["sampler=ddim"], {}, "euler, dpmpp_2m"),
        (["sampler=dpmpp_2m", "strategy=released"], {}, "in its own way"),
        (["overlap=9"], {}, "overlap"),
        (["overlap=4"], {}, "overlap"),
        (["seed"], {}, "key=value"),
        (["device=nonsense"], {}, "device"),
        (["device=cuda:77"], {}, "device"),
        ([], {"weights": "/no/such/weights"}, "model_index.json"),
        ([], {"weights": SCRIPT}, "model_index.json"),
    ],
)
def test_a_wrong_call_is_one_line(infer: Infer, more: list[str], options: dict[str, Any], reason: str) -> None:
    add(infer, "a.mp4", 1)
    outcome = infer(*more, **options)
    assert outcome.code == 2
    assert reason in outcome.only_line
    assert not infer.files()


def test_an_unknown_option(infer: Infer) -> None:
    with pytest.raises(SystemExit) as error:
        infer("--sed", "1")
    assert error.value.code == 2


@pytest.mark.parametrize("place", ["the input", "below a file", "a file"])
def test_outputs_that_cannot_be(infer: Infer, place: str) -> None:
    add(infer, "a.mp4", 1)
    file = infer.folder / "file"
    file.write_text("mine")
    output = {"the input": infer.input, "below a file": file / "out", "a file": file}[place]
    outcome = infer(output=output)
    assert outcome.code == 2
    assert str(output) in outcome.only_line
    assert file.read_text() == "mine"


def test_an_input_is_never_replaced(infer: Infer) -> None:
    source = add(infer, "a.mp4", 1)
    before = source.read_bytes()
    assert "would replace" in infer(input=source, output=infer.input).only_line
    assert source.read_bytes() == before


# Weights that do not fit


def edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize(
    ("part", "values"),
    [
        ("unet", {"block_out_channels": [32, 96]}),
        ("unet", {"cross_attention_dim": 64}),
        ("unet", {"down_block_types": ["Nonsense", "Nonsense"]}),
        ("unet", {"addition_time_embed_dim": 8}),
        ("unet", {"in_channels": 8}),
        ("vae", {"latent_channels": 8}),
        ("vae", {"block_out_channels": [32, 32]}),
        ("id_encoder", {"depth": 50}),
        ("id_encoder", {"depth": 7}),
        ("id_projector", {"out_channels": 64}),
        ("id_projector", {"out_channels": "many"}),
        ("landmark_predictor", {"hidden_channels": 8}),
    ],
    ids=str,
)
def test_weights_of_another_architecture(
    infer: Infer, weights: Path, tmp_path: Path, part: str, values: dict[str, Any]
) -> None:
    add(infer, "a.mp4", 1)
    other = shutil.copytree(weights, tmp_path / "other")
    edit(other / part / "config.json", **values)
    outcome = infer(weights=other)
    assert outcome.code == 2
    assert str(other) in outcome.only_line


@pytest.mark.parametrize(
    "fault", ["cut", "text", "empty", "missing", "no config", "bad config", "bad index", "setting"]
)
def test_weights_that_cannot_be_read(infer: Infer, weights: Path, tmp_path: Path, fault: str) -> None:
    add(infer, "a.mp4", 1)
    other = shutil.copytree(weights, tmp_path / "other")
    file = other / "unet" / "diffusion_pytorch_model.safetensors"
    if fault == "cut":
        file.write_bytes(file.read_bytes()[:100_000])
    elif fault in ("text", "empty"):
        file.write_text("no weights" if fault == "text" else "")
    elif fault == "missing":
        file.unlink()
    elif fault == "no config":
        (other / "vae" / "config.json").unlink()
    elif fault == "bad config":
        (other / "vae" / "config.json").write_text("{")
    elif fault == "bad index":
        (other / "model_index.json").write_text("{")
    elif fault == "setting":
        edit(other / "model_index.json", settings={"sise": 64})
    outcome = infer(weights=other)
    assert outcome.code == 2
    assert str(other) in outcome.only_line


def test_the_hub_out_of_reach(infer: Infer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HOME", str(infer.folder))
    add(infer, "a.mp4", 1)
    for name in ("released", "someone/no-such-model-of-svfr"):
        outcome = infer(weights=name)
        assert outcome.code == 2
        assert "Hub" in outcome.only_line
        assert "--weights demo" in outcome.only_line
    infer.weights = None
    assert "fffiloni/SVFR" in infer().only_line  # the released weights are the default


# Bad inputs: exit code 1, a reason for each, and the rest is done


def test_bad_files_stop_nothing(infer: Infer) -> None:
    good = add(infer, "good.mp4", 4)
    noise = list(np.random.default_rng(0).integers(0, 256, (30, 48, 64, 3), dtype=np.uint8))
    whole = video(infer.folder / "whole.mp4", noise, options={"movflags": "faststart"})
    (infer.input / "empty.mp4").touch()
    (infer.input / "text.mp4").write_text("this is no video\n" * 100)
    (infer.input / "image.png").write_text("this is no image\n")
    (infer.input / "link.mp4").symlink_to(infer.folder / "absent.mp4")
    truncated(infer.input / "cut.mp4", whole)
    audio_only(infer.input / "sound.mp4")
    no_frames(infer.input / "zero.mp4")
    video(infer.input / "dot.mp4", [np.zeros((1, 1, 3), dtype=np.uint8)] * 2)
    outcome = infer()
    reasons = infer.reasons
    assert outcome.code == 1
    assert reasons.pop("good.mp4") is None
    assert reasons.pop("dot.mp4") is None
    for name, part in {
        "empty.mp4": "empty",
        "text.mp4": "no video at all",
        "image.png": "not a readable image",
        "link.mp4": "No such file",
        "cut.mp4": "truncated",
        "sound.mp4": "no video stream",
        "zero.mp4": "",
    }.items():
        reason = reasons.pop(name)
        assert reason
        assert part in reason, name
        assert name not in reason, "it is already in front of the reason"
        assert sum(line.startswith(f"{infer.input / name}: ") for line in outcome.err.splitlines()) == 1
    assert reasons == {}
    assert all(entry["trace"] is None for entry in infer.report["videos"])
    assert sorted(infer.files()) == ["dot.mp4", "good.mp4"]
    assert facts(infer.output / "good.mp4") == facts(good)


def test_a_mask_of_another_length_fails_one(infer: Infer) -> None:
    add(infer, "a.mp4", 3)
    add(infer, "b.mp4", 12)
    mask = video(infer.folder / "mask.mp4", [np.full((32, 32, 3), 255, dtype=np.uint8)] * 3)
    assert infer("face=aligned", tasks="inpainting", mask=mask).code == 1
    assert infer.reasons["a.mp4"] is None
    assert "the mask has 3 frames" in (infer.reasons["b.mp4"] or "")


@pytest.mark.parametrize("format", ["mp4", "png"])
def test_a_full_disk(infer: Infer, format: str) -> None:
    add(infer, "small.mp4", 1)
    noise = np.random.default_rng(0).integers(0, 256, (6, 256, 256, 3), dtype=np.uint8)
    video(infer.input / "big.mp4", list(noise))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, limits[1]))
    try:
        outcome = infer(f"format={format}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert outcome.code == 1
    assert infer.reasons["small.mp4"] is None
    assert "too large" in (infer.reasons["big.mp4"] or "")
    assert {name.split("/")[0].split(".")[0] for name in infer.files()} == {"small"}


def test_a_place_that_is_taken_fails_one(infer: Infer) -> None:
    add(infer, "a.mp4", 1)
    add(infer, "sub/b.mp4", 1)
    infer.output.mkdir()
    (infer.output / "sub").write_text("mine")
    assert infer().code == 1
    assert infer.reasons["a.mp4"] is None
    assert infer.reasons["b.mp4"]
    assert (infer.output / "sub").read_text() == "mine"


# What is done is skipped


def test_what_is_done_is_skipped(infer: Infer) -> None:
    sources = [add(infer, name) for name in ("a.mp4", "b.mp4", "sub/c.mp4")]

    def times() -> list[int]:
        places = [infer.output / source.relative_to(infer.input) for source in sources]
        return [place.stat().st_mtime_ns for place in places]

    def redone(*more: str) -> list[bool]:
        before = times()
        assert infer(*more).code == 0
        return [one != other for one, other in zip(before, times(), strict=True)]

    assert infer().code == 0
    assert redone() == [False] * 3
    os.utime(sources[0], ns=(0, 0))
    assert redone() == [True, False, False]
    assert redone("seed=1") == [True] * 3
    assert redone("seed=1") == [False] * 3
    (infer.output / "sub" / "c.mp4").unlink()
    assert infer("seed=1").code == 0
    assert (infer.output / "sub" / "c.mp4").exists()


# Processes


@pytest.fixture
def wrapper(infer: Infer) -> Path:
    """The script with the made detector, to be started as a process."""
    path = infer.folder / "infer_marks.py"
    path.write_text(
        f"import sys\n"
        f"sys.path[:0] = [{str(ROOT)!r}]\n"
        f"import torch\n"
        f"torch.set_num_threads(1)\n"
        f"from svfr.inference import folder\n"
        f"from tests.clips import MarkDetector\n"
        f"from tests.scripts.test_infer import load_script\n"
        f"script = load_script()\n"
        f"folder.load_detector = lambda name, networks: MarkDetector()\n"
        f"sys.exit(script.main())\n"
    )
    return path


def wait_for(what: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + START_LIMIT
    while not what():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGKILL"])
def test_interrupted_and_run_again(infer: Infer, wrapper: Path, name: str) -> None:
    first, second = add(infer, "a.mp4"), add(infer, "b.mp4", 60)
    command = [sys.executable, str(wrapper), *infer.words()]
    # A shell starts jobs in the background with Ctrl-C ignored, and so would a test run in one.
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed)
    wait_for(lambda: any(infer.output.glob(".b.partial-*")), process)
    process.send_signal(getattr(signal, name))
    out, err = process.communicate(timeout=START_LIMIT)
    assert "Traceback" not in out + err
    leftovers = list(infer.output.glob(".*partial*"))
    if name == "SIGKILL":
        assert process.returncode == -signal.SIGKILL
        assert len(leftovers) == 1
        leftovers[0].unlink()
    else:
        assert process.returncode == 130
        assert [line for line in err.splitlines() if line.startswith("interrupted")]
        assert leftovers == []
        assert infer.reasons == {"a.mp4": None, "b.mp4": "not finished"}
    assert list(infer.files()) == ["a.mp4"]
    before = (infer.output / "a.mp4").stat().st_mtime_ns
    assert infer().code == 0
    assert (infer.output / "a.mp4").stat().st_mtime_ns == before
    assert facts(infer.output / "a.mp4") == facts(first)
    assert facts(infer.output / "b.mp4") == facts(second)


@pytest.mark.slow
def test_processes_share_the_work(infer: Infer, wrapper: Path) -> None:
    for name in ("a.mp4", "b.mp4", "sub/c.mp4", "d.png", "bad.mp4"):
        add(infer, name, 6)
    (infer.input / "bad.mp4").write_bytes(b"no video")
    assert infer("format=png").code == 1
    alone, about = infer.files(), infer.reasons
    shutil.rmtree(infer.output)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*launch, str(wrapper), *infer.words("format=png")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=2 * START_LIMIT)
    assert done.returncode == 1, done.stderr
    assert done.stdout.count("4 done, 1 failed") == 1, done.stderr  # the main process alone speaks
    assert "another call" not in done.stderr  # as if each took itself for the only one
    assert infer.files() == alone
    assert infer.reasons == about


def test_a_second_call_on_the_same_folder_is_one_line(infer: Infer) -> None:
    add(infer, "a.mp4", 1)
    with Processes().alone_in(infer.output):
        assert "another call writes here (process " in infer().only_line
    assert infer().code == 0


@pytest.mark.slow
def test_as_a_program(infer: Infer) -> None:
    command = [sys.executable, str(SCRIPT), *infer.words(input="/no/such.mp4")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=infer.folder, timeout=START_LIMIT)
    assert Outcome(done.returncode, done.stdout, done.stderr).only_line == "/no/such.mp4: no such file or folder"
    assert done.returncode == 2
