import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import data_prep.networks
from data_prep import prepare, track
from data_prep.records import read_step
from data_prep.settings import DataPrepConfig
from svfr import config
from svfr.data.manifest import Clip, read_manifest
from svfr.data.video import probe
from svfr.inference.processes import Processes
from tests import clips
from tests.assets import CLIPS, NETWORKS, needs_assets

ROOT = Path(__file__).resolve().parents[2]
FAST = ["score=none", "landmarks=none", "recognizer=none", "processes=0", "write.size=64", "cut.min_frames=10"]


@pytest.fixture
def made_detector(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A detector of made faces in the place of the real ones; counts its calls."""
    calls = [0]

    class Counting(clips.MarkDetector):
        def __call__(self, image: np.ndarray, closer: bool = False) -> list[Any]:
            calls[0] += 1
            return super().__call__(image)

    monkeypatch.setattr(data_prep.networks, "load_detector", lambda *_: Counting())
    return calls


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """One person, two people, a cut, nobody, and a broken file."""
    raw = tmp_path / "raw"
    (raw / "deep").mkdir(parents=True)
    other = [255 - image for image in clips.scene(12, [(70, 20, 40)])]
    other = [
        np.where(np.abs(image.astype(int) - (0, 255, 0)).max(axis=-1, keepdims=True) < 9, clips.MARK, image)
        for image in other
    ]
    clips.video(raw / "one.mp4", clips.scene(20, [(20 + t, 20, 48) for t in range(20)]))
    clips.video(raw / "deep/two.mp4", [_both(image) for image in clips.scene(15, [(4, 4, 40)])])
    clips.video(raw / "cut.mp4", clips.scene(11, [(10, 10, 50)]) + [image.astype(np.uint8) for image in other])
    clips.video(raw / "nobody.mp4", clips.scene(15, [None]))
    clips.truncated(raw / "broken.mp4", raw / "one.mp4")
    return raw


def _both(image: np.ndarray) -> np.ndarray:
    image[50:90, 80:120] = clips.MARK
    return image


def run(raw: Path, output: Path, *settings: str, steps: str | None = None) -> int:
    chosen = ["--steps", steps] if steps else []
    return prepare.main([*chosen, f"source.path={raw}", f"output={output}", *FAST, *settings])


def by_source(output: Path) -> dict[str, list[Clip]]:
    result: dict[str, list[Clip]] = {}
    for clip in read_manifest(output / "manifest.jsonl", allow_outside=True):
        result.setdefault(clip.source, []).append(clip)
    return result


def left_out(output: Path) -> dict[str, dict[str, Any]]:
    lines = (output / "rejected.jsonl").read_text().splitlines()
    return {item["source"]: item for item in map(json.loads, lines)}


def digest(output: Path) -> str:
    """Of all files of the output and their names."""
    sums = hashlib.sha256()
    for path in sorted(output.rglob("*")):
        if path.is_file() and path.name != ".lock":
            sums.update(f"{path.relative_to(output)} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return sums.hexdigest()


def test_all_steps(raw: Path, tmp_path: Path, made_detector: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out"
    assert run(raw, output) == 1  # one file is broken
    found = by_source(output)
    lengths = {source: [clip.num_frames for clip in of] for source, of in found.items()}
    assert lengths == {"one.mp4": [20], "deep/two.mp4": [15, 15], "cut.mp4": [11, 12]}
    assert "bad files: 1; left out: 1 in track" in capsys.readouterr().out
    rejected = left_out(output)
    assert (rejected["broken.mp4"]["bad"], rejected["nobody.mp4"]["bad"]) == (True, False)
    assert rejected["nobody.mp4"]["reason"] == "no face"
    for clip in read_manifest(output / "manifest.jsonl"):
        info = probe(output / clip.video)
        assert (info.width, info.height, info.num_frames) == (64, 64, clip.num_frames)
        assert float(info.fps) == pytest.approx(clip.fps)
        pixels = clips.pixels(output / clip.video)
        middle = pixels[:, 28:40, 26:38].reshape(-1, 3).astype(int)
        assert np.abs(middle - clips.MARK).max() < 40  # the face is in the middle of every frame
    assert (output / "contact_sheet.png").stat().st_size > 1000
    card = (output / "data_card.md").read_text()
    assert "5 clips of 3 people from 3 files" in card
    assert ["track", "not wanted", "1"] in [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in card.splitlines()
    ]


def test_run_again_it_does_nothing_and_changes_nothing(raw: Path, tmp_path: Path, made_detector: list[int]) -> None:
    run(raw, tmp_path / "out")
    before, calls = digest(tmp_path / "out"), made_detector[0]
    assert calls > 0
    assert run(raw, tmp_path / "out") == 1
    assert (digest(tmp_path / "out"), made_detector[0]) == (before, calls)
    clips.video(raw / "more.mp4", clips.scene(10, [(20, 20, 48)]))
    run(raw, tmp_path / "out")
    assert made_detector[0] == calls + 10
    (raw / "more.mp4").unlink()
    run(raw, tmp_path / "out")
    assert digest(tmp_path / "out") == before


def test_steps_alone_give_the_same(raw: Path, tmp_path: Path, made_detector: list[int]) -> None:
    run(raw, tmp_path / "a")
    for step in ("ingest", "cut", "track", "score", "landmarks", "identities", "write"):
        assert run(raw, tmp_path / "b", steps=step) == 1
    assert digest(tmp_path / "b") == digest(tmp_path / "a")


def test_other_settings_leave_nothing_of_the_old_ones(raw: Path, tmp_path: Path, made_detector: list[int]) -> None:
    run(raw, tmp_path / "a", "track.min_face=45")
    run(raw, tmp_path / "b")
    run(raw, tmp_path / "b", "track.min_face=45")
    assert "below track.min_face=45" in left_out(tmp_path / "b")["deep/two.mp4"]["reason"]
    assert digest(tmp_path / "b") == digest(tmp_path / "a")


def test_fixed_length_and_stride(raw: Path, tmp_path: Path, made_detector: list[int]) -> None:
    run(raw, tmp_path / "out", "cut.clip_frames=10", "cut.stride=5")
    starts = {clip.id.split("-")[-2] for clip in by_source(tmp_path / "out")["one.mp4"]}
    assert starts == {"000000", "000005", "000010"}
    assert {clip.num_frames for clip in read_manifest(tmp_path / "out/manifest.jsonl")} == {10}


def test_references_name_places_in_the_originals(raw: Path, tmp_path: Path, made_detector: list[int]) -> None:
    output = tmp_path / "out"
    run(raw, output, "write.mode=references")
    assert not (output / "clips").exists()
    [first, second] = by_source(output)["cut.mp4"]
    assert (first.start_frame, second.start_frame) == (0, 11)
    assert (output / second.video).resolve() == raw / "cut.mp4"
    assert second.crop is not None
    x0, y0, x1, y1 = map(int, second.crop)
    assert x1 - x0 == y1 - y0 == second.width == second.height
    face = clips.pixels(output / second.video)[second.start_frame, y0:y1, x0:x1]
    assert np.abs(face[second.width // 2, second.width // 2].astype(int) - clips.MARK).max() < 40


def test_people_of_the_annotations(tmp_path: Path, made_detector: list[int]) -> None:
    for number, person in enumerate(("id00001", "id00002", "id00001", "id00003", "id00004")):
        folder = tmp_path / "raw/mp4" / person / f"video{number}"
        folder.mkdir(parents=True)
        clips.video(folder / "00001.mp4", clips.scene(10, [(20 + number, 20, 48)]))
    assert run(tmp_path / "raw", tmp_path / "out", "source.collection=voxceleb2") == 0
    found = read_manifest(tmp_path / "out/manifest.jsonl")
    assert len(found) == 5
    people = {clip.source.split("/")[1]: (clip.identity, clip.split) for clip in found}
    assert len({(clip.source.split("/")[1], clip.identity, clip.split) for clip in found}) == 4
    assert {split for _, split in people.values()} == {"train", "val", "test"}


def test_parts_that_annotations_name(tmp_path: Path, made_detector: list[int]) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    clips.video(raw / "abc.mp4", [_both(image) for image in clips.scene(60, [(4, 4, 40)])], fps=clips.Fraction(20))
    part = {"ytb_id": "abc", "duration": {"start_sec": 1, "end_sec": 2}}
    box = {"top": 0.0, "left": 0.0, "bottom": 0.5, "right": 0.5}
    (raw / "info.json").write_text(json.dumps({"abc_0": {**part, "bbox": box}}))
    assert run(raw, tmp_path / "out", "source.collection=celebv", "write.mode=references") == 0
    [clip] = read_manifest(tmp_path / "out/manifest.jsonl", allow_outside=True)
    assert (clip.start_frame, clip.num_frames) == (20, 20)
    assert clip.crop is not None
    assert clip.crop[2] < 70  # the left face


def test_what_is_enlarged_is_told_and_limited_by_collection(
    raw: Path, tmp_path: Path, made_detector: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    """The faces are 40, 48 and 50 px large, their crops 56, 67 and 70 px."""
    run(raw, tmp_path / "a", "write.size=68")
    assert "write: 4 of 5 clips are enlarged to 68 px, up to 1.2 times: their truth is soft" in capsys.readouterr().err
    assert "| times enlarged to 68 px (up to 1: not) | 0.97" in (tmp_path / "a/data_card.md").read_text()
    limits = "track.max_enlarge={videos: 1.1, voxceleb2: 6}"
    run(raw, tmp_path / "b", "write.size=68", limits)
    assert {source: len(of) for source, of in by_source(tmp_path / "b").items()} == {"one.mp4": 1, "cut.mp4": 1}
    reason = left_out(tmp_path / "b")["deep/two.mp4"]["reason"]
    assert reason == "enlarged 1.21 times, more than track.max_enlarge.videos=1.1"
    capsys.readouterr()
    run(raw, tmp_path / "c", "write.size=48", limits)
    assert "enlarged" not in capsys.readouterr().err


@pytest.mark.parametrize(("collection", "face", "wanted"), [("vfhq", 300, False), ("vfhq", 370, True)])
def test_the_recipe_enlarges_nothing_but_voxceleb2(collection: str, face: int, wanted: bool) -> None:
    facts = {"num_frames": 99, "kind": "video", "face": face, "detected": 1, "inside": 1, "frontality": 1}
    for name, is_wanted in ((collection, wanted), ("voxceleb2", True)):
        given = ["source.path=raw", "output=data", f"source.collection={name}"]
        settings = config.load(DataPrepConfig, ROOT / "configs/data_prep.yaml", given)
        assert (track._why_unwanted({**facts, "sharpness": 100}, settings) is None) == is_wanted
    small = config.load(DataPrepConfig, ROOT / "configs/data_prep.yaml", [*given[:2], "source.collection=voxceleb2"])
    assert track._why_unwanted({**facts, "face": 110, "sharpness": 100}, small) is None


def test_pictures_are_clips_of_one_frame(tmp_path: Path, made_detector: list[int]) -> None:
    from PIL import Image

    (tmp_path / "raw").mkdir()
    for number in range(3):
        Image.fromarray(clips.scene(1, [(20 + number, 20, 48)])[0]).save(tmp_path / f"raw/{number}.png")
    assert run(tmp_path / "raw", tmp_path / "out", "source.collection=images") == 0
    assert [clip.num_frames for clip in read_manifest(tmp_path / "out/manifest.jsonl")] == [1, 1, 1]


def test_an_output_inside_a_folder_of_frames_is_no_part_of_it(tmp_path: Path, made_detector: list[int]) -> None:
    from PIL import Image

    (tmp_path / "raw").mkdir()
    for number, frame in enumerate(clips.scene(10, [(20, 20, 48)])):
        Image.fromarray(frame).save(tmp_path / f"raw/{number}.png")
    output = tmp_path / "raw/out"
    assert run(tmp_path / "raw", output) == 0
    before, calls = digest(output), made_detector[0]
    assert run(tmp_path / "raw", output) == 0
    assert (digest(output), made_detector[0]) == (before, calls)
    Image.fromarray(frame).save(tmp_path / "raw/10.png")
    assert run(tmp_path / "raw", output) == 0
    assert made_detector[0] == calls + 11


# ---- calls that cannot be done ----


def error(capsys: pytest.CaptureFixture[str]) -> str:
    *_, last = capsys.readouterr().err.strip().splitlines()
    return last


def test_wrong_calls_are_one_line(
    raw: Path, tmp_path: Path, made_detector: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    for settings, steps, message in (
        (("track.min_fase=3",), None, "prepare.py: track.min_fase: Key 'min_fase' is no setting"),
        (("score=fine",), None, "prepare.py: score=fine: choose from arniqa, none"),
        (("track.max_enlarge={voxceleb: 2}",), None, "prepare.py: track.max_enlarge=voxceleb: choose from videos, "),
        (("quality.keep=3",), None, "prepare.py: quality.min and quality.keep need a score: leave score=none out"),
        ((), "cut,dance", "prepare.py: --steps: unknown step 'dance'"),
        ((), "track", f"prepare.py: {output}/steps/cut.jsonl is missing: run the step cut first"),
        ((f"source.path={tmp_path}/none",), None, f"prepare.py: source.path={tmp_path}/none: no such folder"),
        (
            (f"output={raw}/one.mp4/out",),
            None,
            f"prepare.py: {raw}/one.mp4/out: no folder for the results can be made here (Not a directory)",
        ),
    ):
        assert run(raw, output, *settings, steps=steps) == 2
        assert error(capsys).startswith(message)
    assert run(raw, output, "track.min_face=500") == 1
    assert error(capsys).startswith("prepare.py: step track: nothing is left (")


def test_missing_networks_are_one_line(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SVFR_NETWORKS", raising=False)
    monkeypatch.setattr("svfr.networks._download", _offline)
    data_prep.networks._load.cache_clear()
    assert run(raw, tmp_path / "out", "detector=yunet") == 2
    assert error(capsys).startswith("prepare.py: network 'yunet' (face detection")
    assert not (tmp_path / "out").exists()


def _offline(network: object) -> Path:
    raise OSError("offline")


def test_a_step_file_of_another_version(
    raw: Path, tmp_path: Path, made_detector: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    run(raw, output)
    file = output / "steps/cut.jsonl"
    file.write_text(file.read_text().replace('"version": 1', '"version": 9'))
    assert run(raw, output, steps="track") == 2
    assert "made by another version (9, this code's is 1)" in error(capsys)


def test_two_runs_at_once(
    raw: Path, tmp_path: Path, made_detector: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    with Processes().alone_in(tmp_path / "out"):
        assert run(raw, tmp_path / "out") == 2
    assert error(capsys).startswith(f"prepare.py: {tmp_path}/out: another call writes here")


FULL_DISK = """
import resource, sys
from data_prep import networks, prepare
from tests.clips import MarkDetector
networks.load_detector = lambda *_: MarkDetector()
for limit in (100, 1500, 3000):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    assert prepare.main(sys.argv[1:]) == 2, limit
"""


def test_a_full_disk_is_one_line_and_nobodys_fault(raw: Path, tmp_path: Path, made_detector: list[int]) -> None:
    """A limit of the files' size stands in for the disk's."""
    arguments = [f"source.path={raw}", f"output={tmp_path}/out", *FAST]
    command = [sys.executable, "-c", FULL_DISK, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    errors = [line for line in done.stderr.splitlines() if line.startswith("prepare.py: ")]
    assert done.returncode == 0, done.stderr
    assert len(errors) == sum("File too large" in line for line in errors) == 3
    assert "Traceback" not in done.stderr
    assert run(raw, tmp_path / "out") == 1  # there is room again: nothing is lost, nothing counts as bad
    run(raw, tmp_path / "fresh")
    assert digest(tmp_path / "out") == digest(tmp_path / "fresh")


# ---- the real thing ----


@needs_assets
@pytest.mark.slow
def test_real_clips(tmp_path: Path) -> None:
    """All different people, one each; joined clips come apart; nobody in a blank one."""
    from tests.assets import frames

    raw = tmp_path / "raw"
    raw.mkdir()
    shots = {clip.stem: frames(clip, range(10)) for clip in CLIPS[::3]}
    for name, images in shots.items():
        clips.video(raw / f"{name}.mp4", images)
    square = [image[: min(image.shape[:2]), : min(image.shape[:2])] for images in shots.values() for image in images]
    clips.video(raw / "joined.mp4", [_resized(image, 256) for image in square])
    clips.video(raw / "nobody.mp4", clips.scene(10, [None]))
    settings = ["score=none", "detector=yunet", "recognizer=edgeface", "landmarks=onnx", "processes=0"]
    settings += [f"networks={NETWORKS}", "cut.min_frames=10", "write.size=128"]
    assert prepare.main([f"source.path={raw}", f"output={tmp_path}/out", *settings]) == 0
    found = by_source(tmp_path / "out")
    assert left_out(tmp_path / "out")["nobody.mp4"]["reason"] == "no face"
    own = {of[0].identity: name for name, of in found.items() if name != "joined.mp4"}
    assert len(own) == len(shots)  # each a person of its own
    joined = [own[clip.identity] for clip in found["joined.mp4"]]
    assert joined == [f"{name}.mp4" for name in shots]  # in this order, each known again
    assert len({clip.split for of in found.values() for clip in of}) == 1  # the joined file binds them all
    for clip in found[f"{CLIPS[0].stem}.mp4"]:
        arrays = np.load(tmp_path / "out" / str(clip.landmarks))
        assert arrays["points"].shape == (10, 68, 2)
        assert arrays["score"].min() > 0.5
        assert 0 < arrays["points"].min() < arrays["points"].max() < 128
    assert len(read_step(tmp_path / "out", "write")) == 2 * len(shots)


def _resized(image: np.ndarray, size: int) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.fromarray(image).resize((size, size)))
