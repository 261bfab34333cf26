"""What one training step computes: from a batch of clips to the loss of SVFR (Sec. 4, Eq. 4)."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from svfr.data.dataset import Sample
from svfr.models.components import Components
from svfr.models.lora import freeze_base
from svfr.models.svfr import SVFR
from svfr.training.context import draw_context, own_references
from svfr.training.losses import Weighting, denoising_loss, facial_prior_loss, ulr_loss
from svfr.training.settings import TrainConfig

NOISE_BINS = 8  # of the loss in validation
Gather = Callable[[Tensor], Tensor]  # rows of all processes, in the same order on each, with gradients


class Targets(NamedTuple):
    """What the frozen networks and the seeds make of a batch; b clips in k views each, n = b k."""

    clean: Tensor  # x0 (n, f, c, h, w), scaled latents
    noisy: Tensor  # (n, f, c, h, w)
    lq: Tensor  # (n, f, c, h, w), not scaled
    ref: Tensor  # (n, c, h, w), or (n, f, c, h, w) with known frames, not scaled, zeros without a reference
    id_features: Tensor  # (n, d, 7, 7)
    has_reference: Tensor  # (n,) 0 or 1
    sigma: Tensor  # (n,)
    task_prompt: Tensor  # (n, 3)
    known: Tensor  # (n, f) bool, frames that are known from the clip before
    places: list[tuple[slice, ...]] | None = None  # n parts of latents (f, c, h, w) to decode
    truth: Tensor | None = None  # (n, f', 3, s', s') in [-1, 1], of these parts


class Outputs(NamedTuple):
    """What the trained networks give."""

    denoised: Tensor  # (n, f, c, h, w)
    task_features: Tensor | None  # x_hat (n, f, d)
    landmarks: Tensor | None  # (n, f, 68, 2)
    frames: Tensor | None = None  # (n, f', 3, s', s') of the crop, in [-1, 1]
    fooling: Tensor | None = None  # (), the generator's adversarial loss
    telling: Tensor | None = None  # (), the discriminator's


class TrainedModel(nn.Module):
    """SVFR and its heads in one forward, which is what DDP and FSDP wrap; beside it the VAE's decoder, if trained."""

    def __init__(self, model: SVFR, decoder: nn.Module | None = None) -> None:
        super().__init__()
        self.model, self.decoder = model, decoder

    def forward(self, targets: Targets) -> Outputs:
        """Denoise and describe; a sample without a reference has zero ID tokens."""
        tokens = self.model.id_projector(targets.id_features) * targets.has_reference[:, None, None]  # (n, 49, d)
        output = self.model(targets.noisy, targets.lq, targets.ref, tokens, targets.sigma, targets.task_prompt)
        transformer, predictor = self.model.latent_transformer, self.model.landmark_predictor
        features = output.mid_features.float()
        # In float32: bfloat16 knows landmarks to 1 or 2 px of 512 only.
        with torch.autocast(features.device.type, enabled=False):
            return Outputs(
                output.denoised,
                None if transformer is None else transformer(features),
                None if predictor is None else predictor(features),
            )


class Objective:
    """The method `svfr`: denoising with Eq. 2 and 3. A method owns what it trains, and its loss of a batch.

    Another one is a subclass; the loop, validation and checkpoints don't know which it is.
    """

    def __init__(
        self,
        config: TrainConfig,
        components: Components,  # whose frozen networks encode the batch
        gather: Gather = lambda rows: rows,  # of the terms that compare or count over all processes
        autocast: Callable[[], AbstractContextManager[None]] = nullcontext,  # of the model's forward pass alone
    ) -> None:
        self.x_scale = 1.0  # of noisy latents; 0 starts from nothing
        self.weighting: Weighting = config.weighting
        # For validation: the middles of equally likely bins of those that training draws.
        middles = torch.special.ndtri((torch.arange(NOISE_BINS) + 0.5) / NOISE_BINS)
        self.noise_levels: list[float] = (config.sigma_mean + config.sigma_std * middles).exp().tolist()
        self.config, self.components, self.gather, self.autocast = config, components, gather, autocast

    def module(self) -> TrainedModel:
        """All that is trained, in one forward; the moving average follows its `model` and its `decoder` alone."""
        model = self.components.model.train().requires_grad_(True)
        if self.components.lora is not None:
            freeze_base(model, self.components.id_encoder.dtype)
        return TrainedModel(model)

    def groups(self, module: nn.Module) -> list[dict[str, Any]]:
        """AdamW's parameter groups: each part, at `scale` times the learning rate; gradients are clipped for each."""
        parts = [([p for p in part.parameters() if p.requires_grad], part) for part in module.children()]
        return [{"params": trained, "scale": getattr(part, "rate", 1.0)} for trained, part in parts if trained]

    def __call__(self, model: nn.Module, batch: Sample) -> tuple[Tensor, dict[str, Tensor]]:
        """Eq. 4 of a batch, by the method's `module`, wrapped or not: the total, and its detached parts, not weighted.

        With several processes, the mean of their gradients is the gradient of the whole batch.
        """
        targets = self.look_back(model, self.prepare(batch), batch)
        with self.autocast():
            outputs = model(targets)
        return self.loss(outputs, targets, batch)

    @torch.no_grad()
    def prepare(self, batch: Sample) -> Targets:
        """Encode a batch by the frozen networks and draw its noise from the samples' seeds.

        All views of a clip share the noise level and the noise, so that their features differ by the degradation alone;
        with `ulr_noise=shared` all clips of the batch do, so that features of two videos differ by the videos alone.
        """
        device, id_encoder, encode = self.components.device, self.components.id_encoder, self.components.encode
        num_clips, num_views, num_frames = batch.lq.shape[:3]
        batch = batch.to_float(device)
        clean = encode(batch.gt.flatten(0, 1)).unflatten(0, (num_clips, num_frames))  # (b, f, c, h, w)
        clean = clean * self.components.vae.config.scaling_factor
        lq = encode(batch.lq.flatten(0, 2)).unflatten(0, (-1, num_frames))  # (b k, f, c, h, w)
        has_reference = batch.has_reference.to(device).float()
        ref = encode(batch.reference) * has_reference[:, None, None, None]  # (b, c, h, w)
        seeds = batch.seed[:1].expand(num_clips) if self.config.ulr_noise == "shared" else batch.seed
        sigma, noise = self.draw_noise(seeds, tuple(clean.shape[1:]))
        noisy = self.x_scale * (clean + sigma.to(device)[:, None, None, None, None] * noise.to(device))

        def per_view(x: Tensor) -> Tensor:
            return x.to(device).repeat_interleave(num_views, dim=0)

        return Targets(
            clean=per_view(clean),
            noisy=per_view(noisy),
            lq=lq,
            ref=per_view(ref),
            id_features=per_view(id_encoder(batch.id_face.to(device, id_encoder.dtype)).feature_map.float()),
            has_reference=per_view(has_reference),
            sigma=per_view(sigma),
            task_prompt=batch.task_prompts.flatten(0, 1).to(device),
            known=torch.zeros(num_clips * num_views, num_frames, dtype=torch.bool, device=device),
        )

    @torch.no_grad()
    def look_back(self, model: nn.Module, targets: Targets, batch: Sample) -> Targets:
        """Give some clips what `Chain` has of the clips before: known frames, a reference of the model's own making."""
        config = self.config
        if not (config.context_frames or config.reference_own):
            return targets
        # Each process runs the model, whatever it draws: its parameters may be split.
        first, sigma = (slice(None), slice(config.max_context)), torch.full_like(targets.sigma, config.one_step_sigma)
        given = targets._replace(noisy=0 * targets.clean[first], lq=targets.lq[first], ref=0 * targets.ref, sigma=sigma)
        with self.autocast():
            own = model(given._replace(has_reference=0 * targets.has_reference)).denoised.nan_to_num()
        for view, latents, features in own_references(self.components, config.reference_own, own, batch):
            targets.ref[view], targets.id_features[view] = latents, features
        if not config.context_frames:
            return targets
        latents, known = draw_context(config, targets.clean, own, batch)
        seen, where = latents / self.components.vae.config.scaling_factor, known[:, :, None, None, None]
        lq, ref = (torch.where(where, seen, given) for given in (targets.lq, targets.ref[:, None]))
        noisy = targets.noisy + self.x_scale * (latents - targets.clean)
        return targets._replace(noisy=noisy, lq=lq, ref=ref, known=known)

    def draw_noise(self, seeds: Tensor, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Noise level (b,) and standard normal noise (b, *shape) of samples; each depends on its own seed alone."""
        sigmas, noises = [], []
        for seed in seeds.tolist():
            generator = torch.Generator().manual_seed(seed)
            sigmas.append((torch.randn((), generator=generator) * self.config.sigma_std + self.config.sigma_mean).exp())
            noises.append(torch.randn(shape, generator=generator))
        return torch.stack(sigmas), torch.stack(noises)

    def loss(self, outputs: Outputs, targets: Targets, batch: Sample) -> tuple[Tensor, dict[str, Tensor]]:
        """Eq. 4, L = L_noise + lambda1 L_ULR + lambda2 L_prior, of what the model gave for the targets of a batch."""
        config, device = self.config, outputs.denoised.device
        num_views, num_frames = batch.lq.shape[1:3]
        total = denoising_loss(outputs.denoised, targets.clean, targets.sigma, self.weighting, targets.known)
        parts = {"loss_noise": total}
        if outputs.task_features is not None:
            # Other processes have other noise, by which alone their clips can be told apart.
            gather = self.gather if config.ulr_noise == "own" else lambda rows: rows
            video_ids = batch.video_id.to(device).repeat_interleave(num_views * num_frames)
            # Two clips of one video show different frames: a frame is known by its sample's seed and its place.
            frame_ids = batch.seed.to(device)[:, None] % 2**40 * 2**16 + torch.arange(num_frames, device=device)
            frame_ids = frame_ids.repeat_interleave(num_views, dim=0).flatten()
            kept = (~targets.known).flatten().float()  # the same context in two views would be a shortcut
            *rows, kept = (gather(row) for row in (outputs.task_features.flatten(0, 1), video_ids, frame_ids, kept))
            features, video_ids, frame_ids = (row[kept > 0] for row in rows)
            parts["loss_ulr"] = ulr_loss(features, video_ids, frame_ids, config.ulr_temperature, config.ulr_denominator)
            total = total + config.lambda_ulr * parts["loss_ulr"]
        if outputs.landmarks is not None:
            valid = batch.landmarks_valid.to(device).repeat_interleave(num_views, dim=0) & ~targets.known
            landmarks = batch.landmarks.to(device).repeat_interleave(num_views, dim=0)
            # A process with few valid frames must not weigh as much as one with many.
            num_valid = self.gather(valid.sum()[None].float()).mean()
            parts["loss_prior"] = facial_prior_loss(outputs.landmarks, landmarks, valid, num_valid=num_valid)
            total = total + config.lambda_prior * parts["loss_prior"]
        return total, {"loss": total.detach(), **{name: part.detach() for name, part in parts.items()}}
