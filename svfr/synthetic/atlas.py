"""The atlas: one picture with the colours of all parts of a rendered person, each part in its region.

Coordinates are in units of about a head unit, of `density` texels each.
"""

from dataclasses import dataclass

import numpy as np

MAX_ANGLE = 150.0  # [degrees] the head's surface is painted from -MAX_ANGLE to MAX_ANGLE; 0 is the front


@dataclass(frozen=True)
class Region:
    """A rectangle of the atlas, in the atlas's units, with coordinates of its own."""

    left: float
    top: float
    width: float
    height: float
    x: tuple[float, float]  # ranges of its own coordinates
    y: tuple[float, float]

    def place(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """(2, ...) float32 atlas coordinates of points in the region's own, clipped to the region."""
        u = np.clip((x - self.x[0]) / (self.x[1] - self.x[0]), 0, 1) * (self.width - 0.1) + self.left + 0.05
        v = np.clip((y - self.y[0]) / (self.y[1] - self.y[0]), 0, 1) * (self.height - 0.1) + self.top + 0.05
        return np.stack([u, v]).astype(np.float32)

    def texels(self, density: float) -> tuple[slice, slice]:
        """Rows and columns of its texels."""
        rows = slice(round(self.top * density), round((self.top + self.height) * density))
        return rows, slice(round(self.left * density), round((self.left + self.width) * density))

    def coordinates(self, density: float) -> tuple[np.ndarray, np.ndarray]:
        """Its own coordinates x and y at the centres of its texels, each (rows, columns) float32."""
        rows, columns = self.texels(density)
        u = ((np.arange(columns.start, columns.stop) + 0.5) / density - self.left - 0.05) / (self.width - 0.1)
        v = ((np.arange(rows.start, rows.stop) + 0.5) / density - self.top - 0.05) / (self.height - 0.1)
        x, y = self.x[0] + u * (self.x[1] - self.x[0]), self.y[0] + v * (self.y[1] - self.y[0])
        grid = np.meshgrid(x.astype(np.float32), y.astype(np.float32))
        return grid[0], grid[1]


# The head: angle [degrees] and height; 1 unit is about 24 degrees, as on a head of radius 2.35
HEAD = Region(0, 0, 12.4, 7.6, (-MAX_ANGLE, MAX_ANGLE), (-3.75, 3.75))
MOUTH = Region(0, 7.6, 2.2, 1.2, (-1.05, 1.05), (0, 1.1))  # inside the mouth: x, depth below the upper lip
EAR = Region(2.2, 7.6, 1.6, 1.2, (-1, 1), (-1, 1))
HAIR = Region(0, 8.8, 6.2, 3.0, (58, 302), (-1.6, 5.2))  # hanging hair: angle, height
INSIDE = Region(6.2, 8.8, 1.0, 1.0, (60, 300), (-1.6, 5.2))
BODY = Region(7.2, 7.6, 5.2, 4.2, (-180, 180), (1.0, 6.5))
WIDTH, HEIGHT = 12.4, 11.8
