"""What will be restored of a file: its shots, the faces in them as tracks, and whose they are."""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from svfr.data.alignment import FFHQ_TEMPLATE
from svfr.data.detectors import Face, FaceDetector
from svfr.data.linking import TAKEOVER, FaceLinker, FaceTrack, LinkedTrack, square_around
from svfr.data.shots import with_cuts
from svfr.data.video import ReadOptions, VideoError, VideoInfo, read_frames
from svfr.inference.people import Looks, Person, group
from svfr.inference.settings import VideoSettings

# YuNet finds faces that lie or stand on their heads, too, but takes them for upright ones. Measured on 21 real and
# rendered clips, a frame each way: upright 0.90 to 0.95, and always the best; turned at most 0.89.
VOTES = 5  # Assumption: frames with faces that decide how a shot is turned
TURNED_SCORE = 0.75  # least mean score of a shot that is turned
LOOK_AGAIN = 0.5  # [s] Assumption: how often a shot without faces is looked at turned

Detect = Callable[[np.ndarray], list[Face]]


@dataclass(frozen=True, eq=False)
class PlannedTrack:
    """A face that is restored as a chain of its own.

    Attributes:
        face: where it is, [px] of the turned frames.
        turns: quarter turns counter-clockwise that put it upright.
        person: their number.
        shot: index of it.
    """

    face: FaceTrack
    turns: int
    person: int
    shot: int


@dataclass(frozen=True)
class Plan:
    """What is in a file, and what of it is restored.

    Attributes:
        num_frames: of the file.
        shots: index of the first frame of each.
        tracks: in the order of their first frames.
        people: all that were found.
        notes: to the user.
    """

    num_frames: int
    shots: list[int]
    tracks: list[PlannedTrack]
    people: list[Person]
    notes: list[str] = field(default_factory=list)

    @property
    def restored(self) -> list[Person]:
        """The people whose faces are restored."""
        numbers = {track.person for track in self.tracks}
        return [person for person in self.people if person.number in numbers]

    def crops(self, frame_size: tuple[int, int]) -> list[list[np.ndarray]]:
        """Of each frame (width, height), the squares (4,) [px] in it that are restored."""
        crops: list[list[np.ndarray]] = [[] for _ in range(self.num_frames)]
        for track in self.tracks:
            for at in np.flatnonzero(track.face.visible):
                x0, y0, x1, y1 = track.face.boxes[at]
                for turn in range(track.turns, 0, -1):  # back by a quarter turn, from the frame that the last one gave
                    x0, y0, x1, y1 = (width := frame_size[(turn - 1) % 2]) - y1, x0, width - y0, x1
                crops[track.face.start + at].append(np.array([x0, y0, x1, y1]))
        return crops


def make_plan(
    source: Path,
    info: VideoInfo,
    options: ReadOptions,
    detector: FaceDetector,
    looks: Looks,
    face_box: tuple[float, ...] | None = None,
    on_frame: Callable[[int], None] = lambda frames: None,
) -> Plan:
    """Find shots, faces and people in one pass over a file; a second, closer one where the first finds no face.

    Of the frames only boxes, landmarks, embeddings and a small picture of each track are held.

    Args:
        source: the file.
        info: of it.
        options: it is read with.
        detector: finds faces.
        looks: tells people apart.
        face_box: x0, y0, x1, y1 [px] of a face that is in all frames, instead of the detector's.
        on_frame: called after each frame of a pass with 1 in the first, 0 in the second.

    Raises:
        VideoError: the file cannot be read.
        ValueError: a box outside of the picture.
    """
    options = replace(options, deep=False)
    if face_box is not None:
        if face_box[0] >= info.width or face_box[1] >= info.height:
            raise ValueError(f"face_box={face_box}: outside of the picture, {info.width}x{info.height}")
        box = np.array(face_box, dtype=np.float32)
        square = square_around(box)
        points = square[:2] + FFHQ_TEMPLATE / 512 * (square[2:] - square[:2])
        given = Face(box, points.astype(np.float32), 1.0)
        return _scan(source, options, float(info.fps), lambda image: [given], looks, (0,), partial(on_frame, 1))
    plan = _scan(source, options, float(info.fps), detector, looks, (0, 1, 2, 3), partial(on_frame, 1))
    if plan.tracks:
        return plan
    closer = partial(detector, closer=True)
    plan = _scan(source, options, float(info.fps), closer, looks, (0, 1, 2, 3), partial(on_frame, 0))
    missing = "no face found, not even by a closer look: the input passed through unchanged (face_box= names one)"
    found = "faces were found by a closer look alone: it may be wrong"
    return replace(plan, notes=[found if plan.tracks else missing, *plan.notes])


def choose(plan: Plan, settings: VideoSettings, looks: Looks, detector: FaceDetector) -> Plan:
    """The plan with the tracks that `faces` names.

    Raises:
        ValueError: a number of nobody.
        VideoError: a photo that cannot be read.
    """
    tracks = plan.tracks
    if settings.faces == "largest":
        chosen: list[PlannedTrack] = []
        for track in sorted(tracks, key=lambda track: -track.face.largest * len(track.face.boxes)):
            if all(track.face.stop <= c.face.start or c.face.stop <= track.face.start for c in chosen):
                chosen.append(track)
        tracks = [track for track in tracks if track in chosen]
    elif settings.people:
        if max(settings.people) > len(plan.people) or min(settings.people) < 1:
            raise ValueError(f"faces={settings.faces}: {len(plan.people)} people were found; --dry-run shows them")
        tracks = [track for track in tracks if track.person in settings.people]
    elif settings.photo is not None:
        photo = next(read_frames(settings.photo)).image
        number = looks.who(photo, detector, plan.people)
        tracks = [track for track in tracks if track.person == number]
    left, notes = len(plan.tracks) - len(tracks), list(plan.notes)
    if left and not tracks:
        notes.append(f"nobody looks like faces={settings.faces}: the input passed through unchanged")
    elif left:
        notes.append(f"{left} other tracks of faces are left as they are (faces=all restores them)")
    return replace(plan, tracks=tracks, notes=notes)


def _scan(
    source: Path,
    options: ReadOptions,
    fps: float,
    detect: Detect,
    looks: Looks,
    turns: tuple[int, ...],
    on_frame: Callable[[], None],
) -> Plan:
    starts: list[int] = []
    found: list[tuple[int, int, LinkedTrack]] = []  # (shot, turns, track)
    shot: _Shot | None = None
    num_frames = num_glimpses = 0

    def finish() -> None:
        nonlocal num_glimpses
        if shot is None:
            return
        turn, tracks = shot.finish()
        least = min(math.ceil(TAKEOVER * fps), shot.length)  # one false detection is no face
        lasting = [linked for linked in tracks if len(linked.faces) >= least]
        num_glimpses += len(tracks) - len(lasting)
        found.extend((len(starts) - 1, turn, linked) for linked in lasting)

    for image, is_cut in with_cuts(frame.image for frame in read_frames(source, options)):
        if is_cut:
            finish()
            starts.append(num_frames)
            shot = _Shot(fps, detect, looks, turns)
        assert shot is not None  # the first frame starts one
        shot.add(image)
        num_frames += 1
        on_frame()
    if not num_frames:
        raise VideoError(f"{source}: no frames")
    finish()
    numbers, people = group([(starts[n] + each.track.start, each) for n, _, each in found], looks.likeness)
    tracks = [
        PlannedTrack(replace(each.track, start=starts[n] + each.track.start), turn, number, n)
        for (n, turn, each), number in zip(found, numbers, strict=True)
    ]
    notes = []
    if num_glimpses:
        notes.append(f"{num_glimpses} faces seen for less than {TAKEOVER:g} s are left as they are")
    if hidden := sum(int((~track.face.visible).sum()) for track in tracks):
        notes.append(f"{hidden} frames within tracks show no face (a flash, black, covered): they passed through")
    if turned := Counter(track.turns > 0 for track in tracks)[True]:
        notes.append(f"{turned} faces lie or stand on their heads: restored upright, put back turned")
    return Plan(num_frames, starts, tracks, people, notes)


class _Shot:
    """The faces of a shot, while it is read: looked for in frames turned all ways until it is clear which is right."""

    def __init__(self, fps: float, detect: Detect, looks: Looks, turns: tuple[int, ...]) -> None:
        self.length = 0
        self._detect = detect
        self._linkers = {turn: FaceLinker(fps, looks.embed, looks.likeness) for turn in turns}
        self._scores = dict.fromkeys(turns, 0.0)
        self._votes, self._seen = 0, True
        self._again = max(1, round(LOOK_AGAIN * fps))

    def add(self, image: np.ndarray) -> None:
        """Look for faces in the next frame."""
        looks_around = self._seen or self.length % self._again == 0
        best = dict.fromkeys(self._linkers, 0.0)
        for turn, linker in self._linkers.items():
            turned = np.ascontiguousarray(np.rot90(image, turn))
            faces = self._detect(turned) if turn == 0 or looks_around else []
            best[turn] = max((face.score for face in faces), default=0.0)
            linker.add(faces, turned)
        self.length += 1
        self._seen = any(best.values()) or self.length < VOTES
        if len(self._linkers) > 1 and any(best.values()):
            self._votes += 1
            self._scores = {turn: score + best[turn] for turn, score in self._scores.items()}
            if self._votes == VOTES:
                self._decide()

    def finish(self) -> tuple[int, list[LinkedTrack]]:
        """How the shot is turned, and the tracks."""
        self._decide()
        [(turn, linker)] = self._linkers.items()
        return turn, linker.finish()

    def _decide(self) -> None:
        best = max(self._linkers, key=self._scores.__getitem__)
        if self._scores[best] < TURNED_SCORE * self._votes:
            best = 0
        self._linkers = {best: self._linkers[best]}
