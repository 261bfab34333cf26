from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLTemporalDecoder

from svfr.demo.autoencoder import fit_patches, reconstruction_loss, render_frames, round_trip, train_vae

SIZE = 32


def vae() -> AutoencoderKLTemporalDecoder:
    torch.manual_seed(0)
    return AutoencoderKLTemporalDecoder(
        down_block_types=("DownEncoderBlock2D",) * 2, block_out_channels=(32, 32), layers_per_block=1
    )


def arguments(max_steps: int) -> dict:
    return {
        "size": SIZE,
        "num_frames": 2,
        "batch_size": 1,
        "max_steps": max_steps,
        "learning_rate": 2e-3,
        "kl_weight": 1e-6,
        "seed": 0,
        "device": torch.device("cpu"),
    }


def test_reconstruction_loss_by_hand() -> None:
    frames = torch.zeros(1, 3, 2, 2)
    decoded = frames.clone()
    decoded[0, :, 0, 0] = 1.0  # a quarter of the pixels; half of the differences to the right, half of those below
    assert reconstruction_loss(decoded, frames).item() == pytest.approx(0.25 + 0.5)
    assert reconstruction_loss(decoded, decoded).item() == 0


def test_training_a_few_steps_is_repeatable_and_lowers_the_error(tmp_path: Path) -> None:
    frames = render_frames(range(3), 2, SIZE)
    trained, again, untrained = vae(), vae(), vae().eval()
    train_vae(trained, tmp_path / "one", **arguments(12))
    train_vae(again, tmp_path / "two", **arguments(12))
    assert all(torch.equal(a, b) for a, b in zip(trained.parameters(), again.parameters(), strict=True))
    errors = [(round_trip(v, frames[0]) - frames[0]).abs().mean().item() for v in (trained, untrained)]
    assert errors[0] < 0.9 * errors[1]
    latents = trained.encode(render_frames(range(16), 1, SIZE).flatten(0, 1)).latent_dist.mode()
    assert (latents.std() * trained.config.scaling_factor).item() == pytest.approx(1, rel=1e-3)


def test_patches_are_fitted_on_rendered_frames() -> None:
    autoencoder = fit_patches(range(24), SIZE, patch_size=4, latent_channels=16)
    unseen = render_frames(range(100, 104), 1, SIZE).flatten(0, 1)
    error = (round_trip(autoencoder, unseen) - unseen).square().mean().item()
    assert 10 * np.log10(4 / error) > 22  # dB
