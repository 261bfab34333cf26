"""A model of the released one's size with random weights, in memory and as files."""

from pathlib import Path
from typing import NamedTuple

import torch
from diffusers import AutoencoderKLTemporalDecoder, EulerDiscreteScheduler, UNetSpatioTemporalConditionModel

from svfr.models.components import Components, ModelSettings
from svfr.models.heads import IDProjector
from svfr.models.identity import IResNet
from svfr.models.sources import RELEASED_FILES, RELEASED_FOLDER, SVD_FOLDER
from svfr.models.svfr import SVFR
from svfr.models.unet import LATENTS_IN

SVD_XT = "svd-xt"  # in the place of a name of weights


class Networks(NamedTuple):
    """What a model of SVD-XT's size consists of."""

    unet: UNetSpatioTemporalConditionModel
    vae: AutoencoderKLTemporalDecoder
    id_encoder: IResNet
    id_projector: IDProjector


def random_networks(device: torch.device, dtype: torch.dtype) -> Networks:
    """SVD-XT's architecture and ArcFace's IResNet-100 with random weights, made where they are used.

    The numbers are those of the configuration files of Stable Video Diffusion img2vid-xt.
    """
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)  # no float32 copy of 1.5 billion parameters
    try:
        with device:
            unet = UNetSpatioTemporalConditionModel(
                in_channels=LATENTS_IN * 4,
                block_out_channels=(320, 640, 1280, 1280),
                num_attention_heads=(5, 10, 20, 20),
                cross_attention_dim=1024,
            )
            vae = AutoencoderKLTemporalDecoder(
                down_block_types=("DownEncoderBlock2D",) * 4,
                block_out_channels=(128, 256, 512, 512),
                layers_per_block=2,
            )
            return Networks(unet, vae, IResNet(), IDProjector())
    finally:
        torch.set_default_dtype(default)


def random_svd_xt(device: torch.device, dtype: torch.dtype) -> Components:
    """`random_networks` as a model that is labelled as untrained."""
    unet, vae, id_encoder, id_projector = random_networks(device, dtype)
    scheduler = EulerDiscreteScheduler(
        prediction_type="v_prediction",
        timestep_type="continuous",
        use_karras_sigmas=True,
        sigma_min=0.002,
        sigma_max=700.0,
    )
    settings = ModelSettings(untrained=True)
    return Components(SVFR(unet, id_projector), vae, id_encoder, scheduler, settings).to(device, dtype)


def write_released(folder: Path, components: Components) -> None:
    """Write a model as the files of the released SVFR: SVD's folder, and a plain .pth for each network of its own."""
    svd, own = folder / SVD_FOLDER, folder / RELEASED_FOLDER
    own.mkdir(parents=True)
    unet = components.model.unet
    with torch.device("meta"):
        stock = UNetSpatioTemporalConditionModel.from_config(
            {**unet.config, "in_channels": 2 * unet.config.out_channels}
        )
    stock.save_config(svd / "unet")  # SVD's own, without the reference channels; its weights are not read
    components.vae.save_pretrained(svd / "vae")
    components.scheduler.save_pretrained(svd / "scheduler")
    parts = (unet, components.model.id_projector, components.id_encoder)
    for part, name in zip(parts, RELEASED_FILES, strict=True):
        torch.save(part.state_dict(), own / name)
