"""Holes for inpainting: made ones, those of people's mask files, and those that nobody has marked.

Made ones are free-form brush strokes, as GPEN trains on (SVFR, Sec. 5.1 cites it). They cover 19.8% of the area on
average, 3.9 to 39.7% in nine of ten masks.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from svfr.data.alignment import similarity_transform
from svfr.data.images import read_alpha, read_image
from svfr.data.video import ReadOptions, image_files, kind_of, read_frames

HOLE = 255
REFERENCE_SIZE = 512  # [px] that the widths are meant for
# GPEN's parameters; upper bounds of integers are exclusive.
STROKES = (1, 4)
STEPS = (8, 28)
MEAN_ANGLE = 2 * np.pi / 5  # [rad]
ANGLE_RANGE = 2 * np.pi / 15  # [rad]
WIDTH = (12, 80)  # [px] at 512 px
STEP_SHARE = 1 / 8  # mean length of a step, in parts of the diagonal
# Of holes that nobody has marked. Assumption: all, by what painted holes and real scenes look like after H.264.
WHITE, BLACK = 250, 5  # levels from and up to which a pixel is saturated
ALWAYS = 0.95  # share of the frames in which it is
LEAST_AREA, BAR = 1 / 2000, 0.8  # of the picture; of its side, from which on it is a bar along it
SHARP, SHARP_SHARE = 40, 0.7  # levels by which the picture differs just outside of it, and along how much of its border
REACH = 4  # [px] over which a codec spoils the border


class Stroke(NamedTuple):
    """One zigzag of a brush."""

    points: np.ndarray  # (n, 2) its corners [px]
    width: float  # of the brush [px]


def mask_clip(
    num_frames: int,
    size: tuple[int, int],
    rng: np.random.Generator,
    landmarks: np.ndarray | None = None,
    moving: bool = False,
    mirrored: bool = False,
) -> np.ndarray:
    """A mask per frame, (f, h, w) uint8, 255 = hole: the same strokes on all, or strokes that stick to the face.

    Args:
        num_frames: of the clip.
        size: (h, w) [px].
        rng: one mask is drawn from it.
        landmarks: (f, n, 2) [px], nan in frames that have none; needed if the mask moves.
        moving: strokes follow the similarity transform of the landmarks, and stay where they were in frames without.
        mirrored: strokes run to the left.
    """
    strokes = brush_strokes(size, rng)
    if mirrored:
        strokes = [Stroke(np.abs(stroke.points - (size[1], 0)), stroke.width) for stroke in strokes]
    if not moving:
        return np.repeat(paint(strokes, size)[None], num_frames, axis=0)
    assert landmarks is not None, "a mask that moves with the face needs its landmarks"
    anchor, matrix, masks = None, np.eye(2, 3), []
    for points in landmarks:
        if np.isfinite(points).all():
            anchor = points if anchor is None else anchor
            matrix = similarity_transform(anchor, points)
        scale = np.sqrt(abs(np.linalg.det(matrix[:, :2])))
        moved = [Stroke(stroke.points @ matrix[:, :2].T + matrix[:, 2], stroke.width * scale) for stroke in strokes]
        masks.append(paint(moved, size))
    return np.stack(masks)


def brush_strokes(size: tuple[int, int], rng: np.random.Generator) -> list[Stroke]:
    """Draw strokes for an image of (h, w) px.

    A stroke starts anywhere and takes steps in directions that alternate around +72 and -72 degrees: a zigzag to the
    right, up to the border and along it.
    """
    corner = np.array(size[::-1], dtype=np.float64)
    mean_step = np.linalg.norm(corner) * STEP_SHARE
    strokes = []
    for _ in range(rng.integers(*STROKES)):
        lowest = MEAN_ANGLE - rng.uniform(0, ANGLE_RANGE)
        highest = MEAN_ANGLE + rng.uniform(0, ANGLE_RANGE)
        points = [rng.uniform(size=2) * corner]
        for step in range(rng.integers(*STEPS)):
            angle = rng.uniform(lowest, highest) * (-1 if step % 2 == 0 else 1)
            length = np.clip(rng.normal(mean_step, mean_step / 2), 0, 2 * mean_step)
            points.append(np.clip(points[-1] + length * np.array([np.cos(angle), np.sin(angle)]), 0, corner))
        width = rng.uniform(*WIDTH) * np.sqrt(size[0] * size[1]) / REFERENCE_SIZE
        strokes.append(Stroke(np.stack(points), width))
    return strokes


def paint(strokes: list[Stroke], size: tuple[int, int]) -> np.ndarray:
    """(h, w) uint8: lines with round ends and corners, 255, on 0.

    Small masks are painted at 512 px and reduced, where the widths of their strokes are not rounded as much.
    """
    factor = max(1.0, REFERENCE_SIZE / min(size))
    canvas = np.zeros((round(size[0] * factor), round(size[1] * factor)), dtype=np.uint8)
    fraction = 4  # binary digits of a pixel, for smooth motion
    for stroke in strokes:
        points = np.rint(stroke.points * factor * 2**fraction).astype(np.int32)
        # OpenCV's lines are two pixels wider than their thickness.
        thickness = max(1, round(stroke.width * factor) - 2)
        cv2.polylines(canvas, [points], False, HOLE, thickness=thickness, shift=fraction)
    if factor == 1:
        return canvas
    reduced = cv2.resize(canvas, size[::-1], interpolation=cv2.INTER_AREA)
    return HOLE * (reduced > HOLE // 2).astype(np.uint8)


def read_masks(mask: Path, options: ReadOptions) -> Iterator[np.ndarray]:
    """The holes of each frame, those of a still once: (h, w) uint8, 255 = hole, else 0.

    Holes are white: above half of the range in any channel. The range is that of the file's 8 or 16 bits; if no value
    is above 1, it is 1; if 16 bits hold no more than 8, it is theirs. Where pictures are transparent in parts, these
    are the holes instead.
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
        yield HOLE * (levels > range_ / 2).astype(np.uint8)


def find_holes(frames: Iterable[np.ndarray]) -> tuple[np.ndarray, int]:
    """Holes that someone painted white or black, and that stay in place: saturated patches with a sharp border.

    Bars, which reach along most of a side of the picture, and what touches three sides are none. Of at least one frame
    (h, w, 3) uint8 RGB: (h, w) uint8, 255 = hole, and how many there are.
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
