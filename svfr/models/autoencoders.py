"""A linear autoencoder of patches behind the VAE's interface: fitted in seconds, where a real one takes too long."""

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import Tensor, nn

SMALLEST_STD = 1e-3  # of a component that is divided by it: a constant direction must not be blown up


class PatchAutoencoder(ModelMixin, ConfigMixin):
    """Each patch of p x p pixels becomes one latent pixel: its first principal components, of variance 1 on average.

    Frames are independent of each other. The posterior has no width: its mode, mean and samples are the same. Latents
    are denoised with `scaling_factor` 1, since that is their variance; `force_upcast` is part of the interface alone.
    """

    @register_to_config
    def __init__(
        self, patch_size: int = 4, latent_channels: int = 16, scaling_factor: float = 1.0, force_upcast: bool = False
    ) -> None:
        super().__init__()
        if not 1 <= latent_channels <= 3 * patch_size**2:
            raise ValueError(f"latent_channels is {latent_channels}: a patch has {3 * patch_size**2} values")
        self.encoder = nn.Conv2d(3 * patch_size**2, latent_channels, 1)
        self.decoder = nn.Conv2d(latent_channels, 3 * patch_size**2, 1)

    @apply_forward_hook
    def encode(self, frames: Tensor) -> AutoencoderKLOutput:
        """(n, 3, H, W) in [-1, 1] -> `latent_dist` of (n, c, H / p, W / p)."""
        patches = nn.functional.pixel_unshuffle(frames, self.config.patch_size)  # (n, 3 p p, h, w)
        mean = self.encoder(patches)  # (n, c, h, w)
        moments = torch.cat([mean, torch.zeros_like(mean)], dim=1)
        return AutoencoderKLOutput(latent_dist=DiagonalGaussianDistribution(moments, deterministic=True))

    @apply_forward_hook
    def decode(self, latents: Tensor, num_frames: int = 1) -> DecoderOutput:
        """(n, c, h, w) -> `sample` (n, 3, p h, p w), about [-1, 1]; `num_frames` has no effect."""
        return DecoderOutput(sample=nn.functional.pixel_shuffle(self.decoder(latents), self.config.patch_size))


@torch.no_grad()
def fit_patch_autoencoder(
    frames: Tensor, patch_size: int, latent_channels: int, whitening: float = 0.5
) -> PatchAutoencoder:
    """The autoencoder of least squared error of frames (n, 3, H, W) in [-1, 1], whose sides `patch_size` divides, by an
    eigendecomposition of their patches' covariance. On these frames, latents have mean 0, and variance 1 on average.

    A `whitening` of 1 gives every component unit variance, 0 leaves their variances as they are relative to each other.
    Between, the strong ones, which decide the PSNR, still weigh more in the denoising loss and outlast more noise:
    after 100 steps of training, 0.5 was 1 to 3 dB ahead of 1.
    """
    patches = nn.functional.pixel_unshuffle(frames, patch_size)  # (n, 3 p p, h, w)
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

    autoencoder = PatchAutoencoder(patch_size, latent_channels)
    autoencoder.encoder.weight.copy_((basis / divisor[:, None])[..., None, None])
    autoencoder.encoder.bias.copy_(-(basis @ mean) / divisor)
    autoencoder.decoder.weight.copy_((basis * divisor[:, None]).T[..., None, None])
    autoencoder.decoder.bias.copy_(mean)
    return autoencoder.eval()
