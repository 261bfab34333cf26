"""Masks beside frames: read them, find them, cut out what lies under a crop, and frame what lies under none."""

import sys
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import chain, repeat
from pathlib import Path

import numpy as np
from PIL import Image

from svfr.data.faces import region
from svfr.data.frames import resize_mask
from svfr.data.masks import find_holes, read_masks
from svfr.data.video import Frame, ReadOptions, VideoError, VideoInfo, probe, read_frames
from svfr.files import replacing
from svfr.inference.keep import HOLE_FADE
from svfr.inference.plan import Hole

AUTO = Path("auto")  # in the place of a mask: find its holes
COUNT_SLACK, COUNT_SLACK_SHARE = 2, 0.02  # how far a container's count of frames may be off
CONTEXT = 2.0  # Assumption: side of a crop that shows what surrounds a hole, in larger sides of the hole


def find_mask(source: Path, target: Path, options: ReadOptions, on_note: Callable[[str], None]) -> Path:
    """The mask of the holes that are found in the source, a picture beside the target."""
    found, num_holes = find_holes(frame.image for frame in read_frames(source, replace(options, deep=False)))
    picture = target.with_name(f"{target.stem}.mask.png")
    with replacing(picture) as partial:
        Image.fromarray(found).save(partial, format="PNG")
    share = f"{100 * (found > 0).mean():.2g}% of the picture"
    on_note(f"mask auto: {num_holes} hole{'s'[: num_holes != 1]} found, {share}, as {picture.name} shows")
    return picture


def with_masks(
    source: Path, mask: Path | None, info: VideoInfo, options: ReadOptions, on_note: Callable[[str], None]
) -> Iterator[tuple[Frame, np.ndarray | None]]:
    """Frames from `options.first` on with their masks, (h, w) uint8 of any size; at the end, an empty mask is noted.

    Raises:
        VideoError: a mask of another length.
    """
    frames = read_frames(source, options, on_note)
    if mask is None:
        yield from zip(frames, repeat(None))
        return
    mask_info = probe(mask, options)
    known = mask_info.kind != "image" and mask_info.num_frames > 0 and info.num_frames > 0
    if known and abs(mask_info.num_frames - info.num_frames) > COUNT_SLACK + COUNT_SLACK_SHARE * info.num_frames:
        raise VideoError(f"{mask}: the mask has {mask_info.num_frames} frames, {source.name} {info.num_frames}")
    masks, num_frames, is_empty = masks_of(mask, replace(options, first=0)), 0, True
    for frame in chain(repeat(None, options.first), frames):
        if (hole := next(masks, None)) is None:
            raise VideoError(f"{mask}: the mask ends after {num_frames} frames, {source.name} goes on")
        num_frames, is_empty = num_frames + 1, is_empty and not hole.any()
        if frame is not None:
            yield frame, hole
    if mask_info.kind != "image" and next(masks, None) is not None:
        raise VideoError(f"{mask}: the mask goes on after the {num_frames} frames of {source.name}")
    if is_empty:
        on_note("the mask is empty: nothing in it is white or transparent, so that nothing is filled")


def masks_of(mask: Path, options: ReadOptions) -> Iterator[np.ndarray]:
    """The mask of each frame, (h, w) uint8; of a still, without end."""
    masks = read_masks(mask, options)
    return repeat(next(masks)) if probe(mask, options).kind == "image" else masks


def crop_hole(hole: np.ndarray, box: np.ndarray, size: int) -> np.ndarray:
    """The (size, size) part of a mask under a crop, by nearest neighbour; what is outside of the frame is no hole."""
    height, width = hole.shape
    centres = (np.arange(size) + 0.5) / size
    columns = np.floor(box[0] + centres * (box[2] - box[0])).astype(int)
    rows = np.floor(box[1] + centres * (box[3] - box[1])).astype(int)
    inside = ((rows >= 0) & (rows < height))[:, None] & ((columns >= 0) & (columns < width))[None]
    return hole[np.clip(rows, 0, height - 1)][:, np.clip(columns, 0, width - 1)] & inside


def frame_holes(
    masks: Iterable[np.ndarray],
    crops: Iterable[Iterable[tuple[int, np.ndarray]]],
    frame_size: tuple[int, int],
    size: int,
    starts: Iterable[int] = (),
) -> list[Hole]:
    """Frame what is left of the holes outside of the faces' crops, in each shot by one that stays in place.

    Args:
        masks: of each frame, (h, w) uint8 of any size; may go on without end.
        crops: of each frame, those of its faces; see `Plan.crops`.
        frame_size: (width, height) [px].
        size: of what the network restores [px]; no crop is smaller if the frame has room for it.
        starts: indices of the frames that start a shot.

    Returns:
        One for each shot in which holes are left; the last shot has no end.
    """
    edges, extents, room = sorted({0, *starts}), dict[int, np.ndarray](), np.array(frame_size)
    for index, (mask, faces) in enumerate(zip(masks, crops, strict=False)):
        hole = resize_mask(mask, *frame_size)
        for turns, box in faces:
            upright = np.rot90(hole, turns)  # a view of it
            margin = HOLE_FADE * (box[2] - box[0]) * np.array([1, 1, -1, -1])
            x0, y0, x1, y1 = region(box + margin, upright.shape[1], upright.shape[0])
            upright[y0:y1, x0:x1] = False
        if hole.any():
            xs, ys = (np.flatnonzero(hole.any(axis=axis)) for axis in (0, 1))
            extent = np.array([xs[0], ys[0], -xs[-1] - 1, -ys[-1] - 1])
            shot = bisect_right(edges, index) - 1
            extents[shot] = np.minimum(extents.get(shot, extent), extent)
    found = []
    for shot, extent in sorted(extents.items()):
        low, high = extent[:2], -extent[2:]
        longest = float((high - low).max())
        side = max(longest, min(CONTEXT * longest, max(room)), min(size, *room))
        inside = np.clip((low + high - side) / 2, 0, np.maximum(room - side, 0))
        corner = np.where(side > room, (room - side) / 2, inside)
        found.append((edges[shot], [*edges[1:], sys.maxsize][shot], np.concatenate([corner, corner + side])))
    return found
