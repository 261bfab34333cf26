"""Frames as arrays and tensors: resizing, the input of each task.

`size` is the side of a square [px]; arrays are uint8 RGB (h, w, 3); tensors are float in [-1, 1], (3, h, w).
"""

from collections.abc import Collection

import numpy as np
import torch
from PIL import Image
from torch import Tensor

HOLE_THRESHOLD = 127  # mask values above it are holes
HOLE_VALUE = 255  # the released model was given white holes


def resize(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resize (h, w, 3) uint8 to (height, width, 3) by PIL's antialiased bicubic filter, as the released code does."""
    if image.shape[:2] == (height, width):
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))


def resize_mask(mask: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resize a (h, w) uint8 mask to (height, width) bool by nearest neighbour; True is a hole."""
    if mask.shape != (height, width):
        mask = np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST))
    return mask > HOLE_THRESHOLD


def to_gray(image: np.ndarray) -> np.ndarray:
    """Luma (ITU-R 601, PIL's "L") of (h, w, 3) uint8, repeated to three channels."""
    luma = np.asarray(Image.fromarray(image).convert("L"))
    return np.repeat(luma[..., None], 3, axis=-1)


def task_input(image: np.ndarray, tasks: Collection[str], hole: np.ndarray | None) -> np.ndarray:
    """The network's input frame, of (h, w, 3) uint8 at its size: gray for colorization, then, for inpainting, with the
    holes (h, w) bool painted white."""
    if "colorization" in tasks:
        image = to_gray(image)
    if "inpainting" in tasks and hole is not None:
        image = np.where(hole[..., None], np.uint8(HOLE_VALUE), image)
    return image


def to_tensor(image: np.ndarray) -> Tensor:
    """(h, w, 3) uint8 -> (3, h, w) float32 in [-1, 1]."""
    return torch.tensor(image).permute(2, 0, 1).float() / 127.5 - 1


def to_unit(frames: Tensor) -> Tensor:
    """Decoded frames in [-1, 1], of any shape, clamped to [0, 1]."""
    return (frames.float() / 2 + 0.5).clamp(0, 1)


def to_uint8(unit: Tensor) -> np.ndarray:
    """(..., 3, h, w) in [0, 1] -> (..., h, w, 3) uint8, rounded half up."""
    return (unit * 255 + 0.5).floor().to(torch.uint8).movedim(-3, -1).cpu().numpy()
