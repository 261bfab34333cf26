"""Restore a whole video file by streaming: find the face, restore its crop clip by clip, paste it back, write."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import islice, repeat
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from svfr.data.deinterlacing import is_interlaced
from svfr.data.detectors import Face, FaceDetector
from svfr.data.faces import crop
from svfr.data.frames import resize, resize_mask, task_input, to_tensor, to_uint8, to_unit
from svfr.data.tracks import FaceTrack, track_largest_face
from svfr.data.video import Frame, ReadOptions, VideoError, VideoInfo, VideoWriter, probe, read_frames
from svfr.inference.cost import measuring_cost
from svfr.inference.keep import KeepRules
from svfr.inference.masks import crop_hole, with_masks
from svfr.inference.pasting import put_back
from svfr.inference.reference import ReferenceFinder
from svfr.inference.settings import VideoSettings
from svfr.inference.strategies import restore_clips
from svfr.models.components import Components

OnProgress = Callable[[float, str], None]  # called with the work just done, in frames, and its stage
DEEPEST = 8  # bits a colour that a result has by itself
TO_THE_END = 2**62  # a frame index that no video reaches


@dataclass(frozen=True)
class VideoReport:
    """Facts of one restored video."""

    output: Path
    num_frames: int
    restored_frames: int  # the others had no face and passed through
    num_tracks: int
    width: int
    height: int
    fps: float
    seconds: float
    cost: dict[str, Any]  # of `measuring_cost`
    detector: str | None
    notes: list[str] = field(default_factory=list)


class _Segment(NamedTuple):
    """Consecutive frames whose face is restored as one chain of clips."""

    start: int
    stop: int
    boxes: Iterable[np.ndarray | None]  # (4,) square crop of each frame [px]; None is the whole frame


class _Crop(NamedTuple):
    """A frame, its hole and box, and what the networks see of it."""

    frame: Frame
    hole: np.ndarray | None  # (h, w) bool at the frame's size
    box: np.ndarray | None
    lq: Tensor  # (3, s, s) in [-1, 1]


def restore_file(
    components: Components,
    references: ReferenceFinder,
    settings: VideoSettings,
    source: Path,
    target: Path,
    tasks: tuple[str, ...],
    *,
    mask: Path | None = None,
    reference: np.ndarray | None = None,
    on_progress: OnProgress | None = None,
) -> VideoReport:
    """Restore a video, an image or a folder of frames.

    Frames without a face pass through unchanged. With `face="auto"` the file is read twice: to find the face, and to
    restore it; both stream.

    Args:
        components: the networks.
        references: finds references; its detector finds the faces of the video, too.
        settings: resolved.
        source: the input.
        target: the result; its suffix may change with the container (see `VideoWriter`).
        tasks: from `parse_tasks`.
        mask: image, video or folder of images; white is a hole. One image serves all frames.
        reference: (h, w, 3) uint8 photo of the person.
        on_progress: called with (frames, "faces" or "restore").

    Raises:
        VideoError: the input, the mask or the output cannot be used; nothing is left at `target`.
        ValueError: no face in the photo, or no detector to find faces with.
    """
    started = time.perf_counter()
    advance = (lambda frames: on_progress(frames, "restore")) if on_progress else None
    detector, size = references.detector, settings.size
    assert size is not None  # resolved
    keep = KeepRules.resolve(tasks, settings)
    photo = None
    if reference is not None:
        photo = references.from_photo(reference, size, or_whole=settings.face == "aligned")
    options, notes = _how_to_read(source, settings)
    info = probe(source, options)
    notes += info.notes
    segments, found = _find_segments(source, info, options, settings.face, tasks, detector, on_progress)
    notes += found

    pairs = with_masks(source, mask, info, options, notes.append)
    position = restored_frames = 0
    measured = measuring_cost(components.model.unet, components.device)
    with measured as cost, VideoWriter(target, source=info, format=settings.format, crf=settings.crf) as writer:
        if writer.path.resolve() == source.resolve():
            raise VideoError(f"{source}: the result would replace it; choose another output")
        for segment in (*segments, _Segment(TO_THE_END, TO_THE_END, ())):
            # 1. Frames before the segment have no face.
            for frame, _ in islice(pairs, segment.start - position):
                writer.write(frame.image if frame.deep is None else frame.deep, frame.pts, frame.time_base)
                position += 1
                if advance:
                    advance(1)
            # 2. Those in it are cropped, restored clip by clip, and pasted back.
            crops = _crop_segment(pairs, segment, tasks, size)
            for clip, restored in restore_clips(
                components, settings, tasks, crops, references, photo, first_frame=segment.start, on_step=advance
            ):
                for crop, image in zip(clip, to_uint8(to_unit(restored)), strict=True):
                    result = put_back(crop.frame, image, crop.box, crop.hole, keep)
                    writer.write(result, crop.frame.pts, crop.frame.time_base)
                position += len(clip)
                restored_frames += len(clip)
        if position == 0:
            raise VideoError(f"{source}: no frames")
    return VideoReport(
        output=writer.path,
        num_frames=position,
        restored_frames=restored_frames,
        num_tracks=len(segments),
        width=info.width,
        height=info.height,
        fps=float(info.fps),
        seconds=time.perf_counter() - started,
        cost=cost,
        detector=detector.name if detector else None,
        notes=[*notes, *components.notes, *writer.notes],
    )


def _how_to_read(source: Path, settings: VideoSettings) -> tuple[ReadOptions, list[str]]:
    """How the source is read, and what of that is worth a note."""
    options = ReadOptions(max_pixels=settings.max_pixels, salvage=settings.salvage)
    if settings.fps is not None:
        options = replace(options, fps=Fraction(settings.fps).limit_denominator(1001))
    info, notes = probe(source, options), []
    if info.bits > DEEPEST:
        options = replace(options, deep=True)
        notes.append(f"{info.bits} bits a colour: faces are restored in 8, the rest keeps 10")
    looks_so = settings.deinterlace == "auto" and info.kind == "video" and is_interlaced(source, settings.max_pixels)
    if settings.deinterlace == "yes" or looks_so:
        options = replace(options, deinterlace=True)
        notes.append("interlaced: whole pictures are made of its fields, at its rate (deinterlace=no keeps them)")
    return options, notes


def _find_segments(
    source: Path,
    info: VideoInfo,
    options: ReadOptions,
    face: str,
    tasks: tuple[str, ...],
    detector: FaceDetector | None,
    on_progress: OnProgress | None,
) -> tuple[list[_Segment], list[str]]:
    """What to restore as one chain each, and notes to the user."""
    if face == "aligned":
        return [_Segment(0, TO_THE_END, repeat(None))], []
    if detector is None:
        raise ValueError('face="auto" needs a detector')
    tracks, num_others = find_tracks(source, info, detector, options, on_progress)
    notes = [] if tracks else ["no face found: the input passed through unchanged"]
    if num_others:
        notes.append(f"{num_others} frames show other faces, which are left as they are")
    if tracks and "colorization" in tasks:
        notes.append("only the square around the face is coloured")
    return [_Segment(track.start, track.stop, track.boxes) for track in tracks], notes


def find_tracks(
    source: Path,
    info: VideoInfo,
    detector: FaceDetector,
    options: ReadOptions,
    on_progress: OnProgress | None = None,
) -> tuple[list[FaceTrack], int]:
    """Follow the largest face through a video; only boxes and landmarks are held.

    Returns:
        Its tracks, and the number of frames that show other faces, too.
    """
    num_others = 0

    def detections() -> Iterator[list[Face]]:
        nonlocal num_others
        for frame in read_frames(source, replace(options, deep=False)):
            faces = detector(frame.image)
            num_others += len(faces) > 1
            yield faces
            if on_progress:
                on_progress(1, "faces")

    return track_largest_face(detections(), float(info.fps)), num_others


def _crop_segment(
    pairs: Iterator[tuple[Frame, np.ndarray | None]], segment: _Segment, tasks: tuple[str, ...], size: int
) -> Iterator[_Crop]:
    """Read the frames of a segment and cut out its face."""
    frames = islice(pairs, segment.stop - segment.start)
    for (frame, mask), box in zip(frames, segment.boxes, strict=False):
        image, hole = frame.image, None
        height, width = image.shape[:2]
        if mask is not None:
            hole = resize_mask(mask, width, height)
        if box is None:
            cut, cut_hole = resize(image, size, size), None if mask is None else resize_mask(mask, size, size)
        else:
            cut, cut_hole = crop(image, box, size), None if hole is None else crop_hole(hole, box, size)
        yield _Crop(frame, hole, box, to_tensor(task_input(cut, tasks, cut_hole)))
