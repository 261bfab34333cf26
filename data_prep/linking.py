"""All faces of a shot, each followed as a track of its own."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from svfr.data.detectors import Face, iou
from svfr.data.tracks import LONGEST_GAP, MATCH_IOU, FaceTrack, Sightings, steady_track

# Cosines of two embeddings. Measured with EdgeFace on real clips: within one clip 0.81 on average, 5th percentile
# 0.62; between people 0.02, 95th percentile 0.15.
OTHER_PERSON = 0.1  # below it, an overlapping face is somebody else
SAME_PERSON = 0.5  # from it on, a face that overlaps too little (a fast move) is still the same
EMBED_EVERY = 0.5  # [s] Assumption: how often a followed face is looked at by the recognition network

Embed = Callable[[list[Face]], np.ndarray]  # n faces of the current frame -> (n, d) embeddings


@dataclass(frozen=True)
class LinkedTrack:
    """A face through consecutive frames."""

    track: FaceTrack
    faces: list[Face]  # as detected; fewer than the track's frames, where some were interpolated
    embedding: np.ndarray | None  # (d,) float32, unit length, mean of the looks; None without a recognition network


class FaceLinker:
    """Links detections, frame by frame, into tracks.

    A face goes on where a box overlaps the last one of it. With a recognition network, every half a second, a face
    that has become another person ends its track where it was last recognized; and a face that overlaps with none
    goes on with the track of the same person, if that was seen within `LONGEST_GAP`.

    Args:
        fps: [1/s] of the frames.
        embed: gives the embeddings of faces of the frame that is being added; None for linking by boxes alone.

    Raises:
        ValueError: fps isn't above 0.
    """

    def __init__(self, fps: float, embed: Embed | None = None) -> None:
        if not fps > 0:
            raise ValueError(f"fps must be above 0, not {fps}")
        self._fps = fps
        self._embed = embed
        self._longest_gap = round(LONGEST_GAP * fps)
        self._embed_every = max(1, round(EMBED_EVERY * fps))
        self._index = -1
        self._open: list[_Person] = []
        self._closed: list[_Person] = []

    def add(self, faces: list[Face]) -> None:
        """Add the faces of the next frame."""
        self._index += 1
        for person in [p for p in self._open if self._index - p.sightings.frames[-1] - 1 > self._longest_gap]:
            self._close(person)
        linked = self._overlapping(faces)
        looks = self._look(faces, linked)
        for j, look in looks.items():
            if j in linked and linked[j].looks and float(look @ linked[j].looks[-1]) < OTHER_PERSON:
                person = linked.pop(j)  # somebody else since an unknown frame after the last look
                person.sightings.cut_at(person.looked[-1] + 1)
                self._close(person)
        unseen = [person for person in self._open if person not in linked.values()]
        for j, face in enumerate(faces):
            known = linked.get(j) or self._recognize(looks.get(j), unseen)
            if known:
                known.sightings.add(self._index, face)
            else:
                self._open.append(_Person(Sightings(self._index, face)))
            if j in looks:
                person = known or self._open[-1]
                person.looks.append(looks[j])
                person.looked.append(self._index)

    def finish(self) -> list[LinkedTrack]:
        """All tracks, in the order of their first frames."""
        tracks = [self._track(person) for person in self._closed + self._open]
        return sorted(tracks, key=lambda linked: (linked.track.start, tuple(linked.track.boxes[0])))

    def _close(self, person: "_Person") -> None:
        self._open.remove(person)
        self._closed.append(person)

    def _overlapping(self, faces: list[Face]) -> dict[int, "_Person"]:
        """Who it is, by the face's index, where a box overlaps the last one of a person; the best overlaps first."""
        pairs = [(iou(p.sightings.faces[-1].box, face.box), p, j) for p in self._open for j, face in enumerate(faces)]
        linked: dict[int, _Person] = {}
        for overlap, person, j in sorted(pairs, key=lambda pair: -pair[0]):
            if overlap >= MATCH_IOU and j not in linked and person not in linked.values():
                linked[j] = person
        return linked

    def _look(self, faces: list[Face], linked: dict[int, "_Person"]) -> dict[int, np.ndarray]:
        """Unit embeddings, by the face's index: of new faces, and of followed ones when it is time again."""
        last = {j: person.looked[-1] for j, person in linked.items() if person.looked}
        due = [j for j in range(len(faces)) if j not in last or self._index - last[j] >= self._embed_every]
        if self._embed is None or not due:
            return {}
        embeddings = self._embed([faces[j] for j in due])
        return {j: unit(embedding) for j, embedding in zip(due, embeddings, strict=True)}

    def _recognize(self, look: np.ndarray | None, unseen: list["_Person"]) -> "_Person | None":
        """Who of those not seen in this frame looks like that; taken out of the list."""
        if look is None:
            return None
        likeness = [float(look @ person.looks[-1]) if person.looks else -1.0 for person in unseen]
        best = max(range(len(unseen)), key=likeness.__getitem__, default=None)
        return unseen.pop(best) if best is not None and likeness[best] >= SAME_PERSON else None

    def _track(self, person: "_Person") -> LinkedTrack:
        embedding = unit(np.mean(person.looks, axis=0)) if person.looks else None
        return LinkedTrack(steady_track(person.sightings, self._fps), person.sightings.faces, embedding)


@dataclass(eq=False)
class _Person:
    sightings: Sightings
    looks: list[np.ndarray] = field(default_factory=list)  # unit embeddings
    looked: list[int] = field(default_factory=list)  # frames of the looks


def unit(vector: np.ndarray) -> np.ndarray:
    """A (d,) vector scaled to length 1, float32; zeros stay zeros."""
    length = float(np.linalg.norm(vector))
    return (vector / length if length > 0 else vector).astype(np.float32)
