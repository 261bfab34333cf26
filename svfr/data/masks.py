"""Holes for inpainting: free-form brush strokes, as GPEN trains on (SVFR, Sec. 5.1 cites it).

They cover 19.8% of the area on average, 3.9 to 39.7% in nine of ten masks.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from svfr.data.alignment import similarity_transform

HOLE = 255
REFERENCE_SIZE = 512  # [px] that the widths are meant for
# GPEN's parameters; upper bounds of integers are exclusive.
STROKES = (1, 4)
STEPS = (8, 28)
MEAN_ANGLE = 2 * np.pi / 5  # [rad]
ANGLE_RANGE = 2 * np.pi / 15  # [rad]
WIDTH = (12, 80)  # [px] at 512 px
STEP_SHARE = 1 / 8  # mean length of a step, in parts of the diagonal


@dataclass(frozen=True)
class Stroke:
    """One zigzag of a brush.

    Attributes:
        points: (n, 2) its corners [px].
        width: of the brush [px].
    """

    points: np.ndarray
    width: float


def mask_clip(
    num_frames: int,
    size: tuple[int, int],
    rng: np.random.Generator,
    landmarks: np.ndarray | None = None,
    moving: bool = False,
    mirrored: bool = False,
) -> np.ndarray:
    """A mask per frame: the same strokes on all of them, or strokes that stick to the face.

    Args:
        num_frames: of the clip.
        size: (h, w) [px].
        rng: one mask is drawn from it.
        landmarks: (f, n, 2) [px], nan in frames that have none; needed if the mask moves.
        moving: strokes follow the similarity transform of the landmarks, and stay where they were in frames without.
        mirrored: strokes run to the left.

    Returns:
        (f, h, w) uint8, 255 = hole.

    Raises:
        ValueError: a mask cannot move without landmarks.
    """
    strokes = brush_strokes(size, rng)
    if mirrored:
        strokes = [Stroke(np.abs(stroke.points - (size[1], 0)), stroke.width) for stroke in strokes]
    if not moving:
        return np.repeat(paint(strokes, size)[None], num_frames, axis=0)
    if landmarks is None:
        raise ValueError("a mask that moves with the face needs its landmarks")
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
    return np.where(reduced > HOLE // 2, np.uint8(HOLE), np.uint8(0))
