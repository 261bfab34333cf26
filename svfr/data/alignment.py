"""Landmarks of a face: the five of the 68, their mirror image, and the transform that aligns them."""

import numpy as np
from skimage.transform import estimate_transform

# [px] at 512 px, the five-point template of FFHQ-aligned photos (facexlib).
FFHQ_TEMPLATE = np.reshape(
    [192.98138, 239.94708, 318.90277, 240.1936, 256.63416, 314.01935, 201.26117, 371.41043, 313.08905, 371.15118],
    (5, 2),
)
# The iBUG landmark that each of the 68 becomes in a mirrored picture: jaw, brows, nose, eyes, mouth.
# fmt: off
MIRRORED_68 = np.array([
    *range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1),
    45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40,
    *range(54, 47, -1), *range(59, 54, -1), *range(64, 59, -1), *range(67, 64, -1),
])
# fmt: on


def similarity_transform(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The rotation, uniform scale and shift, without reflection, that takes points `source` (n, 2), n >= 2, nearest to
    `target`: (2, 3) float64 for `cv2.warpAffine`. Least squares (Umeyama 1991; scikit-image's).
    ValueError if the source's points all coincide, or aren't finite.
    """
    source, target = np.asarray(source, dtype=np.float64), np.asarray(target, dtype=np.float64)
    if not (np.isfinite(source).all() and np.ptp(source, axis=0).any()):
        raise ValueError(f"no similarity transform from points that coincide or aren't finite: {source.tolist()}")
    return estimate_transform("similarity", source, target).params[:2]


def five_points(landmarks: np.ndarray) -> np.ndarray:
    """Eye centres, nose tip and mouth corners, (..., 5, 2), of 68 landmarks (..., 68, 2) in the iBUG order.

    Left means left in the picture, as in the templates.
    """
    landmarks = np.asarray(landmarks)
    eyes = [landmarks[..., first : first + 6, :].mean(axis=-2) for first in (36, 42)]
    return np.stack([*eyes, landmarks[..., 30, :], landmarks[..., 48, :], landmarks[..., 54, :]], axis=-2)


def mirror_landmarks(landmarks: np.ndarray, width: int) -> np.ndarray:
    """68 landmarks (..., 68, 2) [px, integers are pixel centres] of the mirrored picture, in the same order."""
    mirrored = landmarks[..., MIRRORED_68, :].copy()
    mirrored[..., 0] = width - 1 - mirrored[..., 0]
    return mirrored
