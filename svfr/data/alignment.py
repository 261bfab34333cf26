"""Alignment of a face by its five landmarks: similarity, templates, and crops for the ID network."""

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

ID_SIZE = 112  # [px], the input of ArcFace networks
ID_CROP_STYLES = ("arcface", "official")
# [px] at 112 px, InsightFace's alignment template (ArcFace, Deng et al. 2019): eyes, nose, mouth corners.
ARCFACE_TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
# [px] at 512 px, the five-point template of FFHQ-aligned photos (facexlib).
FFHQ_TEMPLATE = np.array(
    [
        [192.98138, 239.94708],
        [318.90277, 240.1936],
        [256.63416, 314.01935],
        [201.26117, 371.41043],
        [313.08905, 371.15118],
    ]
)
# The released code's template: ArcFace's, twice as large and 16 px to the right, on a canvas of 256 px.
OFFICIAL_CANVAS = 256  # [px]
OFFICIAL_TEMPLATE = ARCFACE_TEMPLATE * 2 + (16, 0)
OFFICIAL_ROWS, OFFICIAL_COLUMNS = slice(0, 224), slice(16, 240)  # [px], whatever the size of the canvas
# The iBUG landmark that each of the 68 becomes in a mirrored picture: jaw, brows, nose, eyes, mouth.
# fmt: off
MIRRORED_68 = np.array([
    *range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1),
    45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40,
    *range(54, 47, -1), *range(59, 54, -1), *range(64, 59, -1), *range(67, 64, -1),
])
# fmt: on


def similarity_transform(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The rotation, uniform scale and shift, without reflection, that takes `source` nearest to `target`.

    Least squares in closed form (Umeyama 1991; in the plane one complex factor).

    Args:
        source: (n, 2) points, n >= 2.
        target: (n, 2) points.

    Returns:
        (2, 3) float64 matrix for `cv2.warpAffine`.

    Raises:
        ValueError: the source's points all coincide, or aren't finite.
    """
    source, target = np.asarray(source, dtype=np.float64), np.asarray(target, dtype=np.float64)
    source_mean, target_mean = source.mean(axis=0), target.mean(axis=0)
    a = (source - source_mean) @ (1, 1j)
    b = (target - target_mean) @ (1, 1j)
    energy = (np.abs(a) ** 2).sum()
    if not energy > 0:
        raise ValueError(f"no similarity transform from points that coincide or aren't finite: {source.tolist()}")
    factor = (a.conj() @ b) / energy
    linear = np.array([[factor.real, -factor.imag], [factor.imag, factor.real]])
    return np.column_stack([linear, target_mean - linear @ source_mean])


def five_points(landmarks: np.ndarray) -> np.ndarray:
    """Eye centres, nose tip and mouth corners, (..., 5, 2), of 68 landmarks (..., 68, 2) in the iBUG order.

    Left means left in the picture, as in the templates.
    """
    landmarks = np.asarray(landmarks)
    eyes = [landmarks[..., first : first + 6, :].mean(axis=-2) for first in (36, 42)]
    return np.stack([*eyes, landmarks[..., 30, :], landmarks[..., 48, :], landmarks[..., 54, :]], axis=-2)


def mirror_landmarks(landmarks: np.ndarray, width: int) -> np.ndarray:
    """68 landmarks (..., 68, 2) [px, whole numbers are pixel centres] of the mirrored picture, in the same order."""
    mirrored = landmarks[..., MIRRORED_68, :].copy()
    mirrored[..., 0] = width - 1 - mirrored[..., 0]
    return mirrored


def align_face(image: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """A face as ArcFace networks see it: warped so that its (5, 2) landmarks [px] lie on `ARCFACE_TEMPLATE`.

    Args:
        image: (h, w, 3) uint8 RGB.
        landmarks: eyes, nose tip, mouth corners [px].

    Returns:
        (112, 112, 3) uint8; black where the image ends.

    Raises:
        ValueError: landmarks that coincide or aren't finite.
    """
    matrix = similarity_transform(landmarks, ARCFACE_TEMPLATE)
    return cv2.warpAffine(image, matrix, (ID_SIZE, ID_SIZE), flags=cv2.INTER_LINEAR)


def id_crop(image: np.ndarray, landmarks: np.ndarray, style: str) -> Tensor:
    """The crop of a face that its ID network was trained on.

    Args:
        image: (s, s, 3) uint8 RGB face image.
        landmarks: (5, 2) points of it [px].
        style: "arcface", aligned to the template; "official", the released SVFR code's steps. These cut at
            fixed pixels, which is right for s = 256 only: at 512 one landmark of five is left in the crop.
            But it is what the released weights are run with.

    Returns:
        (3, 112, 112) float32 in [-1, 1].

    Raises:
        ValueError: another style, or landmarks that coincide.
    """
    if style == "arcface":
        return _to_tensor(align_face(image, landmarks))
    if style == "official":
        return official_crop(official_warp(image, official_matrix(landmarks, image.shape[0])))
    raise ValueError(f"unknown ID crop '{style}': choose from {', '.join(ID_CROP_STYLES)}")


def official_matrix(landmarks: np.ndarray, size: int) -> np.ndarray:
    """Step 1 of the released code's ID crop: (2, 3) similarity to its template, scaled to `size` [px]."""
    return similarity_transform(landmarks, OFFICIAL_TEMPLATE * size / OFFICIAL_CANVAS)


def official_warp(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Step 2: the (s, s, 3) uint8 image warped to a canvas of the same size, cubic."""
    size = image.shape[0]
    return cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_CUBIC)


def official_crop(warped: np.ndarray) -> Tensor:
    """Step 3: rows 0:224 and columns 16:240 of (s, s, 3) uint8, resized to (3, 112, 112) in [-1, 1].

    Raises:
        ValueError: nothing is left, since s <= 16.
    """
    cut = warped[OFFICIAL_ROWS, OFFICIAL_COLUMNS]
    if cut.size == 0:
        raise ValueError(f"an image of {warped.shape[1]} px is too small for the official ID crop")
    batch = _to_tensor(cut).unsqueeze(0)
    return functional.interpolate(batch, size=(ID_SIZE, ID_SIZE), mode="bilinear", align_corners=False)[0]


def _to_tensor(image: np.ndarray) -> Tensor:
    """(h, w, 3) uint8 -> (3, h, w) float32 in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1).float() / 127.5 - 1
