"""A rendered person: numbers of shape, colour and style, drawn from one seed."""

import numpy as np

# Colours are RGB in [0, 1]. Skin lies on one curve from dark to light, so that its colour can be told from its
# brightness; so do hair and eyes. Assumption: the curves, by eye from photos.
SKIN = np.array([[0.27, 0.16, 0.11], [0.45, 0.29, 0.20], [0.62, 0.43, 0.32], [0.78, 0.58, 0.46], [0.90, 0.72, 0.62]])
HAIR = np.array([[0.05, 0.04, 0.04], [0.16, 0.10, 0.07], [0.33, 0.20, 0.12], [0.55, 0.38, 0.20], [0.78, 0.63, 0.40]])
GRAY_HAIR = np.array([0.66, 0.65, 0.64])
EYES = np.array([[0.13, 0.08, 0.05], [0.30, 0.18, 0.09], [0.36, 0.36, 0.20], [0.38, 0.52, 0.60]])
HAIR_STYLES = ("bald", "short", "full", "long")
BEARDS = ("none", "stubble", "moustache", "goatee", "full")


class Identity:
    """A rendered person: the same number is the same person.

    Lengths are in head units (half the distance between the eyes), angles in degrees, colours (3,) RGB in [0, 1].
    The other numbers are offsets around 0, about -1 to 1, or shares in [0, 1].
    """

    def __init__(self, number: int) -> None:
        rng = np.random.default_rng([number, 0])

        def spread(scale: float = 1.0) -> float:
            return float(np.clip(rng.normal(), -2, 2) * scale)

        tone = rng.uniform()
        self.masculine = masculine = float(rng.uniform() < 0.5)
        self.age = age = float(rng.uniform() ** 1.5)
        self.skin = _on_curve(SKIN, tone) * (1 + spread(0.015) * np.array([1, 0, -1]))
        fairness = np.clip(0.15 + 0.7 * tone, 0, 1)  # light hair and eyes go with light skin
        shade = rng.uniform() ** 1.5 * fairness
        hair = _on_curve(HAIR, shade)
        self.hair = hair + (GRAY_HAIR - hair) * max(0.0, age - 0.55) * 2 * rng.uniform()
        self.iris = _on_curve(EYES, rng.uniform() ** 1.2 * fairness)
        lips = self.skin * np.array([0.98, 0.72, 0.74]) + np.array([0.02, 0.0, 0.01]) * spread()
        self.lips = lips if masculine else lips * np.array([1.0, 0.88, 0.9])
        style = rng.choice(HAIR_STYLES, p=(0.14, 0.46, 0.36, 0.04) if masculine else (0.0, 0.1, 0.25, 0.65))
        beard = rng.choice(BEARDS, p=(0.4, 0.2, 0.1, 0.12, 0.18)) if masculine else "none"
        self.hair_style, self.beard = str(style), str(beard)
        lean = 2 * masculine - 1
        # Assumption: means and spreads after anthropometry; of head, jaw, chin, nose and mouth measured with YuNet
        self.head_width = spread(0.04) + 0.02 * lean + 0.07
        self.head_length = spread(0.05)
        self.jaw_width = spread(0.07) + 0.05 * lean + 0.06
        self.chin_length = spread(0.055) + 0.08 * lean + 0.12
        self.chin_depth = spread(0.1) + 0.04 * lean
        self.cheekbones = spread(0.09)
        self.cheek_fat = spread(0.11)
        self.forehead = spread(0.1) - 0.05 * lean
        self.brow_ridge = spread(0.05) + 0.06 * lean
        self.brow_height = spread(0.09) - 0.06 * lean
        self.brow_thickness = 0.125 + spread(0.035) + 0.03 * lean
        self.brow_arch = 0.1 + spread(0.07) - 0.03 * lean
        self.brow_tilt = spread(0.1)
        self.eye_spacing = spread(0.03)
        self.eye_width = 0.47 + spread(0.045)
        self.eye_height = 0.165 + spread(0.03) - 0.012 * lean
        self.eye_tilt = spread(0.05) - 0.02
        self.eye_depth = spread(0.06) + 0.03 * lean
        self.lid_crease = float(rng.uniform())
        self.nose_length = spread(0.035) - 0.19
        self.nose_width = 0.36 + spread(0.07) + 0.02 * lean
        self.nose_bridge = spread(0.1) + 0.03 * lean
        self.nose_depth = spread(0.1) + 0.04 * lean
        self.nose_tip = spread(0.08)
        self.mouth_width = 0.84 + spread(0.04)
        self.mouth_height = spread(0.02) - 0.09
        self.upper_lip = 0.16 + spread(0.055) - 0.02 * lean
        self.lower_lip = 0.22 + spread(0.055) - 0.02 * lean
        self.mouth_depth = spread(0.05)
        self.ears = spread(0.12)
        self.hairline = spread(0.2) - 0.3 * masculine * age
        self.hair_volume = float(rng.uniform(0.12, 0.32) if style == "short" else rng.uniform(0.3, 0.6))
        self.fringe = float(rng.uniform() < (0.15 if masculine else 0.35)) * float(rng.uniform(0.4, 0.9))
        self.parting = float(rng.choice([-1, 0, 1])) * float(rng.uniform(0.3, 0.9))
        self.curls = float(rng.uniform() < 0.3) * float(rng.uniform(0.4, 1))
        # 0: none, else the size of the lenses.
        self.glasses = float(rng.uniform(0.58, 0.72)) * float(rng.uniform() < 0.22)
        self.glasses_colour = np.array([0.08, 0.07, 0.07]) + rng.uniform() ** 3 * np.array([0.5, 0.42, 0.3])
        self.glasses_round = float(rng.uniform(2, 5))
        self.freckles = float(rng.uniform() < 0.2) * float(rng.uniform()) * tone
        self.blush = float(rng.uniform(0.3, 1.0))
        self.texture_seed = int(rng.integers(2**31))


def _on_curve(curve: np.ndarray, position: float) -> np.ndarray:
    """The colour at `position` in [0, 1] of a (k, 3) polyline."""
    steps = np.linspace(0, 1, len(curve))
    return np.array([np.interp(position, steps, channel) for channel in curve.T])
