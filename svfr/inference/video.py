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
from svfr.data.faces import crop, feather, fit, region
from svfr.data.frames import resize, resize_mask, task_input, to_tensor, to_uint8, to_unit
from svfr.data.tracks import FaceTrack, track_largest_face
from svfr.data.video import DEEP, Frame, ReadOptions, VideoError, VideoInfo, VideoWriter, probe, read_frames
from svfr.inference.cost import measuring_cost
from svfr.inference.keep import KeepRules
from svfr.inference.reference import ReferenceFinder
from svfr.inference.settings import VideoSettings
from svfr.inference.strategies import restore_clips
from svfr.models.components import Components

OnProgress = Callable[[float, str], None]  # called with the work just done, in frames, and its stage
COUNT_SLACK, COUNT_SLACK_SHARE = 2, 0.02  # how far a container's count of frames may be off
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

    pairs = _with_masks(source, mask, info, options, notes.append)
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
                    result = _put_back(crop.frame, image, crop.box, crop.hole, keep)
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
        notes=[*notes, *writer.notes],
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
            cut, cut_hole = crop(image, box, size), None if hole is None else _crop_hole(hole, box, size)
        yield _Crop(frame, hole, box, to_tensor(task_input(cut, tasks, cut_hole)))


def _crop_hole(hole: np.ndarray, box: np.ndarray, size: int) -> np.ndarray:
    """The (size, size) part of a mask under a crop, by nearest neighbour; what is outside of the frame is no hole."""
    height, width = hole.shape
    centres = (np.arange(size) + 0.5) / size
    columns = np.floor(box[0] + centres * (box[2] - box[0])).astype(int)
    rows = np.floor(box[1] + centres * (box[3] - box[1])).astype(int)
    inside = ((rows >= 0) & (rows < height))[:, None] & ((columns >= 0) & (columns < width))[None]
    return hole[np.clip(rows, 0, height - 1)][:, np.clip(columns, 0, width - 1)] & inside


def _put_back(
    frame: Frame, restored: np.ndarray, box: np.ndarray | None, hole: np.ndarray | None, keep: KeepRules
) -> np.ndarray:
    """A restored crop at its place in the frame, at the frame's size; of a deep frame, in 16 bits."""
    image = frame.image
    height, width = image.shape[:2]
    if box is None:
        return keep.apply(resize(restored, width, height), image, hole, min(width, height))
    x0, y0, x1, y1 = inside = region(box, width, height)
    if x0 == x1 or y0 == y1:
        return image if frame.deep is None else frame.deep
    below = image[y0:y1, x0:x1]
    cut_hole = None if hole is None else hole[y0:y1, x0:x1]
    patch = keep.apply(fit(restored, box, inside), below, cut_hole, box[2] - box[0])
    alpha = feather(box, inside)
    result, patch = image.copy(), patch.astype(np.float32)
    if frame.deep is not None:
        result, patch = frame.deep.copy(), patch * DEEP
    below = result[y0:y1, x0:x1]
    result[y0:y1, x0:x1] = np.rint(below + alpha * (patch - below)).astype(result.dtype)
    return result


def _with_masks(
    source: Path, mask: Path | None, info: VideoInfo, options: ReadOptions, on_note: Callable[[str], None]
) -> Iterator[tuple[Frame, np.ndarray | None]]:
    """Frames with their masks, (h, w) uint8 of any size.

    Raises:
        VideoError: a mask of another length.
    """
    frames = read_frames(source, options, on_note)
    if mask is None:
        yield from zip(frames, repeat(None))
        return
    mask_info = probe(mask, options)
    if mask_info.kind == "image":
        still = next(read_frames(mask, options)).image.max(axis=-1)
        yield from zip(frames, repeat(still))
        return
    known = mask_info.num_frames > 0 and info.num_frames > 0
    if known and abs(mask_info.num_frames - info.num_frames) > COUNT_SLACK + COUNT_SLACK_SHARE * info.num_frames:
        raise VideoError(f"{mask}: the mask has {mask_info.num_frames} frames, {source.name} {info.num_frames}")
    masks = read_frames(mask, replace(options, deinterlace=False, deep=False))
    num_frames = 0
    for frame in frames:
        mask_frame = next(masks, None)
        if mask_frame is None:
            raise VideoError(f"{mask}: the mask ends after {num_frames} frames, {source.name} goes on")
        num_frames += 1
        yield frame, mask_frame.image.max(axis=-1)
    if next(masks, None) is not None:
        raise VideoError(f"{mask}: the mask goes on after the {num_frames} frames of {source.name}")
