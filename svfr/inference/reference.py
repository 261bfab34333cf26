"""Who is who, and where a reference comes from: a photo, or the first clip's own result (SVFR, Sec. 4.3)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import torch
from torch import Tensor

from svfr.data.alignment import FFHQ_TEMPLATE
from svfr.data.detectors import FaceDetector
from svfr.data.faces import crop, frontality, sharpness
from svfr.data.frames import resize, to_tensor, to_uint8, to_unit
from svfr.data.linking import RECOGNIZED, Embed, Face, Likeness, LinkedTrack, square_around, unit
from svfr.data.recognition import Recognizer
from svfr.inference.chain import ChooseReference
from svfr.inference.settings import Sampling
from svfr.models.components import Components, Reference
from svfr.models.identity import IRESNET_LAYERS, align_face

FFHQ_SIZE = 512  # [px] of the template
COMPARED = 8  # first frames of a face that photos are compared with
AlignedFace = tuple[np.ndarray, np.ndarray | None]  # (s, s, 3) uint8 with (5, 2) landmarks [px], None: as in FFHQ

# The bundled weights' own ID network, which learned rendered faces. Measured on 21 real clips: within one clip 0.85
# (5th percentile 0.39), of its halves 0.92 (0.78); between people 0.24 (99th percentile 0.69), of whole clips 0.70.
SMALL_NETWORK = Likeness(-1.0, 0.75)  # of a half-covered face it says anything


@dataclass
class ReferenceFinder:
    """Finds and describes references."""

    components: Components
    detector: FaceDetector | None  # without one, faces are taken to be aligned as in FFHQ
    recognizer: Recognizer | None = None  # without one, the weights' own ID network tells people apart

    @cached_property
    def looks(self) -> "Looks":
        """What tells the people of a file apart."""
        return Looks.of(self.components, self.recognizer)

    def from_aligned(self, image: np.ndarray, landmarks: np.ndarray | None = None) -> Reference:
        """Describe an aligned face image (s, s, 3) uint8 with (5, 2) landmarks [px], looked for if None."""
        return self.components.encode_reference(to_tensor(image), image, self._points(image, landmarks))

    def face_of(self, photo: np.ndarray, size: int, or_whole: bool) -> AlignedFace:
        """The largest face of any photo (h, w, 3) uint8, framed like the faces of a video at `size` [px].

        Raises:
            ValueError: no face found, unless the whole photo may be taken instead (`or_whole`).
        """
        if faces := self.detector(photo) if self.detector else []:
            box = square_around(faces[0].box.astype(float))
            return crop(photo, box, size), (faces[0].landmarks - box[:2]) * size / (box[2] - box[0])
        if not or_whole:
            raise ValueError("no face found in the reference photo")
        return resize(photo, size, size), None

    def best_match(self, photos: list[AlignedFace], faces: list[AlignedFace]) -> tuple[int, float]:
        """Index of the photo that shows the person of some faces best, and the cosine between it and their mean."""
        cosines = self._embed(photos) @ self._embed(faces).mean(axis=0)
        return int(cosines.argmax()), float(cosines.max())

    def _embed(self, faces: list[AlignedFace]) -> np.ndarray:
        """(n, d) of length 1."""
        pairs = [(image, self._points(image, landmarks)) for image, landmarks in faces]
        found = embeddings(self.components, self.recognizer, pairs)
        return found / np.linalg.norm(found, axis=1, keepdims=True)

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


@dataclass(frozen=True)
class Person:
    """Somebody in a video."""

    number: int  # 1, 2, ... in the order of appearance
    picture: np.ndarray  # (96, 96, 3) uint8, upright
    embedding: np.ndarray | None  # (d,) unit length; None where nothing recognizes faces


@dataclass(frozen=True)
class Looks:
    """Tells people apart; without `embed` every track is a person of its own."""

    embed: Embed | None
    likeness: Likeness = RECOGNIZED

    @classmethod
    def of(cls, components: Components, recognizer: Recognizer | None) -> "Looks":
        """By a recognition network, else by the weights' own ID network."""

        def embed(faces: list[Face], image: np.ndarray | None) -> np.ndarray:
            assert image is not None
            return embeddings(components, recognizer, [(image, face.landmarks) for face in faces])

        # Assumption: an ID network as deep as the published ones is one of them.
        small = recognizer is None and sum(IRESNET_LAYERS[components.id_encoder.config.depth]) < sum(IRESNET_LAYERS[50])
        return cls(embed, SMALL_NETWORK if small else RECOGNIZED)

    def who(self, photo: np.ndarray, detector: FaceDetector, people: Sequence[Person]) -> int | None:
        """The number of the person whom a photo's largest face looks like most, if like anybody."""
        faces = detector(photo)[:1]
        if self.embed is None or not faces:
            return None
        look = unit(self.embed(faces, photo)[0])
        alike = {p.number: float(look @ p.embedding) for p in people if p.embedding is not None}
        best = max(alike, key=alike.__getitem__, default=None)
        return best if best is not None and alike[best] >= self.likeness.same else None


@torch.no_grad()
def embeddings(
    components: Components, recognizer: Recognizer | None, faces: Sequence[tuple[np.ndarray, np.ndarray]]
) -> np.ndarray:
    """(n, d) of faces, each an image with its (5, 2) landmarks [px]; by the weights' own network, if by no other."""
    aligned = np.stack([align_face(image, landmarks) for image, landmarks in faces])
    if recognizer is not None:
        return recognizer(aligned)
    network = components.id_encoder
    batch = torch.stack([to_tensor(face) for face in aligned]).to(components.device, network.dtype)
    return network(batch).embedding.float().cpu().numpy()


def group(tracks: Sequence[tuple[int, LinkedTrack]], likeness: Likeness) -> tuple[list[int], list[Person]]:
    """Which tracks, in the order of their first frames, show the same person: alike, and never at the same time.

    Returns:
        The number of each track's person, and the people.
    """
    numbers: list[int] = []
    totals: list[np.ndarray | None] = []  # of each person: the sum of the embeddings, by the tracks' lengths
    stops: list[int] = []  # of each person's last track
    best: list[LinkedTrack] = []  # where each face is largest
    for start, linked in tracks:
        weighted = None if linked.embedding is None else len(linked.faces) * linked.embedding
        alike = [
            -1.0 if weighted is None or total is None or stop > start else float(linked.embedding @ unit(total))
            for total, stop in zip(totals, stops, strict=True)
        ]
        who = max(range(len(alike)), key=alike.__getitem__, default=-1)
        if who < 0 or alike[who] < likeness.same:
            who = len(totals)
            totals.append(weighted)
            stops.append(0)
            best.append(linked)
        elif weighted is not None and (total := totals[who]) is not None:
            totals[who] = total + weighted
        stops[who] = start + len(linked.track.boxes)
        best[who] = max(best[who], linked, key=lambda each: each.track.largest)
        numbers.append(who + 1)
    embeddings = [None if total is None else unit(total) for total in totals]
    pictures = [linked.picture if linked.picture is not None else np.zeros((1, 1, 3), np.uint8) for linked in best]
    people = zip(pictures, embeddings, strict=True)
    return numbers, [Person(i, picture, embedding) for i, (picture, embedding) in enumerate(people, start=1)]
