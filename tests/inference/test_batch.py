"""Batches: which inputs there are, where results go, what is done again, what a bad one does."""

import errno
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from PIL import Image

import svfr
from svfr.data.video import VideoError, probe
from svfr.files import digest, fingerprint, write_json
from svfr.inference.batch import (
    RECORDS,
    REPORT,
    Item,
    collect,
    find_items,
    mask_of,
    record_path,
    run_items,
)
from svfr.inference.folder import check_inputs
from svfr.inference.settings import InferConfig
from svfr.inference.video import VideoReport
from tests import clips
from tests.assets import PHOTOS, needs_assets


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def targets(source: Path, output: Path, format: str = "mp4") -> dict[str, str]:
    return {str(item.source.relative_to(source)): str(item.target) for item in find_items(source, output, format)}


class Batch:
    """A folder of inputs that are copied; `faults` says what is raised for some."""

    def __init__(self, folder: Path, names: list[str]) -> None:
        self.input, self.output = folder / "in", folder / "out"
        touch(self.input, *names)
        self.faults: dict[str, BaseException] = {}
        self.settings = 0
        self.restored: list[str] = []
        self.told: list[str] = []

    def cache_key(self, item: Item) -> str:
        return digest({"settings": self.settings, "file": fingerprint(item.source)})

    def restore(self, item: Item) -> VideoReport:
        self.restored.append(item.source.name)
        if item.source.name in self.faults:
            raise self.faults[item.source.name]
        target = self.output / item.target
        target.write_bytes(item.source.read_bytes())
        return VideoReport(target, 1, 0, 0, 8, 8, 25.0, 0.1, {}, None, ["no face found"])

    def run(self) -> dict[str, Any]:
        self.restored.clear()
        self.told.clear()
        items = find_items(self.input, self.output, "mp4")
        try:
            with patch.object(svfr, "error", self.told.append):
                run_items(items, self.output, self.cache_key, self.restore, lambda: None)
        finally:
            report = collect(items, self.output, self.cache_key)
            write_json(self.output / REPORT, report)
        return report


@pytest.fixture
def make_batch(tmp_path: Path) -> Callable[..., Batch]:
    return lambda *names: Batch(tmp_path, list(names))


# Inputs and places


def test_results_keep_the_tree(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "sub/b.MOV", "sub/deep/c.png", "sub/deep/d.mkv", "shots/1.png", "shots/2.jpg")
    touch(tmp_path, "notes.txt", ".hidden.mp4", ".cache/e.mp4", "sub/.a.partial-17.mp4")
    assert targets(tmp_path, tmp_path / "out") == {
        "a.mp4": "a.mp4",
        "shots": "shots.mp4",
        "sub/b.MOV": "sub/b.mp4",
        "sub/deep/c.png": "sub/deep/c.png",
        "sub/deep/d.mkv": "sub/deep/d.mp4",
    }
    assert targets(tmp_path, tmp_path / "out", "png")["a.mp4"] == "a"


def test_a_link_to_itself_is_one_bad_input(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4")
    (tmp_path / "b.mp4").symlink_to(tmp_path / "b.mp4")
    items = check_inputs(tmp_path, tmp_path / "out", ("bfr",), InferConfig())
    assert [item.source.name for item in items] == ["a.mp4", "b.mp4"]


def test_an_image_beside_clips_does_not_make_them_one(tmp_path: Path) -> None:
    touch(tmp_path, "sheet.jpg", "a/0.png", "a/1.png", "b/deep/c.mp4", "notes/todo.txt")
    assert targets(tmp_path, tmp_path / "out", "png") == {
        "a": "a",
        "b/deep/c.mp4": "b/deep/c",
        "sheet.jpg": "sheet.png",
    }
    touch(tmp_path, "one/0.png", "one/1.png", "one/crops/0.png", "one/.cache/x/0.png", "one/text/a.txt")
    assert targets(tmp_path / "one", tmp_path / "out", "png") == {".": "one"}
    assert targets(tmp_path, tmp_path / "out", "png")["one"] == "one"


def test_same_names_stay_apart(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "a.mov", "a.mp4.webm", "a/1.png", "b.png", "b.jpg", "report.json/1.png")
    for format in ("mp4", "png"):
        found = targets(tmp_path, tmp_path / "out", format)
        assert len(found) == len({*found.values(), REPORT}) - 1 == 7


def test_results_in_the_input_folder_are_no_inputs(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "out/a.mp4", "out/sub/b.mp4")
    assert targets(tmp_path, tmp_path / "out") == {"a.mp4": "a.mp4"}
    assert targets(tmp_path, tmp_path / "x" / ".." / "out") == {"a.mp4": "a.mp4"}


@pytest.mark.parametrize(
    "name", ["two words.mp4", "Gesicht-\u00e4\u4eba\U0001f600.mp4", "-dash.mp4", "a:b.mp4", "dots.in.name.mp4"]
)
def test_odd_names(tmp_path: Path, name: str) -> None:
    touch(tmp_path, name)
    assert targets(tmp_path, tmp_path / "out") == {name: name}


def test_nothing_to_do_is_an_error(tmp_path: Path) -> None:
    touch(tmp_path, "notes.txt")
    with pytest.raises(VideoError, match="no such file"):
        find_items(tmp_path / "absent", tmp_path / "out", "mp4")
    with pytest.raises(VideoError, match="no videos"):
        find_items(tmp_path, tmp_path / "out", "mp4")


# Masks of inputs


def test_one_mask_for_all(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.mp4", "mask.png", "masks/0.png", "masks/1.png")
    item = Item(tmp_path / "in" / "a.mp4", Path("a.mp4"))
    for mask in (tmp_path / "mask.png", tmp_path / "masks"):
        assert mask_of(item, tmp_path / "in", mask) == mask
    assert mask_of(item, tmp_path / "in", None) is None


def test_a_mask_for_each_input(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.mp4", "in/sub/b.c.mov", "in/shots.1/1.png")
    touch(tmp_path, "masks/a.png", "masks/sub/b.c.mp4", "masks/shots.1/1.png")
    found = {
        item.source.name: mask_of(item, tmp_path / "in", tmp_path / "masks")
        for item in find_items(tmp_path / "in", tmp_path / "out", "mp4")
    }
    wanted = {"a.mp4": "a.png", "b.c.mov": "sub/b.c.mp4", "shots.1": "shots.1"}
    assert found == {name: tmp_path / "masks" / place for name, place in wanted.items()}


def test_stills_named_like_the_inputs_are_no_frames(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.mp4", "in/b.mp4", "masks/a.png", "masks/b.png")
    for item in find_items(tmp_path / "in", tmp_path / "out", "mp4"):
        assert mask_of(item, tmp_path / "in", tmp_path / "masks") == tmp_path / "masks" / f"{item.source.stem}.png"


def test_masks_of_a_folder_of_frames(tmp_path: Path) -> None:
    touch(tmp_path, "in/1.png", "in/2.png", "masks/1.png", "masks/2.png")
    [item] = find_items(tmp_path / "in", tmp_path / "out", "mp4")
    assert mask_of(item, tmp_path / "in", tmp_path / "masks") == tmp_path / "masks"


def test_a_missing_mask_names_the_input(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.mp4", "masks/b.mp4")
    with pytest.raises(VideoError, match="no mask for a"):
        mask_of(Item(tmp_path / "in" / "a.mp4", Path("a.mp4")), tmp_path / "in", tmp_path / "masks")


# Running


def too_much(allocate: Callable[[], Any]) -> Exception:
    """What an allocation of more memory than there is ends in."""
    with pytest.raises((MemoryError, RuntimeError)) as caught:
        allocate()
    return caught.value


def test_out_of_memory_is_no_internal_error(make_batch: Callable[..., Batch]) -> None:
    batch = make_batch("a.mp4", "b.mp4", "c.mp4")
    batch.faults = {
        "a.mp4": torch.OutOfMemoryError("CUDA out of memory"),
        "b.mp4": too_much(lambda: torch.empty(2**50)),
        "c.mp4": too_much(lambda: np.empty(2**50)),
    }
    for video in batch.run()["videos"]:
        assert video["reason"].startswith("out of memory")
        assert video["trace"] is None


def test_a_bad_input_stops_nothing(make_batch: Callable[..., Batch]) -> None:
    batch = make_batch("a.mp4", "b.mp4", "c.mp4", "d.mp4", "sub/e.mp4")
    batch.faults = {
        "a.mp4": VideoError(f"{batch.input / 'a.mp4'}: of two\nlines"),
        "b.mp4": OSError(5, "Input/output error"),
        "c.mp4": torch.OutOfMemoryError("CUDA out of memory"),
        "d.mp4": KeyError("ours"),
    }
    report = batch.run()
    assert (report["done"], report["failed"]) == (1, 4)
    reasons = {Path(video["input"]).name: video["reason"] for video in report["videos"]}
    assert reasons["a.mp4"] == "of two lines"
    assert "Input/output error" in reasons["b.mp4"]
    assert "out of memory" in reasons["c.mp4"]
    assert reasons["d.mp4"].startswith("internal error (KeyError")
    assert reasons["e.mp4"] is None
    assert not any("\n" in line or "Traceback" in line for line in batch.told)
    assert len(batch.told) == 5  # four reasons and a note
    traces = {Path(video["input"]).name: video["trace"] for video in report["videos"]}
    assert "KeyError" in traces["d.mp4"]
    assert traces["a.mp4"] is None
    assert json.loads((batch.output / REPORT).read_text()) == report


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_where_nothing_can_be_written_the_batch_stops_at_once(make_batch: Callable[..., Batch], number: int) -> None:
    batch = make_batch("a.mp4", "b.mp4", "c.mp4")
    full = VideoError("a.mp4: cannot be written")
    full.__cause__ = OSError(number, os.strerror(number))
    batch.faults = {"b.mp4": full}
    with pytest.raises(OSError, match=r"out: a.mp4: cannot be written; make room, and run the same command again"):
        batch.run()
    assert batch.restored == ["a.mp4", "b.mp4"]
    batch.faults = {}
    assert batch.run()["done"] == 3
    assert batch.restored == ["b.mp4", "c.mp4"]


def test_a_name_as_long_as_names_can_be_is_no_trouble(make_batch: Callable[..., Batch]) -> None:
    names = ["ä" * 125 + ".mp4", "ä" * 124 + "a.mp4", "b.mp4"]
    batch = make_batch(*names)
    assert batch.run()["done"] == 3
    assert batch.run()["done"] == 3
    assert batch.restored == []


def test_what_a_terminal_might_obey_is_shown_escaped(make_batch: Callable[..., Batch]) -> None:
    batch = make_batch("a\x1b[2J\u202e.mp4", os.fsdecode(b"\xff.mp4"))
    batch.run()
    assert [Path(line.split(":")[0]).name for line in batch.told] == ["a\\x1b[2J\\u202e.mp4", "\\udcff.mp4"]


def test_a_call_that_cannot_be_described_fails_alone(make_batch: Callable[..., Batch]) -> None:
    batch = make_batch("a.mp4", "b.mp4")
    describe = batch.cache_key

    def cache_key(item: Item) -> str:
        if item.source.name == "a.mp4":
            raise VideoError("no mask for a.mp4")
        return describe(item)

    batch.cache_key = cache_key  # type: ignore[method-assign]
    batch.faults = {"a.mp4": VideoError("no mask for a.mp4")}
    report = batch.run()
    assert [video["reason"] for video in report["videos"]] == ["no mask for a.mp4", None]


def test_what_is_done_is_skipped(make_batch: Callable[..., Batch]) -> None:
    batch = make_batch("a.mp4", "sub/b.mp4")
    first = batch.run()
    assert batch.restored == ["a.mp4", "b.mp4"]
    assert batch.run() == first
    assert batch.restored == []
    assert all("skipped" in line for line in batch.told)


def test_what_changed_is_done_again(make_batch: Callable[..., Batch]) -> None:
    batch = make_batch("a.mp4", "b.mp4", "c.mp4")
    batch.run()
    (batch.output / "a.mp4").unlink()
    os.utime(batch.input / "b.mp4", ns=(0, 0))
    batch.run()
    assert batch.restored == ["a.mp4", "b.mp4"]
    batch.settings = 1
    batch.run()
    assert batch.restored == ["a.mp4", "b.mp4", "c.mp4"]
    record_path(batch.output, Item(batch.input / "c.mp4", Path("c.mp4"))).write_text("{broken")
    batch.run()
    assert batch.restored == ["c.mp4"]


def test_an_input_that_grows_meanwhile_is_not_done(
    make_batch: Callable[..., Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = make_batch("a.mp4", "b.mp4")
    restore = batch.restore

    def restore_while_it_grows(item: Item) -> VideoReport:
        report = restore(item)
        if item.source.name == "a.mp4":
            item.source.write_bytes(b"more")
        return report

    with monkeypatch.context() as patched:
        patched.setattr(batch, "restore", restore_while_it_grows)
        report = batch.run()
    assert [video["reason"] for video in report["videos"]] == [
        "changed while it was restored: run the command again",
        None,
    ]
    assert not (batch.output / "a.mp4").exists()
    batch.run()
    assert batch.restored == ["a.mp4"]
    assert (batch.output / "a.mp4").read_bytes() == b"more"


def test_failed_ones_are_tried_again(make_batch: Callable[..., Batch]) -> None:
    batch = make_batch("a.mp4", "b.mp4")
    batch.faults = {"a.mp4": OSError("disk")}
    batch.run()
    batch.faults = {}
    report = batch.run()
    assert batch.restored == ["a.mp4"]
    assert report["failed"] == 0


def test_interrupted_with_other_settings_the_old_results_count_for_nothing(make_batch: Callable[..., Batch]) -> None:
    batch = make_batch("a.mp4", "b.mp4", "c.mp4")
    batch.run()
    batch.settings = 1
    batch.faults = {"b.mp4": KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        batch.run()
    report = json.loads((batch.output / REPORT).read_text())
    assert [video["status"] for video in report["videos"]] == ["done", "failed", "failed"]
    assert report["videos"][2]["reason"] == "not finished"
    batch.faults = {}
    assert batch.run()["done"] == 3
    assert batch.restored == ["b.mp4", "c.mp4"]


def test_a_fingerprint_sees_into_folders(tmp_path: Path) -> None:
    touch(tmp_path, "shots/1.png", "shots/2.png")
    before = fingerprint(tmp_path / "shots")
    assert before == fingerprint(tmp_path / "shots")
    (tmp_path / "shots" / "2.png").write_bytes(b"other")
    assert fingerprint(tmp_path / "shots") != before
    assert fingerprint(tmp_path / "absent") is None
    assert fingerprint(None) is None


def test_json_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / RECORDS / "a.json"
    write_json(path, {"a": 1})

    def full(self: Path, text: str) -> int:
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space"):
        write_json(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 1}
    assert [file.name for file in path.parent.iterdir()] == ["a.json"]


def test_json_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"report\.json") as caught:
        write_json(tmp_path / "file" / "report.json", {"a": 1})
    assert caught.value.filename == str(tmp_path / "file" / "report.json")


def test_a_locked_folder_is_an_input_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a.mp4", "locked/b.mp4", "open/c.mp4")
    listing = Path.iterdir

    def refuse(folder: Path) -> Iterator[Path]:  # the tests may run as a user whom no permission stops
        if folder.name == "locked":
            raise PermissionError(13, "Permission denied", str(folder))
        return listing(folder)

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert targets(tmp_path, tmp_path / "out") == {"a.mp4": "a.mp4", "locked": "locked.mp4", "open/c.mp4": "open/c.mp4"}
    with pytest.raises(VideoError, match=r"locked: Permission denied"):
        probe(tmp_path / "locked")


def test_links_that_form_circles_are_followed_once(tmp_path: Path) -> None:
    """Each folder under its own name; a link alone leads to what lies elsewhere."""
    source, elsewhere = tmp_path / "in", tmp_path / "elsewhere"
    for folder in (source / "a", source / "b", elsewhere / "deep"):
        folder.mkdir(parents=True)
        (folder / "clip.mp4").write_bytes(b"-")
    (source / "a" / "to_b").symlink_to(source / "b")
    (source / "b" / "to_a").symlink_to(source / "a")
    (source / "b" / "up").symlink_to(source)
    (source / "a" / "self").symlink_to(source / "a" / "self")
    (source / "away").symlink_to(elsewhere)
    found = [str(item.source.relative_to(source)) for item in find_items(source, tmp_path / "out", "png")]
    assert found == ["a/clip.mp4", "away/deep/clip.mp4", "b/clip.mp4"]


def test_deeply_nested_folders_are_searched(tmp_path: Path) -> None:
    folders = [tmp_path / "in"]
    for _ in range(1050):
        folders.append(folders[-1] / "d")
    try:
        for folder in folders:
            folder.mkdir()
        touch(folders[-1], "clip.mp4")
        [item] = find_items(tmp_path / "in", tmp_path / "out", "png")
        assert item.source.name == "clip.mp4"
        touch(tmp_path / "in", "sheet.png")  # is the folder beside it a clip's?
        assert len(find_items(tmp_path / "in", tmp_path / "out", "png")) == 2
    finally:  # pytest's own way is recursive
        (folders[-1] / "clip.mp4").unlink(missing_ok=True)
        (tmp_path / "in" / "sheet.png").unlink(missing_ok=True)
        for folder in reversed(folders):
            folder.rmdir()


def photo(path: Path, level: int, size: tuple[int, int] = (40, 30)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (level, level, level)).save(path)


def test_photos_of_several_people_are_stills_and_frames_are_a_film(tmp_path: Path) -> None:
    for name, level in {"anna": 10, "bert": 90, "carl": 200, "dora": 30}.items():
        photo(tmp_path / "people" / f"{name}.png", level)
    for number in range(4):
        photo(tmp_path / "film" / f"shot_{number}.png", 100 + 4 * number)
        photo(tmp_path / "numbered" / f"{number}.png", 60 * number)  # as faces of a dataset are named
        photo(tmp_path / "sizes" / f"{number}.png", 100, (40, 30 + number))
    found = [str(item.source.relative_to(tmp_path)) for item in find_items(tmp_path, tmp_path / "out", "png")]
    people = [f"people/{name}.png" for name in ("anna", "bert", "carl", "dora")]
    faces = [f"{folder}/{number}.png" for folder in ("numbered", "sizes") for number in range(4)]
    assert found == ["film", *sorted([*people, *faces])]


@needs_assets
def test_photos_of_real_faces_are_stills() -> None:
    assert len(PHOTOS) > 3
    assert [item.source for item in find_items(PHOTOS[0].parent, Path("out"), "png")] == PHOTOS


def test_files_are_taken_for_what_they_contain_and_others_are_listed(tmp_path: Path) -> None:
    photo(tmp_path / "a.png", 100)
    (tmp_path / "a.png").rename(tmp_path / "photo.unknown")
    clips.video(tmp_path / "film.mp4", clips.scene(3, [None]))
    (tmp_path / "film.mp4").rename(tmp_path / "film.unknown")
    frames = [Image.new("RGB", (40, 30), (level, 0, 0)) for level in (0, 99, 200)]
    frames[0].save(tmp_path / "moving.webp", save_all=True, append_images=frames[1:], lossless=True)
    touch(tmp_path, "notes.txt", "sub/list.nfo")
    output = tmp_path / "out"
    assert targets(tmp_path, output) == {
        "film.unknown": "film.mp4",
        "moving.webp": "moving.mp4",
        "photo.unknown": "photo.png",
    }
    skipped: list[Path] = []
    find_items(tmp_path, output, "mp4", skipped)
    assert skipped == [tmp_path / "notes.txt", tmp_path / "sub" / "list.nfo"]
