"""The motion of a rendered clip: pose, speech, blinking, gaze, light and camera, as curves over the frames."""

from collections.abc import Callable

import numpy as np

FPS = 25
Draw = Callable[[np.random.Generator], float]


class Motion:
    """Curves of a clip, one value per frame. Angles in radians, lengths in head units.

    The first frames are the same however many follow.

    Attributes:
        pose: (f, 3) yaw (positive: to image right), pitch (positive: down), roll (positive: clockwise).
        shift: (f, 2) of the head in the frame, x right and y down.
        scale: (f,) of the head in the frame, about 1.
        jaw, lips, pucker, smile, brows, blink: (f,) in [0, 1]; smile and brows from about -0.3.
        gaze: (f, 2) direction of the eyes, relative to the camera: to image right, down.
        light: (f, 3) unit vector towards the light, x right, y down, z to the camera.
        key, ambient: (f,) strength of the light and of its surroundings.
        camera: (f, 2) drift of the background.
    """

    def __init__(self, seed: int, num_frames: int) -> None:
        streams = iter(np.random.default_rng([seed, 1]).spawn(24))

        def curve(low: float, high: float, value: Draw, sharp: bool = False) -> np.ndarray:
            return _keyframes(next(streams), num_frames, low, high, value, sharp)

        def wander(scale: float, low: float = 12, high: float = 40) -> np.ndarray:
            return curve(low, high, lambda r: float(np.clip(r.normal(), -2, 2)) * scale)

        base = next(streams)
        yaw = np.clip(base.normal(0, 13) + wander(9), -38, 38)
        pitch = np.clip(base.normal(0, 5) + wander(4.5), -16, 16)
        roll = np.clip(base.normal(0, 3.5) + wander(3), -14, 14)
        self.pose = np.radians(np.stack([yaw, pitch, roll], axis=1))
        talking = curve(25, 60, lambda r: float(r.uniform() < 0.8))
        openness = curve(2.5, 5, lambda r: float(r.uniform(0, 1) ** 1.5))
        self.pucker = curve(4, 9, lambda r: float(r.uniform(0, 1) ** 2)) * talking
        smile = curve(30, 80, lambda r: float(np.clip(r.normal(0.15, 0.4), -0.3, 1)))
        azimuth = np.radians(base.uniform(-75, 75) + wander(28, 20, 60))
        elevation = np.radians(base.uniform(5, 50) + wander(10, 20, 60))
        level = np.cos(elevation)
        self.light = np.stack([np.sin(azimuth) * level, -np.sin(elevation), np.cos(azimuth) * level], axis=1)
        contrast = base.uniform(0.35, 0.8)
        exposure = base.uniform(0.85, 1.15)
        flicker = 1 + wander(0.05, 10, 30)
        self.shift = np.stack([base.normal(0, 0.08) + wander(0.07), base.normal(0, 0.08) + wander(0.05)], axis=1)
        self.scale = 1 + np.clip(base.normal(0, 0.03), -0.06, 0.06) + wander(0.012)
        self.jaw = openness * talking
        self.lips = np.clip(openness * talking * 1.3 + 0.1, 0, 1) * (0.3 + 0.7 * talking)
        self.smile = smile * (1 - 0.5 * self.pucker)
        self.brows = curve(15, 50, lambda r: float(np.clip(r.normal(0, 0.4), -0.3, 1)))
        self.blink = _blinks(next(streams), num_frames)
        across = curve(8, 40, lambda r: float(r.normal(0, 7)), sharp=True)
        down = curve(8, 40, lambda r: float(r.normal(0, 3)), sharp=True)
        self.gaze = np.radians(np.stack([across, down], axis=1))
        self.key = exposure * contrast * 1.3 * flicker
        self.ambient = exposure * (1.0 - contrast) * np.ones(num_frames)
        self.camera = np.stack([wander(0.5, 20, 60), wander(0.25, 20, 60)], axis=1)


def _keyframes(
    rng: np.random.Generator, num_frames: int, low: float, high: float, value: Draw, sharp: bool
) -> np.ndarray:
    """(f,) values drawn every `low` to `high` frames; smooth between them, or held and changed within 2 frames."""
    times, values = [-float(rng.uniform(0, high))], [value(rng)]
    while times[-1] < num_frames:
        times.append(times[-1] + float(rng.uniform(low, high)))
        values.append(value(rng))
    frames = np.arange(num_frames)
    after = np.searchsorted(times, frames, side="right")
    left, right = np.array(times)[after - 1], np.array(times)[after]
    # Assumption: a saccade takes about 2 frames (80 ms)
    part = np.clip((frames - left) / (2.0 if sharp else right - left), 0, 1)
    drawn = np.array(values)
    if sharp:
        past = drawn[np.maximum(after - 2, 0)]
        return past + (drawn[after - 1] - past) * part
    ease = part * part * (3 - 2 * part)
    return drawn[after - 1] * (1 - ease) + drawn[after] * ease


def _blinks(rng: np.random.Generator, num_frames: int) -> np.ndarray:
    """(f,) how far the eyes are shut: every 2 to 5 s for about 0.25 s."""
    frames = np.arange(num_frames)
    shut = np.zeros(num_frames)
    centre = float(rng.uniform(0, 4 * FPS))
    while centre < num_frames + FPS:
        width = float(rng.uniform(1.6, 2.6))
        shut = np.maximum(shut, np.exp(-(np.abs((frames - centre) / width) ** 2.5)))
        centre += float(rng.uniform(1.2, 4.5)) * FPS
    return np.where(shut > 0.02, np.minimum(shut * 1.15, 1), 0)
