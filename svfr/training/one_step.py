"""The method `one_step`: one run of the UNet, from zero at a noise level that the weights say, gives the result."""

from typing import Any

import torch
from torch import Tensor, nn

from svfr.data.dataset import Sample
from svfr.models.svfr import SVFR
from svfr.training.losses import mean_error
from svfr.training.objective import Crop, Objective, Outputs, Targets, TrainedModel
from svfr.training.sharpness import PATCHES, Discriminator, FrozenEncoder, Perceptual, patches

CROP = 0xC109  # stream of random numbers of a sample, beside that of its noise


class SharpenedModel(TrainedModel):
    """A one-step model, the decoded crops of its results, and the discriminator that judges them, in one forward.

    Args:
        model: the one-step model.
        method: decodes and describes crops with frozen networks, which are no part of this module.
        discriminator: of results and truth; None without the adversarial loss.
    """

    def __init__(self, model: SVFR, method: "OneStep", discriminator: Discriminator | None) -> None:
        super().__init__(model)
        self.decode, self.features = method.decode, method.features  # bound methods, whose networks stay outside
        self.discriminator = discriminator

    def forward(self, targets: Targets) -> Outputs:
        """Restore; where a crop is asked for, decode it and compare it with the truth's."""
        outputs = super().forward(targets)
        if targets.crop is None:
            return outputs
        cut = targets.crop.cut
        with torch.autocast(outputs.denoised.device.type, enabled=False):
            latents, lq = cut(outputs.denoised), cut(targets.lq)  # (n, f', c, h', w')
            outputs = outputs._replace(frames=self.decode(latents))
            if self.discriminator is None:
                return outputs
            fake = self.features(latents, outputs.frames, lq, targets.task_prompt)
            with torch.no_grad():
                real = self.features(cut(targets.clean), None, lq, targets.task_prompt)
            fooling, telling = self.discriminator.hinge(fake, real)
        return outputs._replace(fooling=fooling, telling=telling)


class OneStep(Objective):
    """Regression without a teacher, as DOVE's: a latent loss with Eq. 2 and 3 (stage 1).

    With a weight above 0 of any of the pixel, perceptual, temporal and adversarial losses, these are taken of decoded
    crops, too (stage 2).
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.x_scale, self.weighting = 0.0, "unit"
        self._perceptual: Perceptual | None = None
        self._encoder: FrozenEncoder | None = None

    @property
    def noise_levels(self) -> list[float]:
        """The one there is."""
        return [self.config.one_step_sigma]

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

    def groups(self, module: nn.Module) -> list[dict[str, Any]]:
        """The model's, and the discriminator's at a rate of its own."""
        discriminator = getattr(module, "discriminator", None)
        groups = [{"params": list(module.get_submodule("model").parameters()), "scale": 1.0}]
        if discriminator is not None:
            groups.append({"params": list(discriminator.parameters()), "scale": self.config.discriminator_rate})
        return groups

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
        return patches(self.decode(latents) if frames is None else frames)

    def look_back(self, model: nn.Module, targets: Targets, batch: Sample) -> Targets:
        """As its base, and in stage 2 a crop of each clip, the same in all its views, without known frames."""
        targets, config = super().look_back(model, targets, batch), self.config
        if not config.sharpens:
            return targets
        num_views, shrink = batch.lq.shape[1], self.components.downscale
        num_frames, (height, width) = targets.clean.shape[1], targets.clean.shape[-2:]
        length = min(config.crop_frames, num_frames - (config.max_context if config.context_frames else 0))
        length, side = max(1, length), max(1, min(config.crop_size // shrink, height, width))
        places, truths = [], []
        for clip, seed in enumerate(batch.seed.tolist()):
            draws = torch.rand(3, generator=torch.Generator().manual_seed(seed ^ CROP)).tolist()
            first = int(targets.known[clip * num_views].sum())
            starts = zip((first, 0, 0), draws, (num_frames - length - first, height - side, width - side), strict=True)
            place = tuple(start + int(draw * (room + 1)) for start, draw, room in starts)
            places += [place] * num_views
            (row, column), span = (shrink * start for start in place[1:]), shrink * side
            truth = batch.gt[clip, place[0] : place[0] + length, :, row : row + span, column : column + span]
            truths += [truth.to(targets.clean.device).float() / 127.5 - 1] * num_views
        return targets._replace(crop=Crop(places, length, side, torch.stack(truths)))

    def loss(self, outputs: Outputs, targets: Targets, batch: Sample) -> tuple[Tensor, dict[str, Tensor]]:
        """Stage 1's, and stage 2's; `loss` leaves out what a discriminator says, since it means nothing by itself."""
        total, parts = super().loss(outputs, targets, batch)
        if outputs.frames is None or targets.crop is None or self._perceptual is None:
            return total, parts
        config, frames, truth = self.config, outputs.frames, targets.crop.truth
        flat = frames.flatten(0, 1), truth.flatten(0, 1)
        terms = {
            "loss_pixel": (config.lambda_pixel, mean_error(frames, truth)),
            f"loss_{self._perceptual.name}": (config.lambda_perceptual, self._perceptual(*flat)),
            "loss_temporal": (config.lambda_temporal, mean_error(frames.diff(dim=1), truth.diff(dim=1))),
        }
        total = total + sum(weight * term for weight, term in terms.values())
        parts |= {"loss": total.detach()} | {name: term.detach() for name, (_, term) in terms.items()}
        if outputs.fooling is not None and outputs.telling is not None:
            total = total + config.lambda_adversarial * outputs.fooling + outputs.telling
            parts |= {"loss_fooling": outputs.fooling.detach(), "loss_telling": outputs.telling.detach()}
        return total, parts
