"""Results of other methods as their own code writes them: what is taken, and what is said of the rest."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from svfr.data.video import probe
from svfr.evaluation.collect import collect, lossless_videos
from svfr.evaluation.pairs import match
from tests.clips import pixels
from tests.evaluation.test_pairs import add

Run = Callable[[str], tuple[dict[str, str], str]]  # places and sources of what was collected, and what was said


def files(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 4, 3), sum(map(ord, name)) % 255, np.uint8)).save(folder / name)
    return folder


def taken(output: Path, method: str) -> dict[str, str]:
    """Where each collected file comes from, both relative."""
    root = output / "collected" / method
    found = {p.relative_to(root).as_posix(): Path(os.readlink(p)) for p in sorted(root.rglob("*")) if p.is_symlink()}
    assert all(path.is_absolute() for path in found.values())
    return {place: path.relative_to(output.parent.resolve() / "r").as_posix() for place, path in found.items()}


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(method: str) -> tuple[dict[str, str], str]:
        found = collect([f"{method}={tmp_path / 'r'}"], [], tmp_path / "out", "bfr", write=True)
        assert found == {method: tmp_path / "out" / "collected" / method}
        return taken(tmp_path / "out", method), capsys.readouterr().err.rstrip("\n")

    return run


def test_gpen(run: Run, tmp_path: Path) -> None:
    """`demo.py --save_face --ext .png`, for each clip."""
    for clip in ("a", "b"):
        names = [f"{clip}/{i:06d}_{kind}.png" for i in range(2) for kind in ("GPEN", "COMP", "face00")]
        files(tmp_path / "r" / "bfr", *names)
    files(tmp_path / "r" / "Colorization" / "a", "000000_GPEN.jpg", "000000_COMP.jpg", "000001_GPEN.jpg")
    found, line = run("GPEN-512")
    assert found == {
        "bfr/a/000000.png": "bfr/a/000000_GPEN.png",
        "bfr/a/000001.png": "bfr/a/000001_GPEN.png",
        "bfr/b/000000.png": "bfr/b/000000_GPEN.png",
        "bfr/b/000001.png": "bfr/b/000001_GPEN.png",
        "colorization/a/000000.jpg": "Colorization/a/000000_GPEN.jpg",
        "colorization/a/000001.jpg": "Colorization/a/000001_GPEN.jpg",
    }
    assert line == (
        "--collect GPEN-512: bfr: .png files (4), colorization: .jpg files (2); "
        "left out: *_COMP.jpg (1), *_COMP.png (4), *_face00.png (4)"
    )


@pytest.mark.parametrize("method", ["KEEP", "DicFace"])
def test_keep_and_dicface_on_whole_frames(run: Run, tmp_path: Path, method: str) -> None:
    """Without `--has_aligned`, with `--save_video`."""
    for folder in ("restored_faces", "cropped_faces", "final_results"):
        files(tmp_path / "r" / "a" / folder, "00000000.png", "00000001.png")
    place = tmp_path / "r" / ("a/a.mp4" if method == "KEEP" else "a.mp4")
    place.write_bytes(b"-")
    found, line = run(method)
    assert found == {f"bfr/a/{i:08d}.png": f"a/restored_faces/{i:08d}.png" for i in range(2)}
    assert line.endswith("bfr: .png files (2); left out: *.mp4 (1), cropped_faces/ (1), final_results/ (1)")


def test_dicface_colorization(run: Run, tmp_path: Path) -> None:
    files(tmp_path / "r" / "colorization", "a/00000000.png", "b/00000000.png")
    (tmp_path / "r" / "colorization" / "a.mp4").write_bytes(b"-")
    found, line = run("dicface")
    assert found == {f"colorization/{name}/00000000.png": f"colorization/{name}/00000000.png" for name in "ab"}
    assert line.endswith("left out: *.mp4 (1)")


def test_codeformer(run: Run, tmp_path: Path) -> None:
    """Aligned, whole frames with a second face, and colorization without a folder inside; the default output's name."""
    files(tmp_path / "r" / "bfr" / "a" / "restored_faces", "frame_00.png", "frame_01.png")
    files(tmp_path / "r" / "bfr" / "b_0.5" / "restored_faces", "0_00.png", "0_01.png", "1_00.png")
    files(tmp_path / "r" / "bfr" / "b_0.5" / "cropped_faces", "0_00.png", "0_01.png", "1_00.png")
    files(tmp_path / "r" / "colorization" / "a", "frame_00.png")
    found, line = run("CodeFormer")
    assert found == {
        "bfr/a/frame_00.png": "bfr/a/restored_faces/frame_00.png",
        "bfr/a/frame_01.png": "bfr/a/restored_faces/frame_01.png",
        "bfr/b/0.png": "bfr/b_0.5/restored_faces/0_00.png",
        "bfr/b/1.png": "bfr/b_0.5/restored_faces/1_00.png",
        "colorization/a/frame_00.png": "colorization/a/frame_00.png",
    }
    assert line.endswith("left out: *_01.png (1), cropped_faces/ (1)")


def test_pgtformer(run: Run, tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    for name in ("a.mp4", "b.mp4", "notes.txt"):
        (tmp_path / "r" / name).write_bytes(b"-")
    found, line = run("PGTFormer")
    assert found == {"bfr/a.mp4": "a.mp4", "bfr/b.mp4": "b.mp4"}
    assert line == "--collect PGTFormer: bfr: .mp4 files (2); left out: *.txt (1)"


def test_what_is_collected_matches_the_ground_truth_and_is_renewed(run: Run, tmp_path: Path) -> None:
    truth = add(tmp_path / "gt", "a", "b")
    files(tmp_path / "r", "a/restored_faces/0.png", "b/restored_faces/0.png", "old/restored_faces/0.png")
    run("KEEP")
    os.rename(tmp_path / "r" / "old", tmp_path / "old")
    methods = collect([f"KEEP={tmp_path / 'r'}"], [], tmp_path / "out", "bfr", write=True)
    matches = match(truth, methods, None, None, output=tmp_path / "out", task="bfr", baselines=["ground_truth"])
    assert [(pair.task, pair.name) for pair in matches.pairs if pair.method == "KEEP"] == [("bfr", "a"), ("bfr", "b")]
    assert matches.problems == []


@pytest.mark.parametrize(
    ("argument", "line"),
    [
        ("{r}", "give NAME=DIR"),
        ("Foo={r}", "give NAME=DIR, where the name begins with one of gpen, keep"),
        ("KEEP/../x={r}", "give NAME=DIR"),
        ("GPEN_1={r}", "is there twice"),
        ("KEEP={r}/none", "no such folder"),
        ("KEEP={r}", "nothing in it as KEEP writes it: CLIP/restored_faces/*.png"),
        ("GPEN={r}", r"nothing in it as GPEN writes it: CLIP/\*_GPEN.png"),
    ],
)
def test_wrong_calls_are_one_line(tmp_path: Path, argument: str, line: str) -> None:
    files(tmp_path / "r", "a/final_results/0.png")
    with pytest.raises(ValueError, match=line.replace("*.png", r"\*.png")):
        collect([argument.format(r=tmp_path / "r")], ["GPEN_1"], tmp_path / "out", "bfr", write=True)
    assert not (tmp_path / "out").exists()


def test_a_test_set_as_lossless_videos(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for task in ("bfr", "colorization"):
        place = tmp_path / "degraded" / task / "deep" / "a"
        place.mkdir(parents=True)
        for i in range(3):
            Image.fromarray(random.integers(60, 90, (34, 30, 3), dtype=np.uint8)).save(place / f"{i}.png")
    made = lossless_videos(tmp_path)
    assert made == [tmp_path / "videos" / task / "deep" / "a.mp4" for task in ("bfr", "colorization")]
    for path in made:
        task = path.relative_to(tmp_path / "videos").parts[0]
        assert np.array_equal(pixels(path), pixels(tmp_path / "degraded" / task / "deep" / "a"))
        assert probe(path).fps == 25
    before = made[0].read_bytes()
    lossless_videos(tmp_path)
    assert made[0].read_bytes() == before
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no degraded inputs"):
        lossless_videos(tmp_path / "empty")
