"""Which part of a face's crop is the face: a network that parses it tells a hand or a microphone in front."""

from contextlib import suppress
from pathlib import Path

import numpy as np

from svfr.data.frames import resize
from svfr.data.recognition import OnnxNetwork
from svfr.networks import NetworkMissing, find

PARSED_SIZE = 512  # [px]
NUM_CLASSES = 19  # of CelebAMask-HQ
FACE_CLASSES = (*range(1, 15), 17, 18)  # skin to neck, glasses, ears, hair, hat; not background, clothes, necklace
MEAN, STD = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], np.float32)  # ImageNet's


def load_parser(networks: Path | None = None) -> "FaceParser | None":
    """The table's network where its file is, else None; a ValueError where the file is another.

    `networks` is searched before $SVFR_NETWORKS and the user's cache.
    """
    with suppress(NetworkMissing):
        return FaceParser(find("face-parsing", networks, download=False))
    return None


class FaceParser(OnnxNetwork):
    """BiSeNet (Yu et al. 2018) of CelebAMask-HQ's classes, as yakhyo/face-parsing exported it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, PARSED_SIZE, "face-parsing", (NUM_CLASSES, PARSED_SIZE, PARSED_SIZE))

    def __call__(self, crop: np.ndarray) -> np.ndarray:
        """(s, s, 3) uint8 RGB, the crop of a face -> (s, s) uint8, 255 where it is to be seen, 0 where not."""
        pixels = resize(crop, PARSED_SIZE, PARSED_SIZE) / np.float32(255)
        scores = self.run(((pixels - MEAN) / STD)[None])[0]  # (19, 512, 512)
        face = np.isin(scores.argmax(axis=0), FACE_CLASSES).astype(np.uint8) * 255
        return resize(face, crop.shape[1], crop.shape[0])
