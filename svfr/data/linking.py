"""All faces of a shot, each followed as a track of its own, with a steady square crop in each frame."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple

import cv2
import numpy as np

from svfr.data.detectors import Face, iou
from svfr.data.faces import crop, frontality

# The square crop of a face, in larger sides S of its box: side 1.40 S, centre 0.05 S above the box's centre. Measured:
# YuNet's boxes on 6 FFHQ-aligned photos, which are the crops wanted, at 8 sizes from 200 to 1024 px: side 1.40 +- 0.09,
# shift right 0.02 +- 0.03 (none taken), up 0.05 +- 0.03; the eyes are then 122 px apart at 512 px (FFHQ's template:
# 126). InsightFace's boxes are as large within 1.5%, their centres 0.04 S higher (21 frames of one clip).
MARGIN = 1.40
SHIFT_UP = 0.05
TAKEOVER = 0.1  # [s] Assumption: a face that is seen for less may be a false detection
TWICINGS = 2  # a face that swings fast leaves its crop by 3% of its side; without them by 22% (60 frames of one clip)
SMOOTHING = 0.2  # [s] Assumption: sigma of the Gaussian that steadies the crop
MATCH_IOU = 0.2  # Assumption: less overlap with the expected box is a jump: a cut, or another person
LONGEST_GAP = 0.5  # [s] Assumption: missed detections up to this are interpolated
DWARFED = 2.0  # Assumption: of the largest face; another is followed when its area is this many times as large
EMBED_EVERY = 0.5  # [s] Assumption: how often a followed face is looked at by the recognition network
PACE = 4  # Assumption: sightings over which a face's speed is taken
STILL = 0.8  # Assumption: what an overlap with the last box counts beside one with the box that is expected
# What a face shows is compared at this side [px] by mean difference [levels]. Measured on 21 real clips, 5 frames
# apart: at most 28; a face and a white or black frame: at least 55.
THUMB = 8
LOOKS_ALIKE = 35.0
PICTURE = 96  # [px] of the picture that a person is shown by
BETTER = 1.1  # Assumption: a picture is replaced by one that is better by this


class Likeness(NamedTuple):
    """What cosines of two embeddings mean."""

    other: float  # below it, an overlapping face is somebody else
    same: float  # from it on, two faces are one person's


# Measured with EdgeFace on real clips: within one clip 0.81 on average, 5th percentile 0.62; between people 0.02, 95th
# percentile 0.15. Assumption: any network of InsightFace's interface is about as good.
RECOGNIZED = Likeness(0.1, 0.5)

Embed = Callable[[list[Face], np.ndarray | None], np.ndarray]  # n faces, their frame -> (n, d) embeddings


@dataclass(frozen=True)
class FaceTrack:
    """One face through n consecutive frames."""

    start: int  # index of its first frame
    boxes: np.ndarray  # (n, 4) float64, square crops x0, y0, x1, y1 [px]; may reach outside of the frame
    landmarks: np.ndarray  # (n, 5, 2) float32 [px] in the frame
    detected: np.ndarray  # (n,) bool; the other frames were filled in between
    # (n,) bool; False where a frame that was filled in does not look like its neighbours: a flash, a black frame,
    # something before the face.
    visible: np.ndarray

    @property
    def stop(self) -> int:
        """Index after its last frame."""
        return self.start + len(self.boxes)

    @property
    def largest(self) -> float:
        """The largest side of its crops [px]."""
        return float((self.boxes[:, 2] - self.boxes[:, 0]).max())

    def part(self, start: int, stop: int) -> "FaceTrack":
        """The same face from frame `start` to before `stop`."""
        cut = slice(start - self.start, stop - self.start)
        return FaceTrack(start, self.boxes[cut], self.landmarks[cut], self.detected[cut], self.visible[cut])


@dataclass(frozen=True)
class LinkedTrack:
    """A face through consecutive frames."""

    track: FaceTrack
    faces: list[Face]  # as detected; fewer than the track's frames, where some were interpolated
    embedding: np.ndarray | None  # (d,) float32, unit length, mean of the looks; None without a recognition network
    picture: np.ndarray | None = None  # (96, 96, 3) uint8, where it is seen best; None without frames


class FaceLinker:
    """Links detections, frame by frame, into tracks.

    A face goes on where a box overlaps most with where it is expected. With a recognition network `embed`, every half a
    second and where faces meet, it is looked at: then the likeness decides, too. A face that has become another person
    ends its track where it was last recognized; one that overlaps with none goes on with the track of the same person,
    if that was seen within `LONGEST_GAP`. `fps` [1/s] has to be above 0, or it is a ValueError.
    """

    def __init__(self, fps: float, embed: Embed | None = None, likeness: Likeness = RECOGNIZED) -> None:
        if not fps > 0:
            raise ValueError(f"fps must be above 0, not {fps}")
        self._fps = fps
        self._embed, self._likeness = embed, likeness
        self._longest_gap = round(LONGEST_GAP * fps)
        self._embed_every = max(1, round(EMBED_EVERY * fps))
        self._index = -1
        self._people: list[_Person] = []  # all so far
        self._open: list[_Person] = []  # of these, who may go on

    def add(self, faces: list[Face], image: np.ndarray | None = None) -> None:
        """Add the faces of the next frame; with the frame, (h, w, 3) uint8, tracks know where they are visible."""
        self._index += 1
        self._open = [p for p in self._open if self._index - p.frames[-1] - 1 <= self._longest_gap]
        overlaps = {(j, p): p.overlap(face, self._index) for j, face in enumerate(faces) for p in self._open}
        looks = self._look(faces, overlaps, image)
        linked = self._link(overlaps, looks)
        for (j, person), overlap in overlaps.items():
            is_free = j not in linked and person not in linked.values() and person in self._open
            if is_free and overlap >= MATCH_IOU and person.likeness(looks.get(j)) < self._likeness.other:
                kept = sum(frame <= person.looked[-1] for frame in person.frames)
                del person.frames[kept:], person.faces[kept:]  # somebody else, since nobody knows when
                self._open.remove(person)
        for j, face in enumerate(faces):
            person = linked.get(j) or _Person()
            if j not in linked:
                self._open.append(person)
                self._people.append(person)
            person.frames.append(self._index)
            person.faces.append(face)
            if j in looks and self._is_due(person):
                person.total = looks[j] if person.total is None else person.total + looks[j]
                person.looked.append(self._index)
        if image is not None:
            for person in self._open:
                person.watch(image, self._index)

    def finish(self) -> list[LinkedTrack]:
        """All tracks, in the order of their first frames."""
        joined: list[_Person] = []
        at: dict[int, list[Face]] = {}
        for person in sorted(self._people, key=lambda person: person.frames[0]):
            for frame, face in zip(person.frames, person.faces, strict=True):
                at.setdefault(frame, []).append(face)
            for earlier in joined if person.total is not None else []:
                gap = person.frames[0] - earlier.frames[-1] - 1
                is_near = 0 <= gap <= self._longest_gap and earlier.total is not None
                if is_near and earlier.likeness(person.total) >= self._likeness.same:
                    earlier.join(person)
                    break
            else:
                joined.append(person)
        tracks = []
        for person in joined:
            track = steady_track(person.frames, person.faces, person.hidden, self._fps)
            boxes = face_boxes(track.boxes)
            for i in np.flatnonzero(~track.detected).tolist():  # somebody else is there, before the face
                track.visible[i] &= all(iou(boxes[i], face.box) < MATCH_IOU for face in at.get(track.start + i, []))
            embedding = None if person.total is None else unit(person.total)
            tracks.append(LinkedTrack(track, person.faces, embedding, person.picture))
        return sorted(tracks, key=lambda linked: (linked.track.start, tuple(linked.track.boxes[0])))

    def _is_due(self, person: "_Person") -> bool:
        return not person.looked or self._index - person.looked[-1] >= self._embed_every

    def _look(self, faces: list[Face], overlaps: "Overlaps", image: np.ndarray | None) -> dict[int, np.ndarray]:
        """Unit embeddings, by the face's index: where it is time again, or where it is not clear whose face it is."""
        due = []
        near = [pair for pair, overlap in overlaps.items() if overlap >= MATCH_IOU]
        for j in range(len(faces)):
            people = [person for face, person in near if face == j]
            rivals = [face for face, person in near if person in people]
            if len(people) != 1 or len(rivals) != 1 or self._is_due(people[0]):
                due.append(j)
        if not due or self._embed is None:
            return {}
        embeddings = self._embed([faces[j] for j in due], image)
        return {j: unit(embedding) for j, embedding in zip(due, embeddings, strict=True)}

    def _link(self, overlaps: "Overlaps", looks: dict[int, np.ndarray]) -> dict[int, "_Person"]:
        """Who it is, by the face's index; the best overlap and likeness together come first."""
        candidates = []
        for (j, person), overlap in overlaps.items():
            alike, is_known = person.likeness(looks.get(j)), j in looks and person.total is not None
            if alike >= self._likeness.other if overlap >= MATCH_IOU else is_known and alike >= self._likeness.same:
                candidates.append((overlap + alike * is_known, j, person))
        linked: dict[int, _Person] = {}
        for _, j, person in sorted(candidates, key=lambda candidate: -candidate[0]):
            if j not in linked and person not in linked.values():
                linked[j] = person
        return linked


@dataclass(eq=False)
class _Person:
    frames: list[int] = field(default_factory=list)  # in which the face was detected
    faces: list[Face] = field(default_factory=list)  # the detections
    hidden: list[int] = field(default_factory=list)  # frames that cannot show it
    total: np.ndarray | None = None  # sum of the looks' unit embeddings
    looked: list[int] = field(default_factory=list)  # frames of the looks
    picture: np.ndarray | None = None
    quality: float = 0.0  # of the picture
    thumb: np.ndarray | None = None  # of the last sighting
    first_thumb: np.ndarray | None = None
    unseen: list[tuple[int, np.ndarray]] = field(default_factory=list)  # frames since then, and what is at its place

    def likeness(self, look: np.ndarray | None) -> float:
        """Cosine, in [-1, 1], with an embedding; 1 where one of the two is not known."""
        return 1.0 if look is None or self.total is None else float(unit(look) @ unit(self.total))

    def expected(self, index: int) -> np.ndarray:
        """(4,) where the box should be in a frame, if the face moves on as it did."""
        frames, faces = self.frames[-PACE:], self.faces[-PACE:]
        box = faces[-1].box
        if len(faces) < 2:
            return box
        moved = (box[:2] + box[2:] - faces[0].box[:2] - faces[0].box[2:]) / 2
        return box + np.tile(moved, 2) * ((index - frames[-1]) / (frames[-1] - frames[0]))

    def overlap(self, face: Face, index: int) -> float:
        """In [0, 1], of a face with the expected one or, less, with the last one: it may have stood still."""
        return max(iou(self.expected(index), face.box), STILL * iou(self.faces[-1].box, face.box))

    def judge(self, after: np.ndarray | None) -> None:
        """Which of the frames without a sighting show what is seen before or after them."""
        around = [thumb for thumb in (self.thumb, after) if thumb is not None]
        for missed, thumb in self.unseen:
            if min(float(np.abs(thumb - each).mean()) for each in around) > LOOKS_ALIKE:
                self.hidden.append(missed)
        self.unseen.clear()

    def join(self, later: "_Person") -> None:
        """Go on as a later one, who is the same."""
        self.unseen = [each for each in self.unseen if each[0] < later.frames[0]]
        self.judge(later.first_thumb)
        self.frames, self.faces = self.frames + later.frames, self.faces + later.faces
        self.hidden += later.hidden
        assert self.total is not None
        assert later.total is not None
        self.total, self.thumb, self.unseen = self.total + later.total, later.thumb, later.unseen
        if later.quality > self.quality:
            self.picture, self.quality = later.picture, later.quality

    def watch(self, image: np.ndarray, index: int) -> None:
        """Keep the best picture of the face; where it is missed, judge if it may be there all the same."""
        face = self.faces[-1]
        if self.frames[-1] != index:
            self.unseen.append((index, _thumb(image, self.expected(index))))
            return
        self.judge(now := _thumb(image, face.box))
        self.thumb = now
        self.first_thumb = now if self.first_thumb is None else self.first_thumb
        quality = face.score * frontality(face.landmarks) * min(PICTURE, float(max(face.box[2:] - face.box[:2])))
        if self.picture is None or quality > BETTER * self.quality:
            self.picture, self.quality = crop(image, square_around(face.box), PICTURE), quality


Overlaps = dict[tuple[int, _Person], float]  # by the face's index in its frame, and by who it may be


def track_largest_face(detections: Iterable[list[Face]], fps: float) -> list[FaceTrack]:
    """Follow the largest face through a video by its detections in each frame; where it changes, a new track starts.

    Another face is followed when it is seen for `TAKEOVER` and is far larger, or the first one is missed; or when the
    first one is gone. The tracks are in the order of time and do not overlap.
    """
    linker = FaceLinker(fps)
    for faces in detections:
        linker.add(faces)
    tracks, long = [linked.track for linked in linker.finish()], math.ceil(TAKEOVER * fps)
    areas = np.zeros((len(tracks), max((track.stop for track in tracks), default=0)))  # (tracks, frames)
    for area, track in zip(areas, tracks, strict=True):
        sides = (track.boxes[:, 2] - track.boxes[:, 0]) * np.where(track.detected, 1, 1e-3)
        area[track.start : track.stop] = sides**2
    now, followed = None, list[int | None]()  # tracks, by frame
    for frame in range(areas.shape[1]):
        ahead = areas[:, frame : frame + long]
        rival = int(ahead.min(axis=1).argmax())
        if now is None or not areas[now, frame]:
            now = int(areas[:, frame].argmax()) if areas[:, frame].any() else None
        elif ahead.shape[1] == long and (ahead[rival] > DWARFED * ahead[now]).all():
            now = rival
        followed.append(now)
    runs = ((track, list(run)) for track, run in groupby(range(len(followed)), followed.__getitem__))
    return [tracks[track].part(run[0], run[-1] + 1) for track, run in runs if track is not None]


def steady_track(seen: list[int], faces: list[Face], hidden: list[int], fps: float) -> FaceTrack:
    """Fill the gaps between frames in which a face was seen, make the boxes square with `MARGIN`, and steady them."""
    frames = np.arange(seen[0], seen[-1] + 1)
    values = np.stack([np.concatenate([f.box, f.landmarks.ravel()]) for f in faces]).astype(np.float64)
    filled = np.stack([np.interp(frames, seen, column) for column in values.T], axis=1)
    low, high = filled[:, 0:2], filled[:, 2:4]
    face_side = (high - low).max(axis=1)
    centre = (low + high) / 2 - np.array([0.0, SHIFT_UP]) * face_side[:, None]
    steady = smooth(np.column_stack([centre, MARGIN * face_side]), SMOOTHING * fps)
    # The fit at the ends may lie a little beyond what was seen; a side must stay a side.
    half = np.maximum(steady[:, 2:], MARGIN * face_side.min()) / 2
    boxes = np.concatenate([steady[:, :2] - half, steady[:, :2] + half], axis=1)
    landmarks = filled[:, 4:].reshape(-1, 5, 2).astype(np.float32)
    return FaceTrack(seen[0], boxes, landmarks, np.isin(frames, seen), ~np.isin(frames, hidden))


def square_around(box: np.ndarray) -> np.ndarray:
    """(4,) the square crop of one face's box [px]."""
    side, centre = max(box[2:] - box[:2]), (box[:2] + box[2:]) / 2
    centre = centre - np.array([0.0, SHIFT_UP]) * side
    return np.concatenate([centre - MARGIN * side / 2, centre + MARGIN * side / 2])


def face_boxes(crops: np.ndarray) -> np.ndarray:
    """The faces' own boxes, as squares, from (n, 4) crops of a track [px]: `steady_track` backwards."""
    side = (crops[:, 2:] - crops[:, :2]) / MARGIN
    centre = (crops[:, :2] + crops[:, 2:]) / 2 + np.array([0.0, SHIFT_UP]) * side
    return np.concatenate([centre - side / 2, centre + side / 2], axis=1)


def smooth(values: np.ndarray, sigma: float) -> np.ndarray:
    """(n, d) values smoothed along n by a Gaussian of `sigma` samples, and what that missed of a fast motion added.

    Each value is that of a straight line fitted with Gaussian weights. Away from the ends this is the Gaussian mean;
    at the ends, where half of its samples are missing, the mean would lag behind a moving face. What is left of the
    values is smoothed and added in turn (twicing, Tukey 1977): it is motion, since noise hardly passes twice.
    """
    n = len(values)
    reach = min(math.ceil(3 * sigma), n - 1)
    if reach < 1:
        return values.copy()
    offset = np.arange(-reach, reach + 1)
    weight = np.exp(-0.5 * (offset / sigma) ** 2)

    def summed(column: np.ndarray, kernel: np.ndarray) -> np.ndarray:
        # Nothing lies beyond the ends. Convolving mirrors the offsets, so s1 and t1 both change their sign.
        return np.convolve(column, kernel, mode="full")[reach : reach + n]

    s0, s1, s2 = (summed(np.ones(n), weight * offset**power) for power in range(3))
    steady = np.zeros_like(values)
    for _ in range(1 + TWICINGS):
        rest = (values - steady).T
        t0, t1 = (np.stack([summed(column, weight * offset**power) for column in rest], axis=1) for power in range(2))
        steady += (s2[:, None] * t0 - s1[:, None] * t1) / (s0 * s2 - s1**2)[:, None]
    return steady


def _thumb(image: np.ndarray, box: np.ndarray) -> np.ndarray:
    """(8, 8, 3) float32, what is in a box."""
    height, width = image.shape[:2]
    x0, y0 = np.clip(np.floor(box[:2]).astype(int), 0, (width - 1, height - 1))
    x1, y1 = np.clip(np.ceil(box[2:]).astype(int), (x0 + 1, y0 + 1), (max(width, x0 + 1), max(height, y0 + 1)))
    return cv2.resize(image[y0:y1, x0:x1], (THUMB, THUMB), interpolation=cv2.INTER_AREA).astype(np.float32)


def unit(vector: np.ndarray) -> np.ndarray:
    """A (d,) vector scaled to length 1, float32; zeros stay zeros."""
    length = float(np.linalg.norm(vector))
    return (vector / length if length > 0 else vector).astype(np.float32)
