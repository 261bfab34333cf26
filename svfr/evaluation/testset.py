"""Fixed test sets: ground truth and its degraded inputs as PNG files, with every number written down.

A clip's numbers depend on the seed and on its name alone, so two labs with the same ground truth get the same inputs;
the sha256 of the pixels in the manifest tells whether they did.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

import svfr
from svfr import __version__
from svfr.data.alignment import FFHQ_TEMPLATE, similarity_transform
from svfr.data.degradations import PRESETS, degrade
from svfr.data.detectors import FaceDetector, load_detector
from svfr.data.frames import HOLE_THRESHOLD, resize, task_input
from svfr.data.linking import track_largest_face
from svfr.data.masks import mask_clip
from svfr.data.video import VideoError, VideoInfo, VideoWriter, probe, read_frames
from svfr.evaluation.pairs import canonical_task
from svfr.evaluation.settings import TestsetConfig
from svfr.files import digest, fingerprint, replacing, versions, write_json
from svfr.inference.batch import REPORT, Item, collect, find_items, run_items
from svfr.networks import describe
from svfr.tasks import TASKS

MANIFEST, SETTINGS = "manifest.jsonl", "testset.json"
GROUND_TRUTH, DEGRADED, MASKS = "ground_truth", "degraded", "masks"
ALIGNED_SIZE = 512  # [px] of FFHQ's template
BORDER = (132, 133, 135)  # RGB outside of the frame, facexlib's, which the peers' aligned sets have
BILINEAR_SCALE = 0.8  # Assumption: what shrinks less than this does not alias under bilinear interpolation
# DicFace's public test set (README of fudan-generative-vision/DicFace): folders of frames, and of the points.
DICFACE_TRUTH, DICFACE_LANDMARKS = "TEST_DATA", "vfhq_test_landmarks"
DICFACE_INPUTS = dict(zip(TASKS, ("LR_Blind", "vfhq_test_color_input", "vfhq_test_inpaint_input_512"), strict=True))
PAINTED = 10  # Assumption: levels by which a painted pixel differs from the ground truth; the set has no mask files


class Inputs(NamedTuple):
    """What the methods are given for one clip."""

    frames: dict[str, np.ndarray]  # (f, h, w, 3) uint8 by task
    mask: np.ndarray | None  # (f, h, w) or (1, h, w) uint8, above 127 is a hole; None without inpainting
    made_by: dict[str, dict[str, Any]]  # JSON: how each task's frames were made
    notes: list[str]  # what a reader should know


@dataclass(frozen=True)
class ClipEntry:
    """What a manifest says of one clip."""

    output: Path  # folder of its ground truth
    name: str  # relative, without suffix
    source: str  # file that it was made of, relative to what the user gave
    num_frames: int
    width: int  # [px]
    height: int  # [px]
    fps: float | None  # [1/s] of the source, None if it is a folder of frames
    seed: int
    matrices: list[list[list[float]]]  # (2, 3) similarity of the alignment, one a clip or one a frame; none without
    tasks: dict[str, dict[str, Any]]  # how each task's input was made
    sha256: dict[str, str]  # of the pixels of the ground truth, of each task's input and of the mask
    notes: list[str]


def make_testset(source: Path, output: Path, settings: TestsetConfig, networks: Path | None = None) -> dict[str, Any]:
    """Make a test set of videos, frame folders, or DicFace's test_data; clips that are done are skipped.

    Gives the content of report.json, which names the clips that failed. ValueError if there is nothing to make it of,
    or settings cannot be used.
    """
    maker = TestsetMaker(source, output, settings, networks)
    items = find_items(maker.truth, output, "png")
    if settings.num_videos is not None and len(items) != settings.num_videos:
        raise ValueError(f"{maker.truth}: {len(items)} videos, the protocol has {settings.num_videos} (num_videos)")
    if output.resolve() == source.resolve():
        raise ValueError(f"{output}: the output has to be another folder than the ground truth")
    output.mkdir(parents=True, exist_ok=True)
    packages = versions("numpy", "opencv-python", "av", "pillow")
    about = {"svfr": __version__, "settings": asdict(settings), "packages": packages}
    if maker.detector is not None:
        about["detector"] = {"name": maker.detector.name, **describe(Path(maker.detector.source))}
    try:
        with svfr.bar(len(items), "clip", "clips") as bar:
            run_items(items, output, maker.cache_key, maker.make, bar.update)
    finally:
        report = {**about, **collect(items, output, maker.cache_key)}
        write_json(output / REPORT, report)
    write_json(output / SETTINGS, about)
    entries = [clip["facts"] for clip in report["videos"] if clip["status"] == "done"]
    lines = [json.dumps(entry, sort_keys=True) + "\n" for entry in sorted(entries, key=lambda entry: entry["name"])]
    with replacing(output / MANIFEST) as partial:
        partial.write_text("".join(lines))
    return report


class TestsetMaker:
    """Makes the clips of a test set one by one; the arguments are those of `make_testset`."""

    def __init__(self, source: Path, output: Path, settings: TestsetConfig, networks: Path | None) -> None:
        self.source, self.output, self.settings = source, output, settings
        self.tasks = []
        for name in settings.tasks:
            if not (task := canonical_task(name)):
                raise ValueError(f"tasks: '{name}' is not made of bfr, colorization and inpainting, joined by +")
            self.tasks.append(task)
        self.is_dicface = settings.layout == "dicface"
        self.truth = source / DICFACE_TRUTH if self.is_dicface else source
        finds_faces = settings.alignment != "none" and not self.is_dicface
        self.detector: FaceDetector | None = load_detector(settings.detector, networks) if finds_faces else None

    def cache_key(self, item: Item) -> str:
        """Digest of all that a clip depends on."""
        files = [item.source]
        if self.is_dicface:
            files += [self._points_file(item), *(self.source / d / item.target for d in DICFACE_INPUTS.values())]
        detector = self.detector and [self.detector.name, self.detector.source]
        facts = {"svfr": __version__, "settings": asdict(self.settings), "detector": detector}
        return digest({**facts, "files": [fingerprint(path) for path in files]})

    def _points_file(self, item: Item) -> Path:
        return self.source / DICFACE_LANDMARKS / f"{item.target}.txt"

    def make(self, item: Item) -> ClipEntry:
        """Align, degrade and write one clip; a VideoError if it cannot be read, or has no face to align by."""
        settings, name, info = self.settings, item.target.as_posix(), probe(item.source)
        truth = read_clip(item.source, settings.max_frames)
        inputs = dicface_inputs(self.source, name, self.tasks, truth) if self.is_dicface else None
        matrices = np.zeros((0, 2, 3))
        if settings.alignment != "none":
            size = settings.size or ALIGNED_SIZE
            if self.detector is not None:
                points = find_points(truth, self.detector, float(info.fps))
            else:
                points = read_points(self._points_file(item), len(truth))
            matrices = alignment_matrices(points, size, each_frame=settings.alignment == "ffhq_frames")
            truth = warp(truth, matrices, size)
            if inputs is not None:
                frames = {task: warp(frames, matrices, size) for task, frames in inputs.frames.items()}
                mask = None if inputs.mask is None else warp(inputs.mask, matrices, size, nearest=True)
                inputs = inputs._replace(frames=frames, mask=mask)
        if inputs is None:
            inputs = make_inputs(truth, name, self.tasks, settings)
        sha256 = {GROUND_TRUTH: write_clip(self.output / GROUND_TRUTH / name, truth)}
        for task, frames_of_task in inputs.frames.items():
            sha256[task] = write_clip(self.output / DEGRADED / task / name, frames_of_task)
        if inputs.mask is not None:
            sha256[MASKS] = write_clip(self.output / MASKS / name, inputs.mask)
        is_file = item.source == self.source
        return ClipEntry(
            output=self.output / GROUND_TRUTH / name,
            name=name,
            source=item.source.name if is_file else item.source.relative_to(self.source).as_posix(),
            num_frames=len(truth),
            width=truth.shape[2],
            height=truth.shape[1],
            fps=float(info.fps) if info.kind == "video" else None,
            seed=settings.seed,
            matrices=matrices.tolist(),
            tasks=inputs.made_by,
            sha256=sha256,
            notes=inputs.notes,
        )


def generator(seed: int, name: str, purpose: str) -> np.random.Generator:
    """Random numbers that depend on nothing but the arguments."""
    sha256 = hashlib.sha256(f"{seed}/{name}/{purpose}".encode()).digest()
    return np.random.default_rng(int.from_bytes(sha256[:16], "little"))


def read_clip(path: Path, max_frames: int | None) -> np.ndarray:
    """All frames, or the first ones, of a video: (f, h, w, 3) uint8, held as a whole; a VideoError without any."""
    frames = [frame.image for frame in islice(read_frames(path), max_frames)]
    if not frames:
        raise VideoError(f"{path}: no frames")
    return np.stack(frames)


def find_points(images: Iterable[np.ndarray], detector: FaceDetector, fps: float) -> np.ndarray:
    """Eyes, nose and mouth corners of the largest face in each frame: (f, 5, 2) float32 [px], NaN without a face.

    Frames between two sightings of a face are filled in linearly (see `track_largest_face`).
    """
    faces = [detector(image) for image in images]
    points = np.full((len(faces), 5, 2), np.nan, dtype=np.float32)
    for track in track_largest_face(iter(faces), fps):
        points[track.start : track.stop] = track.landmarks
    return points


def read_points(path: Path, num_frames: int) -> np.ndarray:
    """(f, 5, 2) float32 points [px] from a text file with ten numbers a line; a VideoError if it does not fit."""
    try:
        values = np.loadtxt(path, dtype=np.float32, ndmin=2)
    except (OSError, ValueError) as error:
        raise VideoError(f"{path}: landmarks cannot be read ({' '.join(str(error).split())})") from error
    if values.shape[1:] != (10,) or len(values) < num_frames:
        raise VideoError(f"{path}: {len(values)} lines of {values.shape[1]} numbers, {num_frames} of 10 are needed")
    return values[:num_frames].reshape(-1, 5, 2)


def alignment_matrices(points: np.ndarray, size: int, each_frame: bool) -> np.ndarray:
    """Similarities to FFHQ's template in a square of side `size` [px], of points (f, 5, 2) [px], NaN without a face.

    (1, 2, 3) from the median over time, or (f, 2, 3): then frames without a face take the last one that had one, the
    first ones the first. VideoError if there is no face in any.
    """
    seen = np.isfinite(points).all(axis=(1, 2))
    if not seen.any():
        raise VideoError("no face found to align by")
    target = FFHQ_TEMPLATE * size / ALIGNED_SIZE
    if not each_frame:
        return similarity_transform(np.median(points[seen], axis=0), target)[None]
    last = np.maximum.accumulate(np.where(seen, np.arange(len(points)), np.argmax(seen)))
    return np.stack([similarity_transform(points[index], target) for index in last])


def warp(frames: np.ndarray, matrices: np.ndarray, size: int, nearest: bool = False) -> np.ndarray:
    """Align frames: (f, h, w[, 3]) uint8 -> (f, size, size[, 3]), bilinear; masks by nearest neighbour, 0 outside."""
    flags, border = (cv2.INTER_NEAREST, (0,)) if nearest else (cv2.INTER_LINEAR, BORDER)
    warped = []
    for frame, matrix in zip(frames, np.broadcast_to(matrices, (len(frames), 2, 3)), strict=True):
        if not nearest:
            frame, matrix = _shrunk(frame, matrix)
        warped.append(cv2.warpAffine(frame, matrix, (size, size), flags=flags, borderValue=border))
    return np.stack(warped)


def _shrunk(frame: np.ndarray, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The frame reduced with antialiasing where the transform shrinks it, and what is left of the transform."""
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    if scale >= BILINEAR_SCALE:
        return frame, matrix
    height, width = frame.shape[:2]
    small = resize(frame, max(1, round(width * scale)), max(1, round(height * scale)))
    ratio = np.array([width / small.shape[1], height / small.shape[0]])
    # Pixel centres: x = (x' + 0.5) ratio - 0.5.
    return small, np.column_stack([matrix[:, :2] * ratio, matrix[:, :2] @ (ratio / 2 - 0.5) + matrix[:, 2]])


def make_inputs(truth: np.ndarray, name: str, tasks: Sequence[str], settings: TestsetConfig) -> Inputs:
    """Degrade a clip (f, h, w, 3) uint8 for each task: blur and the like, then gray, then white holes.

    The same degradation serves all tasks with bfr, the same mask all frames and all tasks with inpainting. The seed and
    the clip's name decide all numbers.
    """
    (height, width), seed = truth.shape[1:3], settings.seed
    degradation = PRESETS[settings.preset].sample(generator(seed, name, "degradation"), min(height, width))
    mask = None
    if any("inpainting" in task for task in tasks):
        mask = mask_clip(1, (height, width), generator(seed, name, "mask"))
    low = truth
    if any("bfr" in task for task in tasks):
        low = degrade(truth, degradation, generator(seed, name, "noise"))
    holes = [None] * len(truth) if mask is None else np.broadcast_to(mask > HOLE_THRESHOLD, truth.shape[:3])
    inputs = Inputs({}, mask, {}, [])
    for task in tasks:
        parts = task.split("+")
        frames = zip(low if "bfr" in parts else truth, holes, strict=True)
        inputs.frames[task] = np.stack([task_input(frame, parts, hole) for frame, hole in frames])
        made_by = inputs.made_by[task] = {}
        if "bfr" in parts:
            made_by["degradation"] = asdict(degradation)
        if "colorization" in parts:
            made_by["gray"] = "ITU-R 601 luma, repeated to three channels"
        if "inpainting" in parts and mask is not None:
            made_by["mask"] = {"share": float((mask > HOLE_THRESHOLD).mean())}
    return inputs


def dicface_inputs(root: Path, name: str, tasks: Sequence[str], truth: np.ndarray) -> Inputs:
    """The inputs of DicFace's public set, before alignment, at the size of the ground truth (f, h, w, 3) uint8.

    It has no mask files: the mask is where the input differs from the ground truth. VideoError if inputs are not there,
    or of another length.
    """
    frames_by_task, mask, notes = {}, None, []
    height, width = truth.shape[1:3]
    for task in tasks:
        if task not in DICFACE_INPUTS:
            raise VideoError(f"{task}: DicFace's set has inputs for {', '.join(DICFACE_INPUTS)} only")
        folder = root / DICFACE_INPUTS[task] / name
        frames = read_clip(folder, len(truth))
        if len(frames) != len(truth):
            raise VideoError(f"{folder}: {len(frames)} frames, the ground truth has {len(truth)}")
        if frames.shape != truth.shape:
            notes.append(f"{task}: enlarged from {frames.shape[2]}x{frames.shape[1]} by bicubic interpolation")
        frames_by_task[task] = np.stack([resize(frame, width, height) for frame in frames])
        if task == "inpainting":
            painted = np.abs(frames_by_task[task].astype(np.int16) - truth).max(axis=-1) > PAINTED
            mask = np.where(painted, np.uint8(255), np.uint8(0))
            notes.append(f"{task}: holes are where the input differs from the ground truth by over {PAINTED} levels")
    return Inputs(frames_by_task, mask, {task: {"source": DICFACE_INPUTS[task]} for task in tasks}, notes)


def write_clip(path: Path, frames: np.ndarray) -> str:
    """Write (f, h, w[, 3]) uint8 as a folder of PNG files, whole or not at all, and give the sha256 of the pixels.

    A mask (1, h, w), which is one for all frames, is the file PATH.png.
    """
    is_still = frames.ndim == 3 and len(frames) == 1
    frames = frames if frames.ndim == 4 else np.repeat(frames[..., None], 3, axis=-1)
    height, width = frames.shape[1:3]
    path.parent.mkdir(parents=True, exist_ok=True)
    target, kind = (path.with_name(f"{path.name}.png"), "image") if is_still else (path, "video")
    info = VideoInfo(target, width, height, Fraction(25), len(frames), 0.0, False, 0, kind)
    with VideoWriter(target, source=info, format="png") as writer:
        for index, frame in enumerate(frames):
            writer.write(np.ascontiguousarray(frame), index, Fraction(1, 25))
    return pixels_sha256(frames)


def pixels_sha256(frames: np.ndarray) -> str:
    """sha256 of shape and pixels."""
    sha256 = hashlib.sha256(str(frames.shape).encode())
    sha256.update(np.ascontiguousarray(frames).data)
    return sha256.hexdigest()


def other_pixels(manifest: Path, expected: Path) -> list[str]:
    """Where the pixels of two manifest.jsonl differ, one line each; a ValueError if one is no manifest."""
    ours, theirs = read_manifest(manifest), read_manifest(expected)
    problems = [f"{name}: only in one of the manifests" for name in sorted(ours.keys() ^ theirs.keys())]
    for name in sorted(ours.keys() & theirs.keys()):
        same, parts = ours[name]["sha256"], theirs[name]["sha256"].items()
        problems += [f"{name}: {part} has other pixels" for part, sha256 in parts if same.get(part) != sha256]
    return problems


def read_manifest(path: Path) -> dict[str, dict[str, Any]]:
    """The fields of `ClipEntry` by the name of the clip; a ValueError if it is no manifest of a test set."""
    try:
        return {entry["name"]: entry for entry in map(json.loads, path.read_text().splitlines()) if entry["sha256"]}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: no manifest of a test set") from error
