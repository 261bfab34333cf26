"""Where a reference comes from: a photo of the person, or the first clip's own result (SVFR, Sec. 4.3)."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from svfr.data.alignment import FFHQ_TEMPLATE
from svfr.data.detectors import FaceDetector
from svfr.data.faces import crop, frontality, sharpness
from svfr.data.frames import resize, to_tensor, to_uint8, to_unit
from svfr.data.linking import track_largest_face
from svfr.data.recognition import Recognizer
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
        if landmarks is None:
            landmarks = self._landmarks(image)
        if landmarks is None:
            landmarks = _template(image.shape[0])
        return self.components.encode_reference(to_tensor(image), image, landmarks)

    def face_of(self, photo: np.ndarray, size: int, or_whole: bool) -> AlignedFace:
        """The largest face of any photo of the person, framed like the faces of a video.

        Args:
            photo: (h, w, 3) uint8.
            size: side of the crop [px].
            or_whole: take the whole photo where no face is found.

        Raises:
            ValueError: no face found.
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
        """Which photo shows the person of some faces, by the ID network's embeddings.

        Returns:
            Its index, and the cosine between it and the faces' mean; 1 without a choice.
        """
        if len(photos) == 1:
            return 0, 1.0
        cosines = self._embed(photos) @ self._embed(faces).mean(axis=0)
        return int(cosines.argmax()), float(cosines.max())

    @torch.no_grad()
    def _embed(self, faces: list[AlignedFace]) -> np.ndarray:
        """(n, d) of length 1."""
        network, aligned = self.components.id_encoder, list[Tensor]()
        for image, landmarks in faces:
            points = landmarks if landmarks is not None else self._landmarks(image)
            aligned.append(id_crop(image, _template(len(image)) if points is None else points, "arcface"))
        embeddings = network(torch.stack(aligned).to(self.components.device, network.dtype)).embedding.float()
        return functional.normalize(embeddings, dim=1).cpu().numpy()

    def from_clip(self, frames: Tensor, how: str, landmarks: np.ndarray | None = None) -> Reference | None:
        """Choose from a restored clip, (f, 3, s, s) in about [-1, 1].

        Args:
            frames: the clip.
            how: "best" (the sharpest well-detected frontal face; without a detector the sharpest frame) or "last".
            landmarks: (5, 2) [px] of whichever frame is chosen.

        Returns:
            None if the detector sees no face.
        """
        images = to_uint8(to_unit(frames))
        if how == "last":
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

    def from_released_clip(self, frames: Tensor, landmarks: np.ndarray | None = None) -> Reference | None:
        """The released code's choice from (f, 3, s, s) frames: the last one.

        The VAE sees it unclamped, the ID network truncated to uint8.
        """
        image = (to_unit(frames[-1]) * 255).to(torch.uint8).permute(1, 2, 0).cpu().numpy()
        if landmarks is None:
            landmarks = self._landmarks(image) if self.detector else _template(image.shape[0])
        return None if landmarks is None else self.components.encode_reference(frames[-1], image, landmarks)

    def _landmarks(self, image: np.ndarray) -> np.ndarray | None:
        faces = self.detector(image) if self.detector else []
        return faces[0].landmarks if faces else None


def _template(size: int) -> np.ndarray:
    return FFHQ_TEMPLATE * size / FFHQ_SIZE
