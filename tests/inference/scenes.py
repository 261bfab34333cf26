"""Made scenes of several people, of real clips."""

from functools import cache

import cv2
import numpy as np

from svfr.data.detectors import Face, YuNet
from svfr.data.recognition import OnnxRecognizer
from svfr.inference.reference import Looks
from svfr.models.identity import align_face
from tests.assets import ASSETS, NETWORKS, frames

SIDE = 150  # [px] of a person's picture, of which the face has about the half
WIDTH, HEIGHT = 480, 200
ANNA, BERT, CARL = "clips_hq/lp_d0", "clips_hq/hdtf_RD_Radio10", "clips_hq/vrt_5"


@cache
def person(name: str, num_frames: int = 60) -> list[np.ndarray]:
    return [
        cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        for image in frames(ASSETS / f"{name}.mp4", range(num_frames))
    ]


def scene(index: int, *people: tuple[str, float]) -> np.ndarray:
    """(h, w, 3) uint8: people at x [px], the later ones in front of the others."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    back = 90 + 30 * np.sin(0.05 * x) * np.cos(0.04 * y)
    image = np.stack([back, back + 20, back + 40], axis=-1).astype(np.uint8)
    for name, left in people:
        at = round(left)
        low, high = max(at, 0), min(at + SIDE, WIDTH)
        if low < high:
            image[25 : 25 + SIDE, low:high] = person(name)[index % 60][:, low - at : high - at]
    return image


def detector() -> YuNet:
    return YuNet(NETWORKS / "face_detection_yunet_2023mar.onnx")


def looks() -> Looks:
    network = OnnxRecognizer(NETWORKS / "edgeface_xs_fp32.onnx", "edgeface")

    def embed(faces: list[Face], image: np.ndarray | None) -> np.ndarray:
        assert image is not None
        return network(np.stack([align_face(image, face.landmarks) for face in faces]))

    return Looks(embed)
