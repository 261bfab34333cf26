"""What has to hold of the bundled model: margins over trivial methods, and that reference and task prompt matter."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from types import SimpleNamespace

import cv2
import numpy as np
import torch

from svfr import config
from svfr.data.alignment import five_points
from svfr.data.frames import to_tensor, to_uint8, to_unit
from svfr.data.recognition import Recognizer
from svfr.demo.clips import DegradedClip, held_out_clip, trivial_baseline
from svfr.demo.ladder import TASK_SETS, restore
from svfr.demo.quality import mean_row, measure
from svfr.inference.pipeline import SVFRPipeline
from svfr.inference.settings import Sampling
from svfr.inference.strategies import restore_clips
from svfr.metrics.base import Row, VideoMetric
from svfr.metrics.identity import ids
from svfr.models.components import Reference
from svfr.models.identity import align_face
from svfr.synthetic import TEST_SEEDS, render_clip

OTHER_SCENE = 500_000  # added to a held-out seed: another scene of the same person
METHODS = ("degraded", "trivial", "restored")
# Columns in which restored has to beat both others, and whether higher is better (None: nearest to 1).
COMPARED: tuple[tuple[str, bool | None], ...] = (
    ("psnr", True),
    ("ssim", True),
    ("gmsd", False),
    ("gradient_energy", None),
    ("ids", True),
)
DETAIL = ("gmsd", "gradient_energy")  # of luma
# What to aim for: tasks -> column, [dB] above the better of degraded and trivial.
AIMS = {"bfr": ("psnr", 3.0), "colorization": ("psnr_chroma", 3.0), "inpainting": ("psnr_mask", 6.0)}


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    what: str
    value: str
    holds: bool


def margins(
    pipe: SVFRPipeline,
    metrics: Sequence[VideoMetric],
    *,
    num_clips: int,
    num_frames: int,
    preset: str,
    on_clip: Callable[[], None],
) -> dict[str, dict[str, Row]]:
    """Means over held-out clips: tasks -> method of `METHODS` -> columns."""
    size = pipe.parts.settings.size
    rows: dict[str, dict[str, list[Row]]] = {}
    for tasks, index in product(TASK_SETS, range(num_clips)):
        clip = held_out_clip(index, tasks, num_frames, size, preset)
        results = (clip.degraded, trivial_baseline(clip), restore(pipe, clip))
        group = rows.setdefault(",".join(tasks), {method: [] for method in METHODS})
        for method, frames in zip(METHODS, results, strict=True):
            group[method].append(measure(metrics, frames, clip))
        on_clip()
    return {tasks: {method: mean_row(found) for method, found in group.items()} for tasks, group in rows.items()}


def judge_margins(means: dict[str, dict[str, Row]]) -> list[Finding]:
    """Whether restored beats degraded and trivial in each compared column, and whether the aims are reached.

    Detail is measured on luma, which all methods keep when colours alone are missing: it isn't compared there.
    """
    findings = []
    for tasks, group in means.items():
        for column, direction in COMPARED:
            values = [group[method].get(column) for method in METHODS]
            kept = tasks == "colorization" and column in DETAIL
            if kept or any(value is None for value in values):
                continue
            degraded, trivial, restored = (_badness(value, direction) for value in values)
            shown = " / ".join(f"{value:.4g}" for value in values)
            findings.append(
                Finding(f"{tasks}: {column}, {' / '.join(METHODS)}", shown, restored < min(degraded, trivial))
            )
        if tasks in AIMS:
            column, aim = AIMS[tasks]
            values = [group[method].get(column) for method in METHODS]
            if all(value is not None for value in values):
                margin = values[2] - max(values[0], values[1])  # type: ignore[operator, type-var]
                findings.append(
                    Finding(f"{tasks}: margin in {column} [dB], aim +{aim:g}", f"{margin:+.2f}", margin >= aim)
                )
    return findings


def prompt_matters(
    pipe: SVFRPipeline, *, num_clips: int, num_frames: int, preset: str, on_clip: Callable[[], None]
) -> list[Finding]:
    """PSNR of the degraded clips of each single task, restored under each task's prompt."""
    size, single = pipe.parts.settings.size, TASK_SETS[:3]
    found: dict[tuple[tuple[str, ...], tuple[str, ...]], list[float]] = {p: [] for p in product(single, single)}
    for tasks, index in product(single, range(num_clips)):
        clip = held_out_clip(index, tasks, num_frames, size, preset)
        for prompt in single:
            restored = restore_as_seen(pipe, clip, prompt, reference_frame="none")
            found[tasks, prompt].append(psnr(restored, clip.truth))
        on_clip()
    findings = []
    for tasks in single:
        values = {prompt[0]: float(np.mean(found[tasks, prompt])) for prompt in single}
        shown = ", ".join(f"{name} {value:.2f}" for name, value in values.items())
        right = values.pop(tasks[0])
        findings.append(Finding(f"{tasks[0]} clips by prompt, PSNR [dB]", shown, right > max(values.values())))
    return findings


def person_matters(
    pipe: SVFRPipeline,
    recognizer: Recognizer,
    *,
    num_clips: int,
    num_frames: int,
    preset: str,
    on_clip: Callable[[], None],
) -> list[Finding]:
    """All three tasks with a photo of the right person (in another scene), of another one, and without."""
    size = pipe.parts.settings.size
    found: dict[str, list[tuple[float, float]]] = {"right": [], "other": [], "none": []}
    for index in range(num_clips):
        clip = held_out_clip(index, TASK_SETS[3], num_frames, size, preset)
        for who, identity in (("right", clip.seed), ("other", clip.seed + 1), ("none", None)):
            reference = None if identity is None else _photo(pipe, identity, size)
            restored = restore_as_seen(pipe, clip, clip.tasks, reference=reference, reference_frame="none")
            similarity = ids(_embed(recognizer, restored, clip), _embed(recognizer, clip.truth, clip)).mean()
            found[who].append((psnr(restored, clip.truth), float(similarity)))
        on_clip()
    means = {who: np.mean(values, axis=0) for who, values in found.items()}
    return [
        Finding(
            f"photo of the right / another person / none, {what}",
            " / ".join(f"{means[who][at]:.4g}" for who in found),
            bool(means["right"][at] > means["other"][at]),
        )
        for at, what in enumerate(("PSNR [dB]", "IDS"))
    ]


def drift(
    pipe: SVFRPipeline,
    recognizer: Recognizer,
    *,
    num_clips: int,
    num_frames: int,
    preset: str,
    on_clip: Callable[[], None],
) -> list[Finding]:
    """How far colour and identity move from the first clip of a long video to its last, by the self-reference.

    Colour: distance of the mean chroma errors (Cr, Cb) of the first and the last `clip_length` frames, in levels.
    Identity: 1 - cosine of their mean embeddings. All three tasks at once.
    """
    size, length = pipe.parts.settings.size, pipe.parts.settings.clip_length
    found: dict[str, list[tuple[float, float]]] = {"best": [], "none": []}
    for index in range(num_clips):
        clip = held_out_clip(index, TASK_SETS[3], num_frames, size, preset)
        for how, values in found.items():
            restored = restore(pipe, clip, reference_frame=how)
            errors = _chroma(restored) - _chroma(clip.truth)  # (f, 2)
            colour = np.linalg.norm(errors[:length].mean(axis=0) - errors[-length:].mean(axis=0))
            embeddings = _embed(recognizer, restored, clip)
            first, last = (embeddings[part].mean(axis=0) for part in (slice(length), slice(-length, None)))
            values.append((float(colour), 1 - float(ids(first, last))))
        on_clip()
    means = {how: np.mean(values, axis=0) for how, values in found.items()}
    return [
        Finding(
            f"drift over {num_frames} frames ({num_clips} clips) with / without self-reference, {what}",
            f"{means['best'][at]:.4g} / {means['none'][at]:.4g}",
            bool(means["best"][at] < means["none"][at]),
        )
        for at, what in enumerate(("colour [levels]", "identity [1 - cos]"))
    ]


def restore_as_seen(
    pipe: SVFRPipeline,
    clip: DegradedClip,
    prompt: tuple[str, ...],
    reference: Reference | None = None,
    reference_frame: str = "best",
) -> np.ndarray:
    """Restore what the network sees of a clip under any prompt, keeping nothing of it; (f, s, s, 3) uint8."""
    frames = iter([SimpleNamespace(lq=to_tensor(frame)) for frame in clip.degraded])
    sampling = config.make(Sampling, {"reference_frame": reference_frame}).resolve(pipe.parts)
    steps = restore_clips(pipe.parts, sampling, prompt, frames, pipe.references, reference)
    return to_uint8(to_unit(torch.cat([restored for _, restored in steps])))


def psnr(restored: np.ndarray, truth: np.ndarray) -> float:
    """PSNR of a clip [dB], uint8, the mean over frames."""
    error = np.square(restored.astype(np.float64) - truth).mean(axis=(1, 2, 3))
    return float((10 * np.log10(255**2 / np.maximum(error, 1e-9))).mean())


def _photo(pipe: SVFRPipeline, identity: int, size: int) -> Reference:
    clip = render_clip(TEST_SEEDS + OTHER_SCENE + identity % TEST_SEEDS, 1, size, identity=identity)
    return pipe.references.from_aligned(clip.frames[0], five_points(clip.landmarks[0]))


def _embed(recognizer: Recognizer, frames: np.ndarray, clip: DegradedClip) -> np.ndarray:
    points = five_points(clip.landmarks)
    return recognizer(np.stack([align_face(frame, at) for frame, at in zip(frames, points, strict=True)]))


def _chroma(frames: np.ndarray) -> np.ndarray:
    """Mean Cr and Cb of each frame, (f, 2)."""
    return np.stack([cv2.cvtColor(f, cv2.COLOR_RGB2YCrCb)[..., 1:].reshape(-1, 2).mean(axis=0) for f in frames])


def _badness(value: float | None, direction: bool | None) -> float:
    assert value is not None
    return -value if direction else value if direction is False else abs(value - 1)
