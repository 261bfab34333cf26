"""Training samples: a clip, its degraded views under different task prompts, landmarks, a reference."""

import ctypes
import logging
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from svfr.data.alignment import FFHQ_TEMPLATE, five_points, mirror_landmarks
from svfr.data.clip_sources import ClipError, ClipSource, DataError, Excerpt, SourceGoneError
from svfr.data.degradations import PRESETS, degrade
from svfr.data.frames import HOLE_THRESHOLD, task_input
from svfr.data.masks import mask_clip
from svfr.tasks import TASK_WEIGHTS, TASKS, parse_tasks, task_prompt

logger = logging.getLogger(__name__)

MOVING_MASKS = 0.5  # Assumption: share of masks that follow the face; the paper's example has fixed and moving ones
FFHQ_SIZE = 512  # [px] of FFHQ_TEMPLATE
ID_SIZE = 112  # [px], what `CropFace` gives
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
KEPT_MEMORY = 2**28  # [bytes] Assumption: more than one sample's arrays at 512 px
# [s] A source that is gone is waited for, longer each time: a network disk comes back in minutes.
FIRST_PAUSE, LONGEST_PAUSE, PATIENCE = 1.0, 60.0, 300.0
# Streams of random numbers of one sample, so that one choice more in one of them doesn't change the others.
CHOICES, READING, VIEWS, REFERENCE = range(4)

# A face (s, s, 3) uint8 with (5, 2) landmarks [px] -> (3, 112, 112) float32 in [-1, 1], as the ID network takes it.
CropFace = Callable[[np.ndarray, np.ndarray], Tensor]


class Sample(NamedTuple):
    """What training sees of one clip; with a leading axis b, of a batch. s: side of the frames [px].

    Pictures go from process to process as uint8, a quarter of their size; `to_float` makes them float.
    """

    gt: Tensor  # (f, 3, s, s) uint8
    lq: Tensor  # (k, f, 3, s, s) uint8, the degraded views
    task_prompts: Tensor  # (k, 3) float32, gamma of each view
    landmarks: Tensor  # (f, 68, 2) float32, fractions of the frame's sides; zeros where they are not valid
    landmarks_valid: Tensor  # (f,) bool
    reference: Tensor  # (3, s, s) uint8; zeros without one
    has_reference: Tensor  # () bool
    id_face: Tensor  # (3, 112, 112) float32 in [-1, 1], the reference aligned for the ID network; zeros without one
    video_id: Tensor  # () int64, the same for clips of one source video
    seed: Tensor  # () int64; sigma, noise and what else is random about this sample are drawn from it

    def to_float(self, device: torch.device | None = None) -> "Sample":
        """The same with gt, lq and reference on a device as float32 in [-1, 1]; without a reference, it stays zeros."""

        def convert(pictures: Tensor) -> Tensor:
            values = pictures.to(device).float()
            # By a tensor, since GPUs multiply by the rounded inverse of a plain number.
            return values.div_(torch.tensor(127.5, device=values.device)).sub_(1)

        has_reference = self.has_reference.to(device)[..., None, None, None]
        reference = torch.where(has_reference, convert(self.reference), 0.0)
        return self._replace(gt=convert(self.gt), lq=convert(self.lq), reference=reference)


def set_up_worker(worker: int) -> None:
    """`worker_init_fn` of a DataLoader: one thread, and freed memory is kept for the next sample."""
    cv2.setNumThreads(0)  # workers are parallel enough, and OpenCV's threads don't survive a fork
    torch.set_num_threads(1)
    keep_freed_memory()


def keep_freed_memory() -> bool:
    """Tell the C library to keep up to `KEPT_MEMORY` of freed memory; False where it is not glibc, which alone can.

    Large arrays that go back to the system and come again, full of zeros, cost a third of a worker's time.
    """
    mallopt = getattr(ctypes.CDLL(None) if sys.platform == "linux" else None, "mallopt", lambda option, value: 0)
    return all(mallopt(option, KEPT_MEMORY) == 1 for option in (M_TRIM_THRESHOLD, M_MMAP_THRESHOLD))


@dataclass
class SampleConfig:
    """What samples are made of clips."""

    size: int = 512
    """Side of the square frames [px]."""
    num_frames: int = 16
    """Frames of a clip. Assumption: the released code's clip length at inference."""
    num_views: int = 2
    """Degraded views of each clip, under different task prompts; the regularization (ULR) needs two."""
    task_weights: dict[str, float] = field(default_factory=dict)
    """How often each combination of tasks ("bfr,colorization") is drawn; empty: `svfr.tasks.TASK_WEIGHTS`."""
    preset: str = "svfr"
    """Degradations of views with bfr, see svfr.data.degradations."""
    old_media: float = 0.0
    """Share of the views with bfr that are degraded by the presets film and vhs instead, half of them by each."""
    reference_dropout: float = 0.5
    """Share of samples without a reference (SVFR, Sec. 4.3)."""
    reference_degraded: float = 0.0
    """Share of the references that are degraded as views with bfr are."""
    reference_other_clip: float = 0.0
    """Share of the references that are of another clip of the same identity, where the manifest has one."""
    flip: bool = True
    """Mirror half of the samples."""
    max_broken_share: float = 0.05
    """Training stops when more than this share of the files cannot be read."""

    @property
    def resolved_task_weights(self) -> dict[str, float]:
        """`task_weights`, or the default ones, above 0."""
        return {tasks: weight for tasks, weight in (self.task_weights or TASK_WEIGHTS).items() if weight > 0}


class ClipDataset(Dataset[Sample]):
    """Samples by (epoch, index); what one is depends on (seed, epoch, index) alone, not on workers or order.

    Clips of `source` that are shorter than `config.num_frames` are left out. One that cannot be read is named once and
    replaced by another, drawn from the same numbers. Each process of a distributed run counts what is broken of what it
    and its loader workers have met. Settings that don't fit together, or no clip that is long enough, are a DataError.
    """

    def __init__(self, source: ClipSource, crop_face: CropFace, config: SampleConfig, seed: int) -> None:
        if config.preset not in PRESETS:
            raise DataError(f"unknown preset '{config.preset}' of degradations: choose from {', '.join(PRESETS)}")
        self.source, self.crop_face, self.config, self.seed = source, crop_face, config, seed
        try:
            weights = {parse_tasks(tasks): float(weight) for tasks, weight in config.resolved_task_weights.items()}
        except ValueError as error:
            raise DataError(f"task_weights: {error}") from error
        if len(weights) < config.num_views:
            combinations = f"combinations of {', '.join(TASKS)} in task_weights, there are {len(weights)}"
            raise DataError(f"num_views={config.num_views} needs as many {combinations}")
        self._task_sets, shares = list(weights), np.array(list(weights.values()))
        self._probabilities = shares / shares.sum()
        self._clips = [index for index, length in enumerate(source.lengths) if length >= config.num_frames]
        total, longest = len(source.lengths), max(source.lengths, default=0)
        if not self._clips:
            raise DataError(f"no clip has num_frames={config.num_frames} frames, the longest has {longest}")
        if left_out := total - len(self._clips):
            logger.warning("%d of %d clips are shorter than %d frames", left_out, total, config.num_frames)
        self._broken = torch.zeros(total, dtype=torch.bool).share_memory_()

    def __len__(self) -> int:
        """Samples of an epoch: one per clip."""
        return len(self._clips)

    @property
    def video_ids(self) -> list[int]:
        """The source video of each index."""
        return [self.source.video_ids[clip] for clip in self._clips]

    @property
    def sample_bytes(self) -> int:
        """Size of a sample, but for some numbers."""
        config = self.config
        pictures = config.num_frames * (1 + config.num_views) + 1
        return pictures * 3 * config.size**2 + 4 * 3 * ID_SIZE**2 + 4 * config.num_frames * 68 * 2

    @property
    def num_broken(self) -> int:
        """Clips that could not be read so far, by this process and its loader workers."""
        return int(self._broken.sum())

    def __getitem__(self, place: tuple[int, int]) -> Sample:
        """The sample at (epoch, index); DataError if more clips are broken than `max_broken_share` allows."""
        epoch, index = place
        choices = np.random.default_rng([self.seed, epoch, index, CHOICES])
        config, size = self.config, self.config.size
        chosen = choices.choice(len(self._task_sets), size=config.num_views, replace=False, p=self._probabilities)
        tasks = [self._task_sets[which] for which in chosen]
        wants_reference = bool(choices.uniform() >= config.reference_dropout)
        mirrored = bool(choices.uniform() < 0.5) and config.flip
        seed = int(choices.integers(2**63 - 1))
        clip, excerpt = self._read(epoch, index, wants_reference)
        rng = np.random.default_rng([self.seed, epoch, index, REFERENCE])
        if excerpt.reference is not None and rng.uniform() < config.reference_degraded:
            degradation = PRESETS[config.preset].sample(rng, size)
            excerpt = replace(excerpt, reference=degrade(excerpt.reference[None], degradation, rng)[0])
        if mirrored:
            excerpt = _mirror(excerpt)
        views = [
            self._view(excerpt, each, np.random.default_rng([self.seed, epoch, index, VIEWS, view]))
            for view, each in enumerate(tasks)
        ]
        landmarks, valid = torch.zeros(config.num_frames, 68, 2), torch.from_numpy(excerpt.valid.copy())
        landmarks[valid] = (torch.from_numpy(excerpt.landmarks[excerpt.valid]).float() + 0.5) / size
        reference, id_face = torch.zeros(3, size, size, dtype=torch.uint8), torch.zeros(3, ID_SIZE, ID_SIZE)
        if excerpt.reference is not None:
            reference, points = _to_tensors(excerpt.reference), excerpt.reference_landmarks
            # Without landmarks, its face counts as aligned as in FFHQ.
            face = FFHQ_TEMPLATE * size / FFHQ_SIZE if points is None else five_points(points)
            id_face = self.crop_face(excerpt.reference, face)
        return Sample(
            gt=_to_tensors(excerpt.frames),
            lq=_to_tensors(np.stack(views)),
            task_prompts=torch.stack([task_prompt(each) for each in tasks]),
            landmarks=landmarks,
            landmarks_valid=valid,
            reference=reference,
            has_reference=torch.tensor(excerpt.reference is not None),
            id_face=id_face,
            video_id=torch.tensor(self.source.video_ids[clip]),
            seed=torch.tensor(seed),
        )

    def _read(self, epoch: int, index: int, wants_reference: bool) -> tuple[int, Excerpt]:
        """Read the clip at `index`, or one in its place; returns the source's index with it.

        While the source is gone, it waits and tries again, up to `PATIENCE`: then it is a DataError.
        """
        clip, config, waited, pause = self._clips[index], self.config, 0.0, FIRST_PAUSE
        replacements = np.random.default_rng([self.seed, epoch, index, READING, 1])
        while True:
            rng = np.random.default_rng([self.seed, epoch, index, READING, 0])
            try:
                if not self._broken[clip]:
                    return clip, self.source.read(clip, config.num_frames, config.size, rng, wants_reference)
            except SourceGoneError as error:
                if waited >= PATIENCE:
                    raise DataError(f"{error}, for {waited:.0f} s: is their disk there?") from error
                logger.warning("%s; trying again in %g s", error, pause)
                time.sleep(pause)
                waited, pause = waited + pause, min(2 * pause, LONGEST_PAUSE)
                continue
            except ClipError as error:
                self._broken[clip] = True
                logger.warning("%s; another clip takes its place", error)
            broken, total = self.num_broken, len(self._clips)
            if broken == total or broken > config.max_broken_share * total:
                limit = f"max_broken_share={config.max_broken_share:g}"
                raise DataError(f"{broken} of {total} clips cannot be read, more than {limit} allows")
            clip = self._clips[replacements.integers(total)]

    def _view(self, excerpt: Excerpt, tasks: tuple[str, ...], rng: np.random.Generator) -> np.ndarray:
        """(f, s, s, 3) uint8: degraded, then made gray, then holes painted white."""
        frames, size, preset = excerpt.frames, self.config.size, self.config.preset
        if "bfr" in tasks:
            if self.config.old_media and rng.uniform() < self.config.old_media:
                preset = str(rng.choice(["film", "vhs"]))
            frames = degrade(frames, PRESETS[preset].sample(rng, size), rng)
        holes: Sequence[np.ndarray | None] = [None] * len(frames)
        if "inpainting" in tasks:
            landmarks = np.where(excerpt.valid[:, None, None], excerpt.landmarks, np.nan)
            moving = bool(rng.uniform() < MOVING_MASKS) and bool(excerpt.valid.any())
            mirrored = bool(rng.uniform() < 0.5)  # GPEN's strokes run to the right
            masks = mask_clip(len(frames), (size, size), rng, landmarks, moving, mirrored)
            holes = list(masks > HOLE_THRESHOLD)
        return np.stack([task_input(frame, tasks, hole) for frame, hole in zip(frames, holes, strict=True)])


def _mirror(excerpt: Excerpt) -> Excerpt:
    width, reference, points = excerpt.frames.shape[2], excerpt.reference, excerpt.reference_landmarks
    return replace(
        excerpt,
        frames=np.ascontiguousarray(excerpt.frames[:, :, ::-1]),
        landmarks=mirror_landmarks(excerpt.landmarks, width),
        reference=None if reference is None else np.ascontiguousarray(reference[:, ::-1]),
        reference_landmarks=None if points is None else mirror_landmarks(points, width),
    )


def _to_tensors(frames: np.ndarray) -> Tensor:
    """(..., s, s, 3) uint8 -> (..., 3, s, s) uint8."""
    return torch.from_numpy(np.moveaxis(frames, -1, -3).copy())
