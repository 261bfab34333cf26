"""Validation while training: restore held-out clips by the pipeline that inference uses, measure, draw."""

from collections.abc import Sequence
from copy import copy
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from svfr.data.dataset import Sample
from svfr.data.frames import to_uint8, to_unit
from svfr.inference.chain import Chain
from svfr.inference.settings import Sampling
from svfr.metrics import Chunk, VideoMetric, build_metrics
from svfr.models.components import Components
from svfr.models.svfr import SVFR
from svfr.tasks import TASKS

METRICS = ("psnr", "ssim")
SHOWN_FRAMES = 4  # of each clip in the picture
TITLE_HEIGHT = 16  # [px]


@torch.no_grad()
def validate(
    components: Components, model: SVFR, samples: Sequence[Sample], seed: int, picture: Path
) -> dict[str, float]:
    """Restore all views of held-out clips, always the same way.

    Args:
        components: on their device; its VAE and ID network are used.
        model: to validate, on the CPU; it is on the device for as long as that takes.
        samples: at least one, without a reference.
        seed: of the sampling noise.
        picture: PNG to write: of each view some frames degraded, restored, true, one above the other.

    Returns:
        Means over views of each combination of tasks: `val_psnr/TASKS` [dB], `val_psnr_degraded/TASKS` and the same of
        SSIM, where it can be computed.
    """
    networks = copy(components)
    networks.model = model.to(components.device).eval()
    sampling = Sampling(seed=seed).resolve(networks)
    metrics, *_ = build_metrics(METRICS)
    values: dict[str, list[float]] = {}
    rows = []
    for sample in (held_out.to_float() for held_out in samples):
        truth = to_uint8(to_unit(sample.gt))
        for view, prompt in zip(sample.lq, sample.task_prompts.tolist(), strict=True):
            tasks = tuple(task for task, chosen in zip(TASKS, prompt, strict=True) if chosen)
            name, degraded = ",".join(tasks), to_uint8(to_unit(view))
            restored = to_uint8(to_unit(Chain(networks, sampling, torch.tensor(prompt))(view)))
            for kind, frames in (("", restored), ("_degraded", degraded)):
                for metric, value in _measure(metrics, frames, truth).items():
                    values.setdefault(f"val_{metric}{kind}/{name}", []).append(value)
            rows.append(_row(f"{name}: degraded, restored, true", (degraded, restored, truth)))
    model.cpu()
    picture.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(rows)).save(picture)
    return {name: float(np.mean(numbers)) for name, numbers in sorted(values.items())}


def _measure(metrics: Sequence[VideoMetric], frames: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    chunk = Chunk(*(torch.from_numpy(clip).movedim(-1, 1) for clip in (frames, truth)))
    numbers: dict[str, float | None] = {}
    for metric in metrics:
        metric.reset()
        metric.update(chunk)
        numbers |= metric.compute()
    return {name: value for name in METRICS if (value := numbers.get(name)) is not None}


def _row(title: str, clips: tuple[np.ndarray, ...]) -> np.ndarray:
    num_frames = len(clips[0])
    shown = [round(i * (num_frames - 1) / (SHOWN_FRAMES - 1)) for i in range(SHOWN_FRAMES)]
    picture = np.concatenate([np.concatenate([clip[i] for i in shown], axis=1) for clip in clips])
    banner = Image.new("RGB", (picture.shape[1], TITLE_HEIGHT), "white")
    ImageDraw.Draw(banner).text((3, 2), title, fill="black")
    return np.concatenate([np.asarray(banner), picture])
