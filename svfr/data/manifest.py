"""The manifest of a data set: JSON lines, one clip each, written by `data_prep`, read by training."""

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from svfr.files import replacing

VERSION = 1
SPLITS = ("train", "val", "test")


class ManifestError(ValueError):
    """A manifest that cannot be used; its message is one line that names the file, the line and the field."""


@dataclass(frozen=True)
class Clip:
    """One clip of a data set: one face through consecutive frames of one video file."""

    id: str  # unique in its manifest
    video: str  # the file that holds the frames, relative to the manifest's folder
    source: str  # the original file, relative to the `source.path` of data preparation
    split: str  # train, val or test
    start_frame: int  # index of the clip's first frame in `video`
    num_frames: int
    fps: float  # [1/s]
    width: int  # [px] of the crop
    height: int  # [px] of the crop
    identity: int | None = None  # the same for clips of one person; None if unknown
    quality: float | None = None  # score in [0, 1], higher is better; None if it was not measured
    crop: tuple[float, float, float, float] | None = None  # x0, y0, x1, y1 [px] of `video`'s frames; None: all of them
    # npz file relative to the manifest's folder: `points` (f, 68, 2) float32 [px] of the crop and `score` (f,), 0 where
    # they are not to be trusted; None if there are none.
    landmarks: str | None = None
    sha256: str | None = None  # of `video`; None if it was not computed


def read_manifest(path: Path, bad: list[ManifestError] | None = None, allow_outside: bool = False) -> list[Clip]:
    """Read all clips of a manifest; ManifestError if there are none, or a file lies outside of its folder.

    What is wrong with lines that are no clips goes into `bad`, if it is given; else the first is raised.
    """
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ManifestError(f"{path}: the manifest cannot be read ({reason})") from error
    clips: dict[str, Clip] = {}
    for number, line in enumerate(lines, start=1):
        try:
            if line.strip():
                clip = _parse(line)
                if clip.id in clips:
                    raise ValueError(f"the id {clip.id!r} is there twice")
                clips[clip.id] = clip
        except (ValueError, TypeError) as error:
            wrong = ManifestError(f"{path}, line {number}: {str(error).split('__init__() ')[-1]}")
            if bad is None:
                raise wrong from error
            bad.append(wrong)
    if not clips and not bad:
        raise ManifestError(f"{path}: the manifest has no clips")
    files = (Path(file) for clip in clips.values() for file in (clip.video, clip.landmarks) if file is not None)
    outside = next((file for file in files if file.is_absolute() or ".." in file.parts), None)
    if outside is not None and not allow_outside:
        raise ManifestError(
            f"{path}: {outside} lies outside of the manifest's folder; data.allow_outside=true allows it"
        )
    return list(clips.values())


def write_manifest(path: Path, clips: Iterable[Clip]) -> None:
    """Write a manifest; an error leaves what was there before."""
    with replacing(path) as partial, partial.open("w") as file:
        for clip in clips:
            file.write(json.dumps({"version": VERSION, **asdict(clip)}) + "\n")


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < float("inf")  # nan is not, either


def _is_box(value: Any) -> bool:
    is_four = isinstance(value, tuple) and len(value) == 4 and all(map(_is_number, value))
    return is_four and value[0] < value[2] and value[1] < value[3]


OPTIONAL = {field.name for field in fields(Clip) if field.default is None}
# Fields, what their values have to be, and whether one is that.
CHECKS: list[tuple[tuple[str, ...], str, Callable[[Any], bool]]] = [
    (("id", "video", "source", "landmarks", "sha256"), "a text", lambda x: isinstance(x, str) and x != ""),
    (("split",), f"one of {', '.join(SPLITS)}", lambda x: isinstance(x, str) and x in SPLITS),
    (("start_frame", "identity"), "a whole number of at least 0", lambda x: type(x) is int and x >= 0),
    (("num_frames", "width", "height"), "a whole number of at least 1", lambda x: type(x) is int and x >= 1),
    (("fps",), "a number above 0", lambda x: _is_number(x) and x > 0),
    (("quality",), "a number", _is_number),
    (("crop",), "x0, y0, x1, y1 with x0 < x1 and y0 < y1", _is_box),
]


def _parse(line: str) -> Clip:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not a JSON object ({error})") from error
    if not isinstance(entry, dict):
        raise ValueError("not a JSON object")
    version = entry.pop("version", VERSION)  # a manifest that somebody wrote by hand may leave it out
    if version != VERSION:
        raise ValueError(f"a manifest of version {version!r}, this code reads {VERSION}: prepare the data anew")
    if isinstance(entry.get("crop"), list):
        entry["crop"] = tuple(entry["crop"])
    if unknown := entry.keys() - {field.name for field in fields(Clip)}:
        raise ValueError(f"unknown field {min(unknown)!r}")
    clip = Clip(**entry)
    for names, expected, holds in CHECKS:
        for name in names:
            value = getattr(clip, name)
            if not (holds(value) or (value is None and name in OPTIONAL)):
                raise ValueError(f"{name} {json.dumps(value)[:80]}: has to be {expected}")
    return clip
