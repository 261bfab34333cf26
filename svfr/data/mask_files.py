"""Masks as people bring them, read as they are meant: which pixels are holes."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from svfr.data.images import read_alpha, read_image
from svfr.data.masks import HOLE
from svfr.data.video import ReadOptions, image_files, kind_of, read_frames

# Of holes that nobody has marked. Assumption: all, by what painted holes and real scenes look like after H.264.
WHITE, BLACK = 250, 5  # levels from and up to which a pixel is saturated
ALWAYS = 0.95  # share of the frames in which it is
LEAST_AREA, BAR = 1 / 2000, 0.8  # of the picture; of its side, from which on it is a bar along it
SHARP, SHARP_SHARE = 40, 0.7  # levels by which the picture differs just outside of it, and along how much of its border
REACH = 4  # [px] over which a codec spoils the border


def read_masks(mask: Path, options: ReadOptions) -> Iterator[np.ndarray]:
    """The holes of each frame, those of a still once: (h, w) uint8, 255 = hole, else 0.

    Holes are white: above half of the range in any channel. The range is that of the file's 8 or 16 bits; if no value
    is above 1, it is 1; if 16 bits hold no more than 8, it is theirs. Where pictures are transparent in parts, these
    are the holes instead.

    Raises:
        VideoError: it cannot be read.
    """
    options = replace(options, deinterlace=False, deep=False)
    highest = 0
    for levels in _levels(mask, options):
        highest = max(highest, int(levels.max()))
        deepest = np.iinfo(levels.dtype).max
        if highest > (1 if deepest == HOLE else HOLE):
            break
    range_ = next(top for top in (1, HOLE, deepest) if highest <= top)
    for levels in _levels(mask, options):
        yield np.where(levels > range_ / 2, np.uint8(HOLE), np.uint8(0))


def find_holes(frames: Iterable[np.ndarray]) -> tuple[np.ndarray, int]:
    """Holes that someone painted white or black, and that stay in place: saturated patches with a sharp border.

    Bars, which reach along most of a side of the picture, and what touches three sides are none.

    Args:
        frames: (h, w, 3) uint8 RGB, of one size; at least one.

    Returns:
        (h, w) uint8, 255 = hole, and how many there are.
    """
    number, sums = 0, [np.zeros((), np.float32)] * 3  # white, black, levels
    for frame in frames:
        now = frame.min(axis=-1) >= WHITE, frame.max(axis=-1) <= BLACK, frame.mean(axis=-1)
        number, sums = number + 1, [total + each for total, each in zip(sums, now, strict=True)]
    white, black, mean = (total / number for total in sums)
    (height, width), found, num_holes = mean.shape, np.zeros(mean.shape, np.uint8), 0
    for level, share in ((255, white), (0, black)):
        num_patches, labels, facts, _ = cv2.connectedComponentsWithStats((share >= ALWAYS).astype(np.uint8))
        for label in range(1, num_patches):
            x, y, w, h, area = facts[label]
            sides = sum((x == 0, y == 0, x + w == width, y + h == height))
            if area < LEAST_AREA * height * width or sides > 2 or (sides and max(w / width, h / height) > BAR):
                continue
            patch = cv2.dilate((labels == label).astype(np.uint8), None, iterations=REACH)
            border = cv2.dilate(patch, None, iterations=REACH) > patch
            if (np.abs(mean[border] - level) > SHARP).mean() >= SHARP_SHARE:
                found, num_holes = found | HOLE * patch, num_holes + 1
    return found, num_holes


def _levels(mask: Path, options: ReadOptions) -> Iterator[np.ndarray]:
    """(h, w) uint8 or uint16, the brighter the more a hole."""
    kind, most = kind_of(mask), options.max_pixels
    if kind not in ("image", "frames"):
        yield from (frame.image.max(axis=-1) for frame in read_frames(mask, options))
        return
    files = image_files(mask) if kind == "frames" else [mask]
    alphas = (read_alpha(file, most) for file in files)
    by_alpha = any(alpha is not None and alpha.min() < HOLE for alpha in alphas)
    for file in files:
        image, alpha = read_image(file, most), read_alpha(file, most) if by_alpha else None
        if by_alpha:
            yield np.zeros(image.shape[:2], np.uint8) if alpha is None else HOLE - alpha
            continue
        if file.suffix.lower() in (".png", ".tif", ".tiff"):  # of which Pillow reads 8 bits in colour
            deep = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
            image = deep if deep is not None and deep.dtype == np.uint16 else image
        yield image.reshape(*image.shape[:2], -1)[..., :3].max(axis=-1)
