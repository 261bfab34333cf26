"""Renders a clip frame by frame: poses the person's mesh, shades it, and rasterizes it before the background."""

from dataclasses import dataclass, replace

import cv2
import numpy as np

from svfr.synthetic.background import Background
from svfr.synthetic.curves import power
from svfr.synthetic.identity import Identity
from svfr.synthetic.motion import Motion
from svfr.synthetic.raster import interpolate, rasterize
from svfr.synthetic.shape import PIVOT, Shape
from svfr.synthetic.template import glasses
from svfr.synthetic.texture import Paint

SUPERSAMPLING = 2
# Head units that fit into the side of a frame: FFHQ's template has eyes 126 px apart at 512 px.
FRAME_UNITS = 512 / 126 * 2
EYE_LEVEL = 240 / 512  # share of the frame above the eyes, FFHQ's template
CAMERA_DISTANCE = 24.0  # head units, about 75 cm
FACE_CENTRE = np.array([0.0, 0.9, 0.4])  # this point of the head is kept near its place in the frame
STEADINESS = 0.75  # Assumption: share of its movement that the crop follows
SHININESS = 14
FRAME_THICKNESS = 0.07  # of glasses, head units


@dataclass(frozen=True)
class RenderedClip:
    """A rendered talking head."""

    frames: np.ndarray  # (f, size, size, 3) uint8 RGB, at `FPS`
    landmarks: np.ndarray  # (f, 68, 2) float32 iBUG points [px], image left first; hidden ones included
    identity: int  # the number of the person


def render_clip(seed: int, num_frames: int, size: int, identity: int | None = None) -> RenderedClip:
    """Render a clip of a talking head; equal arguments give equal clips.

    A `seed` >= 0 of pose, speech, light, clothes and background; `num_frames` >= 1 with sides of `size` >= 16 px, at
    any of which the scene is the same; the number `identity` >= 0 of the person, by default one that belongs to the
    seed. A ValueError for a number out of its range.
    """
    identity = seed if identity is None else identity
    limits = {"seed": (seed, 0), "num_frames": (num_frames, 1), "size": (size, 16), "identity": (identity, 0)}
    for name, (value, least) in limits.items():
        if value < least:
            raise ValueError(f"{name} is {value}: it must be at least {least}")
    person, motion = Identity(identity), Motion(seed, num_frames)
    scene = _Scene(person, np.random.default_rng([seed, 2]), size)
    rendered = [scene.frame(motion, index) for index in range(num_frames)]
    frames, landmarks = zip(*rendered, strict=True)
    return RenderedClip(np.stack(frames), np.stack(landmarks), identity)


class _Scene:
    """A person with clothes before a background."""

    def __init__(self, person: Identity, rng: np.random.Generator, size: int) -> None:
        self.person, self.size, self.large = person, size, size * SUPERSAMPLING
        self.shape = Shape(person)
        brightness = float(rng.uniform())
        clothes = np.array([0.06, 0.07, 0.11]) * (1 - brightness) + np.array([0.86, 0.85, 0.82]) * brightness
        clothes += 4 * brightness * (1 - brightness) * np.array([-0.10, -0.03, 0.06])
        self.unit = self.large / FRAME_UNITS
        density = float(np.clip(self.unit, 20, 90))
        self.paint = Paint(person, clothes, float(rng.uniform(0.1, 0.9)), density)
        self.background = Background(rng, size)
        tint = float(rng.normal(0, 0.03))
        self.tint = np.array([1 + tint, 1, 1 - tint], dtype=np.float32)

    def frame(self, motion: Motion, index: int) -> tuple[np.ndarray, np.ndarray]:
        """(size, size, 3) uint8 and (68, 2) float32 [px]."""
        rotation = _rotation(motion.pose[index])
        names = ("jaw", "lips", "pucker", "smile", "brows")
        head, uv = self.shape.head({name: float(getattr(motion, name)[index]) for name in names})
        moved = FACE_CENTRE - PIVOT
        offset = FACE_CENTRE - STEADINESS * (rotation @ moved + PIVOT) - (1 - STEADINESS) * FACE_CENTRE
        offset[:2] += motion.shift[index]
        scale = float(motion.scale[index])
        vertices, values = [], []  # of each part: positions; place in the atlas [texels], light and highlight
        for part in (replace(self.shape.grids[0], rest=head, uv=uv), *self.shape.grids[1:]):
            position = _pose(part.rest, part.follow, rotation, offset)
            texels = part.uv.reshape(2, -1) * self.paint.density - 0.5
            vertices.append(position.reshape(3, -1))
            values.append(np.stack([*texels, *self._shade(position, motion, index)]))
        position, value = np.concatenate(vertices, axis=1), np.concatenate(values, axis=1).astype(np.float32)
        gaze = motion.gaze[index] - 0.6 * motion.pose[index, :2]
        self.paint.open_eyes(float(motion.blink[index]), np.clip(gaze, -0.5, 0.5), rotation.T @ motion.light[index])
        behind = self.background.frame(index, motion.camera[index], self.unit / SUPERSAMPLING)
        picture = self._draw(self._project(position, scale), position[2], value, behind)
        if self.person.glasses:
            lines = [_pose(line, np.ones(line.shape[1]), rotation, offset) for line in glasses(self.person)]
            # The temple on the far side of a turned head is hidden.
            hidden = 4 if motion.pose[index, 0] > 0.12 else 3 if motion.pose[index, 0] < -0.12 else -1
            seen = [self._project(line, scale) for number, line in enumerate(lines) if number != hidden]
            self._draw_glasses(picture, seen, float(np.median(value[2])))
        picture = cv2.resize(picture, (self.size, self.size), interpolation=cv2.INTER_AREA)
        points = _pose(self.shape.landmark_positions(head), np.ones(68), rotation, offset)
        return picture, (self._project(points, scale).T + 0.5) / SUPERSAMPLING - 0.5

    def _project(self, position: np.ndarray, scale: float) -> np.ndarray:
        """(3, n) positions -> (2, n) float32 px of the supersampled frame."""
        zoom = scale * self.unit * CAMERA_DISTANCE / (CAMERA_DISTANCE - position[2])
        origin = np.array([[0.5], [EYE_LEVEL]]) * self.large - 0.5
        return (position[:2] * zoom + origin).astype(np.float32)

    def _shade(self, position: np.ndarray, motion: Motion, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Diffuse light and highlight at each vertex of a posed (3, r, c) grid, both (r * c,)."""
        normal = _normals(position).reshape(3, -1)
        light = motion.light[index].astype(np.float32)
        half = light + np.array([0, 0, 1], dtype=np.float32)
        half /= np.linalg.norm(half)
        wrapped = np.maximum((light @ normal + 0.25) / 1.25, 0)
        amount = motion.ambient[index] * (0.8 - 0.2 * normal[1]) + motion.key[index] * wrapped
        shine = motion.key[index] * power(np.maximum(half @ normal, 0), SHININESS)
        # Light adds up linearly, pictures are stored about as its square root.
        return np.sqrt(amount), 0.09 * 255 * shine

    def _draw(self, points: np.ndarray, depth: np.ndarray, values: np.ndarray, behind: np.ndarray) -> np.ndarray:
        """Draw the mesh, points (2, v) with values (4, v), before a background: supersampled picture, uint8."""
        visible = rasterize(points, depth, self.shape.triangles, self.large)
        u, v, light, shine = interpolate(visible, values, points, self.large)
        colour = _lookup(self.paint.picture, u, v)
        picture = cv2.resize(behind, (self.large, self.large), interpolation=cv2.INTER_LINEAR)
        flat = picture.reshape(-1, 3)
        for channel in range(3):
            lit = colour[:, channel] * (light * self.tint[channel]) + shine
            flat[visible.pixels, channel] = np.minimum(lit, 255)
        return picture

    def _draw_glasses(self, picture: np.ndarray, lines: list[np.ndarray], light: float) -> None:
        colour = tuple(float(c) for c in self.person.glasses_colour * 255 * light)
        thickness = max(1, round(FRAME_THICKNESS * self.unit))
        fixed = [np.round(line.T * 16).astype(np.int32)[:, None] for line in lines]  # 1/16 px
        cv2.polylines(picture, fixed, False, colour, thickness, cv2.LINE_AA, 4)


def _lookup(picture: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """(n, 3) colours of a picture at columns u and rows v (n,) float32, linear between pixels."""
    columns = 1024  # cv2.remap takes less than 32768 pixels a side
    count = len(u)
    maps = np.zeros((2, -(-count // columns), columns), dtype=np.float32)
    maps.reshape(2, -1)[:, :count] = u, v
    return cv2.remap(picture, maps[0], maps[1], cv2.INTER_LINEAR).reshape(-1, 3)[:count]


def _normals(position: np.ndarray) -> np.ndarray:
    """Unit normals, outwards, of a grid's (3, r, c) vertices."""
    down, right = np.empty_like(position), np.empty_like(position)
    down[:, 1:-1] = position[:, 2:] - position[:, :-2]
    down[:, 0], down[:, -1] = position[:, 1] - position[:, 0], position[:, -1] - position[:, -2]
    right[..., 1:-1] = position[..., 2:] - position[..., :-2]
    right[..., 0], right[..., -1] = position[..., 1] - position[..., 0], position[..., -1] - position[..., -2]
    (ax, ay, az), (bx, by, bz) = right, down
    normal = np.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx])
    return normal / (np.sqrt((normal * normal).sum(axis=0)) + 1e-9)


def _rotation(pose: np.ndarray) -> np.ndarray:
    """(3, 3) of yaw, pitch, roll [rad]; positive turns the face to image right, down, clockwise."""
    (cy, cp, cr), (sy, sp, sr) = np.cos(pose), np.sin(pose)
    yaw = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    pitch = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    roll = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return roll @ yaw @ pitch


def _pose(position: np.ndarray, follow: np.ndarray, rotation: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Positions (3, ...) turned about the pivot by their share `follow`, and shifted; float32."""
    flat, pivot = position.reshape(3, -1), PIVOT[:, None].astype(np.float32)
    turned = rotation.astype(np.float32) @ (flat - pivot) + pivot
    moved = flat + (turned - flat) * follow.reshape(-1) + offset[:, None]
    return moved.astype(np.float32).reshape(position.shape)
