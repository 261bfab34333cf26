import json
from pathlib import Path

import pytest

from data_prep.readers import Found, find
from data_prep.records import PrepareError

TRACK = """Identity  : \tid00012
Reference : \tabc_DEF-123
Offset    : \t1
FV Conf   : \t21.117\t(1)
ASD Conf  : \t4.483

FRAME \tX \tY \tW \tH
000250 \t0.300 \t0.200 \t0.200 \t0.400
000251 \t0.310 \t0.210 \t0.200 \t0.400
000299 \t0.250 \t0.190 \t0.200 \t0.400
"""
META = """H: 720
W: 1280
FPS: 24
CROP: 320 72 960 648
"""
CLIP = {
    "ytb_id": "abc",
    "duration": {"start_sec": 1.5, "end_sec": 4.0},
    "bbox": {"top": 0.1, "bottom": 0.9, "left": 0.25, "right": 0.75},
    "version": "v0.1",
}


def make(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def search(collection: str, root: Path, annotations: Path | None = None) -> dict[str, Found]:
    return {str(f.path.relative_to(root)): f for f in find(collection, root, annotations, root / "prepared")}


def test_any_folder_of_videos(tmp_path: Path) -> None:
    make(tmp_path, "b.mp4", "a/x.MKV", "a/notes.txt", ".hidden/x.mp4", ".x.mp4", "frames/1.png", "frames/2.png")
    make(tmp_path, "prepared/clips/aa/x.mp4", "a/cover.jpg")
    assert list(search("videos", tmp_path)) == ["a/x.MKV", "b.mp4", "frames"]


def test_links_between_folders_are_followed_once(tmp_path: Path) -> None:
    make(tmp_path, "a/x.mp4", "b/1.png")
    (tmp_path / "a" / "to_b").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "to_a").symlink_to(tmp_path / "a")
    (tmp_path / "y.mp4").symlink_to(tmp_path / "y.mp4")  # itself; whoever opens it is told
    assert list(search("videos", tmp_path)) == ["a/x.mp4", "b", "y.mp4"]


def test_any_folder_of_images(tmp_path: Path) -> None:
    make(tmp_path, "1.png", "deep/2.jpg", "x.mp4", ".3.png")
    assert list(search("images", tmp_path)) == ["1.png", "deep/2.jpg"]


def test_voxceleb2_as_released(tmp_path: Path) -> None:
    make(tmp_path, "dev/mp4/id00012/abc_DEF-123/00001.mp4", "dev/mp4/id00015/xyz/00007.mp4")
    found = search("voxceleb2", tmp_path)
    assert [item.notes[0]["person"] for item in found.values()] == ["id00012", "id00015"]
    assert found["dev/mp4/id00015/xyz/00007.mp4"].notes[0]["start"] is None


def test_voxceleb2_of_whole_videos(tmp_path: Path) -> None:
    track = make(tmp_path, "txt/id00012/abc_DEF-123/00001.txt", "videos/abc_DEF-123.mp4", "videos/other.mp4")
    (track / "txt/id00012/abc_DEF-123/00001.txt").write_text(TRACK)
    [(name, item)] = search("voxceleb2", tmp_path).items()
    [note] = item.notes
    assert name == "videos/abc_DEF-123.mp4"
    assert (note["start"], note["stop"], note["person"]) == (10.0, 12.0, "id00012")
    assert note["box"] == pytest.approx([0.25, 0.19, 0.51, 0.61])


@pytest.mark.parametrize("text", ["", "Identity : id1\nFRAME X Y W H\n", TRACK.replace("0.300", "?"), TRACK[:70]])
def test_a_broken_track_makes_its_file_bad(tmp_path: Path, text: str) -> None:
    make(tmp_path, "txt/id00012/abc/00001.txt", "abc.mp4")
    (tmp_path / "txt/id00012/abc/00001.txt").write_text(text)
    assert search("voxceleb2", tmp_path)["abc.mp4"].error


@pytest.mark.parametrize("nested", [True, False], ids=["CelebV-HQ", "CelebV-Text"])
def test_celebv(tmp_path: Path, nested: bool) -> None:
    make(tmp_path, "abc.mp4", "abc_1.mp4", "unknown.mp4", "bad.mp4")
    other = {**CLIP, "duration": {"start_sec": 9, "end_sec": 12}}
    clips = {"abc_0": CLIP, "abc_1": other, "bad_0": {"ytb_id": "bad", "bbox": {}}}
    (tmp_path / "info.json").write_text(json.dumps({"clips": clips, "meta_info": {}} if nested else clips))
    found = search("celebv", tmp_path)
    assert list(found) == ["abc.mp4", "abc_1.mp4", "bad.mp4"]
    assert [note["start"] for note in found["abc.mp4"].notes] == [1.5, 9]
    assert found["abc.mp4"].notes[0]["box"] == [0.25, 0.1, 0.75, 0.9]
    assert found["abc_1.mp4"].notes == []  # already cut out
    assert found["bad.mp4"].error == "its annotation bad_0: no 'left'"


def test_vfhq_meta_info(tmp_path: Path) -> None:
    name = "Clip+a+b_9+P1+C3+F240-480.txt"  # a "+" in the video's own name
    make(tmp_path, f"meta/{name}", "videos/a+b_9.mp4", "videos/other.mp4")
    (tmp_path / "meta" / name).write_text(META)
    [(video, item)] = search("vfhq", tmp_path).items()
    assert video == "videos/a+b_9.mp4"
    [note] = item.notes
    assert (note["start"], note["stop"], note["person"]) == (10.0, 20.0, "a+b_9+P1")
    assert note["box"] == pytest.approx([0.25, 0.1, 0.75, 0.9])


def test_vfhq_folders_of_frames(tmp_path: Path) -> None:
    make(tmp_path, "abc/P0/C1/00000241.png", "abc/P0/C1/00000242.png", "abc/P1/C0/00000001.png")
    found = search("vfhq", tmp_path)
    assert {name: item.notes[0]["person"] for name, item in found.items()} == {
        "abc/P0/C1": "abc+P0",
        "abc/P1/C0": "abc+P1",
    }


def test_what_is_not_there_says_so(tmp_path: Path) -> None:
    for arguments, message in (
        (("videos", tmp_path / "nothing"), "no such folder"),
        (("videos", make(tmp_path / "a", "notes.txt")), "no file of the collection 'videos'"),
        (("celebv", make(tmp_path / "b", "abc.mp4")), "no JSON file of annotations"),
        (("vfhq", tmp_path, tmp_path / "meta"), "source.annotations=.*no such"),
    ):
        with pytest.raises(PrepareError, match=message):
            search(*arguments)
    (tmp_path / "b/info.json").write_text("[1]")
    with pytest.raises(PrepareError, match=r"info\.json: not a JSON file of CelebV"):
        search("celebv", tmp_path / "b")
