"""What a result keeps of its input: known pixels and luminance, the light and colour that no degradation takes, and,
of a crop that is put back at its place in a frame, all around the face.

Images are (h, w, 3) uint8 RGB; a hole is (h, w) bool, True where nothing is known.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from svfr.data.faces import feather, fit, oval, region
from svfr.data.frames import resize, to_gray
from svfr.data.video import DEEP
from svfr.inference.settings import Sampling

# The blur below which nothing is kept, of the crop's side. At 512 px (sigma 16) what the presets of
# `svfr.data.degradations` leave of real clips is 42 (`svfr`) to 48 dB from the truth, which no restoration reaches.
TONE_SIGMA = 1 / 32
FINEST_SIGMA = 6.0  # [px] a blur that is made at a smaller size is no finer than this
RELAXATIONS = 8  # of each level of `fill_smoothly`; more change nothing that can be seen
DETAIL_FADE, TONE_FADE = 0.3, 0.6  # Assumption: shares of the oval over which detail, and light and colour, fade in
# Assumption: shares of the crop's side: sigma with which a filled hole fades out around it; width over which those that
# reach beyond the crop fade into what fills them there.
HOLE_EDGE, HOLE_FADE = 1 / 128, 1 / 32
# Assumption: sigma with which a face fades out towards what is in front of it, a share of the crop's side; shares of
# the oval between which a parsed face is more and more believed: one with less was too blurred to parse.
FACE_EDGE, BELIEVED = 1 / 64, (0.3, 0.6)


@dataclass(frozen=True)
class KeepRules:
    """Which part of its input a result keeps."""

    known: bool = False  # the pixels outside of the holes
    luminance: bool = False  # their luma
    tone: bool = False  # their light and colour, as far as they change slowly over the image; see `colorizing`
    colorizing: bool = False  # the input has no colours: the tone is light alone

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
        """Put what is kept of `source`, the input before it was made gray or painted, into `restored`.

        In holes nothing is known; they take the change of what surrounds them, so that no seam shows. `side` [px] is
        that of the restored square, of which the images may be a part.
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
        return np.rint(np.clip(restored + change, 0, 255)).astype(np.uint8)


def put_back(
    below: np.ndarray,
    image: np.ndarray,
    restored: np.ndarray,
    box: np.ndarray | None,
    hole: np.ndarray | None,
    keep: KeepRules,
    landmarks: np.ndarray | None = None,
    blend: float = 1.0,
    visible: np.ndarray | None = None,
) -> np.ndarray:
    """A restored crop pasted on a frame.

    It fades in over an oval around the face, light and colour more slowly than detail (the bands of Burt & Adelson
    1983). Holes are pasted whole.

    Args:
        below: (h, w, 3) to paste on: the frame, or a result with another face in it; uint16 if the frame is deep.
        image: of the input frame.
        restored: (s, s, 3) uint8.
        box: (4,) square of the crop [px]; None is the whole frame.
        hole: of the frame.
        keep: what is kept of the input.
        landmarks: (5, 2) of the face in the frame [px], as which the oval leans.
        blend: share of the result in the paste, 0 to 1.
        visible: (s, s) uint8, 255 where the crop shows the face, as a parsing network has it, 0 where something else;
            the less of the oval it leaves, the less it is believed.
    """
    height, width = image.shape[:2]
    x0, y0, x1, y1 = inside = (0, 0, width, height) if box is None else region(box, width, height)
    if x0 == x1 or y0 == y1:
        return below
    side = min(width, height) if box is None else box[2] - box[0]
    source, cut_hole = image[y0:y1, x0:x1], None if hole is None else hole[y0:y1, x0:x1]
    patch = resize(restored, width, height) if box is None else fit(restored, box, inside)
    patch = keep.apply(patch, source, cut_hole, side).astype(np.float32)
    alpha = np.full((y1 - y0, x1 - x0, 1), blend, np.float32)
    if box is not None:
        toned = keep_tone(patch, source, cut_hole, TONE_SIGMA * side, luma_only=False)
        patch += (1 - oval(box, inside, landmarks, TONE_FADE)) * (toned - patch)
        shape = oval(box, inside, landmarks, DETAIL_FADE)
        if visible is not None and shape.any():
            edge = blur(fit(visible, box, inside) / np.float32(255), FACE_EDGE * side)[..., None]
            belief = np.interp((shape * edge).sum() / shape.sum(), BELIEVED, (0, 1))
            shape = shape * (1 - np.float32(belief) * (1 - edge))
        alpha *= shape
    if cut_hole is not None and cut_hole.any():
        spread = np.clip(2 * blur(cut_hole.astype(np.float32), HOLE_EDGE * side), cut_hole, 1)[..., None]
        alpha = np.maximum(alpha, spread if box is None else spread * feather(box, inside, HOLE_FADE))
    if below.dtype != np.uint8:
        patch *= DEEP
    result = below.copy()
    under = result[y0:y1, x0:x1].astype(np.float32)
    result[y0:y1, x0:x1] = np.rint(np.clip(under + alpha * (patch - under), 0, np.iinfo(result.dtype).max))
    return result


def keep_luma(restored: np.ndarray, source: np.ndarray) -> np.ndarray:
    """Colours of `restored` with the luma of `source`.

    A colour that the luma leaves no room for is moved towards gray until it fits, so that the luma is kept to the
    rounding and the hue stays.
    """
    luma = to_gray(source).astype(np.float32)
    chroma = restored.astype(np.float32) - to_gray(restored)
    room = np.where(chroma > 0, 255 - luma, luma)
    scale = np.min(room / np.maximum(np.abs(chroma), 1e-6), axis=-1, keepdims=True)
    return np.rint(luma + np.minimum(scale, 1) * chroma).astype(np.uint8)


def keep_tone(
    restored: np.ndarray, source: np.ndarray, hole: np.ndarray | None, sigma: float, luma_only: bool
) -> np.ndarray:
    """The blur of `source`, its light and colour, plus what `restored` has above its own blur, its detail.

    What diffusion-based restorers know as a colour fix (StableSR's code does it by wavelets). `sigma` of the blur is in
    px; `luma_only` leaves colours as they are. The result is float32, not clipped.
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
    """Gaussian blur by `sigma` [px] of a float32 image (h, w) or (h, w, 3), which is mirrored at its borders.

    A wide one is made at a smaller size, many times faster. Shrinking and growing an image blur it too, here by less
    than a hundredth of the variance that is asked for.
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
    """Continue an image (h, w, 3) float32 into its unknown pixels, about as a soap film does; 0 if nothing is known.

    Known pixels are averaged to half the size until nothing is unknown; on the way back, each size starts from the
    coarser one and is relaxed towards the mean of its neighbours. This is the membrane of Poisson image editing (Perez
    et al. 2003), solved to what the eye needs.
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
