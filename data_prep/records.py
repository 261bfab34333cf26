"""What lies between the steps: JSON lines, one clip a line, arrays of each clip, and the frames they speak of."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.settings import DataPrepConfig
from svfr.data.video import Frame, ReadOptions, VideoError, read_frames
from svfr.files import digest, replacing

Record = dict[str, Any]
VERSION = 1
STEPS = ("ingest", "cut", "track", "score", "landmarks", "identities", "write")
FOLDER = "steps"  # of the output; holds these files
TRACKS, LANDMARKS = f"{FOLDER}/tracks", f"{FOLDER}/landmarks"  # folders of arrays


class PrepareError(ValueError):
    """What stops a step; one line that says what to do."""


class NothingLeft(PrepareError):
    """A step that left out everything."""

    exit_code = 1


def step_file(output: Path, step: str) -> Path:
    """Where a step's records lie; of "STEP.rejected", the list of what it left out."""
    return output / FOLDER / f"{step}.jsonl"


def read_step(output: Path, step: str) -> list[Record]:
    """The records that a step wrote; a PrepareError unless it was run, by this version, and its file is whole."""
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


def write_step(output: Path, step: str, kept: list[Record], left_out: list[Record]) -> None:
    """Write a step's records, and those of what it left out."""
    write_lines(step_file(output, f"{step}.rejected"), left_out)
    write_lines(step_file(output, step), [{"step": step, "version": VERSION}, *kept])


def collect_rejected(output: Path) -> list[Record]:
    """What the steps left out, in their order; rejected.jsonl gets it."""
    files = [step_file(output, f"{step}.rejected") for step in STEPS]
    left_out = [json.loads(line) for file in files if file.exists() for line in file.read_text().splitlines()]
    write_lines(output / "rejected.jsonl", left_out)
    return left_out


def write_lines(path: Path, records: Iterable[Record]) -> None:
    """Write JSON lines, whole or not at all."""
    with replacing(path) as partial, partial.open("w") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)


def file_name(clip_id: str, suffix: str) -> str:
    """Where a clip's file lies below its kind's folder: 256 subfolders, so that none holds a million files."""
    return f"{digest([clip_id])[:2]}/{clip_id}{suffix}"


def num_frames(clips: Sequence[Record]) -> int:
    """Frames that have to be read for the clips of one file."""
    return max(clip["start_frame"] + clip["num_frames"] for clip in clips)


def frames_of(file: Record, settings: DataPrepConfig) -> Iterator[Frame]:
    """The frames of a file as its record of the step ingest, or one of a clip of it, says.

    A VideoError where it cannot be read, or has another size than when it was looked into.
    """
    path = Path(settings.source.path) / file["source"]
    size = path.stat().st_size
    if path.is_file() and file.get("bytes", size) != size:
        raise VideoError(f"{path}: {size} bytes now, {file['bytes']} when it was looked into: run all steps again")
    options = ReadOptions(max_pixels=settings.max_pixels, deinterlace=file.get("interlaced", False))
    return read_frames(path, options)


def walk(clips: list[Record], settings: DataPrepConfig) -> Iterator[tuple[np.ndarray, list[tuple[int, int]]]]:
    """The frames of the clips' file, up to the last one that is in a clip; a VideoError as `frames_of`, or if it is
    shorter than its clips say.

    Yields the (h, w, 3) uint8 frame, and for each clip that it is in (index of the clip, index of the frame in it).
    """
    end = num_frames(clips)
    index = 0
    for frame in frames_of(clips[0], settings):
        places = [(i, index - clip["start_frame"]) for i, clip in enumerate(clips)]
        yield frame.image, [(i, at) for i, at in places if 0 <= at < clips[i]["num_frames"]]
        index += 1
        if index == end:
            return
    raise VideoError(f"{clips[0]['source']}: has {index} frames now, {end} when it was cut")


def load_arrays(output: Path, folder: str, clip_id: str) -> dict[str, np.ndarray]:
    """The arrays that a step saved of a clip."""
    with np.load(output / folder / file_name(clip_id, ".npz")) as arrays:
        return dict(arrays)


def save_arrays(output: Path, folder: str, clip_id: str, **arrays: np.ndarray) -> str:
    """Save the arrays of a clip, whole or not at all; returns the file, relative to the output folder."""
    name = f"{folder}/{file_name(clip_id, '.npz')}"
    with replacing(output / name) as partial, partial.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    return name
