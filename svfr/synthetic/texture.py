"""The colours of a rendered person, painted into the atlas once per clip; the eyes once per frame."""

import numpy as np
from numpy.typing import ArrayLike

from svfr.synthetic import atlas
from svfr.synthetic.curves import bump, noise, power, smoothstep
from svfr.synthetic.identity import Identity
from svfr.synthetic.template import MOUTH_Y, brow_line, hairline, lids, lower_lip, template_x, upper_lip

IRIS = 0.185  # radius (iris 11.7 mm, eyes 63 mm apart)
EYEBALL = 0.38  # radius
SCLERA = (0.84, 0.82, 0.80)
TEETH = (0.88, 0.85, 0.78)


class Paint:
    """The atlas of a person in clothes (3,) RGB in [0, 1] whose neckline at the front is `collar` head units deep, with
    `density` texels per unit: `picture` (rows, columns, 3) uint8 RGB, which `open_eyes` changes in place."""

    def __init__(self, identity: Identity, clothes: np.ndarray, collar: float, density: float) -> None:
        self.identity, self.density = identity, density
        rows, columns = round(atlas.HEIGHT * density), round(atlas.WIDTH * density)
        self.picture = np.zeros((rows, columns, 3), dtype=np.uint8)
        rng = np.random.default_rng(identity.texture_seed)
        self._put(atlas.HEAD, self._head(rng))
        self._put(atlas.MOUTH, self._mouth())
        self._put(atlas.EAR, self._ear())
        self._put(atlas.HAIR, self._hanging_hair(rng))
        self._put(atlas.INSIDE, _planes(identity.hair * 0.35))
        self._put(atlas.BODY, self._body(rng, clothes, collar))
        self._eyes = self._prepare_eyes()

    def _put(self, region: atlas.Region, colours: np.ndarray) -> None:
        rows, columns = region.texels(self.density)
        self.picture[rows, columns] = _to_bytes(colours).transpose(1, 2, 0)

    def _head(self, rng: np.random.Generator) -> np.ndarray:
        i = self.identity
        degrees, y = atlas.HEAD.coordinates(self.density)
        angle = np.radians(degrees[:1])
        x = template_x(i, angle, y[:, :1]).astype(np.float32)
        x = np.where(np.cos(angle) > 0, x, np.sign(x) * 9)
        side = np.abs(x)
        eye_x = 1.0 + i.eye_spacing
        mottled = noise(rng, y.shape, (10, 16), 4)
        light = 1 + 0.022 * mottled
        # Crevices get less light
        light -= 0.20 * bump(side, y, eye_x - 0.38, -0.1, 0.28, 0.3)  # inner eye corners
        light -= (0.08 + 0.10 * i.eye_depth) * bump(side, y, eye_x, -0.22, 0.5, 0.16)
        light -= (0.05 + 0.10 * i.age) * bump(side, y, eye_x - 0.12, 0.36, 0.36, 0.13)  # bags
        light -= 0.22 * bump(x, y, 0, 1.66, 0.42, 0.10)  # under the nose
        light -= 0.12 * bump(side, y, i.nose_width + 0.16, 1.42, 0.10, 0.22)  # beside the nostrils
        light -= 0.10 * bump(x, y, 0, MOUTH_Y + i.lower_lip + 0.14, 0.5, 0.10)  # under the lower lip
        light -= 0.16 * bump(side, y, i.mouth_width + 0.03, MOUTH_Y, 0.09, 0.10)
        fold_x = 0.42 + i.nose_width * 0.3 + 0.42 * np.clip((y - 1.3) / 0.8, -0.2, 1.2)
        fold = np.exp(-(((side - fold_x) / 0.07) ** 2)) * smoothstep(1.2, 1.5, y) * smoothstep(2.3, 1.9, y)
        light -= (0.14 + 0.14 * i.age) * fold
        wrinkled = max(0.0, i.age - 0.4)
        lines = power(np.sin(y * 26 + 0.6 * noise(rng, y.shape, (3, 8))), 8)
        light -= 0.16 * wrinkled * lines * bump(x, y, 0, -1.25, 1.1, 0.35)
        crow = power(np.sin((y + 0.3 * (side - eye_x)) * 30), 6)
        light -= 0.14 * wrinkled * crow * bump(side, y, eye_x + 0.62, 0.08, 0.14, 0.25)
        light -= 0.25 * smoothstep(3.3, 3.72, y)  # under the chin
        colour = _planes(i.skin) * light
        red = 0.5 * bump(side, y, 1.25, 0.95, 0.5, 0.4) + 0.35 * bump(x, y, 0, 1.25, 0.3, 0.25)
        colour *= 1 - i.blush * red * _planes((0.0, 0.10, 0.09))
        if i.freckles:
            dots = smoothstep(1.3, 1.9, noise(rng, y.shape, (90, 150)))
            where = bump(side, y, 0.9, 0.8, 0.9, 0.6) * i.freckles
            colour *= 1 - dots * where * _planes((0.25, 0.35, 0.4))
        colour = self._lips(colour, x, y, rng)
        nostril = bump(side, y, i.nose_width * 0.52, 1.56, 0.11, 0.06)
        colour = _mix(colour, _planes(i.skin * 0.22), np.clip(nostril * 1.5 - 0.25, 0, 0.9))
        colour = self._beard(colour, x, y, rng)
        colour = self._brows(colour, side, y, rng)
        crease_y = lids(i, (side - eye_x) / i.eye_width)[0] - 0.07 - 0.05 * i.lid_crease
        crease = np.exp(-(((y - crease_y) / 0.035) ** 2))
        crease = crease * smoothstep(i.eye_width * 1.05, i.eye_width * 0.7, np.abs(side - eye_x))
        colour = colour * (1 - (0.12 + 0.2 * i.lid_crease) * crease)
        return self._scalp(colour, angle, y, rng)

    def _lips(self, colour: np.ndarray, x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        i = self.identity
        above = (y - MOUTH_Y + upper_lip(i, x)) * (y <= MOUTH_Y)
        below = (MOUTH_Y + lower_lip(i, x) - y) * (y > MOUTH_Y)
        inside = np.where(np.abs(x) < i.mouth_width, above + below, -1)
        soft = 0.03 + 0.02 * i.masculine
        cover = smoothstep(0, soft, inside) * (0.75 if i.masculine else 0.92)
        grain = 1 + 0.04 * noise(rng, x.shape, (30, 260))
        shade = (1 - np.float32(0.14) * (y <= MOUTH_Y)) * grain
        colour = _mix(colour, _planes(i.lips) * shade, cover)
        seam = np.exp(-(((y - MOUTH_Y) / 0.03) ** 2)) * smoothstep(i.mouth_width * 1.04, i.mouth_width * 0.9, np.abs(x))
        return colour * (1 - 0.6 * seam)

    def _beard(self, colour: np.ndarray, x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        i = self.identity
        if i.beard == "none":
            return colour
        side = np.abs(x)
        edge = np.interp(side, [0, 0.55, 0.95, 1.4, 1.8, 2.1, 2.4], [1.62, 1.64, 1.85, 1.75, 1.0, 0.3, 0.0])
        full = smoothstep(0.0, 0.25, y - edge.astype(np.float32)) * smoothstep(9, 8, side)
        moustache = smoothstep(1.64, 1.72, y) * smoothstep(MOUTH_Y, MOUTH_Y - 0.1, y) * smoothstep(1.0, 0.8, side)
        ring = np.hypot(side, y - 2.35)
        goatee = smoothstep(1.12, 0.95, ring) * smoothstep(1.64, 1.74, y)
        goatee = np.maximum(goatee, smoothstep(0.85, 0.6, side) * smoothstep(2.4, 2.7, y))
        cover = {"stubble": full * 0.42, "moustache": moustache, "goatee": goatee, "full": full}[i.beard]
        inside = np.where(y <= MOUTH_Y, y - MOUTH_Y + upper_lip(i, x), MOUTH_Y + lower_lip(i, x) - y)
        cover = cover * smoothstep(0.05, -0.04, np.where(side < i.mouth_width, inside, -1))
        cover = np.clip(cover * (0.85 + 0.12 * noise(rng, y.shape, (60, 110))), 0, 0.93)
        strands = 1 + 0.16 * noise(rng, y.shape, (40, 200))
        return _mix(colour, _planes(i.hair) * strands, cover)

    def _brows(self, colour: np.ndarray, side: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        i = self.identity
        t = (side - 0.40) / 1.42
        thickness = i.brow_thickness * np.clip(1.1 - 0.75 * t**2, 0.15, 1)
        distance = np.abs(y - brow_line(i, side)) / thickness
        cover = smoothstep(1.15, 0.55, distance) * smoothstep(-0.02, 0.14, t) * smoothstep(1.02, 0.8, t)
        strands = 0.9 + 0.12 * noise(rng, y.shape, (70, 240))
        brow = _planes(i.hair * 0.75 + i.skin * 0.08)
        return _mix(colour, brow, np.clip(cover * strands, 0, 1) * (0.88 if i.masculine else 0.8))

    def _scalp(self, colour: np.ndarray, angle: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        i = self.identity
        ragged = 0.05 * noise(rng, y.shape, (6, 90), 2)
        inside = hairline(i, angle).astype(np.float32) - y + ragged
        strands = 0.13 * noise(rng, y.shape, (5, 120), 2) + 0.08 * noise(rng, y.shape, (8, 30))
        curls = 0.16 * noise(rng, y.shape, (45, 70), 2)
        strands = 1 + strands + (curls - strands) * i.curls
        if i.hair_style == "bald":
            cover = 0.22 * smoothstep(-0.2, 0.4, inside) * (i.texture_seed % 3) / 2
        elif i.hair_style == "short":
            cover = smoothstep(-0.1, 0.16, inside) * 0.96
        else:
            cover = smoothstep(-0.05, 0.07, inside)
        hair = _planes(i.hair) * strands
        root = 1 - 0.3 * bump(inside, inside, 0.0, 0.0, 0.16, 1e3)
        colour = colour * (1 - 0.22 * smoothstep(-0.35, 0.0, inside) * (i.hair_style != "bald"))
        return _mix(colour, hair * root, cover)

    def _mouth(self) -> np.ndarray:
        x, y = atlas.MOUTH.coordinates(self.density)
        dark = _planes((0.16, 0.06, 0.06))
        tongue = bump(x, y, 0, 0.66, 0.5, 0.24)
        colour = _mix(dark, _planes((0.55, 0.27, 0.27)), np.clip(tongue * 1.3 - 0.2, 0, 0.9))
        gap = 1 - 0.25 * np.abs(np.sin(x * 8.5)) ** 12
        bottom = 0.20 + 0.03 * np.cos(x * 8.5) ** 2 - 0.10 * x**2
        teeth = smoothstep(bottom + 0.02, bottom - 0.02, y) * smoothstep(0.86, 0.6, np.abs(x))
        shade = (1 - 0.55 * np.abs(x)) * gap * smoothstep(-0.1, 0.1, y)
        return _mix(colour, _planes(TEETH) * shade, teeth)

    def _ear(self) -> np.ndarray:
        i = self.identity
        x, y = atlas.EAR.coordinates(self.density)
        inner = bump(np.abs(np.abs(x) - 0.3), y, 0, 0.0, 0.16, 0.55)
        return _planes(i.skin * (1.0, 0.92, 0.9)) * (0.97 - 0.3 * inner)

    def _hanging_hair(self, rng: np.random.Generator) -> np.ndarray:
        _, y = atlas.HAIR.coordinates(self.density)
        strands = 0.95 + 0.13 * noise(rng, y.shape, (4, 90), 2) + 0.08 * noise(rng, y.shape, (6, 24))
        return _planes(self.identity.hair) * strands

    def _body(self, rng: np.random.Generator, clothes: np.ndarray, collar: float) -> np.ndarray:
        i = self.identity
        degrees, y = atlas.BODY.coordinates(self.density)
        skin = _planes(i.skin) * (1 + 0.02 * noise(rng, y.shape, (8, 8), 2) - 0.42 * smoothstep(3.9, 2.9, y))
        angle = np.radians(degrees)
        edge = 3.75 + collar * np.clip(np.cos(angle), 0, 1) ** 3
        folds = 1 + 0.07 * noise(rng, y.shape, (5, 12), 2)
        hem = 1 - 0.35 * np.exp(-(((y - edge) / 0.06) ** 2))
        return _mix(skin, _planes(clothes) * (folds * hem), smoothstep(-0.03, 0.03, y - edge))

    def _prepare_eyes(self) -> dict[str, np.ndarray]:
        """What is the same in all frames: the eyes' n texels, their colours when shut, and their coordinates."""
        i = self.identity
        degrees, y = atlas.HEAD.coordinates(self.density)
        x = template_x(i, np.radians(degrees[:1]), y[:, :1]).astype(np.float32)
        outward = (np.abs(x) - 1.0 - i.eye_spacing) / i.eye_width
        row, column = np.nonzero((np.abs(degrees) < 80) & (np.abs(outward) < 1.15) & (np.abs(y) < 0.42))
        x, y, outward = x[row, column], y[row, column], outward[row, column]
        upper, lower = lids(i, outward)
        return {
            "row": row,
            "column": column,
            "shut": (self.picture[row, column].T / np.float32(255))[:, None],  # (3, 1, n)
            "x": (outward * i.eye_width * np.sign(x)).astype(np.float32),
            "y": y,
            "t": outward.astype(np.float32),
            "upper": upper.astype(np.float32),
            "lower": lower.astype(np.float32),
        }

    def open_eyes(self, blink: float, gaze: np.ndarray, light: np.ndarray) -> None:
        """Paint both eyes, open at a `blink` of 0 and shut at 1, with a `gaze` (2,) to image right and down, relative
        to the head [rad], and the spark of a `light`, a unit vector (3,) towards it in the head's axes."""
        i = self.identity
        centre = (EYEBALL * np.sin(gaze)).astype(np.float32)
        light = light.astype(np.float32)
        soft = 1.2 / self.density + 0.012
        eye = self._eyes
        x, y, t, lower = eye["x"], eye["y"], eye["t"], eye["lower"]
        shut_line = lower - 0.25 * (lower - eye["upper"])
        drop = blink + (1 - blink) * float(np.clip(0.5 * gaze[1], -0.1, 0.3))
        upper = eye["upper"] + (shut_line - eye["upper"]) * drop
        lower = lower + (shut_line - lower) * blink
        radius = np.hypot(x - centre[0], y + 0.02 - centre[1])
        ring = radius / IRIS
        shade = 0.62 + 0.55 * smoothstep(0.2, 0.95, ring)
        shade *= 1 - 0.55 * smoothstep(0.78, 1.0, ring)
        iris = _planes(np.minimum(i.iris * 1.15, 1)) * (1.25 - 0.4 * shade)
        iris = iris * (1 - 0.45 * smoothstep(0.75, 1.0, ring))
        iris = _mix(iris, _planes((0.02, 0.02, 0.02)), smoothstep(0.5, 0.38, ring))
        white = _planes(SCLERA) * (1 - 0.22 * t**2) * _planes((1, 0.98, 0.97))
        ball = _mix(white, iris, smoothstep(IRIS + soft / 2, IRIS - soft / 2, radius))
        ball = ball * (0.6 + 0.4 * smoothstep(0.0, 0.14, y - upper))  # shadow of the lid
        spark = np.hypot(x - centre[0] - 0.09 * light[0], y - centre[1] - 0.09 * light[1])
        ball = _mix(ball, _planes((1, 1, 1)), 0.9 * smoothstep(0.055, 0.03, spark))
        corner = smoothstep(1.0, 0.82, np.abs(t))
        cover = smoothstep(-soft / 2, soft / 2, y - upper) * smoothstep(-soft / 2, soft / 2, lower - y) * corner
        colour = _mix(eye["shut"], ball, cover)
        reach = smoothstep(1.12, 0.95, np.abs(t))
        lash = np.exp(-(((y - upper + 0.012) / 0.035) ** 2)) * (0.85 if not i.masculine else 0.7)
        lash = lash + 0.35 * np.exp(-(((y - lower) / 0.022) ** 2))
        colour = _mix(colour, _planes(i.hair * 0.25), np.clip(lash * reach, 0, 1))
        self.picture[eye["row"], eye["column"]] = _to_bytes(colour)[:, 0].T


def _mix(under: np.ndarray, over: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Blend planes: `over` with opacity `share` (rows, columns) on `under`."""
    return under + (over - under) * share


def _planes(colour: ArrayLike) -> np.ndarray:
    """A colour as (3, 1, 1) float32: planes of red, green and blue, so that numpy's inner loops are long."""
    return np.asarray(colour, dtype=np.float32).reshape(3, 1, 1)


def _to_bytes(colour: np.ndarray) -> np.ndarray:
    return (np.clip(colour, 0, 1) * 255 + 0.5).astype(np.uint8)
