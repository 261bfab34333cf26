import errno
import fcntl
from pathlib import Path

import pytest

from svfr.config import ConfigError
from svfr.training.run_folder import CHECKSUMS, RunFolder, find_newest, find_steps, keep_newest, writing_step
from svfr.training.settings import TrainConfig


def write(folder: Path, step: int, content: str = "weights") -> Path:
    with writing_step(folder, step) as partial:
        (partial / "part").mkdir()
        (partial / "part" / "file").write_text(content)
    return folder / f"step_{step:06d}"


@pytest.fixture
def shown() -> list[str]:
    return []


def test_the_newest_whole_one_is_found(tmp_path: Path, shown: list[str]) -> None:
    assert find_newest(tmp_path / "none", shown.append) is None
    for step in (5, 1_000_000, 20):
        write(tmp_path, step)
    assert find_steps(tmp_path) == [5, 20, 1_000_000]
    assert find_newest(tmp_path, shown.append) == 1_000_000
    assert not shown


def test_what_is_being_written_is_never_found(tmp_path: Path, shown: list[str]) -> None:
    write(tmp_path, 1)
    with writing_step(tmp_path, 2) as partial:
        (partial / "file").write_text("half")
        assert find_newest(tmp_path, shown.append) == 1
        assert find_steps(tmp_path) == [1]


def test_what_interrupted_writing_left_is_removed(tmp_path: Path) -> None:
    first = write(tmp_path, 1)
    (tmp_path / ".step_000002.partial-7").mkdir()
    (tmp_path / ".step_000002.partial-7" / "file").write_text("half")
    with pytest.raises(OSError, match="full"), writing_step(tmp_path, 2):
        raise OSError(28, "the disk is full")
    assert list(tmp_path.iterdir()) == [first]


@pytest.mark.parametrize("damage", ["change", "remove", "checksums"])
def test_a_damaged_one_is_named_and_passed_over(tmp_path: Path, shown: list[str], damage: str) -> None:
    _, last = write(tmp_path, 1), write(tmp_path, 2)
    if damage == "change":
        (last / "part" / "file").write_text("weightz")
    elif damage == "remove":
        (last / "part" / "file").unlink()
    else:
        (last / CHECKSUMS).write_text("{")
    assert find_newest(tmp_path, shown.append) == 1
    assert shown == [f"{last}: damaged, passed over"]


def test_the_last_few_are_kept(tmp_path: Path) -> None:
    for step in range(1, 6):
        write(tmp_path, step)
    keep_newest(tmp_path, 2)
    assert find_steps(tmp_path) == [4, 5]


def test_a_step_that_is_written_again_replaces_the_old_one(tmp_path: Path, shown: list[str]) -> None:
    write(tmp_path, 1, "old")
    assert (write(tmp_path, 1, "new") / "part" / "file").read_text() == "new"
    assert find_newest(tmp_path, shown.append) is not None


def test_a_run_whose_manifest_has_changed_is_refused(tmp_path: Path, shown: list[str]) -> None:
    facts, config = {"sha256 of data/manifest.jsonl": "12", "clips": 3}, TrainConfig()
    RunFolder(tmp_path).claim(config, facts, shown.append)
    RunFolder(tmp_path).claim(config, {"sha256 of data/manifest.jsonl": "34"}, shown.append)  # nothing was trained yet
    write(tmp_path / "checkpoints", 1)
    with pytest.raises(ConfigError, match=r"sha256 of data/manifest.jsonl=12: .* of data/manifest.jsonl=34"):
        RunFolder(tmp_path).claim(config, facts, shown.append)
    assert not shown


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_disk_without_locks_is_said_in_one_line(
    tmp_path: Path, shown: list[str], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(number, "no locks here")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    RunFolder(tmp_path).claim(TrainConfig(), {}, shown.append)
    assert shown == [f"{tmp_path}: cannot be locked (no locks here); take care that nothing else trains there"]
