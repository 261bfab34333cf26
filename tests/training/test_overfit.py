"""Training learns: two clips by heart, from nothing, in a few hundred steps of the real loop."""

from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import EulerDiscreteScheduler, UNetSpatioTemporalConditionModel
from torch import nn
from torch.utils.data import default_collate

from svfr.data import clip_sources
from svfr.data.dataset import Sample
from svfr.data.frames import to_uint8, to_unit
from svfr.inference.chain import Chain
from svfr.inference.settings import Sampling
from svfr.metrics.image import psnr
from svfr.models.autoencoders import fit_patch_autoencoder
from svfr.models.components import Components, ModelSettings
from svfr.models.heads import IDProjector
from svfr.models.sources import load_folder
from svfr.models.svfr import SVFR
from svfr.synthetic import render_clip
from svfr.tasks import task_prompt
from svfr.training.loop import make_dataset, train
from svfr.training.objective import Objective, TrainedModel
from svfr.training.settings import TrainConfig
from tests import tiny
from tests.runs import config

STEPS, FRAMES, CHANNELS = 450, 2, 12


def write_start(folder: Path) -> None:
    """A small model from nothing; only its autoencoder is fitted, on rendered faces."""
    frames = np.concatenate([render_clip(seed, FRAMES, tiny.SIZE).frames for seed in range(100, 120)])
    vae = fit_patch_autoencoder(torch.from_numpy(frames).movedim(-1, 1).float() / 127.5 - 1, 4, CHANNELS)
    torch.manual_seed(0)
    shape = dict(tiny.unet().config) | {"in_channels": 3 * CHANNELS, "out_channels": CHANNELS}
    unet = UNetSpatioTemporalConditionModel.from_config(shape)
    scheduler = EulerDiscreteScheduler.from_config(dict(tiny.scheduler().config) | {"sigma_min": 0.02, "sigma_max": 20})
    settings = ModelSettings(size=tiny.SIZE, clip_length=FRAMES, num_inference_steps=8, id_crop="arcface")
    Components(SVFR(unet, IDProjector(16, tiny.TOKEN_DIM)), vae, tiny.id_encoder(), scheduler, settings).save(folder)


def fixed_batch(settings: TrainConfig) -> Sample:
    dataset = make_dataset(settings, "train", "arcface")
    return default_collate([dataset[0, index] for index in range(2)])


@torch.no_grad()
def loss_by_noise_level(components: Components, settings: TrainConfig) -> float:
    """The denoising loss on fixed clips, noise levels and noise."""
    batch, objective = fixed_batch(settings), Objective(settings, components)
    losses = []
    for seed in range(8):
        model: nn.Module = TrainedModel(components.model).eval()
        _, parts = objective(model, batch._replace(seed=torch.tensor([2 * seed, 2 * seed + 1])))
        losses.append(float(parts["loss_noise"]))
    return float(np.mean(losses))


@pytest.mark.slow
def test_two_clips_are_learned_by_heart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clip_sources, "render_clip", lru_cache(render_clip))  # two clips, 450 times
    write_start(tmp_path / "start")
    settings = config(
        tmp_path,
        max_steps=STEPS,
        checkpoint_every=STEPS,
        log_every=50,
        learning_rate=6e-3,
        schedule="cosine",
        warmup_steps=20,
        ema_decay=0.97,
        sigma_mean=1.0,
        sigma_std=0.7,
        lambda_prior=0,
        lambda_ulr=0,
        data__rendered_clips=2,
        data__num_frames=FRAMES,
        data__num_views=1,
        data__task_weights="{inpainting: 1}",
        data__flip=False,
        data__reference_dropout=1.0,
    )
    before = loss_by_noise_level(load_folder(tmp_path / "start"), settings)
    train(settings)
    components = load_folder(tmp_path / "run" / "weights" / f"step_{STEPS:06d}")
    after = loss_by_noise_level(components, settings)
    assert after < before / 10, (before, after)

    batch = fixed_batch(settings).to_float()
    sampling = Sampling().resolve(components)
    for clip in range(2):
        restored = Chain(components, sampling, task_prompt(["inpainting"]))(batch.lq[clip, 0])
        true, ours, degraded = (
            torch.from_numpy(to_uint8(to_unit(x))).movedim(-1, 1) for x in (batch.gt[clip], restored, batch.lq[clip, 0])
        )
        assert psnr(ours, true).mean() > 20
        assert psnr(ours, true).mean() > psnr(degraded, true).mean() + 6
