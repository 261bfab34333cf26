"""Put a restored crop back at its place in the frame."""

import numpy as np

from svfr.data.faces import feather, fit, oval, region
from svfr.data.frames import resize
from svfr.data.video import DEEP, Frame
from svfr.inference.keep import TONE_SIGMA, KeepRules, blur, keep_tone

DETAIL_FADE, TONE_FADE = 0.3, 0.6  # Assumption: shares of the oval over which detail, and light and colour, fade in
# Assumption: shares of the crop's side: sigma with which a filled hole fades out around it; width over which those that
# reach beyond the crop fade into what fills them there.
HOLE_EDGE, HOLE_FADE = 1 / 128, 1 / 32


def put_back(
    frame: Frame,
    restored: np.ndarray,
    box: np.ndarray | None,
    hole: np.ndarray | None,
    keep: KeepRules,
    *,
    landmarks: np.ndarray | None = None,
    blend: float = 1.0,
    below: np.ndarray | None = None,
) -> np.ndarray:
    """A restored crop at its place in the frame, at the frame's size; of a deep frame, in 16 bits.

    It fades in over an oval around the face, light and colour more slowly than detail (the bands of Burt & Adelson
    1983). Holes are pasted whole.

    Args:
        frame: the input.
        restored: (s, s, 3) uint8.
        box: (4,) square of the crop [px]; None is the whole frame.
        hole: (h, w) bool of the frame, True where nothing is known.
        keep: what is kept of the input.
        landmarks: (5, 2) of the face in the frame [px], as which the oval leans.
        blend: share of the result in the paste, 0 to 1.
        below: (h, w, 3) to paste on instead, such as a result with another face in it; deep if the frame is.
    """
    image = frame.image
    height, width = image.shape[:2]
    if below is None:
        below = image if frame.deep is None else frame.deep
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
        alpha *= oval(box, inside, landmarks, DETAIL_FADE)
    if cut_hole is not None and cut_hole.any():
        spread = np.clip(2 * blur(cut_hole.astype(np.float32), HOLE_EDGE * side), cut_hole, 1)[..., None]
        alpha = np.maximum(alpha, spread if box is None else spread * feather(box, inside, HOLE_FADE))
    result = below.copy()
    if frame.deep is not None:
        patch *= DEEP
    under = result[y0:y1, x0:x1].astype(np.float32)
    result[y0:y1, x0:x1] = np.rint(np.clip(under + alpha * (patch - under), 0, np.iinfo(result.dtype).max))
    return result
