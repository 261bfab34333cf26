"""The template of a head: the surface of a face, and where its features and landmarks are, as functions of identity.

Axes in head units (half the distance between the eyes): x to image right, y down, z to the camera; the origin lies
between the eyes.
"""

import numpy as np

from svfr.synthetic.curves import bump, power, smoothstep
from svfr.synthetic.identity import Identity

MOUTH_Y = 2.12  # height of the line between the lips

# Assumption: an average head, after anthropometry (face 13.5 cm wide, eyes 6.3 cm apart) and by eye; its front (z),
# like the nose in `relief`, measured with YuNet, so that it reads the face without offset. Horizontal sections: height,
# half width, and z of front, centre and back.
SECTIONS = {
    "height": [-3.75, -3.6, -3.2, -2.6, -1.9, -1.2, -0.5, 0.2, 0.8, 1.5, 2.1, 2.6, 3.0, 3.35, 3.6, 3.72],
    "half_width": [0.05, 1.0, 1.65, 2.1, 2.32, 2.38, 2.38, 2.34, 2.24, 2.06, 1.84, 1.58, 1.28, 0.92, 0.52, 0.08],
    "front": [-2.1, -1.25, -0.6, -0.12, 0.17, 0.34, 0.45, 0.55, 0.08, 0.19, 0.11, 0.01, 0.01, -0.02, -0.22, -0.75],
    "centre": [-2.4, -2.4, -2.4, -2.4, -2.4, -2.4, -2.3, -2.3, -2.2, -2.1, -1.9, -1.6, -1.3, -1.0, -0.9, -0.9],
    "back": [-2.7, -3.6, -4.5, -5.0, -5.3, -5.4, -5.3, -5.0, -4.6, -4.2, -3.8, -3.0, -2.4, -1.8, -1.5, -1.1],
}


def hairline(identity: Identity, angle: np.ndarray) -> np.ndarray:
    """Height (y, template) down to which hair grows at each angle [rad] around the head."""
    degrees = np.abs(np.degrees(angle))
    heights = [-2.0, -1.95, -1.7, -1.1, -0.7, 0.35, 0.45, -0.1, 0.2, 2.0, 2.4]
    line = np.interp(degrees, [0, 22, 40, 52, 64, 70, 76, 84, 92, 112, 150], heights)
    front = smoothstep(62, 45, degrees)
    side = smoothstep(-0.9, 0.9, angle * np.sign(identity.parting or 1) + 0.3)
    cover = identity.fringe * (0.55 + 0.45 * side)
    sweep = 0.45 * identity.parting * np.sin(1.6 * angle)
    return line + front * (cover * 1.25 + identity.hairline + sweep)


def template_x(identity: Identity, angle: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Sideways position of the head's surface at an angle [rad] and a height."""
    half = profile(SECTIONS, "half_width", y) * (1 + identity.head_width)
    cheeks = 0.3 * identity.cheek_fat * np.exp(-(((y - 1.5) / 0.9) ** 2))
    half = half * (1 + identity.jaw_width * smoothstep(1.0, 2.6, y) + cheeks)
    return half * np.sin(angle)


def relief(identity: Identity, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Height, towards the camera, of nose, brows, eye sockets, lips, chin and cheeks on the head's smooth front."""
    i = identity
    side = np.abs(x)
    eye_x = 1.0 + i.eye_spacing
    z = -(0.30 + i.eye_depth) * bump(side, y, eye_x - 0.05, 0.02, 0.5, 0.36)
    z += 0.2 * bump(side, y, eye_x, 0.02, 0.36, 0.24)
    z += (0.14 + i.brow_ridge) * bump(side, y, eye_x - 0.05, -0.55, 0.65, 0.22)
    z += 0.06 * bump(x, y, 0, -0.5, 0.4, 0.3)
    ridge = np.array([0.0, 0.15, 0.30, 0.53, 0.60, 0.63, 0.52, 0.29, 0.0])
    ridge = ridge + np.array([0, 1, 1, 0.6, 0.2, 0, 0, 0, 0]) * i.nose_bridge
    ridge = ridge + np.array([0, 0, 0.2, 0.6, 1, 1, 1, 0.5, 0]) * i.nose_depth
    height = np.interp(y, [-0.5, 0.0, 0.35, 0.8, 1.1, 1.23, 1.42, 1.55, 1.68], ridge)
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
    for side in (-1, 1):
        for number, t in enumerate((-1, -0.4, 0.4, 1, 0.4, -0.4)):
            outward = side * t
            upper, lower = lids(i, np.array(outward))
            y = (upper + lower) / 2 if number in (0, 3) else upper if number in (1, 2) else lower
            eyes.append((side * (1.0 + i.eye_spacing + i.eye_width * outward), float(y)))
    w = i.mouth_width
    mouth = [(t * w, MOUTH_Y - float(upper_lip(i, np.array(t * w)))) for t in (-1, -0.6, -0.22, 0, 0.22, 0.6, 1)]
    mouth += [(t * w, MOUTH_Y + float(lower_lip(i, np.array(t * w)))) for t in (0.6, 0.25, 0, -0.25, -0.6)]
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
    upper = middle - i.eye_height * 1.15 * arch**0.75 * (1 - 0.12 * t)
    return upper, middle + i.eye_height * 0.72 * arch * (1 + 0.15 * t)


def upper_lip(identity: Identity, x: np.ndarray) -> np.ndarray:
    """Height of the upper lip above the line between the lips, with the bow in its middle."""
    t = np.abs(x) / identity.mouth_width
    return identity.upper_lip * np.clip(1 - t**1.7, 0, 1) * (1 - 0.2 * np.exp(-((t / 0.14) ** 2)))


def lower_lip(identity: Identity, x: np.ndarray) -> np.ndarray:
    """Height of the lower lip below the line between the lips."""
    t = np.abs(x) / identity.mouth_width
    return identity.lower_lip * np.clip(1 - t**2.2, 0, 1)


def profile(sections: dict[str, list[float]], name: str, y: np.ndarray) -> np.ndarray:
    """A measure of the sections at heights y, smoothed over its corners."""
    reach = np.linspace(-0.18, 0.18, 5)[(...,) + (None,) * np.ndim(y)]
    return np.interp(y + reach, sections["height"], sections[name]).mean(axis=0)
