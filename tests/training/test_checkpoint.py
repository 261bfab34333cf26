from pathlib import Path

import pytest

from svfr.training import checkpoint


def write(folder: Path, step: int, content: str = "weights") -> Path:
    partial = checkpoint.begin(folder, step)
    (partial / "part").mkdir()
    (partial / "part" / "file").write_text(content)
    return checkpoint.finish(partial)


@pytest.fixture
def told() -> list[str]:
    return []


def test_the_newest_whole_one_is_found(tmp_path: Path, told: list[str]) -> None:
    assert checkpoint.latest(tmp_path / "none", told.append) is None
    for step in (5, 1_000_000, 20):
        write(tmp_path, step)
    assert checkpoint.steps(tmp_path) == [5, 20, 1_000_000]
    assert checkpoint.latest(tmp_path, told.append) == (1_000_000, tmp_path / "step_1000000")
    assert not told


def test_what_is_being_written_is_never_found(tmp_path: Path, told: list[str]) -> None:
    write(tmp_path, 1)
    (checkpoint.begin(tmp_path, 2) / "file").write_text("half")
    assert checkpoint.latest(tmp_path, told.append) == (1, tmp_path / "step_000001")
    checkpoint.prune(tmp_path, keep=1)
    assert [child.name for child in tmp_path.iterdir()] == ["step_000001"]


@pytest.mark.parametrize("damage", ["change", "remove", "checksums"])
def test_a_damaged_one_is_named_and_passed_over(tmp_path: Path, told: list[str], damage: str) -> None:
    write(tmp_path, 1)
    last = write(tmp_path, 2)
    if damage == "change":
        (last / "part" / "file").write_text("weightz")
    elif damage == "remove":
        (last / "part" / "file").unlink()
    else:
        (last / checkpoint.CHECKSUMS).write_text("{")
    assert checkpoint.latest(tmp_path, told.append) == (1, tmp_path / "step_000001")
    assert told == [f"{last}: damaged, passed over"]


def test_the_last_few_are_kept(tmp_path: Path) -> None:
    for step in range(1, 6):
        write(tmp_path, step)
    checkpoint.prune(tmp_path, keep=2)
    assert checkpoint.steps(tmp_path) == [4, 5]


def test_a_step_that_is_written_again_replaces_the_old_one(tmp_path: Path, told: list[str]) -> None:
    write(tmp_path, 1, "old")
    assert (write(tmp_path, 1, "new") / "part" / "file").read_text() == "new"
    assert checkpoint.latest(tmp_path, told.append) is not None
