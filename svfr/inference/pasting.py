"""Put a restored crop back at its place in the frame."""

import numpy as np

from svfr.data.faces import feather, fit, region
from svfr.data.frames import resize
from svfr.data.video import DEEP, Frame
from svfr.inference.keep import KeepRules


def put_back(
    frame: Frame, restored: np.ndarray, box: np.ndarray | None, hole: np.ndarray | None, keep: KeepRules
) -> np.ndarray:
    """A restored crop at its place in the frame, at the frame's size; of a deep frame, in 16 bits."""
    image = frame.image
    height, width = image.shape[:2]
    if box is None:
        return keep.apply(resize(restored, width, height), image, hole, min(width, height))
    x0, y0, x1, y1 = inside = region(box, width, height)
    if x0 == x1 or y0 == y1:
        return image if frame.deep is None else frame.deep
    below = image[y0:y1, x0:x1]
    cut_hole = None if hole is None else hole[y0:y1, x0:x1]
    patch = keep.apply(fit(restored, box, inside), below, cut_hole, box[2] - box[0])
    alpha = feather(box, inside)
    result, patch = image.copy(), patch.astype(np.float32)
    if frame.deep is not None:
        result, patch = frame.deep.copy(), patch * DEEP
    below = result[y0:y1, x0:x1]
    result[y0:y1, x0:x1] = np.rint(below + alpha * (patch - below)).astype(result.dtype)
    return result
