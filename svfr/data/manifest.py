"""The manifest of a data set: JSON lines, one clip each, written by `data_prep`, read by training."""

import json
from collections.abc import Iterable
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
    """One clip of a data set: one face through consecutive frames of one video file.

    Attributes:
        id: unique in its manifest.
        video: the file that holds the frames, relative to the manifest's folder.
        source: the original file, relative to the `source.path` of data preparation.
        split: train, val or test.
        start_frame: index of the clip's first frame in `video`.
        num_frames: of the clip.
        fps: [1/s].
        width: [px] of the crop.
        height: [px] of the crop.
        identity: the same for clips of one person; None if unknown.
        quality: score in [0, 1], higher is better; None if it was not measured.
        crop: x0, y0, x1, y1 [px] of `video`'s frames; None if the whole frame is the crop.
        landmarks: npz file relative to the manifest's folder: `points` (f, 68, 2) float32 [px] of the crop and `score`
            (f,), 0 where they are not to be trusted; None if there are none.
        sha256: of `video`; None if it was not computed.
    """

    id: str
    video: str
    source: str
    split: str
    start_frame: int
    num_frames: int
    fps: float
    width: int
    height: int
    identity: int | None = None
    quality: float | None = None
    crop: tuple[float, float, float, float] | None = None
    landmarks: str | None = None
    sha256: str | None = None


def read_manifest(path: Path) -> list[Clip]:
    """Read all clips of a manifest.

    Raises:
        ManifestError: it cannot be read, is empty, is of another version, or a line is not a clip.
    """
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(
            f"{path}: the manifest cannot be read ({getattr(error, 'strerror', None) or error})"
        ) from error
    clips = [_parse(line, f"{path}, line {number}") for number, line in enumerate(lines, start=1) if line.strip()]
    if not clips:
        raise ManifestError(f"{path}: the manifest has no clips")
    seen: set[str] = set()
    for clip in clips:
        if clip.id in seen:
            raise ManifestError(f"{path}: the id '{clip.id}' is there twice")
        seen.add(clip.id)
    return clips


def write_manifest(path: Path, clips: Iterable[Clip]) -> None:
    """Write a manifest; an error leaves what was there before."""
    with replacing(path) as partial, partial.open("w") as file:
        for clip in clips:
            file.write(json.dumps({"version": VERSION, **asdict(clip)}) + "\n")


def _parse(line: str, where: str) -> Clip:
    try:
        entry: dict[str, Any] = json.loads(line)
        if not isinstance(entry, dict):
            raise ValueError("no JSON object")
    except ValueError as error:
        raise ManifestError(f"{where}: not a JSON object ({error})") from error
    version = entry.pop("version", VERSION)  # a manifest that somebody wrote by hand may leave it out
    if version != VERSION:
        raise ManifestError(
            f"{where}: a manifest of version {version}, this code reads {VERSION}: prepare the data anew"
        )
    unknown = sorted(set(entry) - {field.name for field in fields(Clip)})
    if unknown:
        raise ManifestError(f"{where}: unknown field '{unknown[0]}'")
    if entry.get("crop") is not None:
        entry["crop"] = tuple(entry["crop"])
    try:
        clip = Clip(**entry)
    except TypeError as error:
        raise ManifestError(f"{where}: {str(error).split('__init__() ')[-1]}") from error
    if clip.split not in SPLITS:
        raise ManifestError(f"{where}: split '{clip.split}': choose from {', '.join(SPLITS)}")
    if not (isinstance(clip.num_frames, int) and clip.num_frames >= 1 and clip.start_frame >= 0):
        raise ManifestError(f"{where}: start_frame {clip.start_frame} and num_frames {clip.num_frames} cannot be")
    return clip
