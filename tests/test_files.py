from pathlib import Path
from threading import Thread

import pytest

from svfr.files import partial_path, replace, replacing, sweep


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
    sweep(tmp_path)
    assert [file.name for file in tmp_path.rglob("*")] == ["sub", "whole.mp4"]


def test_two_partial_paths_of_one_name_differ_and_fit(tmp_path: Path) -> None:
    path = tmp_path / ("ä" * 125 + ".mp4")
    one, other = partial_path(path), partial_path(path)
    assert one != other
    assert one.suffix == ".mp4"
    one.touch()
