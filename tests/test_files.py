import subprocess
from pathlib import Path
from threading import Thread

import pytest

from svfr.files import partial_path, replace, replacing, sha256_of_all, sweep, walk


def contents(folder: Path) -> dict[str, str]:
    return {str(f.relative_to(folder)): f.read_text() for f in sorted(folder.rglob("*")) if f.is_file()}


@pytest.mark.parametrize("is_folder", [False, True])
def test_what_is_there_stays_until_the_new_one_is_whole(tmp_path: Path, is_folder: bool) -> None:
    def write(path: Path, text: str) -> None:
        if is_folder:
            path.mkdir()
        (path / "a.txt" if is_folder else path).write_text(text)

    target = tmp_path / "sub" / "result"
    with replacing(target) as partial:
        write(partial, "one")
    before = contents(tmp_path)
    with pytest.raises(FileNotFoundError), replacing(target) as partial:
        write(partial, (tmp_path / "nowhere").read_text())
    assert contents(tmp_path) == before
    with replacing(target) as partial:
        write(partial, "two")
    assert list(contents(tmp_path).values()) == ["two"]


def test_a_folder_that_cannot_be_replaced_stays(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "a.txt").write_text("one")
    with pytest.raises(FileNotFoundError):
        replace(tmp_path / "old", tmp_path / "nowhere")
    assert contents(tmp_path) == {"old/a.txt": "one"}


def test_walk_skips_what_is_hidden_or_not_to_be_entered(tmp_path: Path) -> None:
    for name in ("a/b/x", "a/.hidden/x", "c/x", "x", ".x"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "link").symlink_to(tmp_path / "c")
    found = {folder.name: [child.name for child in children] for folder, children in walk(tmp_path)}
    assert found == {tmp_path.name: ["a", "c", "link", "x"], "a": ["b"], "b": ["x"], "c": ["x"]}
    assert {folder.name for folder, _ in walk(tmp_path, lambda folder: folder.name != "a")} == {tmp_path.name, "c"}


def test_the_sha256_of_a_folder_is_that_of_the_lines_of_sha256sum(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for name, text in (("b/a.txt", "one"), ("b.txt", "two"), ("a.txt", "")):
        (tmp_path / name).write_text(text)
    files = {name: tmp_path / name for name in ("b/a.txt", "a.txt", "b.txt")}
    script = "sha256sum a.txt b.txt b/a.txt | sha256sum"
    printed = subprocess.run(script, shell=True, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert sha256_of_all(files) == printed.split()[0]


def test_at_no_moment_of_replacing_a_folder_nothing_is_there(tmp_path: Path) -> None:
    place, seen, stop = tmp_path / "folder", set[str](), list[bool]()
    (place).mkdir()
    (place / "0").touch()

    def look() -> None:
        while not stop:
            seen.add("there" if place.is_dir() else "gone")

    watcher = Thread(target=look)
    watcher.start()
    for number in range(1, 300):
        new = partial_path(place)
        new.mkdir()
        (new / str(number)).touch()
        replace(place, new)
        assert [file.name for file in place.iterdir()] == [str(number)]
    stop.append(True)
    watcher.join()
    assert seen == {"there"}
    assert list(tmp_path.iterdir()) == [place]


def test_what_killed_processes_left_is_swept(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "whole.mp4").touch()
    partial_path(tmp_path / "sub" / "whole.mp4").touch()
    partial_path(tmp_path / "folder").mkdir()
    (kept := partial_path(tmp_path / "film.mp4", "key")).mkdir()
    (kept / "segment").touch()
    partial_path(kept / "segment").touch()
    sweep(tmp_path, {kept})
    assert [file.name for file in kept.iterdir()] == ["segment"]
    sweep(tmp_path)
    assert [file.name for file in tmp_path.rglob("*")] == ["sub", "whole.mp4"]


def test_two_partial_paths_of_one_name_differ_and_fit(tmp_path: Path) -> None:
    path = tmp_path / ("ä" * 125 + ".mp4")
    one, other = partial_path(path), partial_path(path)
    assert one != other
    assert one.suffix == ".mp4"
    one.touch()
