"""Restore a whole video file by streaming: plan it, restore its faces clip by clip, paste them back, write."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from svfr.data.decoding import is_interlaced
from svfr.data.frames import to_uint8, to_unit
from svfr.data.h264 import SEGMENT
from svfr.data.parsing import FaceParser
from svfr.data.video import ReadOptions, VideoError, VideoInfo, VideoWriter, probe
from svfr.inference.chain import ChooseReference
from svfr.inference.cost import measuring_cost
from svfr.inference.film import Film, plan_of
from svfr.inference.keep import KeepRules
from svfr.inference.masks import AUTO, find_mask, frame_holes, masks_of, with_masks
from svfr.inference.plan import Hole, Plan, PlannedTrack, choose, make_plan
from svfr.inference.reference import COMPARED, AlignedFace, ReferenceFinder
from svfr.inference.settings import VideoSettings
from svfr.inference.strategies import restore_clips
from svfr.inference.stream import FILLING, FaceChain, FaceStream, HeldFrame, ahead, behind
from svfr.models.components import Components, Reference

OnProgress = Callable[[float, str], None]  # called with the work just done, in frames, and its stage
DEEPEST = 8  # bits a colour that a result has by itself
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


@dataclass
class FileRestoration:
    """Restores a video, an image or a folder of frames: `FileRestoration(...).run()`, once.

    Frames without a face pass through unchanged. With `face="auto"` the file is read twice: to plan, and to restore;
    both stream. Decoding and encoding go on beside the networks. What is longer than `segment` becomes a `Film`.
    """

    components: Components
    references: ReferenceFinder  # whose detector finds the faces of the video, too
    settings: VideoSettings  # resolved
    source: Path
    target: Path  # the result; its suffix may change with the container (see `VideoWriter`)
    tasks: tuple[str, ...]  # from `parse_tasks`
    mask: Path | None = None  # as `read_masks` takes it, or `AUTO`
    photos: Sequence[np.ndarray] = ()  # (h, w, 3) uint8; of several people, each is of the one who looks like it
    on_progress: OnProgress = lambda work, stage: None
    key: str | None = None  # digest of all that the result depends on; an interrupted film of the same key goes on
    parser: FaceParser | None = None  # of the faces that are pasted
    _known: dict[int, tuple[float, Reference]] = field(default_factory=dict)  # by person, with the crop's side [px]

    def run(self) -> VideoReport:
        """Plan, restore and write.

        Raises:
            VideoError: the input, the mask or the output cannot be used; nothing is left at `target`.
            ValueError: no face in the photo, or no detector to find faces with.
        """
        started = time.perf_counter()
        components, source = self.components, self.source
        film, size = Film(self.target, self.key, components.device), self.settings.size
        assert size is not None  # resolved
        is_aligned = self.settings.face == "aligned"
        self._faces = [self.references.face_of(photo, size, or_whole=is_aligned) for photo in self.photos]
        info, options, notes = how_to_read(source, self.settings)
        state, start = film.state, film.start or self._settle(info, options, notes)
        plan = start["plan"] and plan_of(start["plan"])
        self.settings = settings = replace(self.settings, **start["settings"])
        self._whose, self._notes = start["whose"], [*start["notes"], *state.get("notes", [])]
        self._known = {who: (side, Reference(**tensors)) for who, side, tensors in state.get("known", [])}
        self._share = plan.share(start["holes"]) if plan else 1.0
        keep = KeepRules.resolve(self.tasks, settings)
        num_frames, restored_frames = state.get("index", 0), state.get("restored_frames", 0)
        length, border = plan.num_frames if plan else info.num_frames, round(settings.segment * info.fps)
        is_film = settings.format == "mp4" and settings.strategy == "chained" and info.kind != "image"
        is_film = is_film and 0 < border < length
        how_to_write: dict[str, Any] = {"source": info, "crf": settings.crf}
        how_to_write["encoder"] = start["encoder"] if is_film else None
        with ExitStack() as stack:
            cost = stack.enter_context(measuring_cost(components.model.unet, components.device))
            stack.enter_context(film)
            writer = stack.enter_context(VideoWriter(self.target, format=settings.format, **how_to_write))
            if writer.path.resolve() == source.resolve():
                raise VideoError(f"{source}: the result would replace it; choose another output")
            write = writer.write
            if is_film:
                film.begin(start, border, partial(VideoWriter, format=SEGMENT, **how_to_write))
                write = film.write
                stack.callback(torch.set_num_threads, torch.get_num_threads())
                torch.set_num_threads(start["threads"])
            if num_frames:
                self._notes.append(f"went on from frame {num_frames} of a call that was interrupted")
                self.on_progress(num_frames, "restore")

            # A hand that stays gray before a face in colours would stand out.
            parser = None if "colorization" in self.tasks else self.parser

            def put(held: HeldFrame) -> None:
                write(held.paste(keep, settings.blend, parser), held.frame.pts, held.frame.time_base)

            mask, rest = start["mask"] and Path(start["mask"]), replace(options, first=num_frames)
            pairs = closing(ahead(with_masks(source, mask, info, rest, self._notes.append), AHEAD))
            chains = [FaceChain(track) for track in plan.tracks] if plan else [FaceChain(None)]
            chains += [FaceChain(None, tuple(hole)) for hole in start["holes"]]
            work = self.tasks, size, num_frames, state.get("chains", []), self._restore
            stream = FaceStream(stack.enter_context(pairs), chains, *work)
            later = stack.enter_context(behind(AHEAD))
            for held in stream:
                if not held.crops:
                    self.on_progress(1, "restore")
                later(put, held)
                num_frames += 1
                restored_frames += bool(held.crops)
                if is_film and num_frames % border == 0:
                    now: dict[str, Any] = {"restored_frames": restored_frames, "chains": stream.state()}
                    now["known"] = [(who, side, vars(best)) for who, (side, best) in self._known.items()]
                    later(film.border, now | {"notes": self._notes[len(start["notes"]) :]})
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
            detector=self.references.detector.name if self.references.detector else None,
            notes=[*dict.fromkeys([*self._notes, *components.notes, *writer.notes])],
            num_shots=len(plan.shots) if plan else 1,
            num_people=len(plan.restored) if plan else 1,
        )

    def _settle(self, info: VideoInfo, options: ReadOptions, notes: list[str]) -> dict[str, Any]:
        """What is fixed before the first frame, as a film's journal keeps it."""
        settings, mask, plan = self.settings, self.mask, None
        holes: list[Hole] = []
        whose: list[int | None] | None = None  # the people of the photos, where there are several
        if settings.face == "auto":
            plan = plan_file(self.references, settings, self.source, info, options, self.on_progress)
            notes += plan.notes
            if plan.tracks and "colorization" in self.tasks:
                notes.append("only the ovals around faces are coloured")
            if (detector := self.references.detector) and len(plan.restored) > 1:
                who = self.references.looks.who
                whose = [who(photo, detector, plan.restored) for photo in self.photos]
            for number, person in enumerate(whose or [], start=1):
                whom = f"is taken for person {person}" if person else "looks like nobody here; faces=NUMBER names them"
                notes.append(f"reference photo {number} {whom}")
        if mask == AUTO:
            mask = find_mask(self.source, self.target, options, notes.append)
        if plan is not None and mask is not None:
            given = plan.crops, (info.width, info.height), settings.size or 0, plan.shots
            holes = frame_holes(masks_of(mask, options), *given)
            notes += ["holes outside of the faces' crops are filled from a crop of their own"] if holes else []
        return {
            "settings": asdict(settings),
            "plan": plan and asdict(plan),
            "mask": mask and str(mask),
            "holes": holes,
            "whose": whose,
            "notes": notes,
            "threads": torch.get_num_threads(),
            "encoder": {"threads": str((os.cpu_count() or 1) * 3 // 2)},  # x264's own default here
        }

    def _restore(self, each: FaceChain, inputs: Iterator[Tensor]) -> Iterator[Tensor]:
        """The results of a chain, clip by clip."""

        def after_step(frames: float) -> None:
            self.on_progress(frames * self._share, "restore")

        how: dict[str, Any] = {"first_frame": each.span[0], "on_chain": each.begin, "on_step": after_step}
        if each.hole is not None:
            whole = replace(self.settings, strength=1.0)
            yield from restore_clips(self.components, whole, FILLING, inputs, None, **how)
            return
        choose = self.references.chooser(self.settings)
        if each.track and choose:
            choose = partial(self._choose_and_keep, each.track, choose)
        inputs, reference = (inputs, None) if each.state else self._beginning(each, inputs)
        yield from restore_clips(self.components, self.settings, self.tasks, inputs, choose, reference, **how)

    def _choose_and_keep(self, track: PlannedTrack, choose: ChooseReference, frames: Tensor) -> Reference | None:
        """The reference that is chosen of a track's first clip, which later tracks of the person may begin with."""
        chosen = choose(frames)
        if chosen is not None and track.face.largest > self._known.get(track.person, (0.0, None))[0]:
            self._known[track.person] = track.face.largest, chosen
        return chosen

    def _beginning(self, each: FaceChain, inputs: Iterator[Tensor]) -> tuple[Iterator[Tensor], Reference | None]:
        """The same inputs, and what their track begins with: the best photo, else a reference of an earlier shot."""
        photos, index, track = self._faces, 0, each.track
        if self._whose is not None and track is not None:
            photos = [face for face, who in zip(photos, self._whose, strict=True) if who == track.person]
        if len(photos) > 1:
            first, faces = list(islice(inputs, COMPARED)), list[AlignedFace]()
            inputs = chain(first, inputs)
            for crop in each.taken:
                points, image = crop.landmarks, to_uint8(to_unit(crop.lq))
                if points is not None and crop.box is not None:
                    points = (points - crop.box[:2]) * len(image) / (crop.box[2] - crop.box[0])
                faces.append((image, points))
            index, likeness = self.references.best_match(photos, faces)
            most_like = f"number {index + 1} is most like the face (likeness {likeness:.2f})"
            self._notes.append(f"of {len(photos)} photos of a person, {most_like}")
        if photos:
            return inputs, self.references.from_aligned(*photos[index])
        if track is not None and track.person in self._known:
            side, best = self._known[track.person]
            if side >= min(track.face.largest * MUCH_SMALLER, self.settings.size or 0):
                return inputs, best
        return inputs, None


def plan_file(
    references: ReferenceFinder,
    settings: VideoSettings,
    source: Path,
    info: VideoInfo,
    options: ReadOptions,
    on_progress: OnProgress = lambda work, stage: None,
) -> Plan:
    """What `FileRestoration` restores with `face="auto"`; arguments as there, and of `how_to_read`.

    Raises:
        VideoError: the input cannot be used.
        ValueError: no detector to find faces with, or `faces` names nobody.
    """
    if (detector := references.detector) is None:
        raise ValueError('face="auto" needs a detector')
    given = source, info, options, detector, references.looks, settings.face_box
    plan = make_plan(*given, on_frame=lambda frames: on_progress(frames, "faces"))
    return choose(plan, settings, references.looks, detector)


def how_to_read(source: Path, settings: VideoSettings) -> tuple[VideoInfo, ReadOptions, list[str]]:
    """What the source is, how it is read, and what of both is worth a note."""
    options, notes = ReadOptions(max_pixels=settings.max_pixels, salvage=settings.salvage), list[str]()
    if settings.fps is not None:
        options = replace(options, fps=Fraction(settings.fps).limit_denominator(1001))
    info = probe(source, options)
    if info.bits > DEEPEST:
        options = replace(options, deep=True)
        notes.append(f"{info.bits} bits a colour: faces are restored in 8, the rest keeps 10")
    looks_so = settings.deinterlace == "auto" and info.kind == "video" and is_interlaced(source, settings.max_pixels)
    if settings.deinterlace == "yes" or looks_so:
        options = replace(options, deinterlace=True)
        notes.append("interlaced: whole pictures are made of its fields, at its rate (deinterlace=no keeps them)")
    return info, options, [*notes, *info.notes]
