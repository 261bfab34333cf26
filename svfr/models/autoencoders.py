"""A linear autoencoder of patches behind the VAE's interface: fitted in seconds, where a real one takes too long.

Its decoder may also have convolutions that see across the patches' borders, for training to sharpen results.
"""

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle, silu

SMALLEST_STD = 1e-3  # of a component that is divided by it: a constant direction must not be blown up


class ResBlock(nn.Module):
    """Two convolutions beside the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) -> (n, c, h, w)."""
        return x + self.conv2(silu(self.conv1(silu(x))))


class Refiner(nn.Module):
    """What decoded patches lack, seen across their borders: at first latents alone, then half of the pixels' size."""

    def __init__(self, latent_channels: int, patch_size: int, channels: int) -> None:
        super().__init__()
        self.zoom = patch_size // 2
        self.coarse = nn.Sequential(
            nn.Conv2d(latent_channels, 4 * channels, 3, padding=1),
            ResBlock(4 * channels),
            nn.Conv2d(4 * channels, channels // 2 * self.zoom**2, 1),
        )
        first, last = nn.Conv2d(12 + channels // 2, channels, 3, padding=1), nn.Conv2d(channels, 12, 3, padding=1)
        for parameter in last.parameters():
            nn.init.zeros_(parameter)
        self.fine = nn.Sequential(first, ResBlock(channels), ResBlock(channels), last)

    def forward(self, latents: Tensor, frames: Tensor) -> Tensor:
        """Latents (n, c, h, w) and what they decode to (n, 3, H, W) -> (n, 3, H, W), 0 before any training."""
        features = pixel_shuffle(self.coarse(latents), self.zoom)  # (n, c', H / 2, W / 2)
        return pixel_shuffle(self.fine(torch.cat([pixel_unshuffle(frames, 2), features], dim=1)), 2)


class PatchDecoder(nn.Conv2d):
    """The patches of p x p pixels that latent pixels stand for, and, of `channels` above 0, what a `Refiner` adds."""

    def __init__(self, latent_channels: int, patch_size: int, channels: int) -> None:
        super().__init__(latent_channels, 3 * patch_size**2, 1)
        self.patch_size = patch_size
        self.refiner = Refiner(latent_channels, patch_size, channels) if channels else None

    def forward(self, latents: Tensor) -> Tensor:
        """(n, c, h, w) -> (n, 3, p h, p w)."""
        frames = pixel_shuffle(super().forward(latents), self.patch_size)
        return frames if self.refiner is None else frames + self.refiner(latents, frames)


class PatchAutoencoder(ModelMixin, ConfigMixin):
    """Each patch of p x p pixels becomes one latent pixel: its first principal components, of variance 1 on average.

    Frames are independent of each other. The posterior has no width: its mode, mean and samples are the same. Latents
    are denoised with `scaling_factor` 1, since that is their variance; `force_upcast` is part of the interface alone.
    With `decoder_channels` above 0, the decoder has a `Refiner` of so many.
    """

    @register_to_config
    def __init__(
        self,
        patch_size: int = 4,
        latent_channels: int = 16,
        scaling_factor: float = 1.0,
        force_upcast: bool = False,
        decoder_channels: int = 0,
    ) -> None:
        super().__init__()
        if not 1 <= latent_channels <= 3 * patch_size**2:
            raise ValueError(f"latent_channels is {latent_channels}: a patch has {3 * patch_size**2} values")
        self.encoder = nn.Conv2d(3 * patch_size**2, latent_channels, 1)
        if decoder_channels % 2 or (decoder_channels and patch_size % 2):
            raise ValueError(f"decoder_channels is {decoder_channels}, patch_size {patch_size}: have to be even")
        self.decoder = PatchDecoder(latent_channels, patch_size, decoder_channels)

    @apply_forward_hook
    def encode(self, frames: Tensor) -> AutoencoderKLOutput:
        """(n, 3, H, W) in [-1, 1] -> `latent_dist` of (n, c, H / p, W / p)."""
        patches = pixel_unshuffle(frames, self.config.patch_size)  # (n, 3 p p, h, w)
        mean = self.encoder(patches)  # (n, c, h, w)
        moments = torch.cat([mean, torch.zeros_like(mean)], dim=1)
        return AutoencoderKLOutput(latent_dist=DiagonalGaussianDistribution(moments, deterministic=True))

    @apply_forward_hook
    def decode(self, latents: Tensor, num_frames: int = 1) -> DecoderOutput:
        """(n, c, h, w) -> `sample` (n, 3, p h, p w), about [-1, 1]; `num_frames` has no effect."""
        return DecoderOutput(sample=self.decoder(latents))


@torch.no_grad()
def fit_patch_autoencoder(
    frames: Tensor, patch_size: int, latent_channels: int, whitening: float = 0.5, decoder_channels: int = 0
) -> PatchAutoencoder:
    """The autoencoder of least squared error of frames (n, 3, H, W) in [-1, 1], whose sides `patch_size` divides, by an
    eigendecomposition of their patches' covariance. On these frames, latents have mean 0, and variance 1 on average.
    `decoder_channels` are the `Refiner`'s: drawn, the same each time, but for its last layer of zeros.

    A `whitening` of 1 gives every component unit variance, 0 leaves their variances as they are relative to each other.
    Between, the strong ones, which decide the PSNR, still weigh more in the denoising loss and outlast more noise:
    after 100 steps of training, 0.5 was 1 to 3 dB ahead of 1.
    """
    patches = pixel_unshuffle(frames, patch_size)  # (n, 3 p p, h, w)
    patches = patches.movedim(1, -1).flatten(0, 2).double()  # (n h w, 3 p p)
    mean = patches.mean(dim=0)
    centred = patches - mean
    variances, directions = torch.linalg.eigh(centred.T @ centred / len(patches))  # rising
    basis = directions.flip(1)[:, :latent_channels].T  # (c, 3 p p), orthonormal rows
    largest = basis.gather(1, basis.abs().argmax(dim=1, keepdim=True))
    basis = basis * largest.sign()  # an eigenvector's sign is the library's whim
    std = variances.flip(0)[:latent_channels].clamp(min=SMALLEST_STD**2).sqrt()
    divisor = std**whitening
    divisor = divisor * (std / divisor).square().mean().sqrt()

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        autoencoder = PatchAutoencoder(patch_size, latent_channels, decoder_channels=decoder_channels)
    autoencoder.encoder.weight.copy_((basis / divisor[:, None])[..., None, None])
    autoencoder.encoder.bias.copy_(-(basis @ mean) / divisor)
    autoencoder.decoder.weight.copy_((basis * divisor[:, None]).T[..., None, None])
    autoencoder.decoder.bias.copy_(mean)
    return autoencoder.eval()
