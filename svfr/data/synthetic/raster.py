"""A triangle rasterizer in numpy: which triangle each pixel shows, and vertex values interpolated over it."""

from dataclasses import dataclass

import numpy as np

# Triangles are tried on square windows of these sides [px], the least that holds each one.
WINDOWS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 256, 512, 1024, 2048)


@dataclass(frozen=True)
class Visible:
    """What a picture shows of a mesh.

    Attributes:
        pixels: (n,) flat indices of the covered pixels, ascending.
        triangles: (n,) the triangle that each of them shows.
    """

    pixels: np.ndarray
    triangles: np.ndarray


def rasterize(points: np.ndarray, depth: np.ndarray, triangles: np.ndarray, size: int) -> Visible:
    """The nearest triangle at each pixel's centre. Triangles that are clockwise on the screen are seen, others not.

    Triangles are ordered by their mean depth, so they should be small against the distances between surfaces.

    Args:
        points: (v, 2) float32 vertices on the screen, x right and y down [px]; pixel (0, 0) has its centre at 0, 0.
        depth: (v,) larger is nearer.
        triangles: (t, 3) vertex indices.
        size: side of the picture [px].
    """
    corners = points[triangles]  # (t, 3, 2)
    low = np.ceil(np.maximum(corners.min(axis=1), 0)).astype(np.int32)
    high = np.floor(np.minimum(corners.max(axis=1), size - 1)).astype(np.int32)
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    twice_area = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    seen = np.flatnonzero((twice_area > 1e-6) & (high >= low).all(axis=1))
    seen = seen[np.argsort(depth[triangles[seen]].sum(axis=1), kind="stable")]  # far ones first
    corners, low, high = corners[seen], low[seen], high[seen]
    window = np.searchsorted(WINDOWS, (high - low).max(axis=1) + 1)
    # Edge functions, >= 0 inside: cross(edge, pixel - start), as slope_x * x + slope_y * y + offset
    start, end = corners, np.roll(corners, -1, axis=1)
    slope_x, slope_y = start[..., 1] - end[..., 1], end[..., 0] - start[..., 0]  # (t, 3)
    first = low[:, None] - start  # from each edge's start to the window's first pixel
    offset = slope_x * first[..., 0] + slope_y * first[..., 1]

    winner = np.full(size * size, -1, dtype=np.int32)  # position in `seen`
    for number in np.unique(window):
        members = np.flatnonzero(window == number)
        steps = np.arange(WINDOWS[number], dtype=np.float32)
        along_x = slope_x[members, :, None] * steps + offset[members, :, None]  # (t, 3, k)
        along_y = slope_y[members, :, None] * steps
        inside = along_x[:, 0, None, :] + along_y[:, 0, :, None] >= 0  # (t, k, k)
        inside &= along_x[:, 1, None, :] + along_y[:, 1, :, None] >= 0
        inside &= along_x[:, 2, None, :] + along_y[:, 2, :, None] >= 0
        position, row, column = np.nonzero(inside)
        column += low[members, 0][position]
        row += low[members, 1][position]
        rank = members[position]
        kept = (column < size) & (row < size)
        pixel = row * size + column
        kept &= rank > winner[np.where(kept, pixel, 0)]
        winner[pixel[kept]] = rank[kept]  # of equal pixels the last, which is the nearest, stays
    pixels = np.flatnonzero(winner >= 0)
    return Visible(pixels, seen[winner[pixels]])


def interpolate(
    visible: Visible, values: np.ndarray, points: np.ndarray, triangles: np.ndarray, size: int
) -> np.ndarray:
    """Vertex values (v, k), linear on the screen over each triangle, at the covered pixels: (n, k) float32."""
    shown, index = np.unique(visible.triangles, return_inverse=True)
    corners, at = points[triangles[shown]], values[triangles[shown]]  # (m, 3, 2), (m, 3, k)
    (bx, by), (cx, cy) = (corners[:, 1] - corners[:, 0]).T, (corners[:, 2] - corners[:, 0]).T
    to_b, to_c = at[:, 1] - at[:, 0], at[:, 2] - at[:, 0]
    twice_area = (bx * cy - by * cx)[:, None]
    per_x = (to_b * cy[:, None] - to_c * by[:, None]) / twice_area
    per_y = (to_c * bx[:, None] - to_b * cx[:, None]) / twice_area
    base = at[:, 0] - per_x * corners[:, 0, :1] - per_y * corners[:, 0, 1:]
    plane = np.stack([per_x, per_y, base], axis=1)[index]  # (n, 3, k)
    x = (visible.pixels % size).astype(np.float32)[:, None]
    y = (visible.pixels // size).astype(np.float32)[:, None]
    return plane[:, 0] * x + plane[:, 1] * y + plane[:, 2]
