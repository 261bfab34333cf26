"""What a result keeps of its input: known pixels, known luminance, the light and colour that no degradation takes.

Images are (h, w, 3) uint8 RGB.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from svfr.data.frames import to_gray
from svfr.inference.settings import Sampling

# The blur below which nothing is kept, of the crop's side. At 512 px (sigma 16) what the presets of
# `svfr.data.degradations` leave of real clips is 42 (`svfr`) to 48 dB from the truth, which no restoration reaches.
TONE_SIGMA = 1 / 32
FINEST_SIGMA = 6.0  # [px] a blur that is made at a smaller size is no finer than this
RELAXATIONS = 8  # of each level of `fill_smoothly`; more change nothing that can be seen


@dataclass(frozen=True)
class KeepRules:
    """Which part of its input a result keeps.

    Attributes:
        known: the pixels outside of the holes.
        luminance: their luma.
        tone: their light and colour, as far as they change slowly over the image; light alone when colorizing.
        colorizing: the input has no colours.
    """

    known: bool = False
    luminance: bool = False
    tone: bool = False
    colorizing: bool = False

    @classmethod
    def resolve(cls, tasks: tuple[str, ...], sampling: Sampling) -> "KeepRules":
        """The rules of resolved settings that the tasks allow."""
        colorizing, bfr = "colorization" in tasks, "bfr" in tasks
        return cls(
            known=bool(sampling.keep_known) and tasks == ("inpainting",),
            luminance=bool(sampling.keep_luminance) and colorizing and not bfr,
            tone=bool(sampling.keep_tone) and bfr,
            colorizing=colorizing,
        )

    @property
    def anything(self) -> bool:
        """Whether any rule applies."""
        return self.known or self.luminance or self.tone

    def apply(self, restored: np.ndarray, source: np.ndarray, hole: np.ndarray | None, side: float) -> np.ndarray:
        """Put what is kept of `source` into `restored`.

        In holes nothing is known; they take the change of what surrounds them, so that no seam shows.

        Args:
            restored: (h, w, 3).
            source: (h, w, 3), the input before it was made gray or painted.
            hole: (h, w) bool, True where nothing is known.
            side: [px] of the restored square, of which the images may be a part.
        """
        if self.known:
            kept = source
        elif self.luminance:
            kept = keep_luma(restored, source)
        elif self.tone:
            kept = keep_tone(restored, source, hole, TONE_SIGMA * side, self.colorizing)
        else:
            return restored
        change = kept.astype(np.float32) - restored
        if hole is not None:
            change = fill_smoothly(change, ~hole)
        return _to_uint8(restored + change)


def keep_luma(restored: np.ndarray, source: np.ndarray) -> np.ndarray:
    """Colours of `restored` with the luma of `source`; both (h, w, 3) uint8.

    A colour that the luma leaves no room for is moved towards gray until it fits, so that the luma is kept to the
    rounding and the hue stays.
    """
    luma = to_gray(source).astype(np.float32)
    chroma = restored.astype(np.float32) - to_gray(restored)
    room = np.where(chroma > 0, 255 - luma, luma)
    fit = np.min(room / np.maximum(np.abs(chroma), 1e-6), axis=-1, keepdims=True)
    return np.rint(luma + np.minimum(fit, 1) * chroma).astype(np.uint8)


def keep_tone(
    restored: np.ndarray, source: np.ndarray, hole: np.ndarray | None, sigma: float, luma_only: bool
) -> np.ndarray:
    """The blur of `source`, its light and colour, plus what `restored` has above its own blur, its detail.

    What diffusion-based restorers know as a colour fix (StableSR's code does it by wavelets).

    Args:
        restored: (h, w, 3) uint8.
        source: (h, w, 3) uint8.
        hole: (h, w) bool, pixels of `source` that don't count.
        sigma: of the blur [px].
        luma_only: leave colours as they are.

    Returns:
        (h, w, 3) float32, not clipped.
    """
    pair = (to_gray(source), to_gray(restored)) if luma_only else (source, restored)
    error = pair[0].astype(np.float32) - pair[1]
    if hole is None:
        return restored + blur(error, sigma)
    known = (~hole).astype(np.float32)
    weight = blur(known, sigma)
    blurred = blur(error * known[..., None], sigma)
    return restored + blurred / np.maximum(weight, 1e-6)[..., None]


def blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur of a float32 image (h, w) or (h, w, 3); a wide one is made at a smaller size, many times faster.

    Shrinking and growing an image blur it too, here by less than a hundredth of the variance that is asked for.

    Args:
        image: to blur, mirrored at its borders.
        sigma: [px].
    """
    shrinkage = int(sigma / FINEST_SIGMA)
    if shrinkage < 2:
        return cv2.GaussianBlur(image, (0, 0), sigma)
    height, width = image.shape[:2]
    size = max(1, round(width / shrinkage)), max(1, round(height / shrinkage))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), sigma * size[0] / width, sigmaY=sigma * size[1] / height)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)


def fill_smoothly(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Continue an image into its unknown pixels, about as a soap film does, from its border inwards.

    Known pixels are averaged to half the size until nothing is unknown; on the way back, each size starts from the
    coarser one and is relaxed towards the mean of its neighbours. This is the membrane of Poisson image editing (Perez
    et al. 2003), solved to what the eye needs.

    Args:
        values: (h, w, 3) float32.
        known: (h, w) bool.

    Returns:
        (h, w, 3) float32, equal to `values` where known; 0 if nothing is.
    """
    if known.all():
        return values
    values = np.where(known[..., None], values, np.float32(0))
    if known.size == 1:
        return values
    height, width = known.shape
    half = (width + 1) // 2, (height + 1) // 2
    weight = cv2.resize(known.astype(np.float32), half, interpolation=cv2.INTER_AREA)
    means = cv2.resize(values, half, interpolation=cv2.INTER_AREA) / np.maximum(weight, 1e-6)[..., None]
    coarse = fill_smoothly(means, weight > 0)
    filled = np.where(known[..., None], values, cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR))
    neighbours = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]], dtype=np.float32) / 4
    for _ in range(RELAXATIONS):
        mean = cv2.filter2D(filled, -1, neighbours, borderType=cv2.BORDER_REPLICATE)
        filled = np.where(known[..., None], values, mean)
    return filled


def _to_uint8(image: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(image, 0, 255)).astype(np.uint8)
