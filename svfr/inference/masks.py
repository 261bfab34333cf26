"""Masks beside frames: read them, and cut out what lies under a crop."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import repeat
from pathlib import Path

import numpy as np

from svfr.data.video import Frame, ReadOptions, VideoError, VideoInfo, probe, read_frames

COUNT_SLACK, COUNT_SLACK_SHARE = 2, 0.02  # how far a container's count of frames may be off


def with_masks(
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


def crop_hole(hole: np.ndarray, box: np.ndarray, size: int) -> np.ndarray:
    """The (size, size) part of a mask under a crop, by nearest neighbour; what is outside of the frame is no hole."""
    height, width = hole.shape
    centres = (np.arange(size) + 0.5) / size
    columns = np.floor(box[0] + centres * (box[2] - box[0])).astype(int)
    rows = np.floor(box[1] + centres * (box[3] - box[1])).astype(int)
    inside = ((rows >= 0) & (rows < height))[:, None] & ((columns >= 0) & (columns < width))[None]
    return hole[np.clip(rows, 0, height - 1)][:, np.clip(columns, 0, width - 1)] & inside
