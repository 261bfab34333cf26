"""Validation while training: restore held-out clips by the pipeline that inference uses, measure, draw."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from svfr.data.dataset import Sample
from svfr.data.frames import to_uint8, to_unit
from svfr.inference.chain import Chain
from svfr.inference.settings import Sampling
from svfr.metrics import Chunk, build_metrics
from svfr.models.components import Components
from svfr.tasks import TASKS

METRICS = ("psnr", "ssim")
SHOWN_FRAMES = 4  # of each clip in the picture
TITLE_HEIGHT = 16  # [px]


class Validator:
    """Restores the same degraded clips each time.

    Args:
        samples: held-out clips without a reference; each view of each is restored.
        seed: of the sampling noise.
    """

    def __init__(self, samples: Sequence[Sample], seed: int) -> None:
        self.samples = samples
        self.seed = seed
        self.metrics, _, self.missing = build_metrics(METRICS)

    def __call__(self, components: Components, picture: Path | None) -> dict[str, float]:
        """Restore all views.

        Args:
            components: the networks, with the weights to validate.
            picture: PNG to write: of each view some frames degraded, restored, true, one above the other.

        Returns:
            Means over views of each combination of tasks: `val_psnr/TASKS` [dB], `val_psnr_degraded/TASKS` and the same
            of SSIM, where it can be computed.
        """
        sampling = Sampling(seed=self.seed).resolve(components)
        values: dict[str, list[float]] = {}
        rows = []
        for sample in self.samples:
            truth = to_uint8(to_unit(sample.gt))
            for view, prompt in zip(sample.lq, sample.task_prompts.tolist(), strict=True):
                tasks = tuple(task for task, chosen in zip(TASKS, prompt, strict=True) if chosen)
                chain = Chain(components, sampling, torch.tensor(prompt))
                restored = to_uint8(to_unit(chain(view)))
                degraded = to_uint8(to_unit(view))
                name = ",".join(tasks)
                for kind, frames in (("", restored), ("_degraded", degraded)):
                    for metric, value in self._measure(frames, truth).items():
                        values.setdefault(f"val_{metric}{kind}/{name}", []).append(value)
                rows.append(_row(f"{name}: degraded, restored, true", (degraded, restored, truth)))
        if picture is not None and rows:
            picture.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.concatenate(rows)).save(picture)
        return {name: float(np.mean(numbers)) for name, numbers in sorted(values.items())}

    def _measure(self, frames: np.ndarray, truth: np.ndarray) -> dict[str, float]:
        restored, true = (torch.from_numpy(clip).movedim(-1, 1) for clip in (frames, truth))
        numbers: dict[str, float] = {}
        for metric in self.metrics:
            metric.reset()
            metric.update(Chunk(restored, true))
            row = metric.compute()
            numbers |= {name: value for name in METRICS if (value := row.get(name)) is not None}
        return numbers


def _row(title: str, clips: tuple[np.ndarray, ...]) -> np.ndarray:
    num_frames = len(clips[0])
    shown = [round(i * (num_frames - 1) / (SHOWN_FRAMES - 1)) for i in range(SHOWN_FRAMES)]
    picture = np.concatenate([np.concatenate([clip[i] for i in shown], axis=1) for clip in clips])
    banner = Image.new("RGB", (picture.shape[1], TITLE_HEIGHT), "white")
    ImageDraw.Draw(banner).text((3, 2), title, fill="black")
    return np.concatenate([np.asarray(banner), picture])
