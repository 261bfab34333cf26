"""Checkpoints on disk: written whole or not at all, checked when read, the last few kept."""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from svfr.files import sha256_of

CHECKSUMS = "checksums.json"
PARTIAL = ".partial-"  # prefix of a folder that is being written


class CheckpointError(ValueError):
    """A checkpoint that cannot be written or read; one line."""


def step_name(step: int) -> str:
    """Name of the folder of a step."""
    return f"step_{step:06d}"


def steps(folder: Path) -> list[int]:
    """Steps that have a finished folder, ascending."""
    if not folder.is_dir():
        return []
    matches = [re.fullmatch(r"step_(\d+)", child.name) for child in folder.iterdir() if child.is_dir()]
    return sorted(int(match[1]) for match in matches if match)


def begin(folder: Path, step: int) -> Path:
    """An empty folder to write a checkpoint into; `finish` gives it its name. Of several processes, one calls this."""
    partial = folder / f"{PARTIAL}{step_name(step)}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    return partial


def finish(partial: Path) -> Path:
    """Record the checksum of each file and give the folder its final name.

    Raises:
        OSError: the disk is full, or the folder may not be written.
    """
    sums = {str(file.relative_to(partial)): sha256_of(file) for file in _files(partial)}
    (partial / CHECKSUMS).write_text(json.dumps(sums, indent=1) + "\n")
    for file in _files(partial):
        with file.open("rb") as opened:
            os.fsync(opened.fileno())  # a name must not outlive its content in a power cut
    final = partial.with_name(partial.name.removeprefix(PARTIAL))
    shutil.rmtree(final, ignore_errors=True)
    os.replace(partial, final)
    return final


def is_whole(checkpoint: Path) -> bool:
    """Whether all files are there and are those that were written."""
    try:
        sums = json.loads((checkpoint / CHECKSUMS).read_text())
        return all(sha256_of(checkpoint / name) == digest for name, digest in sums.items())
    except (OSError, ValueError):
        return False


def latest(folder: Path, tell: Callable[[str], None]) -> tuple[int, Path] | None:
    """The newest whole checkpoint; a damaged one is named and passed over.

    Args:
        folder: that holds the checkpoints.
        tell: shows one line to the user.
    """
    for step in reversed(steps(folder)):
        checkpoint = folder / step_name(step)
        if is_whole(checkpoint):
            return step, checkpoint
        tell(f"{checkpoint}: damaged, passed over")
    return None


def prune(folder: Path, keep: int) -> None:
    """Delete all but the newest `keep` checkpoints, and what interrupted writing left."""
    for step in steps(folder)[:-keep]:
        shutil.rmtree(folder / step_name(step))
    for rest in folder.glob(f"{PARTIAL}*"):
        shutil.rmtree(rest)


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file() and file.name != CHECKSUMS)
