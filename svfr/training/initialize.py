"""What training starts from: SVD, the released SVFR, or any weights of ours, with new parts at random."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLTemporalDecoder, UNetSpatioTemporalConditionModel

from svfr.config import ConfigError
from svfr.models.components import Components, ModelSettings
from svfr.models.heads import IDProjector, LandmarkPredictor, LatentTransformer
from svfr.models.lora import add_lora
from svfr.models.sources import assemble, find_model, find_released, find_svd, load_folder, load_released
from svfr.models.unet import LATENTS_IN, widen_conv_in
from svfr.models.weights import WeightsError, load_iresnet, load_part, read_config
from svfr.training.settings import TrainConfig


def initialize(config: TrainConfig) -> Components:
    """The networks that training starts from, in float32 on the CPU; their settings say what they are trained for.

    A part of ours that has a configuration and no weights, and a head that is needed and not there, is initialized at
    random from the seed. A head that no loss needs is left out. A ConfigError without `init_from`; a WeightsError where
    it, `arcface` with it, or `lora.rank` without PEFT cannot be; a ValueError as `Components.check_size`.
    """
    source, arcface = config.init_from, config.arcface
    if source is None:
        raise ConfigError("init_from is not given: SVD's folder, released, demo, or a folder of weights")
    svd = find_svd(source)
    if arcface is not None and svd is None:
        raise WeightsError(f"arcface={arcface}: {source} has an ID network of its own; leave arcface out")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        if svd is not None:
            components = _from_svd(svd, arcface)
        elif (released := find_released(source)) is not None:
            components = load_released(*released, dtype=torch.float32)
        else:
            components = load_folder(find_model(source), seed=config.seed)
        model = components.model
        width = model.unet.config.block_out_channels[-1]
        transformer, predictor = model.latent_transformer, model.landmark_predictor
        model.latent_transformer = (transformer or LatentTransformer(width)) if config.lambda_ulr else None
        model.landmark_predictor = (predictor or LandmarkPredictor(width)) if config.lambda_prior else None
        if config.lora.rank:
            components.lora = add_lora(model, source, config.lora.rank)
    size, clip_length = components.check_size(config.data.size), config.clip_length or config.data.num_frames
    settings: dict[str, Any] = {"size": size, "clip_length": clip_length, "one_step_sigma": None}
    if config.method == "one_step":
        settings |= {"one_step_sigma": config.one_step_sigma, "num_inference_steps": 1, "guidance_scale": 1.0}
        settings["sampler"] = ModelSettings.sampler  # none is used
    components.settings = replace(components.settings, **settings, context_frames=config.context_frames)
    return components


def _from_svd(folder: Path, arcface: str | None) -> Components:
    if arcface is None:
        raise WeightsError(f"{folder}: SVD has no ID network: give arcface=insightface_glint360k.pth")
    config = read_config(folder / "unet")
    if config.get("in_channels") == LATENTS_IN * config.get("out_channels", 0):
        raise WeightsError(f"{folder / 'unet'}: has SVFR's input channels; start from a model folder instead")
    id_encoder = load_iresnet(Path(arcface), torch.float32)
    unet = load_part(UNetSpatioTemporalConditionModel, folder / "unet", torch.float32)
    widen_conv_in(unet)
    return assemble(
        folder,
        # "arcface" is the usual alignment; "official" is a property of the released weights alone.
        ModelSettings(id_crop="arcface"),
        unet=unet,
        vae=load_part(AutoencoderKLTemporalDecoder, folder / "vae", torch.float32),
        id_projector=IDProjector(id_encoder.config.block_out_channels[-1], unet.config.cross_attention_dim),
        id_encoder=id_encoder,
    )
