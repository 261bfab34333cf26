"""Where a model comes from: the bundled one, a folder, the files of the released SVFR, the Hub."""

from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import HfApi, snapshot_download, try_to_load_from_cache
from huggingface_hub.constants import HF_HUB_CACHE
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from huggingface_hub.hf_api import RepoSibling
from huggingface_hub.utils import disable_progress_bars, filter_repo_objects

from svfr import progress
from svfr.files import sha256_of
from svfr.models.components import DEMO_FOLDER, INDEX_NAME
from svfr.models.weights import WeightsError

RELEASED_HUB_ID = "fffiloni/SVFR"
TINY_HUB_ID = "madebyollin/taesd"  # of the latents of Stable Diffusion 1, which are SVD's
SVD_HUB_ID = "stabilityai/stable-video-diffusion-img2vid-xt"
# Folders below `models/`, as the released code's README lays them out.
RELEASED_FOLDER = "face_restoration"
SVD_FOLDER = "stable-video-diffusion-img2vid-xt"
RELEASED_FILES = ("unet.pth", "id_linear.pth", "insightface_glint360k.pth")
SVD_PATTERNS = ("unet/config.json", "vae/*", "scheduler/*")
SVD_TRAINING_PATTERNS = (INDEX_NAME, "unet/*", "vae/*", "scheduler/*")
TIMEOUT = 10  # [s] for the Hub's answer on what a repository holds
SVD_CLASS = "StableVideoDiffusionPipeline"  # in the index of SVD's folder


class ReleasedFiles(NamedTuple):
    """The files of the released SVFR."""

    svd: Path
    unet: Path
    id_linear: Path
    arcface: Path


def find_released(source: str | Path) -> ReleasedFiles | None:
    """The released files: of the Hub for "released", or of a folder laid out as the released code's `models/`.

    Returns:
        None where `source` is neither.

    Raises:
        WeightsError: they cannot be downloaded.
    """
    if str(source) == "released":
        folder = _download(RELEASED_HUB_ID, tuple(f"{RELEASED_FOLDER}/{name}" for name in RELEASED_FILES))
        return ReleasedFiles(
            _download(SVD_HUB_ID, SVD_PATTERNS), *(folder / RELEASED_FOLDER / name for name in RELEASED_FILES)
        )
    folder = Path(source)
    if not (folder / RELEASED_FOLDER).is_dir():
        return None
    return ReleasedFiles(folder / SVD_FOLDER, *(folder / RELEASED_FOLDER / name for name in RELEASED_FILES))


def find_svd(source: str | Path) -> Path | None:
    """SVD's folder, if a source is SVD: its Hub id, or a folder in diffusers layout, whose index says so if it has one.

    Raises:
        WeightsError: the Hub cannot be reached.
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
    """The folder of a model that `save_pretrained` wrote: the bundled one for "demo", a folder, or a Hub id.

    Raises:
        WeightsError: there is none.
    """
    if str(source) == "demo":
        return DEMO_FOLDER
    folder = Path(source)
    if (folder / INDEX_NAME).is_file():
        return folder
    if folder.exists() or str(source).count("/") != 1:
        raise WeightsError(
            f"{source}: no model folder ({INDEX_NAME} is missing); give demo, released, a folder or a Hub id"
        )
    return _download(str(source), None)


def find_tiny(source: str) -> Path:
    """The folder of a small decoder of SVD's latents: TAESD's on the Hub for "tiny", a folder, or a Hub id.

    Raises:
        WeightsError: there is none.
    """
    if Path(source).is_dir():
        return Path(source)
    if source != "tiny" and source.count("/") != 1:
        raise WeightsError(f"vae={source}: no such folder; give full, tiny, a folder of an AutoencoderTiny or a Hub id")
    return _download(TINY_HUB_ID if source == "tiny" else source, ("config.json", "*.safetensors"))


def weights_files(source: str | Path) -> dict[str, Path]:
    """The files that a model is loaded from, by name; those of a folder by their path in it, hidden ones left out.

    Raises:
        WeightsError: as `find_released` and `find_model`.
    """
    released = find_released(source)
    folder, patterns = (find_model(source), ("**/*",)) if released is None else (released.svd, SVD_PATTERNS)
    found = [file for pattern in patterns for file in folder.glob(pattern) if file.is_file()]
    files = {file.relative_to(folder): file for file in found} | {
        Path(file.name): file for file in (released or ())[1:]
    }
    return {name.as_posix(): file for name, file in files.items() if not any(part[0] == "." for part in name.parts)}


def _download(hub_id: str, patterns: tuple[str, ...] | None) -> Path:
    """The folder of a repository's files in the Hub's cache; what it lacks is announced, downloaded and checked."""
    if progress.quiet:
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
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise WeightsError(
            f"{hub_id}: no such folder here, and not to be had from the Hub ({reason}); the bundled model of rendered "
            "faces needs no download: name demo (--weights demo, init_from=demo)"
        ) from error


def _missing(hub_id: str, allowed: list[str] | None) -> list[RepoSibling]:
    """The files that are to be downloaded, once the user has seen how much that is; none where the Hub is away."""
    try:
        info = HfApi().model_info(hub_id, files_metadata=True, timeout=TIMEOUT)
    except Exception:  # of the library's network client; `snapshot_download` has the cache, or says it better
        return []
    wanted = filter_repo_objects(info.siblings or [], allow_patterns=allowed, key=lambda file: file.rfilename)
    files = [
        file
        for file in wanted
        if not isinstance(try_to_load_from_cache(hub_id, file.rfilename, revision=info.sha), str)
    ]
    if files:
        size = sum(file.size or 0 for file in files) / 1e6  # [MB]
        data: Any = info.card_data or {}
        licence = data.get("license_name") or data.get("license") or "none stated"
        progress.note(f"downloading {hub_id} ({len(files)} files, {size:.1f} MB, licence: {licence}) to {HF_HUB_CACHE}")
    return files
