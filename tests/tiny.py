"""A tiny SVFR with made weights: every part of the real one, some milliseconds a pass."""

import json
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLTemporalDecoder, EulerDiscreteScheduler, UNetSpatioTemporalConditionModel
from torch import Tensor

from svfr.inference.pipeline import SVFRPipeline
from svfr.models.autoencoders import fit_patch_autoencoder
from svfr.models.components import Components, ModelSettings
from svfr.models.heads import IDProjector, LandmarkPredictor, LatentTransformer
from svfr.models.identity import IResNet
from svfr.models.sources import RELEASED_FILES, RELEASED_FOLDER, SVD_FOLDER
from svfr.models.svfr import SVFR
from tests.golden_files import fill

SIZE, CLIP, STEPS = 32, 4, 2
LATENT = (4, SIZE // 4, SIZE // 4)
TOKENS, TOKEN_DIM = 49, 32
SETTINGS = ModelSettings(size=SIZE, clip_length=CLIP, num_inference_steps=STEPS, guidance_scale=2.0, id_crop="arcface")


def unet(in_channels: int = 12, salt: int = 1, out_channels: int = 4) -> UNetSpatioTemporalConditionModel:
    network = UNetSpatioTemporalConditionModel(
        sample_size=LATENT[1],
        in_channels=in_channels,
        out_channels=out_channels,
        block_out_channels=(32, 64),
        down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
        addition_time_embed_dim=16,
        projection_class_embeddings_input_dim=48,
        layers_per_block=1,
        cross_attention_dim=TOKEN_DIM,
        num_attention_heads=(1, 2),
        num_frames=CLIP,
    )
    return fill(network, salt, round_to_half=False)


def vae() -> AutoencoderKLTemporalDecoder:
    network = AutoencoderKLTemporalDecoder(
        down_block_types=("DownEncoderBlock2D",) * 3, block_out_channels=(32, 32, 32), layers_per_block=1
    )
    return fill(network, 2, round_to_half=False)


def id_encoder() -> IResNet:
    return fill(IResNet(18, (8, 8, 16, 16), embedding_dim=32), 4, round_to_half=False)


def id_projector() -> IDProjector:
    return fill(IDProjector(16, TOKEN_DIM), 3, round_to_half=False)


def model(heads: bool = True) -> SVFR:
    latent_transformer, landmark_predictor = LatentTransformer(64), LandmarkPredictor(64, hidden_channels=16)
    return SVFR(
        unet(),
        id_projector(),
        fill(latent_transformer, 5, round_to_half=False) if heads else None,
        fill(landmark_predictor, 6, round_to_half=False) if heads else None,
    )


def scheduler() -> EulerDiscreteScheduler:
    return EulerDiscreteScheduler(
        prediction_type="v_prediction",
        timestep_type="continuous",
        use_karras_sigmas=True,
        sigma_min=0.002,
        sigma_max=700.0,
    )


def patch_pipeline(patch_size: int = 4, channels: int = 6) -> SVFRPipeline:
    """The pipeline with a linear patch autoencoder in the place of SVD's VAE."""
    denoiser = SVFR(unet(3 * channels, out_channels=channels), id_projector())
    frames = torch.from_numpy(clip(8, SIZE, SIZE)).movedim(-1, 1) / 127.5 - 1
    autoencoder = fit_patch_autoencoder(frames, patch_size, channels)
    return SVFRPipeline.from_components(Components(denoiser, autoencoder, id_encoder(), scheduler(), SETTINGS))


def pipeline(heads: bool = True, settings: ModelSettings = SETTINGS) -> SVFRPipeline:
    return SVFRPipeline.from_components(Components(model(heads), vae(), id_encoder(), scheduler(), settings))


def write_released(folder: Path, components: Components) -> None:
    """Write a model as the files of the released SVFR: SVD's folder, and a plain .pth for each network of its own."""
    svd, own = folder / SVD_FOLDER, folder / RELEASED_FOLDER
    own.mkdir(parents=True)
    network = components.model.unet
    with torch.device("meta"):
        stock = UNetSpatioTemporalConditionModel.from_config({**network.config, "in_channels": 8})
    stock.save_config(svd / "unet")  # SVD's own, without the reference channels; its weights are not read
    components.vae.save_pretrained(svd / "vae")
    components.scheduler.save_pretrained(svd / "scheduler")
    parts = (network, components.model.id_projector, components.id_encoder)
    for part, name in zip(parts, RELEASED_FILES, strict=True):
        torch.save(part.state_dict(), own / name)


def write_svd(folder: Path) -> None:
    """SVD's folder: an 8-channel UNet, VAE and scheduler under SVD's own index."""
    unet(in_channels=8, salt=9).save_pretrained(folder / "unet")
    vae().save_pretrained(folder / "vae")
    scheduler().save_pretrained(folder / "scheduler")
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableVideoDiffusionPipeline"}))


def clip(num_frames: int = 12, height: int = 40, width: int = 48, seed: int = 0) -> np.ndarray:
    """A made video (f, h, w, 3) uint8: coloured waves that move, and grain."""
    random = np.random.default_rng(seed)
    f, y, x, c = np.ogrid[:num_frames, :height, :width, :3]
    waves = np.sin(0.2 * x + 0.3 * f + 2 * c + seed) * np.cos(0.15 * y - 0.2 * f + c)
    return np.clip(127 + 90 * waves + random.normal(0, 8, waves.shape), 0, 255).astype(np.uint8)


def inputs(batch: int = 1, num_frames: int = 3, seed: int = 0) -> dict[str, Tensor]:
    """Random arguments of `SVFR.forward`."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    return {
        "noisy_latents": normal(batch, num_frames, *LATENT) * 3,
        "lq_latents": normal(batch, num_frames, *LATENT),
        "ref_latents": normal(batch, *LATENT),
        "id_tokens": normal(batch, TOKENS, TOKEN_DIM),
        "sigma": torch.linspace(0.5, 4, batch),
        "task_prompt": torch.tensor([[1.0, 0, 0], [0, 1, 1]])[torch.arange(batch) % 2],
    }
