"""From trained parts to a model folder: what training starts from, and what is shipped."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import EulerDiscreteScheduler, UNetSpatioTemporalConditionModel
from torch import nn

from svfr.demo.settings import DemoConfig
from svfr.models.components import INDEX_NAME, VAE, ModelSettings, load_folder
from svfr.models.heads import IDProjector, LandmarkPredictor, LatentTransformer
from svfr.models.identity import IResNet
from svfr.models.unet import LATENTS_IN

HEAD_DIM = 32  # channels of an attention head
TIME_EMBED_DIM = 64
LANDMARK_HIDDEN = 128  # width of the landmark predictor
SHIPPED_DTYPE = torch.float16


def unet_config(config: DemoConfig) -> dict[str, Any]:
    """Arguments of the UNet."""
    channels = config.unet.block_out_channels
    kinds = ["CrossAttn" if attention else "" for attention in config.unet.attention]
    return {
        "sample_size": config.train.data.size // config.vae.downscale,
        "in_channels": LATENTS_IN * config.vae.latent_channels,
        "out_channels": config.vae.latent_channels,
        "down_block_types": tuple(f"{kind}DownBlockSpatioTemporal" for kind in kinds),
        "up_block_types": tuple(f"{kind}UpBlockSpatioTemporal" for kind in reversed(kinds)),
        "block_out_channels": tuple(channels),
        "addition_time_embed_dim": TIME_EMBED_DIM,
        "projection_class_embeddings_input_dim": 3 * TIME_EMBED_DIM,
        "layers_per_block": config.unet.layers_per_block,
        "cross_attention_dim": config.unet.cross_attention_dim,
        "num_attention_heads": tuple(width // HEAD_DIM for width in channels),
        "num_frames": config.train.data.num_frames,
    }


def make_scheduler(config: DemoConfig) -> EulerDiscreteScheduler:
    """The noise levels, in SVD's terms."""
    return EulerDiscreteScheduler(
        prediction_type="v_prediction",
        timestep_type="continuous",
        use_karras_sigmas=True,
        sigma_min=config.unet.sigma_min,
        sigma_max=config.unet.sigma_max,
    )


def write_init(folder: Path, config: DemoConfig, vae: VAE, id_encoder: IResNet) -> None:
    """Write what SVFR's training starts from: VAE and ID network with weights, all else as configurations alone.

    Args:
        folder: of the model; parts without weights are initialized at random by training, from its seed.
        config: all settings.
        vae: trained.
        id_encoder: trained.
    """
    width = config.unet.block_out_channels[-1]
    with torch.device("meta"):
        untrained: dict[str, nn.Module] = {
            "unet": UNetSpatioTemporalConditionModel(**unet_config(config)),
            "id_projector": IDProjector(id_encoder.config.block_out_channels[-1], config.unet.cross_attention_dim),
            "latent_transformer": LatentTransformer(width),
            "landmark_predictor": LandmarkPredictor(width, LANDMARK_HIDDEN),
        }
    settings = ModelSettings(
        size=config.train.data.size,
        clip_length=config.train.data.num_frames,
        num_inference_steps=config.unet.num_inference_steps,
        guidance_scale=config.unet.guidance_scale,
        sampler=config.unet.sampler,
        id_crop="arcface",
    )
    index: dict[str, Any] = {"_class_name": "SVFRPipeline", "_diffusers_version": diffusers.__version__}
    for name, part in {**untrained, "vae": vae, "id_encoder": id_encoder}.items():
        if name in untrained:
            part.save_config(folder / name)  # type: ignore[operator]
        else:
            part.save_pretrained(folder / name)  # type: ignore[operator]
        index[name] = [type(part).__module__.split(".")[0], type(part).__name__]
    make_scheduler(config).save_pretrained(folder / "scheduler")
    index |= {"scheduler": ["diffusers", EulerDiscreteScheduler.__name__], "settings": asdict(settings)}
    (folder / INDEX_NAME).write_text(json.dumps(index, indent=2) + "\n")


def ship(weights: Path, folder: Path) -> int:
    """Write trained weights in half precision.

    Args:
        weights: a folder of a run's weights/.
        folder: to write.

    Returns:
        Size of all weight files [bytes].
    """
    components = load_folder(weights)
    for part in components.networks.values():
        nn.Module.to(part, SHIPPED_DTYPE)
    components.save(folder)
    return sum(file.stat().st_size for file in folder.rglob("*.safetensors"))


def write_card(folder: Path, config: DemoConfig, step: int, size: int, facts: Sequence[str]) -> None:
    """Write the model card of a shipped folder.

    Args:
        folder: of the model.
        config: all settings.
        step: of the weights.
        size: of all weight files [bytes].
        facts: a line each: what the steps were measured by.
    """
    data, vae = config.train.data, config.vae
    kind = (
        f"a linear autoencoder of {vae.patch_size} x {vae.patch_size} px patches, {vae.latent_channels} principal "
        "components (a stand-in for SVD's kind of VAE)"
        if vae.kind == "patch"
        else f"SVD's kind with a temporal decoder, {vae.latent_channels} channels"
    )
    lines = [
        "# A small SVFR model of rendered faces",
        "",
        f"Trained from nothing by `scripts/train_demo.py` on clips of `svfr.synthetic`: {data.size} x {data.size} "
        f"px, {data.num_frames} frames, weights of step {step}, seed {config.seed}, {size / 2**20:.1f} MiB in half "
        "precision.",
        "",
        "It is a model of rendered faces, not of yours: it exists so that everything runs everywhere. Real footage "
        "wants the released weights, or your own training.",
        "",
        f"- VAE: {kind}",
        f"- UNet: SVD's kind, channels {list(config.unet.block_out_channels)}, noise from {config.unet.sigma_min} to "
        f"{config.unet.sigma_max}",
        *(f"- {fact}" for fact in facts),
        "",
        "`config.yaml` has all settings; the same call makes the same weights each time on a CPU (on a GPU "
        "they differ by rounding), and goes on with a larger `train.max_steps`. The training is in `curves.png`, the "
        "quality in `quality/`, where `scripts/ladder.py` and `scripts/check_demo.py` were let to write.",
    ]
    (folder / "README.md").write_text("\n".join(lines) + "\n")


def set_default(folder: Path, num_inference_steps: int, guidance_scale: float, sampler: str) -> None:
    """Change the sampling that a model folder asks for, and nothing else of it."""
    path = folder / INDEX_NAME
    index = json.loads(path.read_text())
    index["settings"] |= {
        "num_inference_steps": num_inference_steps,
        "guidance_scale": guidance_scale,
        "sampler": sampler,
    }
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(index, indent=2) + "\n")
    os.replace(partial, path)
