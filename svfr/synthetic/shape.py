"""The shape of a rendered person: a head over (angle, height), ears, neck and shoulders, long hair.

Axes in head units (half the distance between the eyes): x to image right, y down, z to the camera; the origin lies
between the eyes. All parts are grids, whose rows go down and whose columns go around to image right.
"""

from dataclasses import dataclass

import numpy as np

from svfr.synthetic.atlas import BODY, EAR, HAIR, HEAD, INSIDE, MAX_ANGLE, MOUTH, Region
from svfr.synthetic.identity import Identity

MOUTH_Y = 2.12  # height of the line between the lips
PIVOT = np.array([0.0, 1.2, -2.4])  # the head turns around it
JAW_JOINT_Y, JAW_JOINT_Z = 0.9, -2.0
JAW_ANGLE = 0.22  # [rad] at the widest
INNER_ROWS = 5  # rows of the grid inside the mouth

# Assumption: an average head, after anthropometry (face 13.5 cm wide, eyes 6.3 cm apart) and by eye; its front (z),
# like the nose in `relief`, measured with YuNet, so that it reads the face without offset. Rows: height, half width,
# front, centre and back (z) of a horizontal section.
SECTIONS = np.array(
    [
        [-3.75, 0.05, -2.1, -2.4, -2.7],
        [-3.6, 1.0, -1.25, -2.4, -3.6],
        [-3.2, 1.65, -0.6, -2.4, -4.5],
        [-2.6, 2.1, -0.12, -2.4, -5.0],
        [-1.9, 2.32, 0.17, -2.4, -5.3],
        [-1.2, 2.38, 0.34, -2.4, -5.4],
        [-0.5, 2.38, 0.45, -2.3, -5.3],
        [0.2, 2.34, 0.55, -2.3, -5.0],
        [0.8, 2.24, 0.08, -2.2, -4.6],
        [1.5, 2.06, 0.19, -2.1, -4.2],
        [2.1, 1.84, 0.11, -1.9, -3.8],
        [2.6, 1.58, 0.01, -1.6, -3.0],
        [3.0, 1.28, 0.01, -1.3, -2.4],
        [3.35, 0.92, -0.02, -1.0, -1.8],
        [3.6, 0.52, -0.22, -0.9, -1.5],
        [3.72, 0.08, -0.75, -0.9, -1.1],
    ]
)
# The body: height, half width, front, centre, back
BODY_SECTIONS = np.array(
    [
        [1.0, 1.25, -1.5, -2.7, -3.9],
        [2.6, 1.25, -1.45, -2.7, -3.9],
        [3.4, 1.3, -1.4, -2.7, -3.9],
        [3.75, 1.55, -1.35, -2.7, -4.0],
        [4.05, 2.3, -1.25, -2.7, -4.1],
        [4.4, 3.5, -1.1, -2.7, -4.3],
        [4.9, 4.3, -0.9, -2.7, -4.5],
        [6.5, 4.8, -0.6, -2.7, -4.8],
    ]
)


@dataclass(frozen=True)
class Grid:
    """A part of the mesh.

    Attributes:
        rest: (3, r, c) float32 positions.
        uv: (2, r, c) float32 places in the atlas, in its units.
        follow: (r, c) share of the head's pose that it takes part in.
    """

    rest: np.ndarray
    uv: np.ndarray
    follow: np.ndarray


def smoothstep(low: float | np.ndarray, high: float | np.ndarray, x: np.ndarray) -> np.ndarray:
    """0 below `low`, 1 above `high`, smooth between; the other way around if high < low."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def power(x: np.ndarray, exponent: int) -> np.ndarray:
    """x ** exponent for a whole exponent >= 1, by multiplications: numpy's own is very slow where x is negative."""
    assert exponent >= 1
    if exponent == 1:
        return x
    half = power(x, exponent // 2)
    return half * half * x if exponent % 2 else half * half


def bump(x: np.ndarray, y: np.ndarray, cx: float, cy: float, sx: float, sy: float) -> np.ndarray:
    """A Gaussian hill of height 1."""
    return np.exp(-(((x - cx) / sx) ** 2) - ((y - cy) / sy) ** 2)


def hairline(identity: Identity, angle: np.ndarray) -> np.ndarray:
    """Height (y, template) down to which hair grows at each angle [rad] around the head."""
    degrees = np.abs(np.degrees(angle))
    line = np.interp(
        degrees,
        [0, 22, 40, 52, 64, 70, 76, 84, 92, 112, 150],
        [-2.0, -1.95, -1.7, -1.1, -0.7, 0.35, 0.45, -0.1, 0.2, 2.0, 2.4],
    )
    front = smoothstep(62, 45, degrees)
    side = smoothstep(-0.9, 0.9, angle * np.sign(identity.parting or 1) + 0.3)
    cover = identity.fringe * (0.55 + 0.45 * side)
    sweep = 0.45 * identity.parting * np.sin(1.6 * angle)
    return line + front * (cover * 1.25 + identity.hairline + sweep)


class Shape:
    """The mesh of a person and how it moves with the face's expression.

    Attributes:
        grids: head first, then ears, body, hair.
        triangles: (3, t) of all vertices.
        landmarks: (68, 2) float32: row and column of the head's grid.
    """

    def __init__(self, identity: Identity) -> None:
        self.identity = identity
        self.row_y = np.concatenate(
            [
                np.linspace(-3.75, -1.35, 10),
                np.linspace(-1.2, MOUTH_Y, 31),
                np.full(INNER_ROWS, MOUTH_Y),
                np.linspace(MOUTH_Y, 3.5, 14),
                np.array([3.58, 3.65, 3.72]),
            ]
        )
        self.slit = 10 + 31  # first row inside the mouth
        half = np.concatenate([np.linspace(0, 30, 13), np.linspace(33, 60, 10), np.linspace(65, 95, 7)])
        half = np.concatenate([half, np.linspace(106, MAX_ANGLE, 5)])  # degrees
        self.column_angle = np.radians(np.concatenate([-half[:0:-1], half]))
        angle, y = np.meshgrid(self.column_angle, self.row_y)
        self.x, self.y = template_x(identity, angle, y), y
        rest = self._head(angle, y)
        self.grids = [Grid(rest, HEAD.place(np.degrees(angle), y), np.ones_like(y)), *self._others()]
        uv = self.grids[0].uv
        inner = slice(self.slit, self.slit + INNER_ROWS)
        uv[:, inner] = MOUTH.place(self.x[inner], np.zeros_like(y[inner]))
        self.triangles = np.concatenate(
            [t + offset for t, offset in zip(map(_grid_triangles, self.grids), self._offsets(), strict=True)], axis=1
        )
        self._expressions = self._make_expressions()
        self.landmarks = self._make_landmarks()

    def _offsets(self) -> list[int]:
        sizes = [grid.follow.size for grid in self.grids]
        return [sum(sizes[:i]) for i in range(len(sizes))]

    def _head(self, angle: np.ndarray, y: np.ndarray) -> np.ndarray:
        """(3, r, c) float32 positions of the head at rest."""
        i = self.identity
        front, centre, back = (_profile(SECTIONS, column, y) for column in (2, 3, 4))
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
            # Crests this far apart are what the grid can carry.
            curls = 1 + 0.22 * i.curls * np.sin(11 * angle + 3 * y) * np.sin(7 * y + 2 * angle)
            position = position + outward * (inside * i.hair_volume * side * curls)
        return position.astype(np.float32)

    def _lengthen(self, y: np.ndarray) -> np.ndarray:
        """Shift in y of points of the template that makes noses, mouths and chins lower or higher."""
        i = self.identity
        nose = i.nose_length * smoothstep(0.1, 1.4, y)
        mouth = i.mouth_height * bump(np.zeros_like(y), y, 0, MOUTH_Y, 1, 0.6)
        chin = i.chin_length * smoothstep(2.2, 3.4, y)
        return nose + mouth + chin - i.forehead * smoothstep(-1.0, -3.0, y) * 1.5

    def _others(self) -> list[Grid]:
        i = self.identity
        grids = []
        for side in (-1, 1):
            angle, latitude = np.meshgrid(np.radians(np.linspace(-180, 180, 13)), np.radians(np.linspace(-90, 90, 9)))
            around = np.cos(latitude)
            height = 0.58 * (1 + i.ears)
            ear_x, ear_y, ear_z = 0.13 * around * np.sin(angle), height * np.sin(latitude), around * np.cos(angle)
            ear_z = 0.36 * ear_z * (1 - 0.35 * np.sin(latitude))
            turn = np.radians(28) * side
            width = float(template_x(i, np.array(np.pi / 2), np.array(0.5)))
            rest = np.stack(
                [
                    ear_x * np.cos(turn) - ear_z * np.sin(turn) + side * (width + 0.06),
                    ear_y + 0.5 + i.nose_length * 0.4,
                    ear_x * np.sin(turn) + ear_z * np.cos(turn) - 2.15,
                ]
            )
            place = EAR.place(angle / np.pi, latitude / (np.pi / 2))
            grids.append(Grid(rest.astype(np.float32), place, np.ones_like(angle)))
        angle, y = np.meshgrid(np.radians(np.linspace(-180, 180, 31)), np.linspace(1.0, 6.5, 20))
        half, front, centre, back = (_profile(BODY_SECTIONS, column, y) for column in (1, 2, 3, 4))
        neck = 1 + (0.06 if i.masculine else -0.07) * smoothstep(4.0, 3.4, y)
        depth = np.where(np.cos(angle) > 0, front - centre, centre - back)
        rest = np.stack([half * neck * np.sin(angle), y + i.chin_length * 0.7, centre + depth * np.cos(angle)])
        place = BODY.place(np.degrees(angle), y)
        grids.append(Grid(rest.astype(np.float32), place, smoothstep(4.2, 1.6, y)))
        if i.hair_style == "long":
            for start, stop, region in ((58, 302, HAIR), (300, 60, INSIDE)):
                grids.append(self._curtain(start, stop, region))
        return grids

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
        sign = np.sign(x)
        corner = bump(np.abs(x), y, mouth, MOUTH_Y, 0.45, 0.45)
        cheek = bump(np.abs(x), y, 1.3, 1.15, 0.5, 0.45)
        lid = bump(np.abs(x), y, 1.0, 0.3, 0.5, 0.2)
        shifts: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]] = {
            "jaw": (zero, turn * (rest[2] - JAW_JOINT_Z), -turn * (y - JAW_JOINT_Y)),
            "lips": (
                zero,
                lens * np.where(below, 0.09 * smoothstep(2.9, 2.2, y), -0.05 * smoothstep(1.4, 2.0, y)),
                zero,
            ),
            "pucker": (-0.33 * x * near_mouth, zero, 0.16 * bump(x, y, 0, MOUTH_Y, 0.6, 0.4)),
            "smile": (
                sign * 0.16 * corner,
                -0.13 * corner - 0.05 * cheek - 0.03 * lid,
                -0.1 * corner + 0.1 * cheek,
            ),
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


def template_x(identity: Identity, angle: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Sideways position of the head's surface at an angle [rad] and a height."""
    half = _profile(SECTIONS, 1, y) * (1 + identity.head_width)
    cheeks = 0.3 * identity.cheek_fat * np.exp(-(((y - 1.5) / 0.9) ** 2))
    half = half * (1 + identity.jaw_width * smoothstep(1.0, 2.6, y) + cheeks)
    return half * np.sin(angle)


def relief(identity: Identity, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """What stands out of the face's smooth front towards the camera: nose, brows, sockets, lips, chin, cheeks."""
    i = identity
    side = np.abs(x)
    eye_x = 1.0 + i.eye_spacing
    z = -(0.30 + i.eye_depth) * bump(side, y, eye_x - 0.05, 0.02, 0.5, 0.36)
    z += 0.2 * bump(side, y, eye_x, 0.02, 0.36, 0.24)
    z += (0.14 + i.brow_ridge) * bump(side, y, eye_x - 0.05, -0.55, 0.65, 0.22)
    z += 0.06 * bump(x, y, 0, -0.5, 0.4, 0.3)
    height = np.interp(
        y,
        [-0.5, 0.0, 0.35, 0.8, 1.1, 1.23, 1.42, 1.55, 1.68],
        np.array([0.0, 0.15, 0.30, 0.53, 0.60, 0.63, 0.52, 0.29, 0.0])
        + np.array([0, 1, 1, 0.6, 0.2, 0, 0, 0, 0]) * i.nose_bridge
        + np.array([0, 0, 0.2, 0.6, 1, 1, 1, 0.5, 0]) * i.nose_depth,
    )
    wide = i.nose_width
    width = np.interp(y, [-0.3, 0.3, 0.9, 1.25, 1.6], [0.3, 0.27, 0.29, 0.36 + i.nose_tip, 0.4]) * (0.45 + 1.0 * wide)
    z += height * np.exp(-((side / width) ** 2))
    z += 0.30 * bump(side, y, wide, 1.36, 0.17, 0.19)
    z += (0.13 + i.mouth_depth) * bump(x, y, 0, 2.0, 0.75, 0.32)
    z += 0.10 * bump(x, y, 0, MOUTH_Y - 0.1, i.mouth_width * 0.62, 0.10)
    z += 0.14 * bump(x, y, 0, MOUTH_Y + 0.14, i.mouth_width * 0.55, 0.12)
    z -= 0.13 * bump(side, y, i.mouth_width + 0.05, MOUTH_Y, 0.16, 0.16)
    z -= 0.20 * bump(x, y, 0, 2.62, 0.6, 0.16)
    z += (0.16 + i.chin_depth) * bump(x, y, 0, 3.1, 0.5, 0.34)
    z += (0.16 + i.cheekbones) * bump(side, y, 1.4, 0.85, 0.5, 0.42)
    z += (i.cheek_fat - 0.08) * bump(side, y, 1.25, 1.75, 0.45, 0.5)
    return z


def landmark_template(identity: Identity) -> np.ndarray:
    """(68, 2) places (x, y) of the landmarks on the template, in iBUG's order, image left first."""
    i = identity
    jaw_y = np.array([0.1, 0.7, 1.3, 1.85, 2.4, 2.85, 3.2, 3.45])
    jaw_x = 0.975 * template_x(i, np.full(8, np.pi / 2), jaw_y)
    left = [(-x, y) for x, y in zip(jaw_x, jaw_y, strict=True)]
    jaw = [*left, (0.0, 3.55), *((-x, y) for x, y in reversed(left))]
    brow = [(x, float(brow_line(i, np.array(x)))) for x in (1.78, 1.5, 1.15, 0.82, 0.46)]
    brows = [*((-x, y) for x, y in brow), *reversed(brow)]
    wide = i.nose_width
    nose = [(0.0, 0.02), (0.0, 0.44), (0.0, 0.86), (0.0, 1.22)]
    nose += [(wide * f, y) for f, y in ((-1, 1.5), (-0.5, 1.58), (0, 1.63), (0.5, 1.58), (1, 1.5))]
    eyes = []
    for side, at in ((-1, (-1, -0.4, 0.4, 1, 0.4, -0.4)), (1, (-1, -0.4, 0.4, 1, 0.4, -0.4))):
        for number, t in enumerate(at):
            outward = side * t
            upper, lower = lids(i, np.array(outward))
            y = upper if number in (1, 2) else lower
            y = 0.5 * (upper + lower) if number in (0, 3) else y
            eyes.append((side * (1.0 + i.eye_spacing + i.eye_width * outward), float(y)))
    w = i.mouth_width
    top, bottom = (
        (lambda t: MOUTH_Y - float(upper_lip(i, np.array(t * w)))),
        (lambda t: MOUTH_Y + float(lower_lip(i, np.array(t * w)))),
    )
    mouth = [(t * w, top(t) if abs(t) < 1 else MOUTH_Y) for t in (-1, -0.6, -0.22, 0, 0.22, 0.6, 1)]
    mouth += [(t * w, bottom(t)) for t in (0.6, 0.25, 0, -0.25, -0.6)]
    mouth += [(t * w, MOUTH_Y) for t in (-0.88, -0.3, 0, 0.3, 0.88, 0.3, 0, -0.3)]
    return np.array([*jaw, *brows, *nose, *eyes, *mouth], dtype=np.float64)


def glasses(identity: Identity) -> list[np.ndarray]:
    """Lines of the frames of glasses, each (3, n): both rims, the bridge, the left and the right temple."""
    i = identity
    turn = np.linspace(0, 2 * np.pi, 33)
    power = 2 / i.glasses_round
    rim_x = i.glasses * 1.12 * np.sign(np.cos(turn)) * np.abs(np.cos(turn)) ** power
    rim_y = i.glasses * 0.84 * np.sign(np.sin(turn)) * np.abs(np.sin(turn)) ** power
    centre = 1.02 + i.eye_spacing * 0.7
    lines = [np.stack([side * (centre + rim_x), 0.1 + rim_y]) for side in (-1, 1)]
    inner = centre - i.glasses * 1.12
    lines.append(np.stack([np.linspace(-inner, inner, 7), -0.08 - 0.06 * np.cos(np.linspace(-1.5, 1.5, 7))]))
    lines = [np.stack([x, y, 0.62 - 0.13 * x * x]) for x, y in lines]
    outer = centre + i.glasses * 1.12
    for side in (-1, 1):
        part = np.linspace(0, 1, 5)
        x = side * (outer + (2.42 * (1 + i.head_width) - outer) * part)
        lines.append(np.stack([x, -0.08 + 0.05 * part, 0.62 - 0.13 * outer**2 - 1.5 * part]))
    return lines


def brow_line(identity: Identity, side: np.ndarray) -> np.ndarray:
    """Height of the middle of the brows at a distance from the face's middle."""
    i = identity
    t = (side - 0.46) / 1.32  # 0 at the inner end, 1 at the outer
    arch = i.brow_arch * 4 * t * (1 - 0.62 * t)
    return -0.56 - i.brow_height - arch + i.brow_tilt * (t - 0.5) + 0.22 * power(t, 3)


def lids(identity: Identity, outward: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Heights of the open eye's upper and lower edge, from -1 at the inner to 1 at the outer corner."""
    i = identity
    t = np.clip(outward, -1, 1)
    arch = np.clip(1 - t * t, 0, 1)
    middle = i.eye_tilt * t
    return middle - i.eye_height * 1.15 * arch**0.75 * (1 - 0.12 * t), middle + i.eye_height * 0.72 * arch * (
        1 + 0.15 * t
    )


def upper_lip(identity: Identity, x: np.ndarray) -> np.ndarray:
    """Height of the upper lip above the line between the lips, with the bow in its middle."""
    t = np.abs(x) / identity.mouth_width
    return identity.upper_lip * np.clip(1 - t**1.7, 0, 1) * (1 - 0.2 * np.exp(-((t / 0.14) ** 2)))


def lower_lip(identity: Identity, x: np.ndarray) -> np.ndarray:
    """Height of the lower lip below the line between the lips."""
    t = np.abs(x) / identity.mouth_width
    return identity.lower_lip * np.clip(1 - t**2.2, 0, 1)


def _profile(table: np.ndarray, column: int, y: np.ndarray) -> np.ndarray:
    """A column of a table of sections at heights y, smoothed over its corners."""
    reach = np.linspace(-0.18, 0.18, 5)[(...,) + (None,) * np.ndim(y)]
    return np.interp(y + reach, table[:, 0], table[:, column]).mean(axis=0)


def _grid_triangles(grid: Grid) -> np.ndarray:
    rows, columns = grid.follow.shape
    corner = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)).reshape(-1)
    right, down = corner + 1, corner + columns
    first, second = np.stack([corner, right, down]), np.stack([right, down + 1, down])
    return np.concatenate([first, second], axis=1)
