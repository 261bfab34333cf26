"""Where training clips come from: prepared videos, photos, or the renderer."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from svfr.data.alignment import five_points
from svfr.data.faces import crop
from svfr.data.manifest import Clip, ManifestError, read_manifest
from svfr.data.video import IMAGE_SUFFIXES, VideoError, frames_at, read_frames
from svfr.synthetic import TEST_SEEDS, render_clip

logger = logging.getLogger(__name__)

PHOTOS = 0.5  # Assumption: share of rendered references from another scene, as a user's photo is
VAL_SHARE = 10  # of so many images, one at most is held out
PHOTO_SCENES = 2**40  # scenes of photos are numbered from here up, far from those of all clips
ENDLESS = 2**31  # frames of a rendered clip
FARTHEST = 3  # crop's sides from its corner that landmarks may be away; profiles reach a little outside
WITNESSES = 8  # other files that are tried before a source counts as gone
Box = tuple[float, float, float, float]  # x0, y0, x1, y1 [px between pixel edges]


class DataError(ValueError):
    """Training data that cannot be used; one line."""

    def __init__(self, message: str) -> None:
        # A DataLoader hands on what its worker raised with the worker's traceback in the message.
        super().__init__(message.strip().splitlines()[-1].split(f"{type(self).__name__}: ")[-1])


class ClipError(ValueError):
    """One clip that cannot be read; one line that names the file."""


class SourceGoneError(ClipError):
    """A clip that cannot be read because nothing of its source can be, such as a network disk that is away."""


@dataclass(frozen=True)
class Excerpt:
    """Consecutive frames of one video, and another frame of it."""

    frames: np.ndarray  # (f, s, s, 3) uint8 RGB
    valid: np.ndarray  # (f,) bool, whether the landmarks are reliable
    landmarks: np.ndarray  # (f, 68, 2) float32 [px, whole numbers are pixel centres]
    reference: np.ndarray | None = None  # (s, s, 3) uint8; None if it was not asked for or there is no other frame
    reference_landmarks: np.ndarray | None = None  # (68, 2) float32 [px]; None if there are none that are reliable


class ClipSource(Protocol):
    """A list of clips; they may be read in several processes at once."""

    video_ids: Sequence[int]  # of each clip; the same for clips of one source video
    lengths: Sequence[int]  # of each clip, how many consecutive frames there are to choose from

    def read(self, index: int, num_frames: int, size: int, rng: np.random.Generator, reference: bool) -> Excerpt:
        """Read `num_frames` frames from a random start, at `size` px; with another frame if `reference`.

        Whatever is wrong is a ClipError; a SourceGoneError if nothing of the source can be read now.
        """


class ManifestClips(ClipSource):
    """The clips of a split of one or more manifests; DataError if there is none.

    Of a clip that is not square, the largest square in its middle is taken (Assumption: preparation writes square
    ones). A line of a manifest that is no clip counts as a clip of the split train that cannot be read.

    Args:
        paths: of the manifests.
        split: whose clips are taken.
        best: take this many of them, those of the highest quality in all manifests together; None takes all.
        size: of the frames to be read [px]; if clips have to be enlarged to it, a warning says so.
        other_clip: share of the references that are of another clip of the same identity, where there is one.
        allow_outside: whether files may lie outside of their manifest's folder.
    """

    def __init__(
        self,
        paths: Path | Iterable[Path],
        split: str,
        best: int | None = None,
        size: int = 0,
        other_clip: float = 0.0,
        allow_outside: bool = False,
    ) -> None:
        paths = [paths] if isinstance(paths, Path) else list(paths)
        bad: list[ManifestError] = []
        clips = ((path, clip) for path in paths for clip in read_manifest(path, bad, allow_outside))
        self._clips = [(path, clip) for path, clip in clips if clip.split == split]
        if not self._clips:
            reason = f" ({bad[0]})" if bad else ""
            raise DataError(f"{', '.join(map(str, paths))}: no clip of the split '{split}'{reason}")
        if best is not None:
            if unscored := next((f"{path}: '{clip.id}'" for path, clip in self._clips if clip.quality is None), None):
                raise DataError(f"{unscored} has no quality, which data.best compares: prepare it without score=none")
            self._clips = sorted(self._clips, key=lambda of: -(of[1].quality or 0))[:best]
        if small := sum(min(clip.width, clip.height) < size for _, clip in self._clips):
            logger.warning("%d of %d clips are enlarged to %d px: soft truth", small, len(self._clips), size)
        self._other_clip = other_clip
        self._bad = bad if split == "train" else []
        ids: dict[tuple[Path, str], int] = {}
        self.video_ids = [ids.setdefault((path.parent, clip.source), len(ids)) for path, clip in self._clips]
        self.video_ids += range(len(ids), len(ids) + len(self._bad))
        self.lengths = [clip.num_frames for _, clip in self._clips] + [ENDLESS] * len(self._bad)

    def read(self, index: int, num_frames: int, size: int, rng: np.random.Generator, reference: bool) -> Excerpt:
        """See `ClipSource`; a reference with reliable landmarks is preferred."""
        if index >= len(self._clips):
            raise ClipError(str(self._bad[index - len(self._clips)]))
        path, clip = self._clips[index]
        files = [path.parent / name for name in (clip.video, clip.landmarks) if name is not None]
        with _reading(files, (path.parent / other.video for its, other in self._clips if its == path)):
            start = int(rng.integers(clip.num_frames - num_frames + 1))
            points, reliable = _read_landmarks(path.parent, clip)
            chosen = list(range(start, start + num_frames))
            other = _choose_other(reliable, chosen, rng) if reference else None
            numbers = chosen if other is None else [*chosen, other]
            images = frames_at(files[0], [clip.start_frame + number for number in numbers])
            box = _square(clip.crop, *images.shape[1:3])
            frames = np.stack([crop(image, box, size) for image in images])
            points = _to_square(points, clip, box, size)
        excerpt = Excerpt(
            frames=frames[:num_frames],
            valid=reliable[chosen],
            landmarks=points[chosen],
            reference=None if other is None else frames[-1],
            reference_landmarks=None if other is None or not reliable[other] else points[other],
        )
        if reference and self._other_clip and rng.uniform() < self._other_clip:
            people = [other.identity if its == path else None for its, other in self._clips]  # one manifest's
            others = [i for i, person in enumerate(people) if person == clip.identity is not None and i != index]
            with suppress(ClipError):  # a broken one is named when its own turn comes
                photo = self.read(int(rng.choice(others)), 1, size, rng, False) if others else excerpt
                if others and photo.valid[0]:
                    return replace(excerpt, reference=photo.frames[0], reference_landmarks=photo.landmarks[0])
        return excerpt


class ImageFolder(ClipSource):
    """The images of a folder and its subfolders as clips of one frame, without landmarks or reference.

    They aren't repeated to longer clips: temporal layers would learn that nothing moves. `num_val` of them, a tenth of
    all at most, spread evenly over the names, are the split val, which is not trained on.
    """

    def __init__(self, path: Path, split: str = "train", num_val: int = 0) -> None:
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
        if not files:
            raise DataError(f"{path}: no image ({' '.join(sorted(IMAGE_SUFFIXES))})")
        num_val = min(num_val, len(files) // VAL_SHARE)
        if split == "val" and not num_val:
            raise DataError(f"{path}: {len(files)} images, {VAL_SHARE} are needed to hold one out for validation")
        held_out = {index * len(files) // num_val for index in range(num_val)}
        self.files = [file for index, file in enumerate(files) if (index in held_out) == (split == "val")]
        self.video_ids = range(len(self.files))
        self.lengths = [1] * len(self.files)

    def read(self, index: int, num_frames: int, size: int, rng: np.random.Generator, reference: bool) -> Excerpt:
        """See `ClipSource`; of an image that is not square, the square in its middle."""
        with _reading([self.files[index]], self.files):
            image = next(read_frames(self.files[index])).image
        frame = crop(image, _square(None, *image.shape[:2]), size)
        return Excerpt(frame[None], np.zeros(1, dtype=bool), np.zeros((1, 68, 2), dtype=np.float32))


class RenderedClips(ClipSource):
    """Rendered talking heads, one a seed, each its own video of another person; no seeds that are kept for tests."""

    def __init__(self, num_clips: int, first_seed: int) -> None:
        if first_seed < TEST_SEEDS < first_seed + num_clips:
            kept = f"seeds from {TEST_SEEDS} up are kept for tests"
            raise DataError(f"{num_clips} rendered clips from seed {first_seed}: {kept}")
        self.video_ids = range(first_seed, first_seed + num_clips)  # the seeds
        self.lengths = [ENDLESS] * num_clips

    def read(self, index: int, num_frames: int, size: int, rng: np.random.Generator, reference: bool) -> Excerpt:
        """See `ClipSource`; half of the references are of the same clip, half are a photo in another scene.

        For one of the same clip, half as many frames again are rendered, as rendering costs time.
        """
        seed = self.video_ids[index]
        photo = bool(rng.uniform() < PHOTOS)
        spare = max(1, num_frames // 2) if reference and not photo else 0
        clip = shown = render_clip(seed, num_frames + spare, size)
        start = int(rng.integers(spare + 1))
        chosen, other = list(range(start, start + num_frames)), None
        if reference and photo:
            other = 0
            shown = render_clip(PHOTO_SCENES + int(rng.integers(PHOTO_SCENES)), 1, size, identity=seed)
        elif reference:
            other = _choose_other(np.ones(num_frames + spare, dtype=bool), chosen, rng)
        image, points = (None, None) if other is None else (shown.frames[other], shown.landmarks[other])
        return Excerpt(clip.frames[chosen], np.ones(num_frames, dtype=bool), clip.landmarks[chosen], image, points)


@contextmanager
def _reading(files: Sequence[Path], others: Iterable[Path]) -> Iterator[None]:
    """Whatever goes wrong with the files of a clip becomes a ClipError of one line: a SourceGoneError if they cannot be
    opened, and neither can some `others` of the same source."""
    try:
        yield
    except Exception as error:  # what readers raise of broken files has no end
        line = " ".join(str(error).split())
        if not isinstance(error, (ClipError, VideoError)):
            line = f"{files[0]}: {type(error).__name__} ({line})"
        if not all(map(_can_be_opened, files)):
            spread = sorted(set(others) - set(files))
            witnesses = spread[:: len(spread) // WITNESSES + 1]
            if witnesses and not any(map(_can_be_opened, witnesses)):
                raise SourceGoneError(f"{line}; nor can any of {len(witnesses)} other files be opened") from error
        raise ClipError(line) from error


def _can_be_opened(path: Path) -> bool:
    with suppress(OSError, ValueError):
        if path.is_file():  # a pipe would be waited for
            with path.open("rb") as file:
                return bool(file.read(1))
    return False


def _choose_other(reliable: np.ndarray, chosen: list[int], rng: np.random.Generator) -> int | None:
    """A random frame outside the chosen ones if there is one, else one of them; None if there is just one frame.

    Among those, frames with reliable landmarks, `reliable` (f,) bool, come first: the ID network's crop needs them.
    """
    candidates = np.setdiff1d(np.arange(len(reliable)), chosen)
    candidates = candidates if len(candidates) else np.array(chosen)
    preferred = candidates[reliable[candidates]]
    return int(rng.choice(preferred if len(preferred) else candidates)) if len(reliable) > 1 else None


def _read_landmarks(folder: Path, clip: Clip) -> tuple[np.ndarray, np.ndarray]:
    """(f, 68, 2) float32 [px of the crop], and (f,) bool, which are reliable."""
    if clip.landmarks is None:
        return np.zeros((clip.num_frames, 68, 2), dtype=np.float32), np.zeros(clip.num_frames, dtype=bool)
    path = folder / clip.landmarks
    try:
        with np.load(path) as file:
            points, score = file["points"].astype(np.float32), file["score"].astype(np.float32)
    except Exception as error:  # NumPy and zipfile raise a dozen types
        raise ClipError(f"{path}: not an npz file with 'points' and 'score'") from error
    if points.shape != (clip.num_frames, 68, 2) or score.shape != (clip.num_frames,):
        shapes = f"points {points.shape} and score {score.shape}"
        raise ClipError(f"{path}: {shapes} don't fit a clip of {clip.num_frames} frames")
    finite = np.isfinite(points).all(axis=(1, 2))
    near = (np.abs(points) <= FARTHEST * max(clip.width, clip.height)).all(axis=(1, 2))
    if (far := finite & ~near & (score > 0)).any():
        raise ClipError(f"{path}: trusted landmarks at {np.abs(points[far]).max():g} px, far outside of the crop")
    points = np.where(near[:, None, None], points, 0)
    return points, near & (score > 0) & (np.ptp(five_points(points), axis=1) > 0).all(axis=1)


def _square(box: Box | None, height: int, width: int) -> Box:
    """The largest square in the middle of a box in frames of a size, or of these."""
    x0, y0, x1, y1 = box or (0, 0, width, height)
    side = min(x1 - x0, y1 - y0)
    if not (0 < x0 + x1 < 2 * width and 0 < y0 + y1 < 2 * height and 1 <= side <= 2 * max(width, height)):
        raise ValueError(f"the crop {x0:g}, {y0:g}, {x1:g}, {y1:g} does not fit its frames of {width}x{height} px")
    left, top = (x0 + x1 - side) / 2, (y0 + y1 - side) / 2
    return left, top, left + side, top + side


def _to_square(points: np.ndarray, clip: Clip, box: Box, size: int) -> np.ndarray:
    """Landmarks [px of the clip's crop, pixel centres] in px of its square `box`, resized to `size`."""
    crop_box = clip.crop or (0, 0, clip.width, clip.height)
    scale = np.array([(crop_box[2] - crop_box[0]) / clip.width, (crop_box[3] - crop_box[1]) / clip.height])
    in_video = (points + 0.5) * scale + np.array(crop_box[:2])
    return ((in_video - np.array(box[:2])) * (size / (box[2] - box[0])) - 0.5).astype(np.float32)
