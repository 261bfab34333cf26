"""Numbers of a video by itself: quality, sharpness, likeness to a photo, drift of colour."""

from collections.abc import Callable, Mapping
from pathlib import Path

import cv2
import numpy as np
import torch
from skimage.color import rgb2lab

from svfr.data.detectors import FaceDetector, load_detector
from svfr.data.quality import SMALLEST, Arniqa
from svfr.data.recognition import Recognizer
from svfr.data.video import read_frames
from svfr.files import sha256_of
from svfr.metrics.base import Chunk, Column, NetworkOptions, Row, VideoMetric, to_image, to_number
from svfr.metrics.identity import embed, ids, load_face_network
from svfr.metrics.image import gradient_magnitude

EVERY = 8  # [frames] Assumption: quality changes slowly, and ARNIQA takes 0.3 s a frame on a CPU
SMALL = 32  # [px] side of the picture whose mean colour drifts


class ArniqaScore(VideoMetric):
    """Quality by ARNIQA (see `svfr.data.quality`), the mean over every eighth frame."""

    columns = (Column("arniqa", "ARNIQA", "higher", no_reference=True),)

    @classmethod
    def build(cls, options: NetworkOptions) -> "ArniqaScore":
        """Make it with its network."""
        network = Arniqa(options.folder, options.download)
        return cls(network, network.sha256)

    def __init__(self, network: Callable[[np.ndarray], float], sha256: str = "") -> None:
        self._network = network
        about = f"KonIQ-10k's regressor, 0 worst, 1 best, mean over the frames 0, {EVERY}, {2 * EVERY}, ..."
        self.protocol = {"network": {"name": "arniqa", "sha256": sha256}, "arniqa": about}

    def _measure(self, chunk: Chunk, at: int) -> Row:
        if self._num_frames % EVERY or min(chunk.restored.shape[2:]) < SMALLEST:
            return {}
        return {"arniqa": self._network(to_image(chunk.restored[at : at + 1]))}


class Sharpness(VideoMetric):
    """Mean magnitude of Prewitt's gradients of luma: noise counts as sharp, so read it beside the quality."""

    columns = (Column("sharpness", "Sharpness", "truth", digits=2, no_reference=True),)
    protocol: Mapping[str, object] = {
        "sharpness": "mean magnitude of Prewitt's gradients of luma of 0 to 255, mean over frames"
    }

    def _measure(self, chunk: Chunk, at: int) -> Row:
        return {"sharpness": to_number(gradient_magnitude(chunk.restored[at : at + 1]).mean(dim=(1, 2)))}


class PhotoIdentity(VideoMetric):
    """Cosine of the embeddings of each frame's face and of that in a photo, the mean over frames.

    ValueError if no face is in the photo, VideoError if it cannot be read.
    """

    columns = (Column("photo_ids", "IDS to the photo", "higher", needs_faces=True, no_reference=True),)

    @classmethod
    def build(cls, options: NetworkOptions) -> "PhotoIdentity":
        """Make it with its networks."""
        if options.photo is None:
            raise ValueError("no photo is given: photo=FILE")
        recognizer = load_face_network(options.recognizer, options.folder, options.device, options.download)
        return cls(options.photo, load_detector("auto", options.folder), recognizer)

    def __init__(self, photo: Path, detector: FaceDetector, recognizer: Recognizer) -> None:
        image = next(iter(read_frames(photo))).image
        faces = detector(image)
        if not faces:
            raise ValueError(f"{photo}: no face found in it")
        self._recognizer = recognizer
        self._reference = embed(recognizer, torch.from_numpy(image).movedim(-1, 0)[None], faces[0].landmarks)
        network = {"name": recognizer.name, "file": Path(recognizer.source).name, "sha256": recognizer.sha256}
        self.protocol = {"network": network, "photo": photo.name, "photo_sha256": sha256_of(photo)}

    def _measure(self, chunk: Chunk, at: int) -> Row:
        if (points := chunk.face(at)) is None:
            return {}
        return {"photo_ids": float(ids(embed(self._recognizer, chunk.restored[at : at + 1], points), self._reference))}


class ColourDrift(VideoMetric):
    """How far the mean colour has gone from the first frame's (SVFR, Fig. 6); people move, so the truth drifts too."""

    columns = (Column("colour_drift", "Colour drift", "truth", digits=2, no_reference=True),)
    protocol: Mapping[str, object] = {
        "colour_drift": "distance in CIELAB of the mean colour from the first frame's, mean over frames"
    }

    def reset(self) -> None:
        """Start with the next video."""
        super().reset()
        self._first: np.ndarray | None = None

    def _measure(self, chunk: Chunk, at: int) -> Row:
        image = to_image(chunk.restored[at : at + 1])
        colour = rgb2lab(cv2.resize(image, (SMALL, SMALL), interpolation=cv2.INTER_AREA)).mean(axis=(0, 1))
        if self._first is None:
            self._first = colour
            return {}
        return {"colour_drift": float(np.linalg.norm(colour - self._first))}
