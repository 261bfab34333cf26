"""68 facial landmarks by name: PFLD, an ONNX file, and FAN of the face-alignment package."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from svfr.data.faces import crop
from svfr.data.recognition import OnnxNetwork
from svfr.files import sha256_of
from svfr.networks import find, first_line, load_by_name

NUM_LANDMARKS = 68
PFLD_SIZE = 112  # [px]
PFLD_MARGIN = 1.4  # side of the crop in larger sides of the box
EYE_CORNERS = 36, 45  # the outer ones of the 68
WINDOW = 2  # frames on each side whose median a frame is compared with
# Outer-eye distances. Measured with PFLD on 21 real clips: see `temporal_scores`.
OUTLIER = 0.15


class Landmarker(Protocol):
    """Finds the 68 landmarks (iBUG 300-W order) of faces that were detected."""

    name: str  # of the network, for reports
    source: str  # the file that it was loaded from
    sha256: str  # of that file

    def __call__(self, image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """(h, w, 3) uint8 RGB, boxes (n, 4) x0, y0, x1, y1 [px] -> (n, 68, 2) float32 [px]."""


def load_landmarker(
    name: str = "auto", networks: Path | None = None, download: bool = True, device: str = "cpu"
) -> Landmarker:
    """A landmark network by name; raises as `load_detector`.

    Args:
        name: "face_alignment" (FAN), "onnx" (PFLD), or "auto": FAN if its file is already there, else PFLD.
        networks: searched before $SVFR_NETWORKS, the user's cache and PyTorch's.
    """
    loaders: dict[str, Callable[[], Landmarker]] = {
        "face_alignment": lambda: FAN(find("fan", networks, download), device),
        "onnx": lambda: PFLD(find("pfld", networks, download)),
    }
    return load_by_name("landmarks", name, loaders, [lambda: FAN(find("fan", networks, download=False), device)])


class PFLD(OnnxNetwork):
    """PFLD (Guo et al. 2019) as pytorch_face_landmark exported it to pfld.onnx: BGR in [0, 1], 112 px -> 136
    coordinates in fractions of the crop."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, PFLD_SIZE, "pfld")

    def __call__(self, image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """As of `Landmarker`."""
        if len(boxes) == 0:
            return np.zeros((0, NUM_LANDMARKS, 2), np.float32)
        boxes = np.asarray(boxes, dtype=np.float64)
        center, extent = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
        side = PFLD_MARGIN * extent.max(axis=1, keepdims=True)  # (n, 1)
        corner = center - side / 2
        squares = np.concatenate([corner, corner + side], axis=1)
        faces = np.stack([crop(image, square, PFLD_SIZE)[..., ::-1] for square in squares])
        points = self.run(faces.astype(np.float32) / 255)
        return (points.reshape(-1, NUM_LANDMARKS, 2) * side[:, None] + corner[:, None]).astype(np.float32)


class FAN:
    """The 2D face alignment network (Bulat & Tzimiropoulos 2017), a state dict, through the face-alignment package."""

    name = "face_alignment"

    def __init__(self, path: Path, device: str = "cpu") -> None:
        try:
            from face_alignment import FaceAlignment, LandmarksType
            from face_alignment.models import FAN as Network
        except ImportError as error:
            raise ValueError("face-alignment is not installed: pip install 'svfr[faces]'") from error

        class Aligner(FaceAlignment):
            """FaceAlignment that takes its network from our file, not from PyTorch's folder or the internet."""

            def _load_native(self, name: str, size: int, device: str, dtype: torch.dtype) -> torch.nn.Module:
                network = Network(size)
                try:
                    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
                except Exception as error:  # torch.load raises a dozen types
                    raise ValueError(f"{path}: no state dict of FAN ({first_line(error)})") from error
                return network.to(device, dtype=dtype).eval()

        # The detector "folder" needs no network of its own; boxes are always given.
        self._aligner = Aligner(
            LandmarksType.TWO_D, device=device, flip_input=False, face_detector="folder", compile=False
        )
        self.source, self.sha256 = str(path), sha256_of(path)

    def __call__(self, image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """As of `Landmarker`."""
        if len(boxes) == 0:
            return np.zeros((0, NUM_LANDMARKS, 2), np.float32)
        points = self._aligner.get_landmarks_from_image(image, [np.asarray(box, np.float64) for box in boxes])
        return np.stack(points).astype(np.float32)


def temporal_scores(points: np.ndarray) -> np.ndarray:
    """How far the landmarks (f, 68, 2) [px] of each frame can be trusted, judged by the frames around it: (f,) float32.

    Each point is compared with its median over five frames, which follows a steady motion without delay and no single
    outlier. 1 = no difference, 0 = `OUTLIER` outer-eye distances or more on average over the points, or not finite.
    """
    finite = np.isfinite(points).all(axis=(1, 2))
    scores = np.zeros(len(points), np.float32)
    if not finite.any():
        return scores
    eyes = points[finite][:, EYE_CORNERS[0]] - points[finite][:, EYE_CORNERS[1]]
    unit = max(float(np.median(np.linalg.norm(eyes, axis=-1))), 1e-6)
    for index in np.flatnonzero(finite).tolist():
        reach = min(WINDOW, index, len(points) - 1 - index)  # as many on both sides, or motion would count as error
        around = points[index - reach : index + reach + 1]
        median = np.median(around[finite[index - reach : index + reach + 1]], axis=0)
        error = float(np.linalg.norm(points[index] - median, axis=-1).mean()) / unit
        scores[index] = max(0.0, 1 - error / OUTLIER)
    return scores
