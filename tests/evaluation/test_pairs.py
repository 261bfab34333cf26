"""Results and ground truth find each other by relative name, and nothing is lost without a line."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from svfr.evaluation.pairs import Matches, Problem, canonical_task, match, parse_restored


def add(folder: Path, *names: str, frames: int = 1) -> Path:
    """Frame folders, or files of any content: matching looks at names only."""
    for name in names:
        path = folder / name
        if path.suffix:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"-")
            continue
        path.mkdir(parents=True, exist_ok=True)
        for index in range(frames):
            Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(path / f"{index}.png")
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    return add(tmp_path / "gt", "a", "b.mp4", "deep/c.mkv")


def run(
    truth: Path,
    methods: dict[str, Path],
    degraded: Path | None = None,
    masks: Path | None = None,
    failed: Sequence[Problem] = (),
) -> Matches:
    return match(
        truth,
        methods,
        degraded,
        masks,
        output=truth.parent / "out",
        task="bfr",
        baselines=["ground_truth", "degraded", "bicubic"],
        failed=failed,
    )


def found(matches: Matches, method: str) -> list[tuple[str, str]]:
    return [(pair.task, pair.name) for pair in matches.pairs if pair.method == method]


def test_names_match_whatever_the_container(tmp_path: Path, truth: Path) -> None:
    results = add(tmp_path / "r", "a.mp4", "b", "deep/c.mp4")
    matches = run(truth, {"x": results})
    assert found(matches, "x") == [("bfr", "a"), ("bfr", "b"), ("bfr", "deep/c")]
    assert matches.problems == []
    assert matches.names == ["a", "b", "deep/c"]
    assert found(matches, "ground_truth") == found(matches, "bicubic") == [("", "a"), ("", "b"), ("", "deep/c")]
    assert matches.methods == ["ground_truth", "bicubic", "x"]


def test_task_subfolders_in_any_spelling(tmp_path: Path, truth: Path) -> None:
    results = add(tmp_path / "r", "inpainting,bfr/a", "bfr/a", "bfr/b", "notes/a", "colorization/deep/c", "b.mp4")
    (results / "report.json").write_text("{}")
    add(results, "bfr+inpainting/b")
    matches = run(truth, {"x": results})
    expected = [("bfr", "a"), ("bfr+inpainting", "a"), ("bfr", "b"), ("colorization", "deep/c")]
    assert found(matches, "x") == expected
    assert matches.tasks == ["bfr", "colorization", "bfr+inpainting"]
    lines = [str(problem) for problem in matches.problems]
    assert "x/notes: beside the task folders, not looked at" in lines
    assert "x/b.mp4: beside the task folders, not looked at" in lines
    assert "x/bfr+inpainting: another folder of the same task, not looked at" in lines
    assert not any("report" in line for line in lines)
    assert "x/bfr/deep/c: no result of this name" in lines
    assert "x/bfr+inpainting/b: no result of this name" in lines
    assert len(lines) == 8


def test_unmatched_results_and_empty_folders_are_named(tmp_path: Path, truth: Path) -> None:
    matches = run(truth, {"x": add(tmp_path / "r", "a", "other.mp4"), "y": add(tmp_path / "empty")})
    assert [str(problem) for problem in matches.problems] == [
        "x/bfr/b: no result of this name",
        "x/bfr/deep/c: no result of this name",
        "x/bfr/other: no ground truth of this name",
        f"y/bfr: {tmp_path / 'empty'}: no videos, images or frame folders in it",
    ]
    assert found(matches, "y") == []


def test_one_video_against_one_video(tmp_path: Path, truth: Path) -> None:
    matches = run(truth / "b.mp4", {"x": add(tmp_path / "r", "result.mp4") / "result.mp4"})
    assert found(matches, "x") == [("bfr", "b")]
    assert run(truth / "a", {"x": add(tmp_path / "r", "z") / "z"}).problems == []


def test_degraded_inputs_and_masks(tmp_path: Path, truth: Path) -> None:
    degraded = add(tmp_path / "lq", "bfr/a", "inpainting/a", "inpainting/b")
    masks = add(tmp_path / "masks", "a.png", "deep/c")
    matches = run(truth, {"x": add(tmp_path / "r", "inpainting/a", "inpainting/b")}, degraded=degraded, masks=masks)
    by_place = {(pair.method, pair.task, pair.name): pair for pair in matches.pairs}
    assert by_place["degraded", "bfr", "a"].mask is None
    assert by_place["degraded", "inpainting", "a"].mask == masks / "a.png"
    assert by_place["x", "inpainting", "a"].mask == masks / "a.png"
    assert by_place["x", "inpainting", "b"].mask is None
    assert f"x/inpainting/b: {masks}: no mask of this name; the columns of holes are left out" in map(
        str, matches.problems
    )
    assert matches.methods == ["ground_truth", "degraded", "bicubic", "x"]


def test_several_results_of_one_name_are_told_so(tmp_path: Path, truth: Path) -> None:
    results = add(tmp_path / "r", "a", "a.mp4", "b.mp4", "b.mkv", "deep/c")
    matches = run(truth, {"x": results})
    assert found(matches, "x") == [("bfr", "deep/c")]
    assert [str(problem) for problem in matches.problems] == [
        "x/bfr/a: 2 results of this name (a, a.mp4): leave one of them",
        "x/bfr/b: 2 results of this name (b.mkv, b.mp4): leave one of them",
    ]
    only = run(truth, {"x": add(tmp_path / "only", "a.mp4", "a.mkv")})
    assert {problem.name: problem.reason for problem in only.problems} == {
        "a": "2 results of this name (a.mkv, a.mp4): leave one of them",
        "b": "no result of this name",
        "deep/c": "no result of this name",
    }


def test_one_mask_serves_all(tmp_path: Path, truth: Path) -> None:
    results = add(tmp_path / "r", "inpainting/a", "inpainting/b", "inpainting/deep/c")
    for masks in (add(tmp_path / "masks", "m.png") / "m.png", add(tmp_path, "video") / "video"):
        matches = run(truth, {"x": results}, masks=masks)
        assert {pair.mask for pair in matches.pairs if pair.method == "x"} == {masks}
        assert matches.problems == []


def test_results_inside_the_ground_truths_folder_are_no_ground_truth(truth: Path) -> None:
    add(truth / "out", "a")
    matches = match(truth, {}, None, None, output=truth / "out", task="bfr", baselines=[])
    assert matches.names == ["a", "b", "deep/c"]


def test_a_folder_of_other_names_is_one_line(tmp_path: Path, truth: Path) -> None:
    matches = run(truth, {"x": add(tmp_path / "r", "deblur/a", "deblur/b")})
    [line] = map(str, matches.problems)
    assert line.startswith(f"x/bfr: {tmp_path / 'r'}: none of its results is named like a ground truth")
    assert "'deblur/a'; subfolders of tasks are called bfr, colorization, inpainting" in line


def test_images_beside_clips_are_named_and_the_clips_compared(tmp_path: Path, truth: Path) -> None:
    add(truth, "sheet.jpg")
    results = add(tmp_path / "r", "bfr/a", "bfr/b", "bfr/deep/c", "bfr/sheet.png")
    matches = run(truth, {"x": results})
    assert matches.names == ["a", "b", "deep/c"]
    assert found(matches, "x") == [("bfr", "a"), ("bfr", "b"), ("bfr", "deep/c")]
    assert [str(problem) for problem in matches.problems] == [
        "ground_truth/sheet: sheet.jpg: an image beside the clips, not compared",
        "x/bfr/sheet: sheet.png: an image beside the clips, not compared",
    ]


def test_a_failed_restoration_has_its_own_reason_and_no_older_result(tmp_path: Path, truth: Path) -> None:
    failed = [Problem("x", "bfr", "a", "damaged"), Problem("x", "bfr", "b", "too small")]
    matches = run(truth, {"x": add(tmp_path / "r", "a", "deep/c")}, failed=failed)
    assert found(matches, "x") == [("bfr", "deep/c")]
    assert matches.problems == failed


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("bfr", "bfr"),
        ("inpainting+bfr", "bfr+inpainting"),
        ("bfr,colorization", "bfr+colorization"),
        ("BFR", "bfr"),
        ("BFR+Colorization", "bfr+colorization"),
        ("bfr+", None),
        ("x", None),
    ],
)
def test_task_names(name: str, task: str | None) -> None:
    assert canonical_task(name) == task


def test_methods_by_name(tmp_path: Path) -> None:
    one, two = add(tmp_path / "one"), add(tmp_path / "two")
    assert parse_restored([str(one)]) == {"restored": one}
    assert parse_restored([str(one), str(two)]) == {"one": one, "two": two}
    assert parse_restored([f"GPEN={one}", f"KEEP={two}"]) == {"GPEN": one, "KEEP": two}
    odd = add(tmp_path / "a=b")
    assert parse_restored([str(odd)]) == {"restored": odd}


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["x={one}", "x={one}"], "there twice"),
        (["ground_truth={one}"], "cannot be a method's name"),
        (["={one}"], "cannot be a method's name"),
        (["x={one}/none"], "no such file or folder"),
    ],
)
def test_wrong_methods_are_one_line(tmp_path: Path, arguments: list[str], line: str) -> None:
    one = add(tmp_path / "one")
    with pytest.raises(ValueError, match=line):
        parse_restored([argument.format(one=one) for argument in arguments])
