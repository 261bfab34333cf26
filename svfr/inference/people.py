"""Who is who: embeddings of faces, and the people that the tracks of a file show."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from svfr.data.detectors import FaceDetector
from svfr.data.frames import to_tensor
from svfr.data.linking import RECOGNIZED, Embed, Face, Likeness, LinkedTrack, unit
from svfr.data.recognition import Recognizer
from svfr.models.components import Components
from svfr.models.identity import IRESNET_LAYERS, align_face

# The bundled weights' own ID network, which learned rendered faces. Measured on 21 real clips: within one clip 0.85
# (5th percentile 0.39), of its halves 0.92 (0.78); between people 0.24 (99th percentile 0.69), of whole clips 0.70.
SMALL_NETWORK = Likeness(-1.0, 0.75)  # of a half-covered face it says anything


@dataclass(frozen=True)
class Person:
    """Somebody in a video.

    Attributes:
        number: 1, 2, ... in the order of appearance.
        picture: (96, 96, 3) uint8, upright.
        embedding: (d,) unit length; None where nothing recognizes faces.
    """

    number: int
    picture: np.ndarray
    embedding: np.ndarray | None


@dataclass(frozen=True)
class Looks:
    """Tells people apart; without `embed` every track is a person of its own."""

    embed: Embed | None
    likeness: Likeness = RECOGNIZED

    @classmethod
    def of(cls, components: Components, recognizer: Recognizer | None) -> "Looks":
        """By a recognition network, else by the weights' own ID network, if it was trained."""
        network = components.id_encoder

        @torch.no_grad()
        def embed(faces: list[Face], image: np.ndarray | None) -> np.ndarray:
            assert image is not None
            aligned = np.stack([align_face(image, face.landmarks) for face in faces])
            if recognizer is not None:
                return recognizer(aligned)
            batch = torch.stack([to_tensor(face) for face in aligned]).to(components.device, network.dtype)
            return network(batch).embedding.float().cpu().numpy()

        if recognizer is None and components.settings.untrained:
            return cls(None)
        # Assumption: an ID network as deep as the published ones is one of them.
        small = recognizer is None and sum(IRESNET_LAYERS[network.config.depth]) < sum(IRESNET_LAYERS[50])
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


def group(tracks: Sequence[tuple[int, LinkedTrack]], likeness: Likeness) -> tuple[list[int], list[Person]]:
    """Which tracks show the same person: alike, and never at the same time.

    Args:
        tracks: each with the index of its first frame, in this order.
        likeness: of the embeddings.

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
