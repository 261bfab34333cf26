"""Validation while training: restore held-out clips by the pipeline that inference uses, measure, draw."""

from collections.abc import Callable, Iterable, Sequence
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn

from svfr.data.dataset import Sample
from svfr.data.frames import resize, to_uint8, to_unit
from svfr.inference.chain import Chain
from svfr.inference.settings import Sampling
from svfr.metrics import Chunk, VideoMetric, build_metrics
from svfr.models.components import Components, Reference
from svfr.models.svfr import SVFR
from svfr.tasks import TASKS
from svfr.training.losses import denoising_loss
from svfr.training.objective import Objective, TrainedModel

METRICS = ("psnr", "ssim", "lpips")
SHOWN_FRAMES = 4  # of each clip in the picture
SHOWN_SIZE, FILM_SIZE = 256, 128  # [px] largest side of a frame in a picture, in the film
FRAME_TIME = 40  # [ms] of the film
TITLE_HEIGHT = 16  # [px]
FILM = "film.gif"


@torch.no_grad()
def validate(
    objective: Objective,
    averaged: Components,
    samples: Sequence[Sample],
    autocast: Callable[[Any], Any],
    pictures: Path,
) -> dict[str, float]:
    """Restore all views of held-out clips, always the same way, and compute their loss at some noise levels.

    The `averaged` networks wait on the CPU; `autocast` decorates the model's forward pass. Samples, at least one, are
    as long as a training clip, or as two of inference, which are chained. A picture of each in the folder `pictures`
    (0.png, ...) shows of each view some frames degraded, restored, true, one above the other; a film the first one.

    Returns means over views of each combination of tasks: `val_psnr/TASKS` [dB], `val_psnr_degraded/TASKS` and the same
    of SSIM and LPIPS, where they can be computed (LPIPS: if its network is there already). Means over all views:
    `val_loss/sigma_SIGMA`, the denoising loss at the method's noise levels.
    """
    components, model = objective.components, averaged.model
    networks = copy(components)
    if objective.config.decoder_rate:
        networks.vae = nn.Module.to(averaged.vae, components.device)
    networks.model = copy(model.to(components.device).eval())
    networks.model.forward = autocast(model.forward)  # type: ignore[method-assign]
    # mypy takes no method's replacement; these two are a copy's, for the time of the validation.
    networks.model.fix_context = autocast(model.fix_context)  # type: ignore[method-assign]
    sampling = Sampling(seed=objective.config.seed).resolve(networks)
    metrics = build_metrics(METRICS, device=str(components.device), download=False).video
    values: dict[str, list[float]] = {}
    pictures.mkdir(parents=True, exist_ok=True)
    for number, sample in enumerate(samples):
        for sigma, loss in loss_by_noise(objective, networks.model, sample).items():
            values.setdefault(f"val_loss/sigma_{sigma:.3g}", []).append(loss)
        sample, reference = sample.to_float(), None
        if sample.has_reference:
            tokens = networks.id_tokens(sample.id_face[None])
            reference = Reference(networks.encode(sample.reference[None]), tokens)
        clips, truth = {}, to_uint8(to_unit(sample.gt))
        for view, prompt in zip(sample.lq, sample.task_prompts, strict=True):
            name = ",".join(task for task, chosen in zip(TASKS, prompt, strict=True) if chosen)
            restored = to_uint8(to_unit(restore(Chain(networks, sampling, prompt, reference=reference), view)))
            clips[name] = (to_uint8(to_unit(view)), restored, truth)
            for kind, frames in (("", restored), ("_degraded", clips[name][0])):
                for metric, value in _measure(metrics, frames, truth).items():
                    values.setdefault(f"val_{metric}{kind}/{name}", []).append(value)
        Image.fromarray(np.concatenate([_picture(*view) for view in clips.items()])).save(pictures / f"{number}.png")
        if number == 0:
            _write_film(pictures / FILM, list(clips.values()))
    for network in (model, averaged.vae):
        nn.Module.cpu(network)
    return {name: float(np.mean(numbers)) for name, numbers in sorted(values.items())}


def restore(chain: Chain, lq: Tensor) -> Tensor:
    """All of a video, (f, 3, s, s) degraded -> (f, 3, s, s) restored, clip by clip."""
    restored: list[Tensor] = []
    while rest := len(lq) - sum(map(len, restored)):
        restored.append(chain(lq[len(lq) - rest :][: chain.frames_wanted]))
    return torch.cat(restored)


def loss_by_noise(objective: Objective, model: SVFR, sample: Sample) -> dict[float, float]:
    """The denoising loss of a sample's first frames, as many as in training, at the method's `noise_levels`."""
    num_frames = objective.config.data.num_frames
    clip = sample._replace(gt=sample.gt[:num_frames], lq=sample.lq[:, :num_frames])
    batch = Sample(*(part[None] for part in clip))
    targets = objective.prepare(batch)
    noise = objective.draw_noise(batch.seed, tuple(targets.clean.shape[1:]))[1].to(targets.clean)  # (1, f, c, h, w)
    losses = {}
    for level in objective.noise_levels:
        sigma, noisy = torch.full_like(targets.sigma, level), objective.x_scale * (targets.clean + level * noise)
        outputs = TrainedModel(model)(targets._replace(noisy=noisy, sigma=sigma))
        losses[level] = float(denoising_loss(outputs.denoised, targets.clean, sigma, objective.weighting))
    return losses


def show(trackers: Sequence[Any], pictures: Path, step: int) -> None:
    """Hand what `validate` has drawn to accelerate's trackers; TensorBoard plays a GIF as it shows a picture."""
    for tracker in trackers:
        for file in sorted(pictures.iterdir()):
            tag = f"validation/{file.stem}"
            if tracker.name == "wandb":
                import wandb

                media = wandb.Video(str(file), format="gif") if file.name == FILM else wandb.Image(str(file))
                tracker.log({tag: media}, step=step)
            elif tracker.name == "tensorboard":
                from torch.utils.tensorboard.summary import Summary

                width, height = Image.open(file).size
                image = Summary.Image(width=width, height=height, colorspace=3, encoded_image_string=file.read_bytes())
                tracker.writer.file_writer.add_summary(Summary(value=[Summary.Value(tag=tag, image=image)]), step)


def _measure(metrics: Sequence[VideoMetric], frames: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    chunk = Chunk(*(torch.from_numpy(clip).movedim(-1, 1) for clip in (frames, truth)))
    numbers: dict[str, float | None] = {}
    for metric in metrics:
        metric.reset()
        metric.update(chunk)
        numbers |= metric.compute()
    return {name: value for name in METRICS if (value := numbers.get(name)) is not None}


def _picture(name: str, clips: tuple[np.ndarray, ...]) -> np.ndarray:
    """Some frames of a view's clips (f, s, s, 3), one above the other, under a title."""
    shown = np.linspace(0, len(clips[0]) - 1, SHOWN_FRAMES).round().astype(int)
    picture = _tile([clip[shown] for clip in clips], SHOWN_SIZE)
    title = Image.new("RGB", (picture.shape[1], TITLE_HEIGHT), "white")
    ImageDraw.Draw(title).text((3, 2), f"{name}: degraded, restored, true", fill="black")
    return np.concatenate([np.asarray(title), picture])


def _write_film(file: Path, views: Sequence[tuple[np.ndarray, ...]]) -> None:
    """A GIF: a row for each view, its clips (f, s, s, 3) side by side."""
    moments = range(len(views[0][0]))
    frames = [Image.fromarray(_tile([[clip[i] for clip in row] for row in views], FILM_SIZE)) for i in moments]
    frames[0].save(file, save_all=True, append_images=frames[1:], duration=FRAME_TIME, loop=0)


def _tile(rows: Iterable[Iterable[np.ndarray]], size: int) -> np.ndarray:
    """Rows of frames as one picture, each frame at most of a size."""
    shrunk = [[resize(f, min(size, f.shape[1]), min(size, f.shape[0])) for f in row] for row in rows]
    return np.concatenate([np.concatenate(row, axis=1) for row in shrunk])
