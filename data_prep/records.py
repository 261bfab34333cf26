"""The files between the steps: JSON lines, one clip a line, under a line that says whose file it is."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from svfr.files import digest, is_machine_error, replacing

Record = dict[str, Any]
VERSION = 1
STEPS = ("ingest", "cut", "track", "score", "landmarks", "identities", "write")
FOLDER = "steps"  # of the output; holds these files


class PrepareError(ValueError):
    """What stops a step; one line that says what to do."""


class NothingLeft(PrepareError):
    """A step that left out everything."""

    exit_code = 1


def step_file(output: Path, step: str) -> Path:
    """Where a step's records lie."""
    return output / FOLDER / f"{step}.jsonl"


def read_step(output: Path, step: str) -> list[Record]:
    """The records that a step wrote.

    Raises:
        PrepareError: the step was not run yet, its file is of another version or damaged.
    """
    path = step_file(output, step)
    try:
        lines = path.read_text().splitlines()
        header, *records = [json.loads(line) for line in lines]
        version = header["version"]
    except FileNotFoundError as error:
        raise PrepareError(f"{path} is missing: run the step {step} first") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PrepareError(f"{path}: cannot be read ({error}); delete it and run the step {step} again") from error
    if version != VERSION:
        versions = f"({version}, this code's is {VERSION})"
        raise PrepareError(f"{path}: made by another version {versions}: prepare into a new folder")
    return records


def write_lines(path: Path, records: Iterable[Record]) -> None:
    """Write JSON lines, whole or not at all."""
    with replacing(path) as partial, partial.open("w") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)


def is_no_inputs_fault(error: BaseException | None, output: str) -> bool:
    """Whether an error is that of the machine, or comes from a file of the output."""
    if is_machine_error(error):
        return True
    folders = tuple(str(Path(output, name)) for name in (FOLDER, "clips", "landmarks"))
    while error is not None:
        if str(getattr(error, "filename", None) or error).startswith(folders):
            return True
        error = error.__cause__ or error.__context__
    return False


def file_name(clip_id: str, suffix: str) -> str:
    """Where a clip's file lies below its kind's folder: 256 subfolders, so that none holds a million files."""
    return f"{digest([clip_id])[:2]}/{clip_id}{suffix}"
