"""The method `one_step`: one run of the UNet, from zero at a noise level that the weights say, gives the result."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import l1_loss, pixel_unshuffle

from svfr.data.dataset import Sample
from svfr.models.svfr import SVFR
from svfr.training.objective import Objective, Outputs, Targets, TrainedModel
from svfr.training.sharpness import Discriminator, FrozenEncoder, Perceptual

PATCHES = (4, 8)  # [px] of the patches that a discriminator without frozen features sees
CROP = 0xC109  # stream of random numbers of a sample, beside that of its noise


class SharpenedModel(TrainedModel):
    """A one-step model, crops of its results as the method decodes them, and the discriminator that judges them."""

    def __init__(self, model: SVFR, method: "OneStep", discriminator: Discriminator | None) -> None:
        super().__init__(model)
        self.decode, self.features = method.decode, method.features  # whose frozen networks are no part of this module
        self.discriminator = discriminator

    def forward(self, targets: Targets) -> Outputs:
        """Restore; where a crop is asked for, decode it and compare it with the truth's."""
        outputs, places = super().forward(targets), targets.places
        if places is None:
            return outputs
        with torch.autocast(outputs.denoised.device.type, enabled=False):
            latents, lq, clean = (
                torch.stack([each[place] for each, place in zip(whole, places, strict=True)])  # (n, f', c, h', w')
                for whole in (outputs.denoised, targets.lq, targets.clean)
            )
            outputs = outputs._replace(frames=self.decode(latents))
            if self.discriminator is None:
                return outputs
            fake = self.features(latents, outputs.frames, lq, targets.task_prompt)
            with torch.no_grad():
                real = self.features(clean, None, lq, targets.task_prompt)
            fooling, telling = self.discriminator.hinge(fake, real)
        return outputs._replace(fooling=fooling, telling=telling)


class OneStep(Objective):
    """Regression without a teacher, as DOVE's: a latent loss with Eq. 2 and 3 (stage 1) and, where any of their weights
    is above 0, pixel, perceptual, temporal and adversarial losses of decoded crops (stage 2)."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.x_scale, self.weighting, self.noise_levels = 0.0, "unit", [self.config.one_step_sigma]
        self._perceptual: Perceptual | None = None
        self._encoder: FrozenEncoder | None = None

    def draw_noise(self, seeds: Tensor, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """That noise level for all (b,), and no noise."""
        return torch.full((len(seeds),), self.config.one_step_sigma), torch.zeros(len(seeds), *shape)

    def module(self) -> TrainedModel:
        """All that is trained: the model and, in stage 2, a discriminator from the seed."""
        model, config, components = super().module().model, self.config, self.components
        if not config.sharpens:
            return TrainedModel(model)
        self._perceptual, discriminator = Perceptual(components.id_encoder, components.device), None
        if config.lambda_adversarial:
            channels: list[int] = [3 * side**2 for side in PATCHES]
            if config.discriminator == "unet":
                self._encoder = FrozenEncoder(model.unet, components.id_encoder.dtype)
                channels = self._encoder.channels
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(config.seed)
                discriminator = Discriminator(channels).to(components.device)
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
        # The truth, too, as the autoencoder has it: what it loses no latents can bring back.
        pixels = self.decode(latents) if frames is None else frames
        return [pixel_unshuffle(pixels, side).transpose(1, 2) for side in PATCHES]

    def look_back(self, model: nn.Module, targets: Targets, batch: Sample) -> Targets:
        """As its base, and in stage 2 a crop of each clip, the same in all its views, without known frames."""
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
            spans = zip(draws, (known, 0, 0), (length, side, side), sizes, strict=True)
            starts = [low + int(draw * (whole - part - low + 1)) for draw, low, part, whole in spans]
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
        if frames is None or truth is None or self._perceptual is None:
            return total, parts
        flat = frames.flatten(0, 1), truth.flatten(0, 1)
        change = l1_loss(frames.diff(dim=1), truth.diff(dim=1), reduction="sum")  # 0 of a single frame
        terms = {
            "loss_pixel": (config.lambda_pixel, l1_loss(frames, truth)),
            f"loss_{self._perceptual.name}": (config.lambda_perceptual, self._perceptual(*flat)),
            "loss_temporal": (config.lambda_temporal, change / frames.numel()),
        }
        total = total + sum(weight * term for weight, term in terms.values())
        parts |= {"loss": total.detach()} | {name: term.detach() for name, (_, term) in terms.items()}
        if outputs.fooling is not None and outputs.telling is not None:
            total = total + config.lambda_adversarial * outputs.fooling + outputs.telling
            parts |= {"loss_fooling": outputs.fooling.detach(), "loss_telling": outputs.telling.detach()}
        return total, parts
