"""What the data sets are made of: each reader finds the files below a folder and what their authors noted about them.

A note names a part of a file: `start` and `stop` [s] (None: all of it), `box` (x0, y0, x1, y1 in fractions of the
frame, the face or the crop around it; None: anywhere) and `person` (None: unknown).
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from os.path import realpath  # unlike Path.resolve, of links in a circle too
from pathlib import Path
from typing import Any

from data_prep.records import PrepareError, Record
from svfr.data.video import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from svfr.files import walk

VOXCELEB_RATE = 25  # [1/s] of the frame numbers in VoxCeleb2's tracks (its paper, section 3)


@dataclass(frozen=True)
class Found:
    """A file of a data set."""

    path: Path  # a video, an image, or a folder of frames
    notes: list[Record] = field(default_factory=list)  # what its authors noted; [] if nothing, then all of it is taken
    error: str | None = None  # why it cannot be used, already before it is opened


def find(collection: str, root: Path, annotations: Path | None, output: Path) -> list[Found]:
    """The files of a data set in a fixed order, without those in the output folder.

    A PrepareError where the folder or the annotations are not there, or cannot be read.
    """
    if not root.is_dir():
        raise PrepareError(f"source.path={root}: no such folder")
    if annotations is not None and not annotations.exists():
        raise PrepareError(f"source.annotations={annotations}: no such file or folder")
    try:
        found = sorted(READERS[collection](root, annotations), key=lambda item: str(item.path))
        found = [item for item in found if not Path(realpath(item.path)).is_relative_to(output.resolve())]
    except OSError as error:
        raise PrepareError(f"{error.filename or root}: cannot be read ({error.strerror})") from error
    if not found:
        raise PrepareError(f"source.path={root}: no file of the collection '{collection}' in it")
    return found


def videos(root: Path, annotations: Path | None = None) -> Iterator[Found]:
    """Any folder: all video files, and all folders that hold images and no videos (frames of one clip)."""
    for folder, children in walk(root):
        files = [child for child in children if not child.is_dir()]
        movies = [file for file in files if file.suffix.lower() in VIDEO_SUFFIXES]
        yield from map(Found, movies)
        if not movies and any(file.suffix.lower() in IMAGE_SUFFIXES for file in files):
            yield Found(folder)


def images(root: Path, annotations: Path | None = None) -> Iterator[Found]:
    """Any folder: all image files, each a clip of one frame."""
    for _, children in walk(root):
        yield from (Found(file) for file in children if file.suffix.lower() in IMAGE_SUFFIXES and not file.is_dir())


def voxceleb2(root: Path, annotations: Path | None) -> Iterator[Found]:
    """VoxCeleb2: .../PERSON/REFERENCE/00001.mp4, as released, or REFERENCE.mp4, whole videos from YouTube.

    The tracks .../PERSON/REFERENCE/00001.txt say who it is (`Identity`), and after a line `FRAME X Y W H` where the
    face is in each frame of the whole video, at 25 frames/s, in fractions of its sides. A released clip is one such
    track cropped, so that only the person matters; of a whole video each track is a part.
    """
    tracks: dict[str, list[Path]] = {}
    for file in sorted((annotations or root).rglob("*.txt")):
        tracks.setdefault(file.parent.name, []).append(file)
    for found in videos(root):
        person = found.path.parent.parent.name
        if re.fullmatch(r"id\d+", person):
            yield Found(found.path, [_note(person=person)])
        elif found.path.stem in tracks:
            yield _annotated(found.path, ((file.name, file) for file in tracks[found.path.stem]), _voxceleb_note)


def celebv(root: Path, annotations: Path | None) -> Iterator[Found]:
    """CelebV-HQ and CelebV-Text: YTB_ID.mp4, whole videos, or CLIP.mp4, already cut; and a JSON file of all clips.

    {CLIP: {"ytb_id", "duration": {"start_sec", "end_sec"}, "bbox": {"top", "bottom", "left", "right"}}}, the box in
    fractions of the frame; in CelebV-HQ one level down under "clips". Clips of one video may show several people.
    """
    clips = _celebv_clips(root, annotations)
    of_video: dict[str, list[tuple[str, Any]]] = {}
    for name, clip in clips.items():
        video = str(clip.get("ytb_id", name)) if isinstance(clip, dict) else name
        of_video.setdefault(video, []).append((name, clip))
    for found in videos(root):
        if found.path.stem in of_video:
            yield _annotated(found.path, of_video[found.path.stem], _celebv_note)
        elif found.path.stem in clips:
            yield found


def vfhq(root: Path, annotations: Path | None) -> Iterator[Found]:
    """VFHQ: VIDEO.mp4, whole videos, with meta-info Clip+VIDEO+P0+C1+F10-250.txt; or folders of frames.

    Meta-info has the lines `H`, `W` (of the frames that the crop is counted in), `FPS` and `CROP x0 y0 x1 y1` [px];
    its name has the number of the person in the video (P), of the clip (C), and its frames (F). Frames as the
    authors' scripts extract them lie in .../VIDEO/P0/C1/.
    """
    meta: dict[str, list[Path]] = {}
    for file in sorted((annotations or root).rglob("Clip+*.txt")):
        parts = file.stem.split("+")
        meta.setdefault("+".join(parts[1:-3]), []).append(file)
    for found in videos(root):
        path = found.path
        if path.is_dir() and re.fullmatch(r"P\d+", path.parent.name):
            yield Found(path, [_note(person=f"{path.parent.parent.name}+{path.parent.name}")])
        elif path.is_dir() or not meta:
            yield found
        elif path.stem in meta:
            yield _annotated(path, ((file.name, file) for file in meta[path.stem]), _vfhq_note)


READERS = {"videos": videos, "images": images, "voxceleb2": voxceleb2, "celebv": celebv, "vfhq": vfhq}


def _annotated(path: Path, annotations: Iterable[tuple[str, Any]], read: Callable[[Any], Record]) -> Found:
    """A file with the notes that `read` makes of its annotations, given with their names."""
    notes = []
    for name, annotation in annotations:
        try:
            notes.append(read(annotation))
        except KeyError as error:
            return Found(path, error=f"its annotation {name}: no {error}")
        except (OSError, TypeError, ValueError, IndexError) as error:
            return Found(path, error=f"its annotation {name}: {' '.join(str(error).split())}")
    return Found(path, notes)


def _note(
    start: float | None = None, stop: float | None = None, box: list[float] | None = None, person: str | None = None
) -> Record:
    if start is not None and stop is not None and not 0 <= start < stop < float("inf"):
        raise ValueError(f"from {start} s to {stop} s")
    if box is not None and not (box[0] < box[2] and box[1] < box[3] and all(-1 <= side <= 2 for side in box)):
        raise ValueError(f"box {box} is no fraction of a frame")
    return {"start": start, "stop": stop, "box": box, "person": person}


def _voxceleb_note(file: Path) -> Record:
    head, _, table = file.read_text().partition("FRAME")
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in head.splitlines())}
    rows = [[float(value) for value in line.split()] for line in table.splitlines()[1:] if line.strip()]
    x0, y0 = min(row[1] for row in rows), min(row[2] for row in rows)
    x1, y1 = max(row[1] + row[3] for row in rows), max(row[2] + row[4] for row in rows)
    return _note(rows[0][0] / VOXCELEB_RATE, (rows[-1][0] + 1) / VOXCELEB_RATE, [x0, y0, x1, y1], facts["Identity"])


def _celebv_clips(root: Path, annotations: Path | None) -> dict[str, Any]:
    files = [annotations] if annotations else sorted(root.rglob("*.json"))
    if not files:
        raise PrepareError(f"source.path={root}: no JSON file of annotations in it; name it by source.annotations")
    try:
        content = json.loads(files[0].read_text())
        return dict(content.get("clips", content))
    except (ValueError, AttributeError, TypeError) as error:
        raise PrepareError(f"{files[0]}: not a JSON file of CelebV's annotations ({error})") from error


def _celebv_note(clip: Any) -> Record:
    if "ytb_id" not in clip:
        raise KeyError("ytb_id")
    box = [float(clip["bbox"][side]) for side in ("left", "top", "right", "bottom")]
    start, stop = (float(clip["duration"][end]) for end in ("start_sec", "end_sec"))
    return _note(start, stop, box)


def _vfhq_note(file: Path) -> Record:
    lines = {line.split()[0].rstrip(":"): line.split()[1:] for line in file.read_text().splitlines() if line.split()}
    width, height, rate = float(lines["W"][-1]), float(lines["H"][-1]), float(lines["FPS"][-1])
    x0, y0, x1, y1 = (float(value) for value in lines["CROP"][-4:])
    *video, person, _, frames = file.stem.removeprefix("Clip+").split("+")  # a video's own name may have a "+"
    start, stop = frames.removeprefix("F").split("-")
    box = [x0 / width, y0 / height, x1 / width, y1 / height]
    return _note(int(start) / rate, int(stop) / rate, box, "+".join([*video, person]))
