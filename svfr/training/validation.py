"""Validation while training: restore held-out clips by the pipeline that inference uses, measure, draw."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from svfr.data.dataset import Sample
from svfr.data.frames import to_uint8, to_unit
from svfr.inference.options import SamplingOptions
from svfr.inference.pipeline import SVFRPipeline
from svfr.metrics import Chunk, build_metrics
from svfr.models.components import Components
from svfr.models.svfr import SVFR
from svfr.tasks import TASKS

METRICS = ("psnr", "ssim")
SHOWN_FRAMES = 4  # of each clip in the picture
TITLE_HEIGHT = 16  # [px]


class Validator:
    """Restores the same degraded clips each time.

    Args:
        components: the networks on their device; those that are not trained are used.
        samples: held-out clips without a reference; each view of each is restored.
        seed: of the sampling noise.
    """

    def __init__(self, components: Components, samples: Sequence[Sample], seed: int) -> None:
        self.components = components
        self.samples = samples
        self.seed = seed
        self.metrics, *_ = build_metrics(METRICS)

    def __call__(self, model: SVFR, picture: Path) -> dict[str, float]:
        """Restore all views.

        Args:
            model: to validate, on the CPU; it is on the device for as long as that takes.
            picture: PNG to write: of each view some frames degraded, restored, true, one above the other.

        Returns:
            Means over views of each combination of tasks: `val_psnr/TASKS` [dB], `val_psnr_degraded/TASKS` and the same
            of SSIM, where it can be computed.
        """
        fixed = self.components
        pipe = SVFRPipeline(
            Components(model.to(fixed.device), fixed.vae, fixed.id_encoder, fixed.scheduler, fixed.settings)
        )
        values: dict[str, list[float]] = {}
        rows = []
        for sample in self.samples:
            truth = to_uint8(to_unit(sample.gt))
            for view, prompt in zip(sample.lq, sample.task_prompts.tolist(), strict=True):
                tasks = tuple(task for task, chosen in zip(TASKS, prompt, strict=True) if chosen)
                restored, degraded = to_uint8(to_unit(_restore(pipe, view, tasks, self.seed))), to_uint8(to_unit(view))
                name = ",".join(tasks)
                for kind, frames in (("", restored), ("_degraded", degraded)):
                    for metric, value in self._measure(frames, truth).items():
                        values.setdefault(f"val_{metric}{kind}/{name}", []).append(value)
                rows.append(_row(f"{name}: degraded, restored, true", (degraded, restored, truth)))
        model.cpu()
        picture.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.concatenate(rows)).save(picture)
        return {name: float(np.mean(numbers)) for name, numbers in sorted(values.items())}

    def _measure(self, frames: np.ndarray, truth: np.ndarray) -> dict[str, float]:
        chunk = Chunk(*(torch.from_numpy(clip).movedim(-1, 1) for clip in (frames, truth)))
        numbers: dict[str, float] = {}
        for metric in self.metrics:
            metric.reset()
            metric.update(chunk)
            numbers |= {
                name: value for name, value in metric.compute().items() if name in METRICS and value is not None
            }
        return numbers


@torch.no_grad()
def _restore(pipe: SVFRPipeline, lq: Tensor, tasks: tuple[str, ...], seed: int) -> Tensor:
    options = SamplingOptions.resolve(pipe.components.settings, seed=seed)
    return torch.cat(list(pipe.stream(iter(lq), tasks, None, options, reference_frame="none")))


def _row(title: str, clips: tuple[np.ndarray, ...]) -> np.ndarray:
    num_frames = len(clips[0])
    shown = [round(i * (num_frames - 1) / (SHOWN_FRAMES - 1)) for i in range(SHOWN_FRAMES)]
    picture = np.concatenate([np.concatenate([clip[i] for i in shown], axis=1) for clip in clips])
    banner = Image.new("RGB", (picture.shape[1], TITLE_HEIGHT), "white")
    ImageDraw.Draw(banner).text((3, 2), title, fill="black")
    return np.concatenate([np.asarray(banner), picture])
