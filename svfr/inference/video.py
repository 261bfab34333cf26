"""Restore a whole video file by streaming: find the face, restore its crop clip by clip, paste it back, write."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from svfr.data.deinterlacing import is_interlaced
from svfr.data.detectors import Face, FaceDetector
from svfr.data.faces import crop
from svfr.data.frames import resize, resize_mask, task_input, to_tensor, to_uint8, to_unit
from svfr.data.masks import HOLE
from svfr.data.tracks import FaceTrack, track_largest_face
from svfr.data.video import Frame, ReadOptions, VideoError, VideoInfo, VideoWriter, probe, read_frames
from svfr.data.video_reader import to_8_bits
from svfr.inference.cost import measuring_cost
from svfr.inference.keep import KeepRules
from svfr.inference.masks import AUTO, COUNT_SLACK, crop_hole, find_mask, frame_holes, masks_of, with_masks
from svfr.inference.pasting import put_back
from svfr.inference.reference import COMPARED, AlignedFace, ReferenceFinder
from svfr.inference.settings import VideoSettings
from svfr.inference.strategies import restore_clips
from svfr.models.components import Components, Reference

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
    landmarks: Iterable[np.ndarray | None] = repeat(None)  # (5, 2) of each frame [px]


class _Crop(NamedTuple):
    """A frame, its hole and box, and what the networks see of it."""

    frame: Frame
    hole: np.ndarray | None  # (h, w) bool at the frame's size
    box: np.ndarray | None
    lq: Tensor  # (3, s, s) in [-1, 1]
    landmarks: np.ndarray | None  # (5, 2) [px] in the frame


def restore_file(
    components: Components,
    references: ReferenceFinder,
    settings: VideoSettings,
    source: Path,
    target: Path,
    tasks: tuple[str, ...],
    *,
    mask: Path | None = None,
    photos: Sequence[np.ndarray] = (),
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
        mask: as `read_masks` takes it, or `AUTO`. One image serves all frames.
        photos: (h, w, 3) uint8; each face that is restored takes the one that looks most like it.
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
    known = [references.face_of(photo, size, or_whole=settings.face == "aligned") for photo in photos]
    options, notes = _how_to_read(source, settings)
    info = probe(source, options)
    notes += info.notes
    segments, found = _find_segments(source, info, options, settings.face, tasks, detector, on_progress)
    notes += found

    if mask == AUTO:
        mask = find_mask(source, target, options, notes.append)
    pairs = with_masks(source, mask, info, options, notes.append)
    if mask is not None and settings.face == "auto":
        last = max((segment.stop for segment in segments), default=1)
        boxes = [list[Any]() for _ in range(max(last, info.num_frames - COUNT_SLACK))]  # the container's word
        for segment in segments:
            for index, box in enumerate(segment.boxes, start=segment.start):
                boxes[index].append(box)
        outside = frame_holes(masks_of(mask, options), boxes, (info.width, info.height), size)
        pairs = _fill_outside(pairs, outside, components, settings, references)
        notes += ["holes outside of the faces' crops are filled from a crop of their own"] if outside else []
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
            crops, photo, chosen = _choose_photo(crops, known, references, segment.start)
            notes += chosen
            for clip, restored in restore_clips(
                components, settings, tasks, crops, references, photo, first_frame=segment.start, on_step=advance
            ):
                for crop, image in zip(clip, to_uint8(to_unit(restored)), strict=True):
                    place = crop.frame, image, crop.box, crop.hole
                    result = put_back(*place, keep, landmarks=crop.landmarks, blend=settings.blend)
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
    notes = [] if tracks else ["no face found: none is restored"]
    if num_others:
        notes.append(f"{num_others} frames show other faces, which are left as they are")
    if tracks and "colorization" in tasks:
        notes.append("only the square around the face is coloured")
    return [_Segment(track.start, track.stop, track.boxes, track.landmarks) for track in tracks], notes


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
    for (frame, mask), box, landmarks in zip(frames, segment.boxes, segment.landmarks, strict=False):
        image, hole = frame.image, None
        height, width = image.shape[:2]
        if mask is not None:
            hole = resize_mask(mask, width, height)
        if box is None:
            cut, cut_hole = resize(image, size, size), None if mask is None else resize_mask(mask, size, size)
        else:
            cut, cut_hole = crop(image, box, size), None if hole is None else crop_hole(hole, box, size)
        yield _Crop(frame, hole, box, to_tensor(task_input(cut, tasks, cut_hole)), landmarks)


def _choose_photo(
    crops: Iterator[_Crop], photos: list[AlignedFace], references: ReferenceFinder, start: int
) -> tuple[Iterator[_Crop], Reference | None, list[str]]:
    """The same crops, the photo that looks most like their first ones, and a note where there was a choice."""
    if not photos or not (first := list(islice(crops, COMPARED))):
        return crops, None, []
    faces = list[AlignedFace]()
    for each in first:
        points, image = each.landmarks, to_uint8(to_unit(each.lq))
        if points is not None and each.box is not None:
            points = (points - each.box[:2]) * len(image) / (each.box[2] - each.box[0])
        faces.append((image, points))
    index, likeness = references.best_match(photos, faces)
    note = f"from frame {start} on, the reference is photo {index + 1} of {len(photos)} (likeness {likeness:.2f})"
    return chain(first, crops), references.from_aligned(*photos[index]), [note][: len(photos) - 1]


def _fill_outside(
    pairs: Iterator[tuple[Frame, np.ndarray | None]],
    outside: list[tuple[int, int, np.ndarray]],
    components: Components,
    settings: VideoSettings,
    references: ReferenceFinder,
) -> Iterator[tuple[Frame, np.ndarray | None]]:
    """The frames with what `frame_holes` has framed filled, by inpainting alone; the masks stay as they are."""
    settings, tasks, position = replace(settings, reference_frame="none"), ("inpainting",), 0
    assert settings.size is not None  # resolved
    for start, stop, box in outside:
        yield from islice(pairs, start - position)
        position = stop
        crops = _crop_segment(pairs, _Segment(start, stop, repeat(box)), tasks, settings.size)
        about: dict[str, Any] = {"first_frame": start, "on_step": None}
        for clip, restored in restore_clips(components, settings, tasks, crops, references, None, **about):
            for each, image in zip(clip, to_uint8(to_unit(restored)), strict=True):
                assert each.hole is not None
                result = put_back(each.frame, image, box, each.hole, KeepRules(known=True))
                deep = None if each.frame.deep is None else result
                frame = replace(each.frame, image=result if deep is None else to_8_bits(deep), deep=deep)
                yield frame, np.uint8(HOLE) * each.hole
    yield from pairs
