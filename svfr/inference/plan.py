"""What will be restored of a file: its shots, the faces in them as tracks, and whose they are; how that is shown."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from svfr.data.alignment import FFHQ_TEMPLATE
from svfr.data.detectors import Face, FaceDetector
from svfr.data.linking import TAKEOVER, FaceLinker, FaceTrack, LinkedTrack, square_around
from svfr.data.shots import with_cuts
from svfr.data.video import ReadOptions, VideoError, VideoInfo, read_frames
from svfr.inference.reference import Looks, Person, group
from svfr.inference.settings import Sampling, VideoSettings

# YuNet finds faces that lie or stand on their heads, too, but takes them for upright ones. Measured on 21 real and
# rendered clips, a frame each way: upright 0.90 to 0.95, and always the best; turned at most 0.89.
VOTES = 5  # Assumption: frames with faces that decide how a shot is turned
TURNED_SCORE = 0.75  # least mean score of a shot that is turned
LOOK_AGAIN = 0.5  # [s] Assumption: how often a shot without faces is looked at turned
LABEL = 14  # [px] above a person's picture

Detect = Callable[[np.ndarray], list[Face]]
Hole = tuple[int, int, np.ndarray]  # start, stop, square [px] of what is to be filled outside of faces


@dataclass(frozen=True, eq=False)
class PlannedTrack:
    """A face that is restored as a chain of its own."""

    face: FaceTrack  # where it is, [px] of the turned frames
    turns: int  # quarter turns counter-clockwise that put it upright
    person: int  # their number


@dataclass(frozen=True)
class Plan:
    """What is in a file, and what of it is restored."""

    num_frames: int
    shots: list[int]  # index of the first frame of each
    tracks: list[PlannedTrack]  # that are restored, in the order of their first frames
    people: list[Person]  # all that were found
    notes: list[str] = field(default_factory=list)  # to the user

    @property
    def restored(self) -> list[Person]:
        """The people whose faces are restored."""
        numbers = {track.person for track in self.tracks}
        return [person for person in self.people if person.number in numbers]

    def share(self, holes: Sequence[Hole]) -> float:
        """Frames in which something is restored, for each face or hole outside of faces that is, in one of them."""
        crops = np.zeros(self.num_frames, dtype=int)
        for track in self.tracks:
            crops[track.face.start : track.face.stop] += track.face.visible
        for start, stop, _ in holes:
            crops[start:stop] += 1
        return np.count_nonzero(crops) / max(1, crops.sum())

    @property
    def crops(self) -> list[list[tuple[int, np.ndarray]]]:
        """Of each frame, what is restored in it: quarter turns, and a square (4,) [px] of the turned frame."""
        crops: list[list[tuple[int, np.ndarray]]] = [[] for _ in range(self.num_frames)]
        for track in self.tracks:
            for at in np.flatnonzero(track.face.visible):
                crops[track.face.start + at].append((track.turns, track.face.boxes[at]))
        return crops


def turned(image: np.ndarray, turns: int) -> np.ndarray:
    """A picture (h, w, ...) after quarter turns counter-clockwise."""
    return np.ascontiguousarray(np.rot90(image, turns)) if turns % 4 else image


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

    `face_box` is x0, y0, x1, y1 [px] of a face that is in all frames, instead of the detector's. `on_frame` is called
    after each frame of a pass with 1 in the first, 0 in the second.

    Raises:
        VideoError: the file cannot be read.
        ValueError: a box outside of the picture.
    """
    scan = partial(_scan, source, replace(options, deep=False), float(info.fps), looks)
    if face_box is not None:
        if face_box[0] >= info.width or face_box[1] >= info.height:
            raise ValueError(f"face_box={face_box}: outside of the picture, {info.width}x{info.height}")
        box = np.array(face_box, dtype=np.float32)
        square = square_around(box)
        points = square[:2] + FFHQ_TEMPLATE / 512 * (square[2:] - square[:2])
        given = Face(box, points.astype(np.float32), 1.0)
        return scan(lambda image: [given], (0,), partial(on_frame, 1))
    plan = scan(detector, (0, 1, 2, 3), partial(on_frame, 1))
    if plan.tracks:
        return plan
    plan = scan(partial(detector, closer=True), (0, 1, 2, 3), partial(on_frame, 0))
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


def plan_lines(plan: Plan, sampling: Sampling, plan_seconds: float, seconds_of_a_clip: float) -> Iterator[str]:
    """A plan in lines: shots, people, clips, steps and the time to expect, of which `plan_seconds` are for planning."""
    length, overlap = sampling.clip_length, sampling.overlap
    assert length and overlap is not None  # resolved
    frames = [int(track.face.visible.sum()) for track in plan.tracks]
    clips = sum(1 + max(0, math.ceil((count - length) / (length - overlap))) for count in frames)
    yield f"{plan.num_frames} frames, {len(plan.shots)} shots, starting at {', '.join(map(str, plan.shots))}"
    chosen = {person.number for person in plan.restored}
    for person in plan.people:
        spans = [f"{t.face.start}-{t.face.stop - 1}" for t in plan.tracks if t.person == person.number]
        yield f"person {person.number}: " + (f"frames {', '.join(spans)}" if person.number in chosen else "left as is")
    steps = sampling.num_inference_steps
    yield f"{clips} clips of {length} frames at {sampling.size} px, steps: {steps}"
    yield f"about {plan_seconds + clips * seconds_of_a_clip:.0f} s"
    yield from plan.notes


def contact_sheet(plan: Plan, path: Path) -> None:
    """Write a PNG with the people's numbers and pictures."""
    pictures = [person.picture for person in plan.people]
    side = max(len(picture) for picture in pictures)
    columns = min(len(pictures), 8)
    sheet = Image.new("RGB", (columns * side, math.ceil(len(pictures) / columns) * (side + LABEL)), "white")
    draw = ImageDraw.Draw(sheet)
    for index, person in enumerate(plan.people):
        x, y = index % columns * side, index // columns * (side + LABEL)
        draw.text((x + 2, y + 1), str(person.number), fill="black")
        sheet.paste(Image.fromarray(person.picture), (x, y + LABEL))
    sheet.save(path)


def _scan(
    source: Path,
    options: ReadOptions,
    fps: float,
    looks: Looks,
    detect: Detect,
    turns: tuple[int, ...],
    on_frame: Callable[[], None],
) -> Plan:
    shots: list[_Shot] = []
    num_frames = num_glimpses = 0
    for image, is_cut in with_cuts(frame.image for frame in read_frames(source, options)):
        if is_cut:  # the first frame is one
            shots.append(_Shot(num_frames, fps, detect, looks, turns))
        shots[-1].add(image)
        num_frames += 1
        on_frame()
    if not shots:
        raise VideoError(f"{source}: no frames")
    found: list[tuple[int, int, LinkedTrack]] = []  # (first frame, turns, track)
    for shot in shots:
        turn, linked = shot.finish()
        least = min(math.ceil(TAKEOVER * fps), shot.length)  # one false detection is no face
        lasting = [each for each in linked if len(each.faces) >= least]
        num_glimpses += len(linked) - len(lasting)
        found += [(shot.start + each.track.start, turn, each) for each in lasting]
    numbers, people = group([(start, each) for start, _, each in found], looks.likeness)
    pairs = zip(found, numbers, strict=True)
    tracks = [PlannedTrack(replace(each.track, start=start), turn, who) for (start, turn, each), who in pairs]
    notes = []
    if num_glimpses:
        notes.append(f"{num_glimpses} faces seen for less than {TAKEOVER:g} s are left as they are")
    if hidden := sum(int((~track.face.visible).sum()) for track in tracks):
        notes.append(f"{hidden} frames within tracks show no face (a flash, black, covered): they passed through")
    if num_turned := sum(track.turns > 0 for track in tracks):
        notes.append(f"{num_turned} faces lie or stand on their heads: restored upright, put back turned")
    return Plan(num_frames, [shot.start for shot in shots], tracks, people, notes)


class _Shot:
    """The faces of a shot, while it is read: looked for in frames turned all ways until it is clear which is right."""

    def __init__(self, start: int, fps: float, detect: Detect, looks: Looks, turns: tuple[int, ...]) -> None:
        self.start, self.length = start, 0
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
            upright = turned(image, turn)
            faces = self._detect(upright) if turn == 0 or looks_around else []
            best[turn] = max((face.score for face in faces), default=0.0)
            linker.add(faces, upright)
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
