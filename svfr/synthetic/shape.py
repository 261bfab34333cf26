"""The shape of a rendered person: a head over (angle, height), ears, neck and shoulders, long hair.

Axes in head units (half the distance between the eyes): x to image right, y down, z to the camera; the origin lies
between the eyes. All parts are grids, whose rows go down and whose columns go around to image right.
"""

from dataclasses import dataclass

import numpy as np

from svfr.synthetic.atlas import BODY, EAR, HAIR, HEAD, INSIDE, MAX_ANGLE, MOUTH, Region
from svfr.synthetic.curves import bump, smoothstep
from svfr.synthetic.identity import Identity
from svfr.synthetic.template import MOUTH_Y, SECTIONS, hairline, landmark_template, profile, relief, template_x

PIVOT = np.array([0.0, 1.2, -2.4])  # the head turns around it
JAW_JOINT_Y, JAW_JOINT_Z = 0.9, -2.0
JAW_ANGLE = 0.22  # [rad] at the widest
INNER_ROWS = 5  # rows of the grid inside the mouth
# Horizontal sections of the body, as `SECTIONS` of the head.
BODY_SECTIONS = {
    "height": [1.0, 2.6, 3.4, 3.75, 4.05, 4.4, 4.9, 6.5],
    "half_width": [1.25, 1.25, 1.3, 1.55, 2.3, 3.5, 4.3, 4.8],
    "front": [-1.5, -1.45, -1.4, -1.35, -1.25, -1.1, -0.9, -0.6],
    "centre": [-2.7, -2.7, -2.7, -2.7, -2.7, -2.7, -2.7, -2.7],
    "back": [-3.9, -3.9, -3.9, -4.0, -4.1, -4.3, -4.5, -4.8],
}


@dataclass(frozen=True)
class Grid:
    """A part of the mesh."""

    rest: np.ndarray  # (3, r, c) float32 positions
    uv: np.ndarray  # (2, r, c) float32 places in the atlas, in its units
    follow: np.ndarray  # (r, c) share of the head's rotation that it takes part in


class Shape:
    """The mesh of a person and how it moves with the face's expression: `grids`, head first, then ears, body, hair, and
    the `triangles` (3, t) of all vertices."""

    def __init__(self, identity: Identity) -> None:
        self.identity = identity
        above = np.linspace(-3.75, -1.35, 10), np.linspace(-1.2, MOUTH_Y, 31)
        below = np.linspace(MOUTH_Y, 3.5, 14), np.array([3.58, 3.65, 3.72])
        self.row_y = np.concatenate([*above, np.full(INNER_ROWS, MOUTH_Y), *below])
        self.slit = 10 + 31  # first row inside the mouth
        half = np.concatenate([np.linspace(0, 30, 13), np.linspace(33, 60, 10), np.linspace(65, 95, 7)])
        half = np.concatenate([half, np.linspace(106, MAX_ANGLE, 5)])  # degrees
        self.column_angle = np.radians(np.concatenate([-half[:0:-1], half]))
        angle, y = np.meshgrid(self.column_angle, self.row_y)
        self.x, self.y = template_x(identity, angle, y), y
        rest = self._head(angle, y)
        head = Grid(rest, HEAD.place(np.degrees(angle), y), np.ones_like(y))
        self.grids = [head, self._ear(-1), self._ear(1), self._body()]
        if identity.hair_style == "long":
            self.grids += [self._curtain(58, 302, HAIR), self._curtain(300, 60, INSIDE)]
        uv = self.grids[0].uv
        inner = slice(self.slit, self.slit + INNER_ROWS)
        uv[:, inner] = MOUTH.place(self.x[inner], np.zeros_like(y[inner]))
        ends = np.cumsum([grid.follow.size for grid in self.grids])
        triangles = [_grid_triangles(grid) + end - grid.follow.size for grid, end in zip(self.grids, ends, strict=True)]
        self.triangles = np.concatenate(triangles, axis=1)
        self._expressions = self._make_expressions()
        self.landmarks = self._make_landmarks()

    def _head(self, angle: np.ndarray, y: np.ndarray) -> np.ndarray:
        """(3, r, c) float32 positions of the head at rest."""
        i = self.identity
        front, centre, back = (profile(SECTIONS, name, y) for name in ("front", "centre", "back"))
        x = self.x
        cosine = np.cos(angle)
        depth = np.where(cosine > 0, front - centre, (centre - back) * (1 + i.head_length))
        z = centre + depth * cosine
        facing = smoothstep(-0.1, 0.35, cosine)
        z = z + facing * relief(i, x, y)
        position = np.stack([x, y + self._lengthen(y), z])
        if i.hair_style != "bald":
            inside = smoothstep(-0.02, 0.5, hairline(i, angle) - y)
            outward = position - np.array([0, -0.6, -2.3])[:, None, None]
            outward /= np.linalg.norm(outward, axis=0)
            side = 0.65 + 0.35 * smoothstep(0.6, -1.6, y)
            # The grid is too coarse for waves closer to each other.
            curls = 1 + 0.22 * i.curls * np.sin(11 * angle + 3 * y) * np.sin(7 * y + 2 * angle)
            position = position + outward * (inside * i.hair_volume * side * curls)
        return position.astype(np.float32)

    def _lengthen(self, y: np.ndarray) -> np.ndarray:
        """Shift in y of the template's points, for the heights of nose, mouth, chin and forehead."""
        i = self.identity
        nose = i.nose_length * smoothstep(0.1, 1.4, y)
        mouth = i.mouth_height * bump(np.zeros_like(y), y, 0, MOUTH_Y, 1, 0.6)
        chin = i.chin_length * smoothstep(2.2, 3.4, y)
        return nose + mouth + chin - i.forehead * smoothstep(-1.0, -3.0, y) * 1.5

    def _ear(self, side: int) -> Grid:
        """The ear at image left (-1) or right (1): half a squeezed ball, turned outwards."""
        i = self.identity
        angle, latitude = np.meshgrid(np.radians(np.linspace(-180, 180, 13)), np.radians(np.linspace(-90, 90, 9)))
        around = np.cos(latitude)
        x, y = 0.13 * around * np.sin(angle), 0.58 * (1 + i.ears) * np.sin(latitude)
        z = 0.36 * (around * np.cos(angle)) * (1 - 0.35 * np.sin(latitude))
        turn = np.radians(28) * side
        width = float(template_x(i, np.array(np.pi / 2), np.array(0.5)))
        across = x * np.cos(turn) - z * np.sin(turn) + side * (width + 0.06)
        rest = np.stack([across, y + 0.5 + i.nose_length * 0.4, x * np.sin(turn) + z * np.cos(turn) - 2.15])
        place = EAR.place(angle / np.pi, latitude / (np.pi / 2))
        return Grid(rest.astype(np.float32), place, np.ones_like(angle))

    def _body(self) -> Grid:
        """Neck and shoulders, which follow the head less the lower they are."""
        i = self.identity
        angle, y = np.meshgrid(np.radians(np.linspace(-180, 180, 31)), np.linspace(1.0, 6.5, 20))
        names = ("half_width", "front", "centre", "back")
        half, front, centre, back = (profile(BODY_SECTIONS, name, y) for name in names)
        neck = 1 + (0.06 if i.masculine else -0.07) * smoothstep(4.0, 3.4, y)
        depth = np.where(np.cos(angle) > 0, front - centre, centre - back)
        rest = np.stack([half * neck * np.sin(angle), y + i.chin_length * 0.7, centre + depth * np.cos(angle)])
        return Grid(rest.astype(np.float32), BODY.place(np.degrees(angle), y), smoothstep(4.2, 1.6, y))

    def _curtain(self, start: float, stop: float, region: Region) -> Grid:
        """Hair that hangs around the back of the head, from angle `start` to `stop` [degrees]."""
        i = self.identity
        angle, y = np.meshgrid(np.radians(np.linspace(start, stop, 33)), np.linspace(-1.6, 5.2, 16))
        width = 2.42 * (1 + i.head_width) + i.hair_volume * np.interp(y, [-1.6, 0.5, 3, 5.2], [0.3, 0.62, 0.8, 0.95])
        wave = 0.05 * np.sin(angle * 9 + y * 2.2 + i.parting * 3) * smoothstep(-1, 2, y)
        depth = np.interp(y, [-1.6, 1.0, 5.2], [3.2, 2.6, 1.6])
        inner = 0.0 if region is HAIR else 0.06
        rest = np.stack([(width + wave - inner) * np.sin(angle), y, -2.3 + (depth + wave - inner) * np.cos(angle)])
        place = region.place(np.degrees(angle), y)
        return Grid(rest.astype(np.float32), place, smoothstep(6.5, 1.5, y))

    def _make_expressions(self) -> dict[str, np.ndarray]:
        """Shifts of the head's vertices, (3, r, c) float32, at full strength."""
        i, x, y = self.identity, self.x, self.y
        mouth = i.mouth_width
        below = (np.arange(len(self.row_y)) >= self.slit + INNER_ROWS)[:, None]
        lens = np.clip(1 - (x / mouth) ** 2, 0, 1) ** 0.8  # 1 in the middle of the mouth, 0 at its corners
        general = smoothstep(1.2, 2.9, y)
        jaw = np.where(below, 1 - (1 - general) * (1 - lens), general * (1 - lens))
        rest = self.grids[0].rest
        zero = np.zeros_like(y)
        turn = JAW_ANGLE * jaw
        near_mouth = bump(x, y, 0, MOUTH_Y, 1.1, 0.5)
        corner = bump(np.abs(x), y, mouth, MOUTH_Y, 0.45, 0.45)
        cheek = bump(np.abs(x), y, 1.3, 1.15, 0.5, 0.45)
        lid = bump(np.abs(x), y, 1.0, 0.3, 0.5, 0.2)
        apart = np.where(below, 0.09 * smoothstep(2.9, 2.2, y), -0.05 * smoothstep(1.4, 2.0, y))
        lift = -0.13 * corner - 0.05 * cheek - 0.03 * lid
        shifts: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]] = {
            "jaw": (zero, turn * (rest[2] - JAW_JOINT_Z), -turn * (y - JAW_JOINT_Y)),
            "lips": (zero, lens * apart, zero),
            "pucker": (-0.33 * x * near_mouth, zero, 0.16 * bump(x, y, 0, MOUTH_Y, 0.6, 0.4)),
            "smile": (np.sign(x) * 0.16 * corner, lift, -0.1 * corner + 0.1 * cheek),
            "brows": (zero, -0.15 * bump(np.abs(x), y, 0.95, -0.75, 0.75, 0.38), zero),
        }
        return {name: np.stack(shift).astype(np.float32) for name, shift in shifts.items()}

    def head(self, strengths: dict[str, float]) -> tuple[np.ndarray, np.ndarray]:
        """The head's (3, r, c) positions and (2, r, c) atlas places under an expression."""
        position = self.grids[0].rest.copy()
        for name, strength in strengths.items():
            position += self._expressions[name] * np.float32(strength)
        first, last = self.slit - 1, self.slit + INNER_ROWS  # the edges of the lips
        share = np.linspace(0, 1, INNER_ROWS, dtype=np.float32)[:, None]
        inside = position[:, first, None] * (1 - share) + position[:, last, None] * share
        gap = np.maximum(inside[1] - position[1, first], 0)
        inside[2, 1:-1] -= np.minimum(0.2, gap[-1] * 0.8)
        position[:, self.slit : last] = inside
        uv = self.grids[0].uv.copy()
        uv[1, self.slit : last] = MOUTH.place(np.zeros_like(gap), gap)[1]
        return position, uv

    def _make_landmarks(self) -> np.ndarray:
        """(68, 2) rows and columns of the head's grid, between its vertices."""
        x, y = landmark_template(self.identity).T
        number = np.arange(len(y))
        below = ((number >= 55) & (number <= 59)) | (number >= 65) | ((number < 17) & (y > MOUTH_Y))
        rows = np.arange(len(self.row_y))
        row = np.empty_like(y)
        for which, part in ((~below, slice(0, self.slit)), (below, slice(self.slit + INNER_ROWS, None))):
            row[which] = np.interp(y[which], self.row_y[part], rows[part])
        width = template_x(self.identity, np.array(np.pi / 2), y)
        angle = np.arcsin(np.clip(x / width, -0.985, 0.985))
        column = np.interp(angle, self.column_angle, np.arange(len(self.column_angle)))
        return np.stack([row, column], axis=1).astype(np.float32)

    def landmark_positions(self, head: np.ndarray) -> np.ndarray:
        """(3, 68) positions on a head's (3, r, c) grid, linear between its vertices."""
        row, column = self.landmarks.T
        r, c = row.astype(int), column.astype(int)
        down, right = np.minimum(r + 1, head.shape[1] - 1), np.minimum(c + 1, head.shape[2] - 1)
        v, u = row - r, column - c
        top = head[:, r, c] * (1 - u) + head[:, r, right] * u
        bottom = head[:, down, c] * (1 - u) + head[:, down, right] * u
        return top * (1 - v) + bottom * v


def _grid_triangles(grid: Grid) -> np.ndarray:
    rows, columns = grid.follow.shape
    corner = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)).reshape(-1)
    right, down = corner + 1, corner + columns
    first, second = np.stack([corner, right, down]), np.stack([right, down + 1, down])
    return np.concatenate([first, second], axis=1)
