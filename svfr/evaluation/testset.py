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
from typing import Any

import cv2
import numpy as np

from svfr.data.alignment import FFHQ_TEMPLATE, similarity_transform
from svfr.data.degradations import PRESETS, degrade
from svfr.data.detectors import FaceDetector
from svfr.data.frames import HOLE_THRESHOLD, resize, task_input
from svfr.data.masks import mask_clip
from svfr.data.tracks import track_largest_face
from svfr.data.video import VideoError, VideoInfo, VideoWriter, probe, read_frames

GROUND_TRUTH, DEGRADED, MASKS = "ground_truth", "degraded", "masks"
ALIGNED_SIZE = 512  # [px] of FFHQ's template
BORDER = (132, 133, 135)  # RGB outside of the frame, facexlib's, which the peers' aligned sets have
BILINEAR_SCALE = 0.8  # Assumption: what shrinks less than this does not alias under bilinear interpolation
# DicFace's public test set (README of fudan-generative-vision/DicFace): folders of frames, and of the points.
DICFACE_TRUTH, DICFACE_LANDMARKS = "TEST_DATA", "vfhq_test_landmarks"
DICFACE_INPUTS = {
    "bfr": "LR_Blind",
    "colorization": "vfhq_test_color_input",
    "inpainting": "vfhq_test_inpaint_input_512",
}
# Assumption: levels by which a painted pixel differs from the ground truth; DicFace's set has no mask files.
PAINTED = 10


@dataclass(frozen=True)
class ClipEntry:
    """What a manifest says of one clip.

    Attributes:
        output: folder of its ground truth.
        name: relative, without suffix.
        source: file that it was made of, relative to what the user gave.
        num_frames: of the clip.
        width: [px].
        height: [px].
        fps: [1/s] of the source.
        seed: of the set.
        matrices: (2, 3) similarity of the alignment, one a clip or one a frame; none without alignment.
        tasks: what was done to make each task's input.
        sha256: of the pixels of the ground truth, of each task's input and of the mask.
        notes: what a reader should know.
    """

    output: Path
    name: str
    source: str
    num_frames: int
    width: int
    height: int
    fps: float
    seed: int
    matrices: list[list[list[float]]]
    tasks: dict[str, dict[str, Any]]
    sha256: dict[str, str]
    notes: list[str]


def generator(seed: int, name: str, purpose: str) -> np.random.Generator:
    """Random numbers that depend on nothing but the arguments."""
    digest = hashlib.sha256(f"{seed}/{name}/{purpose}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))


def read_clip(path: Path, max_frames: int | None) -> tuple[np.ndarray, VideoInfo]:
    """All frames, or the first ones, of a video: (f, h, w, 3) uint8. A clip is held as a whole.

    Raises:
        VideoError: it cannot be read.
    """
    info = probe(path)
    frames = [frame.image for frame in islice(read_frames(path), max_frames)]
    if not frames:
        raise VideoError(f"{path}: no frames")
    return np.stack(frames), info


def find_points(frames: np.ndarray, fps: float, detector: FaceDetector) -> np.ndarray:
    """(f, 5, 2) float32 points [px] of the largest face, NaN in frames without one."""
    points = np.full((len(frames), 5, 2), np.nan, dtype=np.float32)
    for track in track_largest_face((detector(frame) for frame in frames), fps):
        points[track.start : track.stop] = track.landmarks
    return points


def read_points(path: Path, num_frames: int) -> np.ndarray:
    """(f, 5, 2) float32 points [px] from a text file with ten numbers a line.

    Raises:
        VideoError: no such file, or it does not fit.
    """
    try:
        values = np.loadtxt(path, dtype=np.float32, ndmin=2)
    except (OSError, ValueError) as error:
        raise VideoError(f"{path}: landmarks cannot be read ({' '.join(str(error).split())})") from error
    if values.shape[1:] != (10,) or len(values) < num_frames:
        raise VideoError(f"{path}: {len(values)} lines of {values.shape[1]} numbers, {num_frames} of 10 are needed")
    return values[:num_frames].reshape(-1, 5, 2)


def alignment_matrices(points: np.ndarray, size: int, each_frame: bool) -> np.ndarray:
    """Similarities to FFHQ's template: (1, 2, 3) from the median of the points over time, or (f, 2, 3).

    Args:
        points: (f, 5, 2) [px], NaN where there is no face.
        size: side of the aligned square [px].
        each_frame: one a frame; frames without a face take the last one that had one (the first ones: the first).

    Raises:
        VideoError: no face in any frame.
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
        aligned = cv2.warpAffine(
            frame, matrix, (size, size), flags=flags, borderMode=cv2.BORDER_CONSTANT, borderValue=border
        )
        warped.append(aligned)
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


def make_inputs(
    truth: np.ndarray,
    name: str,
    tasks: Sequence[str],
    *,
    preset: str,
    seed: int,
    moving_masks: bool = False,
    points: np.ndarray | None = None,
) -> tuple[dict[str, np.ndarray], np.ndarray | None, dict[str, dict[str, Any]]]:
    """Degrade a clip for each task: blur and the like, then gray, then white holes.

    The same degradation serves all tasks with bfr, the same mask all with inpainting.

    Args:
        truth: (f, h, w, 3) uint8.
        name: of the clip; with the seed it decides all numbers.
        tasks: "bfr", "bfr+colorization", ...
        preset: name of the degradation.
        seed: of the set.
        moving_masks: whether the holes follow the face.
        points: (f, 5, 2) [px], for moving masks.

    Returns:
        Frames by task; the mask, (f, h, w) or (1, h, w) uint8, if a task asks for it; what was done, by task.
    """
    height, width = truth.shape[1:3]
    degradation = PRESETS[preset].sample(generator(seed, name, "degradation"), min(height, width))
    mask = None
    if any("inpainting" in task for task in tasks):
        mask = mask_clip(len(truth), (height, width), generator(seed, name, "mask"), points, moving_masks)
        mask = mask if moving_masks else mask[:1]
    low = None
    if any("bfr" in task.split("+") for task in tasks):
        low = degrade(truth, degradation, generator(seed, name, "noise"))
    inputs: dict[str, np.ndarray] = {}
    done: dict[str, dict[str, Any]] = {}
    for task in tasks:
        parts = task.split("+")
        frames = low if "bfr" in parts and low is not None else truth
        holes = np.broadcast_to(mask > HOLE_THRESHOLD, truth.shape[:3]) if mask is not None else [None] * len(truth)
        inputs[task] = np.stack([task_input(frame, parts, hole) for frame, hole in zip(frames, holes, strict=True)])
        done[task] = {}
        if "bfr" in parts:
            done[task]["degradation"] = asdict(degradation)
        if "colorization" in parts:
            done[task]["gray"] = "ITU-R 601 luma, repeated to three channels"
        if "inpainting" in parts and mask is not None:
            done[task]["mask"] = {"moving": moving_masks, "share": float((mask > HOLE_THRESHOLD).mean())}
    return inputs, mask, done


def dicface_inputs(
    root: Path, name: str, tasks: Sequence[str], truth: np.ndarray
) -> tuple[dict[str, np.ndarray], np.ndarray | None, list[str]]:
    """The inputs of DicFace's public set, before alignment, at the size of the ground truth.

    Returns:
        Frames by task, the holes (f, h, w) uint8 as far as they show, and notes.

    Raises:
        VideoError: inputs that are not there, or of another length.
    """
    inputs, mask, notes = {}, None, []
    for task in tasks:
        if task not in DICFACE_INPUTS:
            raise VideoError(f"{task}: DicFace's set has inputs for {', '.join(DICFACE_INPUTS)} only")
        folder = root / DICFACE_INPUTS[task] / name
        frames, info = read_clip(folder, len(truth))
        if len(frames) != len(truth):
            raise VideoError(f"{folder}: {len(frames)} frames, the ground truth has {len(truth)}")
        height, width = truth.shape[1:3]
        if (info.width, info.height) != (width, height):
            notes.append(f"{task}: enlarged from {info.width}x{info.height} by bicubic interpolation")
        inputs[task] = np.stack([resize(frame, width, height) for frame in frames])
        if task == "inpainting":
            painted = np.abs(inputs[task].astype(np.int16) - truth).max(axis=-1) > PAINTED
            mask = np.where(painted, np.uint8(255), np.uint8(0))
            notes.append(
                f"inpainting: holes are where the input differs from the ground truth by over {PAINTED} levels"
            )
    return inputs, mask, notes


def write_clip(path: Path, frames: np.ndarray) -> str:
    """Write (f, h, w[, 3]) uint8 as a folder of PNG files, whole or not at all; one frame for all as PATH.png.

    Returns:
        sha256 of the pixels.
    """
    is_still = frames.ndim == 3 and len(frames) == 1
    frames = frames if frames.ndim == 4 else np.repeat(frames[..., None], 3, axis=-1)
    height, width = frames.shape[1:3]
    path.parent.mkdir(parents=True, exist_ok=True)
    target = path.with_name(f"{path.name}.png") if is_still else path
    kind = "image" if is_still else "video"
    info = VideoInfo(target, width, height, Fraction(25), len(frames), 0.0, False, 0, kind)
    with VideoWriter(target, source=info, format="png") as writer:
        for index, frame in enumerate(frames):
            writer.write(np.ascontiguousarray(frame), index, Fraction(1, 25))
    return pixels_sha256(frames)


def pixels_sha256(frames: np.ndarray) -> str:
    """sha256 of shape and pixels."""
    digest = hashlib.sha256(str(frames.shape).encode())
    for frame in frames:
        digest.update(frame.tobytes())
    return digest.hexdigest()


def manifest_lines(entries: Iterable[dict[str, Any]]) -> str:
    """The clips of a test set as JSON lines, sorted by name."""
    ordered = sorted(entries, key=lambda entry: entry["name"])
    return "".join(json.dumps(entry, sort_keys=True) + "\n" for entry in ordered)


def other_pixels(lines: str, expected: str) -> list[str]:
    """Where a manifest's pixels differ from another lab's: one line each."""
    ours, theirs = ({e["name"]: e for e in map(json.loads, text.splitlines())} for text in (lines, expected))
    problems = [f"{name}: only in one of the manifests" for name in sorted(ours.keys() ^ theirs.keys())]
    for name in sorted(ours.keys() & theirs.keys()):
        for part, sha256 in theirs[name]["sha256"].items():
            if ours[name]["sha256"].get(part) != sha256:
                problems.append(f"{name}: {part} has other pixels")
    return problems
