"""A triangle rasterizer in numpy: which triangle each pixel shows, and vertex values interpolated over it.

Arrays have their long axis last, so that numpy's inner loops are long.
"""

from dataclasses import dataclass

import numpy as np

# Triangles are tried on square windows of these sides [px], the least that holds each one.
WINDOWS = np.array([1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32, 64, 128, 256, 512, 1024, 2048, 4096])
LEAST_AREA = 1e-4  # [px^2] smaller triangles are left out: they are edges or folded away


@dataclass(frozen=True)
class Visible:
    """What a picture shows of a mesh.

    Attributes:
        pixels: (n,) flat indices of the covered pixels, ascending.
        corners: (3, m) vertices of triangles that face the camera.
        shown: (n,) which of these triangles each pixel shows.
    """

    pixels: np.ndarray
    corners: np.ndarray
    shown: np.ndarray


def rasterize(points: np.ndarray, depth: np.ndarray, triangles: np.ndarray, size: int) -> Visible:
    """The nearest triangle at each pixel's centre. Triangles that are clockwise on the screen are seen, others not.

    Triangles are ordered by their mean depth, so they should be small against the distances between surfaces.

    Args:
        points: (2, v) float32 vertices on the screen, x right and y down [px]; pixel (0, 0) has its centre at 0, 0.
        depth: (v,) larger is nearer.
        triangles: (3, t) vertex indices.
        size: side of the picture [px].
    """
    x, y = points[0][triangles], points[1][triangles]  # (3, t)
    area = (x[1] - x[0]) * (y[2] - y[0]) - (y[1] - y[0]) * (x[2] - x[0])
    kept = np.flatnonzero(area > 2 * LEAST_AREA)
    kept = kept[np.argsort(depth[triangles[:, kept]].sum(axis=0), kind="stable")]  # far ones first
    x, y = x[:, kept], y[:, kept]
    left = np.ceil(np.maximum(_least(x), 0)).astype(np.int32)
    top = np.ceil(np.maximum(_least(y), 0)).astype(np.int32)
    wide = np.floor(np.minimum(-_least(-x), size - 1)).astype(np.int32) - left + 1
    high = np.floor(np.minimum(-_least(-y), size - 1)).astype(np.int32) - top + 1
    window = np.where((wide > 0) & (high > 0), np.searchsorted(WINDOWS, np.maximum(wide, high)), -1)

    # Edge functions, >= 0 inside: cross(edge, pixel - start) = slope_x * x + slope_y * y + offset
    slope_x, slope_y = y - y[[1, 2, 0]], x[[1, 2, 0]] - x
    offset = slope_x * (left - x) + slope_y * (top - y)  # at the window's first pixel
    winner = np.full(size * size, -1, dtype=np.int32)
    for number in np.flatnonzero(np.bincount(window + 1)[1:]):
        members = np.flatnonzero(window == number)
        steps = np.arange(WINDOWS[number], dtype=np.float32)[:, None]
        along_x = slope_x[:, None, members] * steps + offset[:, None, members]  # (3, k, members)
        along_y = -slope_y[:, None, members] * steps
        inside = along_x[0] >= along_y[0][:, None]  # (k rows, k columns, members)
        inside &= along_x[1] >= along_y[1][:, None]
        inside &= along_x[2] >= along_y[2][:, None]
        hit = np.flatnonzero(inside)
        cell, member = np.divmod(hit, len(members))
        row, column = np.divmod(cell, len(steps))
        rank = members[member]
        pixel = (row + top[rank]) * size + column + left[rank]
        # What is inside of a triangle is inside of its bounds, but for rounding at the frame's edge.
        inner = (column < wide[rank]) & (row < high[rank])
        np.maximum.at(winner, pixel[inner], rank[inner].astype(np.int32))
    pixels = np.flatnonzero(winner >= 0)
    return Visible(pixels, triangles[:, kept], winner[pixels])


def interpolate(visible: Visible, values: np.ndarray, points: np.ndarray, size: int) -> np.ndarray:
    """Vertex values (k, v), linear on the screen over each triangle, at the covered pixels: (k, n) float32.

    Args:
        visible: what `rasterize` returned for `points` (2, v) and `size`.
    """
    corners = visible.corners
    x, y = points[0][corners], points[1][corners]  # (3, m)
    at = values[:, corners]  # (k, 3, m)
    bx, by, cx, cy = x[1] - x[0], y[1] - y[0], x[2] - x[0], y[2] - y[0]
    to_b, to_c = at[:, 1] - at[:, 0], at[:, 2] - at[:, 0]
    area = bx * cy - by * cx
    per_x = (to_b * cy - to_c * by) / area
    per_y = (to_c * bx - to_b * cx) / area
    base = at[:, 0] - per_x * x[0] - per_y * y[0]
    row, column = np.divmod(visible.pixels.astype(np.int32), np.int32(size))
    shown = visible.shown
    return per_x[:, shown] * column.astype(np.float32) + per_y[:, shown] * row.astype(np.float32) + base[:, shown]


def _least(corners: np.ndarray) -> np.ndarray:
    return np.minimum(np.minimum(corners[0], corners[1]), corners[2])
