"""The networks of a restoration model and their settings: moved, run and saved together."""

import errno
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeAlias

import diffusers
import numpy as np
import torch
from diffusers import AutoencoderKLTemporalDecoder, AutoencoderTiny, EulerDiscreteScheduler
from safetensors import SafetensorError
from torch import Tensor, nn

from svfr.diffusion import SAMPLERS
from svfr.models.autoencoders import PatchAutoencoder
from svfr.models.devices import MEMORY_PLANS, MemoryPlan, check_compiler, wait_on_cpu
from svfr.models.identity import ID_CROP_STYLES, IResNet, id_crop
from svfr.models.lora import LORA_INDEX, LoRA, apply_lora, save_lora
from svfr.models.svfr import SVFR
from svfr.models.unet import FixedContext, compile_blocks
from svfr.models.weights import WeightsError, one_line_errors

INDEX_NAME = "model_index.json"
VAE: TypeAlias = AutoencoderKLTemporalDecoder | PatchAutoencoder
ENCODE_CHUNK = 8  # frames that the VAE encodes together: each on its own, so this only bounds memory


@dataclass(frozen=True)
class ModelSettings:
    """What weights were trained for, and so want at inference; saved beside them. Defaults: the released model."""

    size: int = 512
    """Side of the square frames [px]."""
    clip_length: int = 16
    """Frames that are denoised together."""
    num_inference_steps: int = 30  # of the released code's referred pass
    guidance_scale: float = 2.0
    sampler: str = "euler"
    """One of `svfr.diffusion.SAMPLERS`; the released code's is Euler's."""
    id_crop: str = "official"
    """Alignment of the ID network's input: arcface (the usual one) | official (the released code's)."""
    context_frames: int = 0
    """First frames of a clip that are known from the clip before; 0: clips are joined at each step's noise level."""
    one_step_sigma: float | None = None
    """Noise level at which one run from zero gives the result; None: results are sampled from noise."""

    def __post_init__(self) -> None:
        for name in ("size", "clip_length", "num_inference_steps"):
            if type(value := getattr(self, name)) is not int or value < 1:
                raise ValueError(f"{name} {value!r}: has to be a whole number of at least 1")
        if type(self.guidance_scale) not in (int, float) or not 0 <= self.guidance_scale < float("inf"):
            raise ValueError(f"guidance_scale {self.guidance_scale!r}: has to be a number of at least 0")
        if self.id_crop not in ID_CROP_STYLES:
            raise ValueError(f"id_crop '{self.id_crop}': choose from {', '.join(ID_CROP_STYLES)}")
        if self.sampler not in SAMPLERS:
            raise ValueError(f"sampler '{self.sampler}': choose from {', '.join(SAMPLERS)}")
        if type(self.context_frames) is not int or not 0 <= self.context_frames < self.clip_length:
            raise ValueError(f"context_frames {self.context_frames}: has to be below clip_length ({self.clip_length})")
        if (sigma := self.one_step_sigma) is not None and not (type(sigma) in (int, float) and 0 < sigma < 1e9):
            raise ValueError(f"one_step_sigma {sigma}: has to be a noise level above 0")

    @classmethod
    def read(cls, index: Mapping[str, Any], file: Path) -> "ModelSettings":
        """Those in the index of a model or of a LoRA, `file`; a WeightsError where there are none, or others."""
        settings = index.get("settings")
        if settings is None:
            raise WeightsError(f"{file}: no 'settings': not a model of SVFR")
        known = {name: value for name, value in settings.items() if name != "untrained"}  # of older folders
        if unknown := known.keys() - {field.name for field in fields(cls)}:
            raise WeightsError(f"{file}: unknown setting '{min(unknown)}'")
        try:
            return cls(**known)
        except ValueError as error:
            raise WeightsError(f"{file}: {error}") from error


@dataclass(frozen=True)
class Reference:
    """A clean face that a clip is denoised with."""

    latents: Tensor  # (1, c, h, w), not scaled
    id_tokens: Tensor  # (1, 49, d)


@dataclass(frozen=True)
class Condition:
    """Reference and identity as the denoiser takes them, constant over a whole run."""

    ref_latents: Tensor  # (b, c, h, w), zeros without a reference
    context: FixedContext

    @classmethod
    def joined(cls, conditions: Sequence["Condition"]) -> "Condition":
        """Several as the rows of one batch."""
        latents = torch.cat([condition.ref_latents for condition in conditions])
        return cls(latents, FixedContext.joined([condition.context for condition in conditions]))


class Components:
    """The networks that restore, on one device."""

    def __init__(
        self,
        model: SVFR,
        vae: VAE,
        id_encoder: IResNet,
        scheduler: EulerDiscreteScheduler,  # the configuration of the noise levels, in SVD's terms
        settings: ModelSettings,
        plan: MemoryPlan | None = None,  # what they may take of the device's memory; None: whatever they want
        tiny: AutoencoderTiny | None = None,  # decodes in the place of the VAE
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        self.vae = vae.eval().requires_grad_(False)
        self.id_encoder = id_encoder.eval().requires_grad_(False)
        self.scheduler, self.settings, self.plan = scheduler, settings, plan
        self.tiny = tiny if tiny is None else tiny.eval().requires_grad_(False)
        self.notes: list[str] = []  # to the user, of what was done otherwise than asked
        self._stepped_down = False
        self.lora: LoRA | None = None  # that is being trained

    @property
    def networks(self) -> dict[str, Any]:
        """All networks, by the name of their folder."""
        model = self.model
        parts = {"unet": model.unet, "vae": self.vae, "id_projector": model.id_projector, "id_encoder": self.id_encoder}
        return parts | dict(model.named_children())  # with the heads, where there are any

    @property
    def device(self) -> torch.device:
        """Where the networks run, although they may wait on the CPU (`offload`, or accelerate's hooks)."""
        unet = self.model.unet
        hook = getattr(unet, "_hf_hook", None)
        return getattr(unet, "run_device", unet.device) if hook is None else torch.device(hook.execution_device)

    @property
    def downscale(self) -> int:
        """Pixels of a frame per latent pixel, along one side."""
        if isinstance(self.vae, PatchAutoencoder):
            return self.vae.config.patch_size
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def latent_channels(self) -> int:
        """Channels of the VAE's latents."""
        return self.vae.config.latent_channels

    def check_size(self, size: int) -> int:
        """This side of a square [px]; a ValueError where the networks cannot halve it as often as they need to."""
        multiple = self.downscale * 2 ** (len(self.model.unet.config.block_out_channels) - 1)
        if size < multiple or size % multiple:
            raise ValueError(f"size is {size}: it has to be a multiple of {multiple} for these weights")
        return size

    @property
    def sigma_range(self) -> tuple[float, float]:
        """Smallest and largest noise level of sampling."""
        return self.scheduler.config.sigma_min, self.scheduler.config.sigma_max

    def to(
        self,
        device: torch.device | str,
        dtype: torch.dtype,
        model_dtype: torch.dtype | None = None,
        vae_dtype: torch.dtype | None = None,
    ) -> "Components":
        """Move in place; a VAE that overflows in float16 (`force_upcast`) is kept in float32 there.

        `model_dtype` is of UNet and ID projector alone, which training keeps in float32; `vae_dtype` of the VAE.
        """
        upcast = dtype == torch.float16 and self.vae.config.force_upcast
        # diffusers' own `to` warns of exceptions that none of these parts has.
        nn.Module.to(self.model, device, model_dtype or dtype)
        nn.Module.to(self.id_encoder, device, dtype)
        nn.Module.to(self.vae, device, vae_dtype or (torch.float32 if upcast else dtype))
        return self

    def offload(self) -> None:
        """Let the networks wait on the CPU for their turn, in place; twice is once, and on the CPU nothing."""
        if self.device.type != "cpu" and not hasattr(self.model.unet, "run_device"):
            parts = (self.model.unet, self.vae.encoder, self.vae.decoder, self.id_encoder, self.model.id_projector)
            wait_on_cpu([*parts, *([self.tiny.decoder] if self.tiny else ())], self.device)

    def compile(self) -> None:
        """Compile UNet and decoder block by block, in place, for any number of frames; errors as `check_compiler`."""
        check_compiler(self.device)
        torch.backends.cudnn.benchmark = True
        compile_blocks(self.model.unet)
        compile_blocks(self.vae.decoder)

    def step_down(self) -> bool:
        """Go on with the next smaller memory plan, where memory ran out; once. False where that cannot be."""
        smaller = [gib for gib, plan in MEMORY_PLANS.items() if self.plan is None or plan < self.plan]
        if self._stepped_down or not smaller:
            return False
        gib = min(smaller) if self.plan is None else max(smaller)
        self._stepped_down, self.plan = True, MEMORY_PLANS[gib]
        if self.plan.offload:
            self.offload()
        self.notes.append(f"memory ran out: went on as with memory={gib}")
        return True

    @torch.no_grad()
    def encode(self, frames: Tensor) -> Tensor:
        """(n, 3, H, W) in [-1, 1] -> (n, c, h, w) float32: the posterior's mode, not scaled (released code)."""
        chunks = (chunk.to(self.device, self.vae.dtype) for chunk in frames.split(ENCODE_CHUNK))
        return torch.cat([self.vae.encode(chunk).latent_dist.mode().float() for chunk in chunks])

    @torch.no_grad()
    def decode(self, latents: Tensor, chunk_size: int, context: int = 0) -> Tensor:
        """Consecutive latents (n, c, h, w), scaled -> frames (n, 3, H, W) float32, about [-1, 1], not clamped.

        Of the `chunk_size` frames that are decoded together, the first `context` were in the chunk before, too, so that
        the temporal decoder sees the past across the border. A ValueError where a number type overflows.
        """
        context = min(context, chunk_size - 1)
        decoder = self.vae if self.tiny is None else self.tiny  # which takes them scaled, and frame by frame
        latents = latents / self.vae.config.scaling_factor if self.tiny is None else latents
        latents = latents.to(self.device, decoder.dtype)
        frames: list[Tensor] = []
        start = 0
        while not frames or start + context < len(latents):
            chunk = latents[start : start + chunk_size]
            how = {"num_frames": len(chunk)} if self.tiny is None else {}
            decoded = decoder.decode(chunk, **how).sample.float()
            frames.append(decoded[context:] if frames else decoded)
            start += chunk_size - context
        decoded = torch.cat(frames)
        if not decoded.isfinite().all():
            advice = "choose another dtype (bfloat16, float32) or a lower guidance_scale"
            raise ValueError(f"the result is not finite: {advice}")
        return decoded

    @torch.no_grad()
    def encode_reference(self, frame: Tensor, image: np.ndarray, landmarks: np.ndarray) -> Reference:
        """Describe a reference face to the denoiser: a `frame` (3, s, s) in [-1, 1] for the VAE, the same as an `image`
        (s, s, 3) uint8 for the ID network, and its landmarks (5, 2) [px], eyes, nose and corners of the mouth."""
        face = id_crop(image, landmarks, self.settings.id_crop)[None]
        return Reference(latents=self.encode(frame[None]), id_tokens=self.id_tokens(face))

    @torch.no_grad()
    def id_tokens(self, face: Tensor) -> Tensor:
        """(b, 3, 112, 112) aligned faces in [-1, 1] -> (b, 49, d) cross-attention tokens."""
        feature_map = self.id_encoder(face.to(self.device, self.id_encoder.dtype)).feature_map
        return self.model.id_projector(feature_map.to(self.model.id_projector.dtype))

    def condition(self, reference: Reference | None, latent_size: Sequence[int]) -> Condition:
        """A reference as the denoiser takes it; zeros where there is none."""
        if reference is not None:
            return Condition(reference.latents, self.model.fix_context(reference.id_tokens))
        projector = self.model.id_projector
        latents = torch.zeros(1, self.latent_channels, *latent_size, device=self.device)
        tokens = torch.zeros(1, 1, projector.config.out_channels, device=self.device)
        return Condition(latents, self.model.fix_context(tokens))

    def load_lora(self, folder: Path, weight: float) -> None:
        """As `apply_lora`, and take the settings that it was trained for."""
        with one_line_errors(folder):
            index = apply_lora(self.model, folder, weight)
            self.settings = ModelSettings.read(index, folder / LORA_INDEX) if weight else self.settings

    def save(self, folder: Path) -> None:
        """Write all parts in diffusers layout (safetensors), with an index that holds the settings; or a LoRA alone.

        An OSError where the disk is full, or the folder may not be written.
        """
        if self.lora is not None:
            save_lora(folder, self.model, self.lora, asdict(self.settings))
            return
        folder.mkdir(parents=True, exist_ok=True)
        index: dict[str, Any] = {"_class_name": "SVFRPipeline", "_diffusers_version": diffusers.__version__}
        for name, part in self.networks.items():
            try:
                part.save_pretrained(folder / name)
            except SafetensorError as error:
                raise OSError(errno.EIO, str(error), str(folder / name)) from error
            index[name] = [type(part).__module__.split(".")[0], type(part).__name__]
        self.scheduler.save_pretrained(folder / "scheduler")
        index["scheduler"] = ["diffusers", type(self.scheduler).__name__]
        index["settings"] = asdict(self.settings)
        (folder / INDEX_NAME).write_text(json.dumps(index, indent=2) + "\n")
