import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from svfr.data.manifest import VERSION, Clip, ManifestError, read_manifest, write_manifest

CLIP = Clip("a", "clips/a.mp4", "raw/a.mkv", "train", 3, 20, 29.97, 512, 512, crop=(1.0, 2.0, 513.0, 514.0))

VALUES: dict[str, list[object]] = {
    "id": [None],
    "video": [None, "", 3, ["a.mp4"]],
    "source": [None],
    "split": [None],
    "start_frame": [None, -1, 2.5, True, "3", []],
    "num_frames": [None, -1, 2.5, True, "3", []],
    "fps": [None, 0, -1, float("nan"), float("inf"), "25"],
    "width": [None, 0],
    "height": [0],
    "crop": ["box", [1, 2, 3], [9, 2, 9, 4], [0, 0, "4", 4], [0, 0, float("nan"), 4], {}],
    "landmarks": ["", 3],
    "quality": ["good"],
    "identity": ["Jane"],
}
WRONG = [(name, value) for name, values in VALUES.items() for value in values]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    clips = [CLIP, replace(CLIP, id="b", split="val", identity=4, quality=0.5, landmarks="b.npz", crop=None)]
    write_manifest(tmp_path / "sub" / "manifest.jsonl", clips)
    assert read_manifest(tmp_path / "sub" / "manifest.jsonl") == clips
    assert [file.name for file in (tmp_path / "sub").iterdir()] == ["manifest.jsonl"]


def test_a_line_without_a_version_is_of_this_one(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text(json.dumps(asdict(CLIP)) + "\n\n")
    assert read_manifest(tmp_path / "m.jsonl") == [CLIP]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["no clips"]),
        ("hello", ["line 1", "JSON"]),
        ("[1]", ["line 1", "JSON"]),
        (json.dumps({"version": VERSION + 1, **asdict(CLIP)}), ["version 2", "line 1"]),
        (json.dumps({**asdict(CLIP), "lenght": 3}), ["lenght"]),
        (json.dumps({"id": "a"}), ["video", "line 1"]),
        (json.dumps(asdict(replace(CLIP, split="dev"))), ["dev", "train"]),
        (json.dumps(asdict(replace(CLIP, num_frames=0))), ["num_frames 0"]),
        ("[" * 50_000, ["line 1", "JSON"]),
        (json.dumps({**asdict(CLIP), "crop": 5}), ["line 1", "crop 5"]),
        *((json.dumps({**asdict(CLIP), name: value}), ["line 1", name]) for name, value in WRONG),
        (f"{json.dumps(asdict(CLIP))}\n{json.dumps(asdict(CLIP))}", ["'a'", "twice"]),
    ],
)
def test_a_wrong_manifest_is_one_line(tmp_path: Path, text: str, words: list[str]) -> None:
    (tmp_path / "m.jsonl").write_text(text)
    with pytest.raises(ManifestError) as error:
        read_manifest(tmp_path / "m.jsonl")
    message = str(error.value)
    assert "\n" not in message
    assert all(word in message for word in ["m.jsonl", *words])


def test_lines_that_are_no_clips_are_told_and_left_out(tmp_path: Path) -> None:
    lines = [json.dumps({**asdict(CLIP), "id": name, **wrong}) for name, wrong in ROWS]
    (tmp_path / "m.jsonl").write_text("\n".join(lines))
    bad: list[ManifestError] = []
    assert [clip.id for clip in read_manifest(tmp_path / "m.jsonl", bad)] == ["a", "d"]
    assert [str(error).split(":")[0].split(", ")[1] for error in bad] == ["line 2", "line 3", "line 5"]


ROWS: list[tuple[str, dict[str, object]]] = [
    ("a", {}),
    ("b", {"video": None}),
    ("c", {"width": 0}),
    ("d", {}),
    ("a", {}),
]


def test_a_missing_manifest_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"nowhere\.jsonl: the manifest cannot be read"):
        read_manifest(tmp_path / "nowhere.jsonl")


@pytest.mark.parametrize("field", [{"video": "/etc/hosts"}, {"video": "a/../../b.mp4"}, {"landmarks": "../x.npz"}])
def test_files_outside_of_the_manifests_folder_are_refused_unless_allowed(
    tmp_path: Path, field: dict[str, Any]
) -> None:
    write_manifest(tmp_path / "m.jsonl", [replace(CLIP, **field)])
    for bad in (None, list[ManifestError]()):
        with pytest.raises(ManifestError, match="lies outside of the manifest's folder"):
            read_manifest(tmp_path / "m.jsonl", bad)
    assert len(read_manifest(tmp_path / "m.jsonl", allow_outside=True)) == 1
