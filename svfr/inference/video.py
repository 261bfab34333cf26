"""Restore a whole video file by streaming: plan it, restore its faces clip by clip, paste them back, write."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from svfr.data.deinterlacing import is_interlaced
from svfr.data.faces import crop
from svfr.data.frames import resize, resize_mask, task_input, to_tensor, to_uint8, to_unit
from svfr.data.video import Frame, ReadOptions, VideoError, VideoWriter, probe
from svfr.inference.cost import measuring_cost
from svfr.inference.keep import KeepRules
from svfr.inference.masks import crop_hole, with_masks
from svfr.inference.pasting import put_back
from svfr.inference.people import Looks
from svfr.inference.plan import Plan, PlannedTrack, choose, make_plan
from svfr.inference.reference import ReferenceFinder
from svfr.inference.settings import VideoSettings
from svfr.inference.strategies import restore_clips
from svfr.models.components import Components, Reference

OnProgress = Callable[[float, str], None]  # called with the work just done, in frames, and its stage
DEEPEST = 8  # bits a colour that a result has by itself
TO_THE_END = 2**62  # a frame index that no video reaches
MUCH_SMALLER = 0.5  # Assumption: a reference of a face this much smaller is not taken over


@dataclass(frozen=True)
class VideoReport:
    """Facts of one restored video."""

    output: Path
    num_frames: int
    restored_frames: int  # the others had no face and passed through
    num_tracks: int
    width: int
    height: int
    fps: float
    seconds: float
    cost: dict[str, Any]  # of `measuring_cost`
    detector: str | None
    notes: list[str] = field(default_factory=list)
    num_shots: int = 1
    num_people: int = 1  # whose faces were restored


@dataclass(eq=False)
class _Crop:
    """A face of a frame: what the networks see of it, and what they make of it."""

    box: np.ndarray | None  # (4,) [px] of the turned frame; None is the whole frame
    landmarks: np.ndarray | None  # (5, 2) [px] of the turned frame
    lq: Tensor  # (3, s, s) in [-1, 1]
    chain: "_Chain"
    restored: np.ndarray | None = None  # (s, s, 3) uint8


@dataclass(eq=False)
class _Chain:
    """A track that is restored as a chain of clips, and its crops that no clip has taken yet."""

    track: PlannedTrack | None  # None: whole frames
    waiting: deque[_Crop] = field(default_factory=deque)
    clips: Iterator[tuple[list[_Crop], Tensor]] = field(default_factory=lambda: iter(()))

    @property
    def span(self) -> tuple[int, int]:
        """Indices of its first frame and after its last."""
        return (0, TO_THE_END) if self.track is None else (self.track.face.start, self.track.face.stop)


class _Held(NamedTuple):
    """A frame that waits for its faces."""

    frame: Frame
    hole: np.ndarray | None  # (h, w) bool at the frame's size
    crops: list[_Crop]


class _Stream:
    """Frames, read once, with the faces of each; held until all chains that need them have taken their clips."""

    def __init__(
        self, pairs: Iterator[tuple[Frame, np.ndarray | None]], chains: list[_Chain], tasks: tuple[str, ...], size: int
    ) -> None:
        self.held: deque[_Held] = deque()
        self._pairs, self._tasks, self._size = pairs, tasks, size
        self._later = deque(sorted(chains, key=lambda chain: chain.span))
        self._now: list[_Chain] = []
        self._index = 0

    def read(self) -> bool:
        """Take in the next frame; False at the end."""
        pair = next(self._pairs, None)
        if pair is None:
            return False
        frame, mask = pair
        while self._later and self._later[0].span[0] <= self._index:
            self._now.append(self._later.popleft())
        self._now = [chain for chain in self._now if self._index < chain.span[1]]
        height, width = frame.image.shape[:2]
        hole = None if mask is None else resize_mask(mask, width, height)
        crops = [crop for chain in self._now if (crop := self._cut(chain, frame, mask, hole))]
        # Of faces that overlap, the smaller is farther away and comes first.
        crops.sort(key=lambda crop: 0.0 if crop.box is None else crop.box[2] - crop.box[0])
        self.held.append(_Held(frame, hole, crops))
        self._index += 1
        return True

    def crops_of(self, chain: _Chain) -> Iterator[_Crop]:
        """The crops of a chain's frames; reads on where the next is not there yet."""
        while chain.waiting or (self._index < chain.span[1] and self.read()):
            if chain.waiting:
                yield chain.waiting.popleft()

    def _cut(self, chain: _Chain, frame: Frame, mask: np.ndarray | None, hole: np.ndarray | None) -> _Crop | None:
        size, track, box, landmarks = self._size, chain.track, None, None
        if track is None:
            image = resize(frame.image, size, size)
            cut_hole = None if mask is None else resize_mask(mask, size, size)
        else:
            at = self._index - track.face.start
            if not track.face.visible[at]:
                return None
            box, landmarks = track.face.boxes[at], track.face.landmarks[at]
            image = crop(turned(frame.image, track.turns), box, size)
            cut_hole = None if hole is None else crop_hole(turned(hole, track.turns), box, size)
        made = _Crop(box, landmarks, to_tensor(task_input(image, self._tasks, cut_hole)), chain)
        chain.waiting.append(made)
        return made


def restore_file(
    components: Components,
    references: ReferenceFinder,
    settings: VideoSettings,
    source: Path,
    target: Path,
    tasks: tuple[str, ...],
    *,
    mask: Path | None = None,
    reference: np.ndarray | None = None,
    on_progress: OnProgress | None = None,
    looks: Looks | None = None,
) -> VideoReport:
    """Restore a video, an image or a folder of frames.

    Frames without a face pass through unchanged. With `face="auto"` the file is read twice: to plan, and to restore;
    both stream.

    Args:
        components: the networks.
        references: finds references; its detector finds the faces of the video, too.
        settings: resolved.
        source: the input.
        target: the result; its suffix may change with the container (see `VideoWriter`).
        tasks: from `parse_tasks`.
        mask: image, video or folder of images; white is a hole. One image serves all frames.
        reference: (h, w, 3) uint8 photo of the person; of several people, of the one who looks like it.
        on_progress: called with (frames, "faces" or "restore").
        looks: tells people apart; None: by the references' recognizer, or the weights' own network.

    Raises:
        VideoError: the input, the mask or the output cannot be used; nothing is left at `target`.
        ValueError: no face in the photo, or no detector to find faces with.
    """
    started = time.perf_counter()
    detector, size = references.detector, settings.size
    assert size is not None  # resolved
    keep = KeepRules.resolve(tasks, settings)
    photo = None
    if reference is not None:
        photo = references.from_photo(reference, size, or_whole=settings.face == "aligned")
    options, notes = _how_to_read(source, settings)
    info = probe(source, options)
    notes += info.notes
    plan, shown = None, None
    if settings.face == "auto":
        looks = looks or Looks.of(components, references.recognizer)
        plan = plan_file(references, settings, source, looks, on_progress)
        notes += plan.notes
        if plan.tracks and "colorization" in tasks:
            notes.append("only the squares around faces are coloured")
        if reference is not None and detector is not None and len(plan.restored) > 1:
            shown = looks.who(reference, detector, plan.restored)
            of_whom = f"is taken for person {shown}" if shown else "looks like nobody here; faces=NUMBER names them"
            notes.append(f"the reference photo {of_whom}")

    known: dict[int, tuple[float, Reference]] = {}  # by person: side of the crop [px] and reference

    def find_reference(track: PlannedTrack | None) -> Reference | None:
        """What a track starts with."""
        if photo is not None and (track is None or shown == track.person or (plan and len(plan.restored) == 1)):
            return photo
        side, best = known.get(track.person, (0.0, None)) if track else (0.0, None)
        return best if track and side >= min(track.face.largest * MUCH_SMALLER, size) else None

    def keep_reference(track: PlannedTrack | None, chosen: Reference) -> None:
        if track and track.face.largest > known.get(track.person, (0.0, None))[0]:
            known[track.person] = track.face.largest, chosen

    chains = [_Chain(None)] if plan is None else [_Chain(track) for track in plan.tracks]
    stream = _Stream(with_masks(source, mask, info, options, notes.append), chains, tasks, size)
    faces = [t.face.start + i for t in plan.tracks for i in np.flatnonzero(t.face.visible)] if plan else [0]
    share = len(set(faces)) / max(1, len(faces))  # of a frame in one of its faces
    advance = (lambda frames: on_progress(frames * share, "restore")) if on_progress else None

    def restore(chain: _Chain) -> Iterator[tuple[list[_Crop], Tensor]]:
        yield from restore_clips(
            components,
            settings,
            tasks,
            stream.crops_of(chain),
            references,
            find_reference(chain.track),
            first_frame=chain.span[0],
            on_step=advance,
            on_reference=partial(keep_reference, chain.track),
        )

    for chain in chains:
        chain.clips = restore(chain)
    num_frames = restored_frames = 0
    measured = measuring_cost(components.model.unet, components.device)
    with measured as cost, VideoWriter(target, source=info, format=settings.format, crf=settings.crf) as writer:
        if writer.path.resolve() == source.resolve():
            raise VideoError(f"{source}: the result would replace it; choose another output")
        while stream.held or stream.read():
            frame, hole, crops = stream.held[0]
            for each in crops:
                while each.restored is None:
                    clip, restored = next(each.chain.clips)
                    for made, image in zip(clip, to_uint8(to_unit(restored)), strict=True):
                        made.restored = image
                frame = _paste(frame, each, hole, keep)
                if num_frames + 1 == each.chain.span[1]:
                    each.chain.clips = iter(())  # and with it all that the chain holds
            if on_progress and not crops:
                on_progress(1, "restore")
            writer.write(frame.image if frame.deep is None else frame.deep, frame.pts, frame.time_base)
            stream.held.popleft()
            num_frames += 1
            restored_frames += bool(crops)
        if not num_frames:
            raise VideoError(f"{source}: no frames")
    return VideoReport(
        output=writer.path,
        num_frames=num_frames,
        restored_frames=restored_frames,
        num_tracks=len(chains),
        width=info.width,
        height=info.height,
        fps=float(info.fps),
        seconds=time.perf_counter() - started,
        cost=cost,
        detector=detector.name if detector else None,
        notes=[*notes, *components.notes, *writer.notes],
        num_shots=len(plan.shots) if plan else 1,
        num_people=len(plan.restored) if plan else 1,
    )


def plan_file(
    references: ReferenceFinder,
    settings: VideoSettings,
    source: Path,
    looks: Looks | None = None,
    on_progress: OnProgress | None = None,
) -> Plan:
    """What `restore_file` restores with `face="auto"`; arguments as there.

    Raises:
        VideoError: the input cannot be used.
        ValueError: no detector to find faces with, or `faces` names nobody.
    """
    if (detector := references.detector) is None:
        raise ValueError('face="auto" needs a detector')
    options, _ = _how_to_read(source, settings)
    looks = looks or Looks.of(references.components, references.recognizer)
    advance = (lambda frames: on_progress(frames, "faces")) if on_progress else (lambda frames: None)
    plan = make_plan(source, probe(source, options), options, detector, looks, settings.face_box, advance)
    return choose(plan, settings, looks, detector)


def turned(image: np.ndarray, turns: int) -> np.ndarray:
    """A picture (h, w, ...) after quarter turns counter-clockwise."""
    return np.ascontiguousarray(np.rot90(image, turns)) if turns % 4 else image


def _paste(frame: Frame, face: _Crop, hole: np.ndarray | None, keep: KeepRules) -> Frame:
    """The frame with one more restored face."""
    assert face.restored is not None
    turns = face.chain.track.turns if face.chain.track else 0
    deep = None if frame.deep is None else turned(frame.deep, turns)
    upright = replace(frame, image=turned(frame.image, turns), deep=deep)
    upright_hole = None if hole is None else turned(hole, turns)
    result = turned(put_back(upright, face.restored, face.box, upright_hole, keep), -turns)
    return replace(frame, image=result) if frame.deep is None else replace(frame, deep=result)


def _how_to_read(source: Path, settings: VideoSettings) -> tuple[ReadOptions, list[str]]:
    """How the source is read, and what of that is worth a note."""
    options = ReadOptions(max_pixels=settings.max_pixels, salvage=settings.salvage)
    if settings.fps is not None:
        options = replace(options, fps=Fraction(settings.fps).limit_denominator(1001))
    info, notes = probe(source, options), []
    if info.bits > DEEPEST:
        options = replace(options, deep=True)
        notes.append(f"{info.bits} bits a colour: faces are restored in 8, the rest keeps 10")
    looks_so = settings.deinterlace == "auto" and info.kind == "video" and is_interlaced(source, settings.max_pixels)
    if settings.deinterlace == "yes" or looks_so:
        options = replace(options, deinterlace=True)
        notes.append("interlaced: whole pictures are made of its fields, at its rate (deinterlace=no keeps them)")
    return options, notes
