"""Where a reference comes from: a photo of the person, or the first clip's own result (SVFR, Sec. 4.3)."""

from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from svfr.data.alignment import FFHQ_TEMPLATE
from svfr.data.detectors import FaceDetector
from svfr.data.faces import crop, frontality, sharpness
from svfr.data.frames import resize, to_tensor, to_uint8, to_unit
from svfr.data.recognition import Recognizer
from svfr.data.tracks import track_largest_face
from svfr.inference.denoising import ChooseReference
from svfr.inference.settings import Sampling
from svfr.models.components import Components, Reference
from svfr.models.identity import id_crop

FFHQ_SIZE = 512  # [px] of the template
COMPARED = 8  # first frames of a face that photos are compared with
AlignedFace = tuple[np.ndarray, np.ndarray | None]  # (s, s, 3) uint8 with (5, 2) landmarks [px], None: as in FFHQ


class ReferenceFinder:
    """Finds and describes references.

    Args:
        components: the networks that describe them.
        detector: finds faces; without one, they are taken to be aligned as in FFHQ.
        recognizer: tells people apart; without one, the weights' own ID network does.
    """

    def __init__(
        self, components: Components, detector: FaceDetector | None, recognizer: Recognizer | None = None
    ) -> None:
        self.components = components
        self.detector = detector
        self.recognizer = recognizer

    def from_aligned(self, image: np.ndarray, landmarks: np.ndarray | None = None) -> Reference:
        """Describe an aligned face image (s, s, 3) uint8 with (5, 2) landmarks [px], looked for if None."""
        return self.components.encode_reference(to_tensor(image), image, self._points(image, landmarks))

    def face_of(self, photo: np.ndarray, size: int, or_whole: bool) -> AlignedFace:
        """The largest face of any photo (h, w, 3) uint8, framed like the faces of a video at `size` [px].

        Raises:
            ValueError: no face found, unless the whole photo may be taken instead (`or_whole`).
        """
        tracks = track_largest_face([self.detector(photo)], fps=1) if self.detector else []
        if tracks:
            box = tracks[0].boxes[0]
            landmarks = (tracks[0].landmarks[0] - box[:2]) * size / (box[2] - box[0])
            return crop(photo, box, size), landmarks
        if not or_whole:
            raise ValueError("no face found in the reference photo")
        return resize(photo, size, size), None

    def best_match(self, photos: list[AlignedFace], faces: list[AlignedFace]) -> tuple[int, float]:
        """Index of the photo that shows the person of some faces best, and the cosine between it and their mean.

        By the ID network's embeddings.
        """
        cosines = self._embed(photos) @ self._embed(faces).mean(axis=0)
        return int(cosines.argmax()), float(cosines.max())

    @torch.no_grad()
    def _embed(self, faces: list[AlignedFace]) -> np.ndarray:
        """(n, d) of length 1."""
        network = self.components.id_encoder
        aligned = [id_crop(image, self._points(image, landmarks), "arcface") for image, landmarks in faces]
        embeddings = network(torch.stack(aligned).to(self.components.device, network.dtype)).embedding.float()
        return functional.normalize(embeddings, dim=1).cpu().numpy()

    def chooser(self, sampling: Sampling, landmarks: np.ndarray | None = None) -> ChooseReference | None:
        """What chooses a reference from a restored clip, as the settings say; None where it is to have none.

        `landmarks` (5, 2) [px] are of whichever frame is chosen, instead of the detector's.
        """
        if sampling.reference_frame == "none":
            return None
        if sampling.strategy == "released":
            return partial(self._last_as_released, landmarks=landmarks)
        return partial(self._best, only_last=sampling.reference_frame == "last", landmarks=landmarks)

    def _best(self, frames: Tensor, only_last: bool, landmarks: np.ndarray | None) -> Reference | None:
        """The sharpest well-detected frontal face, if there is any; without a detector the sharpest frame."""
        images = to_uint8(to_unit(frames))
        if only_last:
            images = images[-1:]
        if landmarks is not None or self.detector is None:
            return self.from_aligned(max(images, key=sharpness), landmarks)
        best, best_score = None, -1.0
        for image in images:
            for face in self.detector(image)[:1]:
                score = face.score * frontality(face.landmarks) * sharpness(image)
                if score > best_score:
                    best, best_score = (image, face.landmarks), score
        return None if best is None else self.from_aligned(*best)

    def _last_as_released(self, frames: Tensor, landmarks: np.ndarray | None) -> Reference | None:
        """The released code's choice: the last frame, which the VAE sees unclamped, the ID network cut to uint8."""
        image = (to_unit(frames[-1]) * 255).to(torch.uint8).permute(1, 2, 0).cpu().numpy()
        if landmarks is None and self.detector is not None:
            faces = self.detector(image)
            if not faces:
                return None
            landmarks = faces[0].landmarks
        return self.components.encode_reference(frames[-1], image, self._points(image, landmarks))

    def _points(self, image: np.ndarray, landmarks: np.ndarray | None) -> np.ndarray:
        """(5, 2) landmarks [px]: the given ones, else the detector's, else those of FFHQ's alignment."""
        if landmarks is None and self.detector is not None:
            landmarks = next((face.landmarks for face in self.detector(image)), None)
        return FFHQ_TEMPLATE * len(image) / FFHQ_SIZE if landmarks is None else landmarks
