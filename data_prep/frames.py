"""The frames of several clips of one file, read in one go, and the arrays that steps keep of each clip."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from data_prep.records import Record, file_name
from data_prep.settings import DataPrepConfig
from svfr.data.video import Frame, ReadOptions, VideoError, read_frames
from svfr.files import replacing

TRACKS, LANDMARKS = "steps/tracks", "steps/landmarks"  # folders of arrays, below the output


def num_frames(clips: Sequence[Record]) -> int:
    """Frames that have to be read for the clips of one file."""
    return max(clip["start_frame"] + clip["num_frames"] for clip in clips)


def frames_of(file: Record, settings: DataPrepConfig) -> Iterator[Frame]:
    """The frames of a file as its record of the step ingest, or one of a clip of it, says.

    Raises:
        VideoError: it cannot be read, or has another size than when it was looked into.
    """
    path = Path(settings.source.path) / file["source"]
    size = path.stat().st_size
    if path.is_file() and file.get("bytes", size) != size:
        raise VideoError(f"{path}: {size} bytes now, {file['bytes']} when it was looked into: run all steps again")
    options = ReadOptions(max_pixels=settings.max_pixels, deinterlace=file.get("interlaced", False))
    return read_frames(path, options)


def walk(clips: list[Record], settings: DataPrepConfig) -> Iterator[tuple[np.ndarray, list[tuple[int, int]]]]:
    """The frames of the clips' file, up to the last one that is in a clip.

    Yields:
        The (h, w, 3) uint8 frame, and for each clip that it is in (index of the clip, index of the frame in it).

    Raises:
        VideoError: the file cannot be read, or is shorter than its clips say.
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
