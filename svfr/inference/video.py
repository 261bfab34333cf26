"""Restore a whole video file by streaming: plan it, restore its faces clip by clip, paste them back, write."""

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from svfr.data.decoding import is_interlaced
from svfr.data.faces import crop
from svfr.data.frames import resize, resize_mask, task_input, to_tensor, to_uint8, to_unit
from svfr.data.h264 import SEGMENT
from svfr.data.video import Frame, ReadOptions, VideoError, VideoWriter, probe
from svfr.inference.chain import Chain
from svfr.inference.cost import measuring_cost
from svfr.inference.film import Film, plan_of
from svfr.inference.keep import KeepRules
from svfr.inference.masks import AUTO, crop_hole, find_mask, frame_holes, masks_of, with_masks
from svfr.inference.overlap import ahead, behind
from svfr.inference.pasting import put_back
from svfr.inference.people import Looks
from svfr.inference.plan import Plan, PlannedTrack, choose, make_plan
from svfr.inference.reference import COMPARED, AlignedFace, ReferenceFinder
from svfr.inference.settings import VideoSettings
from svfr.inference.strategies import restore_clips
from svfr.models.components import Components, Reference

Pairs = Iterator[tuple[Frame, np.ndarray | None]]  # frames with their masks
OnProgress = Callable[[float, str], None]  # called with the work just done, in frames, and its stage
DEEPEST = 8  # bits a colour that a result has by itself
FILLING = ("inpainting",)  # the tasks of holes outside of faces
TO_THE_END = 2**62  # a frame index that no video reaches
AHEAD = 4  # Assumption: frames that are decoded before they are needed, and that are encoded after the next ones
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

    track: PlannedTrack | None  # None: no face
    hole: tuple[int, int, np.ndarray] | None = None  # start, stop, square [px] of a hole outside of faces
    waiting: deque[_Crop] = field(default_factory=deque)
    clips: Iterator[tuple[list[_Crop], Tensor]] = field(default_factory=lambda: iter(()))
    network: Chain | None = None  # once it is at work
    state: dict[str, Any] | None = None  # of a chain that goes on
    done: deque[np.ndarray] = field(default_factory=deque)  # results of the crops with which it goes on

    @property
    def span(self) -> tuple[int, int]:
        """Indices of its first frame and after its last."""
        if self.hole is not None:
            return self.hole[:2]
        return (0, TO_THE_END) if self.track is None else (self.track.face.start, self.track.face.stop)


class _Held(NamedTuple):
    """A frame that waits for its faces."""

    frame: Frame
    hole: np.ndarray | None  # (h, w) bool at the frame's size
    crops: list[_Crop]


class _Stream:
    """Frames, read once, with the faces of each; held until all chains that need them have taken their clips."""

    def __init__(self, pairs: Pairs, chains: list[_Chain], tasks: tuple[str, ...], size: int, index: int) -> None:
        self.held: deque[_Held] = deque()
        self._pairs, self._tasks, self._size = pairs, tasks, size
        self._later = deque(sorted(chains, key=lambda chain: chain.span))
        self._now: list[_Chain] = []
        self._index = index  # of the next frame

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
        # Of faces that overlap, the smaller is farther away and comes first; holes behind them before all.
        crops.sort(key=lambda crop: 0.0 if crop.box is None or crop.chain.hole else crop.box[2] - crop.box[0])
        self.held.append(_Held(frame, hole, crops))
        self._index += 1
        return True

    def crops_of(self, chain: _Chain) -> Iterator[_Crop]:
        """The crops of a chain's frames; reads on where the next is not there yet."""
        while chain.waiting or (self._index < chain.span[1] and self.read()):
            if chain.waiting:
                yield chain.waiting.popleft()

    def _cut(self, chain: _Chain, frame: Frame, mask: np.ndarray | None, hole: np.ndarray | None) -> _Crop | None:
        size, track, tasks = self._size, chain.track, self._tasks
        box: np.ndarray | None = None
        landmarks: np.ndarray | None = None
        cut_hole: np.ndarray | None
        if chain.hole is not None and hole is not None:
            box, tasks = chain.hole[2], FILLING
            image, cut_hole = crop(frame.image, box, size), crop_hole(hole, box, size)
        elif track is None:
            image = resize(frame.image, size, size)
            cut_hole = None if mask is None else resize_mask(mask, size, size)
        else:
            at = self._index - track.face.start
            if not track.face.visible[at]:
                return None
            box, landmarks = track.face.boxes[at], track.face.landmarks[at]
            image = crop(turned(frame.image, track.turns), box, size)
            cut_hole = None if hole is None else crop_hole(turned(hole, track.turns), box, size)
        made = _Crop(box, landmarks, to_tensor(task_input(image, tasks, cut_hole)), chain)
        if chain.done:
            made.restored = chain.done.popleft()
        else:
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
    photos: Sequence[np.ndarray] = (),
    on_progress: OnProgress | None = None,
    looks: Looks | None = None,
    key: str | None = None,
) -> VideoReport:
    """Restore a video, an image or a folder of frames.

    Frames without a face pass through unchanged. With `face="auto"` the file is read twice: to plan, and to restore;
    both stream. Decoding and encoding go on beside the networks. What is longer than `segment` becomes a `Film`.

    Args:
        components: the networks.
        references: finds references; its detector finds the faces of the video, too.
        settings: resolved.
        source: the input.
        target: the result; its suffix may change with the container (see `VideoWriter`).
        tasks: from `parse_tasks`.
        mask: as `read_masks` takes it, or `AUTO`. One image serves all frames.
        photos: (h, w, 3) uint8; of several people, each is of the one who looks like it, and of several of one person,
            each track takes the one that it looks like most.
        on_progress: called with (frames, "faces" or "restore").
        looks: tells people apart; None: by the references' recognizer, or the weights' own network.
        key: digest of all that the result depends on; an interrupted film of the same key goes on.

    Raises:
        VideoError: the input, the mask or the output cannot be used; nothing is left at `target`.
        ValueError: no face in the photo, or no detector to find faces with.
    """
    started = time.perf_counter()
    film, detector, size = Film(target, key), references.detector, settings.size
    assert size is not None  # resolved
    faces_of_photos = [references.face_of(photo, size, or_whole=settings.face == "aligned") for photo in photos]
    options, notes = _how_to_read(source, settings)
    info = probe(source, options)
    if (start := film.start) is None:
        plan, holes, notes = None, list[tuple[int, int, np.ndarray]](), [*notes, *info.notes]
        whose: list[int | None] = [None] * len(photos)
        if settings.face == "auto":
            looks = looks or Looks.of(components, references.recognizer)
            plan = plan_file(references, settings, source, looks, on_progress)
            notes += plan.notes
            if plan.tracks and "colorization" in tasks:
                notes.append("only the ovals around faces are coloured")
            if detector is not None and len(plan.restored) > 1:
                whose = [looks.who(photo, detector, plan.restored) for photo in photos]
                for number, person in enumerate(whose, start=1):
                    of_whom = (
                        f"is taken for person {person}" if person else "looks like nobody here; faces=NUMBER names them"
                    )
                    notes.append(f"reference photo {number} {of_whom}")
        if mask == AUTO:
            mask = find_mask(source, target, options, notes.append)
        if plan is not None and mask is not None:
            frame_size, squares = (info.width, info.height), plan.crops((info.width, info.height))
            masks = masks_of(mask, options)
            holes = frame_holes(masks, squares, frame_size, size, plan.shots)
            notes += ["holes outside of the faces' crops are filled from a crop of their own"] if holes else []
        start = {
            "settings": asdict(settings),
            "plan": plan and asdict(plan),
            "mask": mask and str(mask),
            "holes": holes,
            "whose": whose,
            "notes": notes,
            "threads": torch.get_num_threads(),
            "encoder": {"threads": str((os.cpu_count() or 1) * 3 // 2)},  # x264's own default here
        }
    settings, state = replace(settings, **start["settings"]), film.state
    plan = start["plan"] and plan_of(start["plan"])
    keep = KeepRules.resolve(tasks, settings)
    chains = [_Chain(None)] if plan is None else [_Chain(track) for track in plan.tracks]
    chains += [_Chain(None, tuple(hole)) for hole in start["holes"]]
    for number, network, done in state.get("chains", []):
        chains[number].state, chains[number].done = network, deque(done)
    notes = [*start["notes"], *state.get("notes", [])]
    num_frames, restored_frames = state.get("index", 0), state.get("restored_frames", 0)
    # By person: side of the crop [px] and reference.
    known = {
        who: (side, Reference(*(tensor.to(components.device) for tensor in tensors)))
        for who, side, tensors in state.get("known", [])
    }

    def find_reference(track: PlannedTrack | None, crops: Iterator[_Crop]) -> tuple[Iterator[_Crop], Reference | None]:
        """The same crops, and what the track starts with."""
        alone = track is None or plan is None or len(plan.restored) == 1
        own = [
            face
            for face, person in zip(faces_of_photos, start["whose"], strict=True)
            if alone or (track and person == track.person)
        ]
        if own:
            crops, reference, note = _choose_photo(crops, own, references)
            notes.extend(note)
            return crops, reference
        side, best = known.get(track.person, (0.0, None)) if track else (0.0, None)
        return crops, best if track and side >= min(track.face.largest * MUCH_SMALLER, size) else None

    def keep_reference(track: PlannedTrack | None, chosen: Reference) -> None:
        if track and track.face.largest > known.get(track.person, (0.0, None))[0]:
            known[track.person] = track.face.largest, chosen

    faces = [t.face.start + np.flatnonzero(t.face.visible) for t in plan.tracks] if plan else []
    num_faces = sum(map(len, faces))
    share = len(np.unique(np.concatenate(faces))) / num_faces if num_faces else 1.0  # of a frame in one of its faces
    advance = (lambda frames: on_progress(frames * share, "restore")) if on_progress else None

    def restore(each: _Chain) -> Iterator[tuple[list[_Crop], Tensor]]:
        def begin(network: Chain) -> None:
            each.network = network
            if each.state is not None:
                network.load_state_dict(each.state)

        crops, reference = stream.crops_of(each), None
        about: dict[str, Any] = {"first_frame": each.span[0], "on_chain": begin}
        if each.hole is not None:
            how = replace(settings, reference_frame="none", strength=1.0)
            yield from restore_clips(components, how, FILLING, crops, references, None, on_step=None, **about)
            return
        if each.state is None:
            crops, reference = find_reference(each.track, crops)
        about |= {"on_step": advance, "on_reference": partial(keep_reference, each.track)}
        yield from restore_clips(components, settings, tasks, crops, references, reference, **about)

    for each in chains:
        each.clips = restore(each)
    length, border = plan.num_frames if plan else info.num_frames, round(settings.segment * info.fps)
    is_film = settings.format == "mp4" and settings.strategy == "chained" and info.kind != "image"
    is_film = is_film and 0 < border < length
    how_to_write: dict[str, Any] = {
        "source": info,
        "crf": settings.crf,
        "encoder": start["encoder"] if is_film else None,
    }
    with ExitStack() as stack:
        cost = stack.enter_context(measuring_cost(components.model.unet, components.device))
        stack.enter_context(film)
        writer = stack.enter_context(VideoWriter(target, format=settings.format, **how_to_write))
        if writer.path.resolve() == source.resolve():
            raise VideoError(f"{source}: the result would replace it; choose another output")
        write = writer.write
        if is_film:
            film.begin(start, border, partial(VideoWriter, format=SEGMENT, **how_to_write))
            write = film.write
            if num_frames:
                notes.append(f"went on from frame {num_frames} of a call that was interrupted")
                if on_progress:
                    on_progress(num_frames, "restore")
            stack.callback(torch.set_num_threads, torch.get_num_threads())
            torch.set_num_threads(start["threads"])

        def put(held: _Held) -> None:
            """Paste the crops of a frame, and write it."""
            frame, hole, crops = held
            result = frame.image if frame.deep is None else frame.deep
            for made in crops:
                rules = keep if made.chain.hole is None else KeepRules(known=True)
                result = _paste(frame, result, made, hole, rules, settings.blend)
            write(result, frame.pts, frame.time_base)

        def now() -> dict[str, Any]:
            """What the frames that are left depend on."""
            at_work = [(number, each.network) for number, each in enumerate(chains) if each.network]
            made = [crop for held in stream.held for crop in held.crops if crop.restored is not None]
            return {
                "restored_frames": restored_frames,
                "notes": notes[len(start["notes"]) :],
                "known": [(who, side, (r.latents, r.id_tokens)) for who, (side, r) in known.items()],
                "chains": [
                    (number, network.state_dict(), [crop.restored for crop in made if crop.chain is chains[number]])
                    for number, network in at_work
                ],
            }

        reader = with_masks(
            source, start["mask"] and Path(start["mask"]), info, replace(options, first=num_frames), notes.append
        )
        pairs = stack.enter_context(closing(ahead(reader, AHEAD)))
        stream = _Stream(pairs, chains, tasks, size, num_frames)
        later = stack.enter_context(behind(AHEAD))
        while stream.held or stream.read():
            held = stream.held[0]
            for made in held.crops:
                while made.restored is None:
                    clip, restored = next(made.chain.clips)
                    for one, image in zip(clip, to_uint8(to_unit(restored)), strict=True):
                        one.restored = image
                if num_frames + 1 == made.chain.span[1]:
                    made.chain.clips, made.chain.network = iter(()), None  # and with it all that the chain holds
            if on_progress and all(made.chain.hole for made in held.crops):
                on_progress(1, "restore")
            later(put, stream.held.popleft())
            num_frames += 1
            restored_frames += bool(held.crops)
            if is_film and num_frames % border == 0:
                later(film.border, now())
        if not num_frames:
            raise VideoError(f"{source}: no frames")
        if is_film:
            later(film.finish, writer)
    return VideoReport(
        output=writer.path,
        num_frames=num_frames,
        restored_frames=restored_frames,
        num_tracks=sum(each.hole is None for each in chains),
        width=info.width,
        height=info.height,
        fps=float(info.fps),
        seconds=time.perf_counter() - started,
        cost=cost,
        detector=detector.name if detector else None,
        notes=[*dict.fromkeys([*notes, *components.notes, *writer.notes])],
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


def _paste(
    frame: Frame, below: np.ndarray, made: _Crop, hole: np.ndarray | None, keep: KeepRules, blend: float
) -> np.ndarray:
    """What is below, (h, w, 3), with one more crop of the frame on it."""
    assert made.restored is not None
    turns = made.chain.track.turns if made.chain.track else 0
    upright = replace(frame, image=turned(frame.image, turns), deep=None if frame.deep is None else below)
    upright_hole = None if hole is None else turned(hole, turns)
    place = upright, made.restored, made.box, upright_hole, keep
    below = turned(below, turns)
    return turned(put_back(*place, landmarks=made.landmarks, blend=blend, below=below), -turns)


def _choose_photo(
    crops: Iterator[_Crop], photos: list[AlignedFace], references: ReferenceFinder
) -> tuple[Iterator[_Crop], Reference, list[str]]:
    """The same crops, the photo that looks most like their first ones, and a note where there was a choice."""
    if len(photos) == 1:
        return crops, references.from_aligned(*photos[0]), []
    first, faces = list(islice(crops, COMPARED)), list[AlignedFace]()
    for each in first:
        points, image = each.landmarks, to_uint8(to_unit(each.lq))
        if points is not None and each.box is not None:
            points = (points - each.box[:2]) * len(image) / (each.box[2] - each.box[0])
        faces.append((image, points))
    index, likeness = references.best_match(photos, faces)
    note = f"of {len(photos)} photos of a person, number {index + 1} is most like the face (likeness {likeness:.2f})"
    return chain(first, crops), references.from_aligned(*photos[index]), [note]


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
