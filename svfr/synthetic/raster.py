"""A triangle rasterizer in numpy: which triangle each pixel shows, and vertex values interpolated over it.

Arrays have their long axis last, so that numpy's inner loops are long.
"""

from dataclasses import dataclass

import numpy as np

LEAST_SLOPE = 1e-12  # of an edge function; less is an edge along a row of pixels
OVERLAP = 1e-4  # [px] by which triangles reach over their edges, so that rounding leaves no gap between neighbours
LEAST_AREA = 1e-4  # [px^2] smaller triangles are left out: they are edges or folded away


@dataclass(frozen=True)
class Visible:
    """The visible part of a mesh."""

    pixels: np.ndarray  # (n,) flat indices of the covered pixels, ascending
    corners: np.ndarray  # (3, m) vertices of triangles that face the camera
    shown: np.ndarray  # (n,) which of these triangles each pixel shows


def rasterize(points: np.ndarray, depth: np.ndarray, triangles: np.ndarray, size: int) -> Visible:
    """Find the nearest triangle at each pixel's centre; only triangles that are clockwise on the screen are visible.

    Triangles (3, t) of vertex indices are ordered by their mean `depth` (v,), larger is nearer, so they should be small
    against the distances between surfaces. The vertices `points` (2, v) float32 are on a screen of `size` [px], x right
    and y down; pixel (0, 0) has its centre at 0, 0.
    """
    x, y = np.take(points, triangles, axis=1)  # (3, t) each
    area = (x[1] - x[0]) * (y[2] - y[0]) - (y[1] - y[0]) * (x[2] - x[0])
    kept = np.flatnonzero(area > 2 * LEAST_AREA)
    corners = np.take(triangles, kept, axis=1)
    order = np.argsort(_levels(np.take(depth, corners).sum(axis=0)), kind="stable")  # far ones first
    corners = np.take(corners, order, axis=1)
    x, y = np.take(points, corners, axis=1)
    left, top = np.ceil(np.maximum(x.min(axis=0), 0)), np.ceil(np.maximum(y.min(axis=0), 0))  # whole numbers as float32
    wide = np.floor(np.minimum(x.max(axis=0), size - 1)) - left + 1
    high = np.floor(np.minimum(y.max(axis=0), size - 1)) - top + 1

    # Edge functions, >= 0 inside: cross(edge, pixel - start) = slope_x * x + slope_y * y + offset
    slope_x, slope_y = y - y[[1, 2, 0]], x[[1, 2, 0]] - x
    offset = slope_x * (left - x) + slope_y * (top - y)  # at the first pixel of the triangle's bounds
    # Where they are 0 along each row of pixels: columns from the bounds' first one. In an edge along the row, far away.
    level = np.where(np.abs(slope_x) < LEAST_SLOPE, np.float32(LEAST_SLOPE), slope_x)
    start, per_row = -offset / level, -slope_y / level
    high = np.where(wide > 0, np.maximum(high, 0), 0).astype(np.int32)
    rank = np.repeat(np.arange(len(order)), high)
    row = np.arange(len(rank), dtype=np.int32) - np.take(np.cumsum(high, dtype=np.int32) - high, rank)
    crossing = np.take(start, rank, axis=1) + np.take(per_row, rank, axis=1) * row.astype(np.float32)
    entered = np.take(level > 0, rank, axis=1)
    first = np.where(entered, crossing, -np.inf).max(axis=0)
    last = np.where(entered, np.inf, crossing).min(axis=0)
    first = np.ceil(np.maximum(first - OVERLAP, 0)).astype(np.int32)
    last = np.floor(np.minimum(last + OVERLAP, np.take(wide - 1, rank))).astype(np.int32)
    covered = np.maximum(last - first + 1, 0)
    winner = np.full(size * size, -1, dtype=np.int32)
    corner = top.astype(np.int32) * size + left.astype(np.int32)
    pixels = _ranges(row * size + np.take(corner, rank) + first, covered)
    winner[pixels] = np.repeat(rank.astype(np.int32), covered)  # of several at a pixel, the last and nearest stays
    pixels = np.flatnonzero(winner >= 0)
    return Visible(pixels, corners, np.take(winner, pixels))


def interpolate(visible: Visible, values: np.ndarray, points: np.ndarray, size: int) -> np.ndarray:
    """Vertex values (k, v), linear on the screen over each triangle, at the pixels that `rasterize` found: (k, n)."""
    corners = visible.corners
    x, y = np.take(points, corners, axis=1)  # (3, m) each
    at = np.take(values, corners, axis=1)  # (k, 3, m)
    bx, by, cx, cy = x[1] - x[0], y[1] - y[0], x[2] - x[0], y[2] - y[0]
    to_b, to_c = at[:, 1] - at[:, 0], at[:, 2] - at[:, 0]
    area = bx * cy - by * cx
    per_x = (to_b * cy - to_c * by) / area
    per_y = (to_c * bx - to_b * cx) / area
    base = at[:, 0] - per_x * x[0] - per_y * y[0]
    row, column = np.divmod(visible.pixels.astype(np.int32), np.int32(size))
    shown = visible.shown.astype(np.intp)
    per_x, per_y, base = (np.take(plane, shown, axis=1) for plane in (per_x, per_y, base))
    return per_x * column.astype(np.float32) + per_y * row.astype(np.float32) + base


def _levels(values: np.ndarray) -> np.ndarray:
    """Values rounded to 16-bit integers, which numpy sorts several times as fast."""
    if not len(values):
        return values.astype(np.uint16)
    low, high = values.min(), values.max()
    return ((values - low) * (np.iinfo(np.uint16).max / max(high - low, 1e-9))).astype(np.uint16)


def _ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Consecutive integers from each of `starts` (n,), `lengths` (n,) many of each, concatenated."""
    ends = np.cumsum(lengths, dtype=np.int32)
    return np.repeat(starts - (ends - lengths), lengths) + np.arange(lengths.sum(), dtype=np.int32)
