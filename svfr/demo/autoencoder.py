"""The bundled model's VAE: the linear one of patches, fitted in seconds, or SVD's kind, trained on rendered clips."""

from pathlib import Path
from typing import TypeAlias

import torch
from diffusers import AutoencoderKLTemporalDecoder
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from svfr.demo.loop import Losses, fit
from svfr.models.autoencoders import PatchAutoencoder, fit_patch_autoencoder
from svfr.synthetic import render_clip

VAE: TypeAlias = AutoencoderKLTemporalDecoder | PatchAutoencoder
SCALE_CLIPS = 16  # clips that the scaling factor is measured on


class RenderedFrames(Dataset[Tensor]):
    """Rendered clips by seed, (f, 3, size, size) float32 in [-1, 1]."""

    def __init__(self, num_frames: int, size: int) -> None:
        self.num_frames = num_frames
        self.size = size

    def __getitem__(self, seed: int) -> Tensor:
        frames = render_clip(seed, self.num_frames, self.size).frames
        return torch.from_numpy(frames).movedim(-1, 1).float() / 127.5 - 1


def render_frames(seeds: range, num_frames: int, size: int) -> Tensor:
    """Clips (n, f, 3, size, size) float32 in [-1, 1]."""
    clips = RenderedFrames(num_frames, size)
    return torch.stack([clips[seed] for seed in tqdm(seeds, desc="render", unit="clip", leave=False)])


def fit_patches(
    seeds: range, size: int, patch_size: int, latent_channels: int, whitening: float = 0.5
) -> PatchAutoencoder:
    """The linear autoencoder of one frame of each of these clips; arguments as `fit_patch_autoencoder`."""
    return fit_patch_autoencoder(render_frames(seeds, 1, size).flatten(0, 1), patch_size, latent_channels, whitening)


def reconstruction_loss(decoded: Tensor, frames: Tensor) -> Tensor:
    """Mean absolute error of pixels and of their differences to the right and below.

    The differences stand for a perceptual loss, which would need a network trained on photos.

    Args:
        decoded: (n, 3, H, W).
        frames: (n, 3, H, W).
    """
    error = decoded - frames
    edges = (error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()) / 2
    return error.abs().mean() + edges


def train_vae(
    vae: AutoencoderKLTemporalDecoder,
    folder: Path,
    *,
    size: int,
    num_frames: int,
    batch_size: int,
    max_steps: int,
    learning_rate: float,
    kl_weight: float,
    seed: int,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    num_workers: int = 0,
) -> None:
    """Train encoder and temporal decoder in place on rendered clips, resumable in `folder`.

    The loss is `reconstruction_loss` and a small KL term, which keeps latents near a standard normal. At the end the
    scaling factor is set so that scaled latents have unit variance.

    Args:
        vae: the network.
        folder: of the training state.
        size: side of the frames [px].
        num_frames: of a clip.
        batch_size: clips of a step.
        max_steps: optimizer steps.
        learning_rate: the highest.
        kl_weight: of the KL divergence per latent value.
        seed: of the posterior's samples.
        device: to train on.
        dtype: of the forward pass; the weights stay float32.
        num_workers: loader processes that render.
    """
    vae.to(device)

    def load(start: int) -> DataLoader:
        first_clips = range(start * batch_size, max_steps * batch_size, batch_size)
        seeds = [list(range(first, first + batch_size)) for first in first_clips]
        return DataLoader(RenderedFrames(num_frames, size), batch_sampler=seeds, num_workers=num_workers)

    def compute(index: int, clips: Tensor) -> Losses:
        frames = clips.flatten(0, 1).to(device)  # (b f, 3, s, s)
        generator = torch.Generator().manual_seed(seed * 2**32 + index)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            posterior = vae.encode(frames).latent_dist
            noise = torch.randn(posterior.mean.shape, generator=generator).to(device)
            decoded = vae.decode(posterior.mean + posterior.std * noise, num_frames=num_frames).sample
        reconstruction = reconstruction_loss(decoded.float(), frames)
        kl = posterior.kl().float().mean() / posterior.mean[0].numel()
        return {"loss": reconstruction + kl_weight * kl, "reconstruction": reconstruction, "kl": kl}

    fit("VAE", vae, load, compute, folder, max_steps=max_steps, learning_rate=learning_rate)
    with torch.no_grad():
        frames = render_frames(range(SCALE_CLIPS), 1, size).flatten(0, 1).to(device)
        std = vae.encode(frames).latent_dist.mode().std().item()
    vae.register_to_config(scaling_factor=1 / std)


@torch.no_grad()
def round_trip(vae: VAE, frames: Tensor) -> Tensor:
    """A clip (f, 3, s, s) in [-1, 1], encoded and decoded."""
    latents = vae.encode(frames.to(vae.device)).latent_dist.mode()
    return vae.decode(latents, num_frames=len(frames)).sample.float().cpu()
