"""Where a model comes from (the bundled one, a folder, the files of the released SVFR, the Hub), and loading it."""

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from diffusers import AutoencoderKLTemporalDecoder, AutoencoderTiny, EulerDiscreteScheduler
from diffusers.models.unets.unet_spatio_temporal_condition import UNetSpatioTemporalConditionModel
from huggingface_hub import HfApi, snapshot_download, try_to_load_from_cache
from huggingface_hub.constants import HF_HUB_CACHE
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from huggingface_hub.hf_api import RepoSibling
from huggingface_hub.utils import disable_progress_bars, filter_repo_objects

import svfr
from svfr.files import sha256_of
from svfr.models.autoencoders import PatchAutoencoder
from svfr.models.components import INDEX_NAME, VAE, Components, ModelSettings
from svfr.models.heads import IDProjector, LandmarkPredictor, LatentTransformer
from svfr.models.identity import IResNet
from svfr.models.svfr import SVFR
from svfr.models.unet import LATENTS_IN
from svfr.models.weights import (
    WeightsError,
    load_id_projector,
    load_iresnet,
    load_part,
    load_state,
    one_line_errors,
    read_config,
    read_json,
    read_state,
)
from svfr.networks import first_line
from svfr.tasks import TASKS

DEMO_FOLDER = Path(__file__).parents[1] / "assets" / "demo"
RELEASED_HUB_ID = "fffiloni/SVFR"
TINY_HUB_ID = "madebyollin/taesd"  # of the latents of Stable Diffusion 1, which are SVD's
SVD_HUB_ID = "stabilityai/stable-video-diffusion-img2vid-xt"
# Folders below `models/`, as the released code's README lays them out.
RELEASED_FOLDER = "face_restoration"
SVD_FOLDER = "stable-video-diffusion-img2vid-xt"
RELEASED_FILES = ("unet.pth", "id_linear.pth", "insightface_glint360k.pth")
SVD_PATTERNS = ("unet/config.json", "vae/*", "scheduler/*")
SVD_TRAINING_PATTERNS = (INDEX_NAME, "unet/*", "vae/*", "scheduler/*")
SVD_CLASS = "StableVideoDiffusionPipeline"  # in the index of SVD's folder
SVD_SCHEDULER = {"prediction_type": "v_prediction", "timestep_type": "continuous", "use_karras_sigmas": True}
TIMEOUT = 10  # [s] for the Hub's answer on what a repository holds
HEADS = {"latent_transformer": LatentTransformer, "landmark_predictor": LandmarkPredictor}  # not every model has them
VAE_CLASSES = {cls.__name__: cls for cls in (AutoencoderKLTemporalDecoder, PatchAutoencoder)}


class ReleasedFiles(NamedTuple):
    """The files of the released SVFR."""

    svd: Path
    unet: Path
    id_linear: Path
    arcface: Path


def find_released(source: str | Path) -> ReleasedFiles | None:
    """The released files: of the Hub for "released", or of a folder laid out as the released code's `models/`, or none.

    A WeightsError where they cannot be downloaded.
    """
    if str(source) == "released":
        folder = _download(RELEASED_HUB_ID, tuple(f"{RELEASED_FOLDER}/{name}" for name in RELEASED_FILES))
        svd = _download(SVD_HUB_ID, SVD_PATTERNS)
    elif (Path(source) / RELEASED_FOLDER).is_dir():
        folder = Path(source)
        svd = folder / SVD_FOLDER
    else:
        return None
    return ReleasedFiles(svd, *(folder / RELEASED_FOLDER / name for name in RELEASED_FILES))


def find_svd(source: str | Path) -> Path | None:
    """SVD's folder, if a source is SVD: its Hub id, or a folder in diffusers layout, whose index says so if it has one.

    A WeightsError where the Hub cannot be reached.
    """
    if str(source) == SVD_HUB_ID:
        return _download(SVD_HUB_ID, SVD_TRAINING_PATTERNS)
    folder = Path(source)
    if (folder / INDEX_NAME).is_file():
        is_svd = SVD_CLASS in (folder / INDEX_NAME).read_text()
    else:
        is_svd = (folder / "unet" / "config.json").is_file() and not (folder / "id_encoder").exists()
    return folder if is_svd else None


def find_model(source: str | Path) -> Path:
    """The folder of a model: the bundled one for "demo", a folder, or a Hub id; a WeightsError where there is none."""
    if str(source) == "demo":
        return DEMO_FOLDER
    folder = Path(source)
    if (folder / INDEX_NAME).is_file():
        return folder
    if folder.exists() or str(source).count("/") != 1:
        advice = "give demo, released, a folder or a Hub id"
        raise WeightsError(f"{source}: no model folder ({INDEX_NAME} is missing); {advice}")
    return _download(str(source), None)


def weights_files(source: str | Path) -> dict[str, Path]:
    """The files that a model is loaded from, by name; those of a folder by their path in it, hidden ones left out.

    Errors as `find_released` and `find_model`.
    """
    released = find_released(source)
    folder, patterns = (find_model(source), ("**/*",)) if released is None else (released.svd, SVD_PATTERNS)
    found = [file for pattern in patterns for file in folder.glob(pattern) if file.is_file()]
    files = {file.relative_to(folder): file for file in found}
    files |= {Path(file.name): file for file in (released or ())[1:]}
    return {name.as_posix(): file for name, file in files.items() if not any(part[0] == "." for part in name.parts)}


def load_folder(folder: Path, dtype: torch.dtype = torch.float32, seed: int | None = None) -> Components:
    """Load what `Components.save` wrote.

    From a seed, parts that have a configuration but no weights are initialized, for training. A WeightsError where a
    part is missing, unreadable or of another architecture.
    """
    with one_line_errors(folder), torch.random.fork_rng(devices=[]):
        index = read_json(folder / INDEX_NAME, "weights are a folder that save_pretrained or convert_released.py wrote")
        settings = ModelSettings.read(index, folder / INDEX_NAME)
        vae = index.get("vae", [AutoencoderKLTemporalDecoder.__name__])[-1]
        if vae not in VAE_CLASSES:
            raise WeightsError(f"{folder / INDEX_NAME}: vae '{vae}': choose from {', '.join(VAE_CLASSES)}")
        classes = {"unet": UNetSpatioTemporalConditionModel, "vae": VAE_CLASSES[vae]}
        classes |= {"id_projector": IDProjector, "id_encoder": IResNet}
        classes |= {name: head for name, head in HEADS.items() if name in index}
        torch.manual_seed(seed or 0)
        parts = {name: load_part(kind, folder / name, dtype, seed is not None) for name, kind in classes.items()}
        return assemble(folder, settings, **parts)


def load_released(svd: Path, unet: Path, id_linear: Path, arcface: Path, dtype: torch.dtype) -> Components:
    """Load the files of the released SVFR; of SVD's folder only unet/config.json, vae/ and scheduler/ are read.

    A WeightsError where a file is missing, unreadable or of another architecture.
    """
    with one_line_errors(svd):
        config = read_config(svd / "unet")
        config["in_channels"] = LATENTS_IN * config.get("out_channels", 4)
        return assemble(
            svd,
            ModelSettings(),
            unet=load_state(UNetSpatioTemporalConditionModel, config, read_state(unet), unet, dtype),
            vae=load_part(AutoencoderKLTemporalDecoder, svd / "vae", dtype),
            id_projector=load_id_projector(id_linear, dtype),
            id_encoder=load_iresnet(arcface, dtype),
        )


def load_tiny(source: str, components: Components) -> AutoencoderTiny:
    """Load a small decoder that is to take the VAE's place: TAESD of the Hub for "tiny", a folder, or a Hub id.

    A WeightsError where there is none, or it is unreadable, or of other latents than the VAE's.
    """
    folder = Path(source)
    if not folder.is_dir():
        if source != "tiny" and source.count("/") != 1:
            advice = "give full, tiny, a folder of an AutoencoderTiny or a Hub id"
            raise WeightsError(f"vae={source}: no such folder; {advice}")
        folder = _download(TINY_HUB_ID if source == "tiny" else source, ("config.json", "*.safetensors"))
    tiny = load_part(AutoencoderTiny, folder, components.model.unet.dtype).to(components.device)
    given = (tiny.config.latent_channels, 2 ** (len(tiny.config.decoder_block_out_channels) - 1))
    wanted = (components.latent_channels, components.downscale)
    if given != wanted or isinstance(components.vae, PatchAutoencoder):
        kind = type(components.vae).__name__
        raise WeightsError(f"vae={folder}: channels and scale of its latents are {given}, the {kind}'s {wanted}")
    return tiny


def assemble(
    folder: Path,
    settings: ModelSettings,
    unet: UNetSpatioTemporalConditionModel,
    vae: VAE,
    id_projector: IDProjector,
    id_encoder: IResNet,
    **heads: Any,
) -> Components:
    """Components of parts, once they are known to fit together; `folder` holds scheduler/ and is named in errors."""
    ours, latents, projector = unet.config, unet.config.out_channels, id_projector.config
    features = projector.in_channels, id_encoder.config.block_out_channels[-1]
    task_embedding = ours.projection_class_embeddings_input_dim, len(TASKS) * ours.addition_time_embed_dim
    pairs = {
        "latent channels of the UNet and the VAE": (latents, vae.config.latent_channels),
        "input channels of the UNet and 3 x its latents": (ours.in_channels, LATENTS_IN * latents),
        "token width of UNet and ID projector": (ours.cross_attention_dim, projector.out_channels),
        "feature channels of ID projector and ID network": features,
        "width of the UNet's added embedding and of the task prompt": task_embedding,
    }
    for what, (one, other) in pairs.items():
        if one != other:
            raise WeightsError(f"{folder}: parts that do not fit together: {what} are {one} and {other}")
    path = folder / "scheduler" / "scheduler_config.json"
    config = read_json(path, "'scheduler/' of a model folder in diffusers layout")
    for key, value in SVD_SCHEDULER.items():
        if config.get(key) != value:
            raise WeightsError(f"{path}: {key} is {config.get(key)!r}, SVD's is {value!r}")
    model = SVFR(unet, id_projector, **heads)
    return Components(model, vae, id_encoder, EulerDiscreteScheduler.from_config(config), settings)


def _download(hub_id: str, patterns: tuple[str, ...] | None) -> Path:
    """The folder of a repository's files in the Hub's cache; what it lacks is announced, downloaded and checked."""
    if svfr.quiet:
        disable_progress_bars()
    allowed = list(patterns) if patterns else None
    try:
        files = _missing(hub_id, allowed)
        folder = Path(snapshot_download(hub_id, allow_patterns=allowed))  # goes on with what is there in part
        for file in files:
            path = folder / file.rfilename
            if file.lfs is not None and sha256_of(path) != file.lfs.sha256:
                path.resolve().unlink()
                raise OSError(f"{file.rfilename} has arrived damaged, its sha256 differs; run the same command again")
        return folder
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise WeightsError(
            f"{hub_id}: no such folder here, and not to be had from the Hub ({first_line(error, 500)}); the bundled "
            "model of rendered faces needs no download: name demo (--weights demo, init_from=demo)"
        ) from error


def _missing(hub_id: str, allowed: list[str] | None) -> list[RepoSibling]:
    """The files that are to be downloaded, once the user has seen how much that is; none where the Hub is away."""
    try:
        info = HfApi().model_info(hub_id, files_metadata=True, timeout=TIMEOUT)
    except Exception:  # of the library's network client; `snapshot_download` has the cache, or says it better
        return []
    wanted = filter_repo_objects(info.siblings or [], allow_patterns=allowed, key=lambda file: file.rfilename)
    cached = partial(try_to_load_from_cache, hub_id, revision=info.sha)
    files = [file for file in wanted if not isinstance(cached(file.rfilename), str)]
    if files:
        size = sum(file.size or 0 for file in files) / 1e6  # [MB]
        data: Any = info.card_data or {}
        licence = data.get("license_name") or data.get("license") or "none stated"
        svfr.note(f"downloading {hub_id} ({len(files)} files, {size:.1f} MB, licence: {licence}) to {HF_HUB_CACHE}")
    return files
