"""The method `one_step`: one run of the UNet, from zero at a noise level that the weights say, gives the result.

What makes it sharp: a perceptual distance, the gradients' strength, and a discriminator on frozen features.
"""

from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from diffusers import UNetSpatioTemporalConditionModel
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import group_norm, l1_loss, mse_loss, relu

from svfr.data.dataset import Sample
from svfr.diffusion import get_scalings
from svfr.metrics import build_metrics
from svfr.models.identity import IResNet
from svfr.models.svfr import SVFR
from svfr.training.losses import temporal_loss, texture_loss
from svfr.training.objective import Objective, Outputs, Targets, TrainedModel

CROP = 0xC109  # stream of random numbers of a sample, beside that of its noise
FEATURE_SIGMA = 0.2  # noise level that the frozen encoder is told. Assumption: one at which it looks at detail
HEAD_WIDTH = 64
PATCH_WIDTH = 32  # of the first layer that sees pixels


class Perceptual:
    """How different pictures look: LPIPS (VGG), where its network is; else the L1 distances of their gradients and of
    the ID network's features. `name` says which, for the records."""

    def __init__(self, id_encoder: IResNet, device: torch.device) -> None:
        self._lpips: Any = next(iter(build_metrics(["lpips"], device=str(device), download=False).video), None)
        self._id_encoder, self.name = id_encoder, "id_features" if self._lpips is None else "lpips"

    def __call__(self, frames: Tensor, truth: Tensor) -> Tensor:
        """(m, 3, s, s) and (m, 3, s, s) in [-1, 1] -> scalar."""
        if self._lpips is not None:
            return self._lpips.module(frames, truth).mean()
        network, pair = self._id_encoder, torch.cat([frames, truth])
        x = network.prelu(network.bn1(network.conv1(pair.to(network.dtype))))
        distances = [l1_loss(frames.diff(dim=dim), truth.diff(dim=dim)) for dim in (-2, -1)]
        for stage in (network.layer1, network.layer2, network.layer3, network.layer4):
            x = stage(x)
            one, other = x.float().flatten(1).chunk(2)
            # Relative to each frame's own features: a batch split over processes has the same mean.
            distances.append(((one - other).abs().mean(dim=1) / (other.abs().mean(dim=1) + 1e-6)).mean() / 4)
        return torch.stack(distances).sum()


class FrozenEncoder:
    """The features of a UNet's down and mid blocks as it is now, `channels` of each; SF-V's discriminator has SVD's."""

    def __init__(self, unet: UNetSpatioTemporalConditionModel, dtype: torch.dtype) -> None:
        self._unet = unet = nn.Module.to(deepcopy(unet), dtype).eval().requires_grad_(False)
        unet.up_blocks = nn.ModuleList()
        unet.conv_norm_out = unet.conv_act = unet.conv_out = nn.Identity()
        self._seen: list[Tensor] = []
        for block in unet.down_blocks:
            block.register_forward_hook(lambda module, inputs, output: self._seen.append(output[0]))
        self.channels = [*unet.config.block_out_channels, unet.config.block_out_channels[-1]]

    def __call__(self, latents: Tensor, lq: Tensor, task_prompt: Tensor) -> list[Tensor]:
        """Latents (n, f, c, h, w), scaled, and LQ latents, not scaled -> features (n, c', f, h', w') of each block."""
        unet, count = self._unet, len(latents)
        scalings = get_scalings(latents.new_full((count,), FEATURE_SIGMA))
        sample = torch.cat([scalings.inp[0] * latents, lq, torch.zeros_like(lq)], dim=2).to(unet.dtype)
        tokens = sample.new_zeros(count, 1, unet.config.cross_attention_dim)
        mid = unet(sample, scalings.noise, tokens, added_time_ids=task_prompt, return_dict=False)[0].flatten(0, 1)
        features, self._seen, unet.mid_block.last_output = [*self._seen, mid], [], None
        # Assumption: of unit size in each frame, or the deepest ones would drown the others.
        return [group_norm(x.float(), 1).unflatten(0, (count, -1)).transpose(1, 2) for x in features]


def feature_head(channels: int) -> nn.Sequential:
    """A light head on features (n, channels, f, h, w)."""
    convolutions = [nn.Conv3d(count, HEAD_WIDTH, 3, padding=1) for count in (channels, HEAD_WIDTH)]
    return nn.Sequential(convolutions[0], nn.SiLU(), convolutions[1], nn.SiLU(), nn.Conv3d(HEAD_WIDTH, 1, 1))


def patch_network() -> nn.Sequential:
    """Judges frames (n, 3, f, h, w) by patches of 26 x 26 px in 7 frames (PatchGAN, Isola et al. 2017): it has learned
    to tell results from the truth after 40 steps, where heads on the pixels of patches had not after 100."""
    return nn.Sequential(
        nn.Conv3d(3, PATCH_WIDTH, (1, 4, 4), (1, 2, 2), (0, 1, 1)),
        nn.LeakyReLU(0.2),
        nn.Conv3d(PATCH_WIDTH, 2 * PATCH_WIDTH, (3, 4, 4), (1, 2, 2), 1),
        nn.LeakyReLU(0.2),
        nn.Conv3d(2 * PATCH_WIDTH, 4 * PATCH_WIDTH, 3, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv3d(4 * PATCH_WIDTH, 1, 3, padding=1),
    )


class Discriminator(nn.Module):
    """Tells results from the truth in space and time, by a network for each of some features."""

    rate = 2.0  # of the model's. Assumption: networks from nothing have to follow a model that is there

    def __init__(self, heads: Iterable[nn.Module]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(heads)

    def hinge(self, fake: Sequence[Tensor], real: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """The hinge loss (Lim & Ye 2017) of features (n, c, f, h, w) of results and of the truth: the generator's term,
        which leaves the heads alone, and the heads', which leaves the generator alone."""
        fooling, telling = [], []
        for head, one, other in zip(self.heads, fake, real, strict=True):
            frozen = {name: parameter.detach() for name, parameter in head.named_parameters()}
            fooling.append(-functional_call(head, frozen, (one,)).mean())
            telling.append(relu(1 + head(one.detach())).mean() + relu(1 - head(other.detach())).mean())
        return torch.stack(fooling).mean(), torch.stack(telling).mean()


class SharpenedModel(TrainedModel):
    """A one-step model, crops of its results as the method decodes them, and the discriminator that judges them."""

    def __init__(self, model: SVFR, method: "OneStep", discriminator: Discriminator | None) -> None:
        super().__init__(model, method.decoder)
        self.decode, self.features = method.decode, method.features  # whose frozen networks are no part of this module
        self.scale = method.components.vae.config.scaling_factor
        self.discriminator = discriminator

    def forward(self, targets: Targets) -> Outputs:
        """Restore; where a crop is asked for, decode it and compare it with the truth's."""
        outputs, places, truth = super().forward(targets), targets.places, targets.truth
        if places is None or truth is None:
            return outputs
        with torch.autocast(outputs.denoised.device.type, enabled=False):
            # Known frames are given as they are, so that what follows them has to fit.
            restored = torch.where(targets.known[:, :, None, None, None], self.scale * targets.lq, outputs.denoised)
            latents, lq, clean = (
                torch.stack([each[place] for each, place in zip(whole, places, strict=True)])  # (n, f', c, h', w')
                for whole in (restored, targets.lq, targets.clean)
            )
            frames = self.decode(latents)
            outputs = outputs._replace(frames=frames)
            if self.discriminator is None:
                return outputs
            fake = self.features(latents, frames, lq, targets.task_prompt)
            with torch.no_grad():
                # The truth as the autoencoder has it: what that loses no latents can bring back, but a trained decoder.
                seen = None if self.decoder is None else truth
                real = self.features(clean, seen, lq, targets.task_prompt)
            fooling, telling = self.discriminator.hinge(fake, real)
        return outputs._replace(fooling=fooling, telling=telling)


class OneStep(Objective):
    """Regression without a teacher, as DOVE's: a latent loss with Eq. 2 and 3 (stage 1) and, where any of their weights
    is above 0, pixel, squared, perceptual, texture, temporal and adversarial losses of decoded crops (stage 2)."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.x_scale, self.weighting, self.noise_levels = 0.0, "unit", [self.config.one_step_sigma]
        self._perceptual: Perceptual | None = None
        self._encoder: FrozenEncoder | None = None
        self.decoder: Any = None  # of the VAE, where it is trained

    def draw_noise(self, seeds: Tensor, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """That noise level for all (b,), and no noise."""
        return torch.full((len(seeds),), self.config.one_step_sigma), torch.zeros(len(seeds), *shape)

    def module(self) -> TrainedModel:
        """All that is trained: the model and, in stage 2, a discriminator from the seed."""
        model, config, components = super().module().model, self.config, self.components
        if not config.sharpens:
            return TrainedModel(model)
        if config.decoder_rate:
            self.decoder = components.vae.decoder.requires_grad_(True)
            self.decoder.rate = config.decoder_rate
            model.requires_grad_(not config.decoder_alone)
        self._perceptual = Perceptual(components.id_encoder, components.device) if config.lambda_perceptual else None
        discriminator = None
        if config.lambda_adversarial:
            if config.discriminator == "unet":
                self._encoder = FrozenEncoder(model.unet, components.id_encoder.dtype)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(config.seed)
                heads = [patch_network()] if self._encoder is None else map(feature_head, self._encoder.channels)
                discriminator = Discriminator(heads).to(components.device)
        return SharpenedModel(model, self, discriminator)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (n, f, c, h, w), scaled -> frames (n, f, 3, H, W), about [-1, 1], with gradients."""
        vae = self.components.vae
        flat = (latents / vae.config.scaling_factor).flatten(0, 1).to(vae.dtype)
        return vae.decode(flat, num_frames=latents.shape[1]).sample.float().unflatten(0, latents.shape[:2])

    def features(self, latents: Tensor, frames: Tensor | None, lq: Tensor, task_prompt: Tensor) -> list[Tensor]:
        """What the discriminator sees of crops, (n, c, f, h, w) each; without `frames`, they are decoded."""
        if self._encoder is not None:
            return self._encoder(latents, lq, task_prompt)
        return [(self.decode(latents) if frames is None else frames).transpose(1, 2)]

    def look_back(self, model: nn.Module, targets: Targets, batch: Sample) -> Targets:
        """As its base, and in stage 2 a crop of each clip, the same in all its views; it begins with the last of known
        frames, where there are any, since a seam is to be learned there."""
        targets, config = super().look_back(model, targets, batch), self.config
        if not config.sharpens:
            return targets
        num_views, shrink = batch.lq.shape[1], self.components.downscale
        sizes = [targets.clean.shape[1], *targets.clean.shape[-2:]]  # f, h, w
        side = max(1, min(config.crop_size // shrink, *sizes[1:]))
        length = max(1, min(config.crop_frames, sizes[0] - (config.max_context if config.context_frames else 0)))
        places, truth = [], []
        for clip, seed in enumerate(batch.seed.tolist()):
            draws = torch.rand(3, generator=torch.Generator().manual_seed(seed ^ CROP)).tolist()
            known = int(targets.known[clip * num_views].sum())
            spans = zip(draws, (length, side, side), sizes, strict=True)
            starts = [int(draw * (whole - part + 1)) for draw, part, whole in spans]
            starts[0] = known - 1 if known else starts[0]
            frames, *latents = (slice(at, at + part) for at, part in zip(starts, (length, side, side), strict=True))
            rows, columns = (slice(shrink * span.start, shrink * span.stop) for span in latents)
            places += [(frames, slice(None), *latents)] * num_views
            truth += [batch.gt[clip, frames, :, rows, columns]] * num_views
        pixels = torch.stack(truth).to(targets.clean.device).float() / 127.5 - 1
        return targets._replace(places=places, truth=pixels)

    def loss(self, outputs: Outputs, targets: Targets, batch: Sample) -> tuple[Tensor, dict[str, Tensor]]:
        """Stage 1's, and stage 2's; `loss` leaves out what a discriminator says, since it means nothing by itself."""
        total, parts = super().loss(outputs, targets, batch)
        config, frames, truth = self.config, outputs.frames, targets.truth
        if frames is None or truth is None:
            return total, parts
        flat = frames.flatten(0, 1), truth.flatten(0, 1)
        terms: dict[str, tuple[float, Callable[[], Tensor]]] = {
            "loss_pixel": (config.lambda_pixel, lambda: l1_loss(frames, truth)),
            "loss_squared": (config.lambda_squared, partial(mse_loss, frames, truth)),
            "loss_texture": (config.lambda_texture, lambda: texture_loss(*flat)),
            "loss_temporal": (config.lambda_temporal, partial(temporal_loss, frames, truth, targets.known.any(dim=1))),
        }
        if self._perceptual is not None:
            terms[f"loss_{self._perceptual.name}"] = config.lambda_perceptual, partial(self._perceptual, *flat)
        for name, (weight, compute) in terms.items():
            if weight:
                term = compute()
                total, parts = total + weight * term, parts | {name: term.detach()}
        parts["loss"] = total.detach()
        if outputs.fooling is not None and outputs.telling is not None:
            total = total + config.lambda_adversarial * outputs.fooling + outputs.telling
            parts |= {"loss_fooling": outputs.fooling.detach(), "loss_telling": outputs.telling.detach()}
        return total, parts
