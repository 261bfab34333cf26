"""Settings: a schema with defaults, yaml files and `key=value` overrides. The only importer of OmegaConf."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

Schema = TypeVar("Schema")


class ConfigError(ValueError):
    """A setting that cannot be used; one line that names the key."""


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ConfigError(f"{name}={value}: choose from {', '.join(choices)}")


def _check_at_least(name: str, value: float | None, least: float) -> None:
    if value is not None and not least <= value < float("inf"):  # nan is not, either
        raise ConfigError(f"{name}={value}: has to be a number of at least {least}")


@dataclass
class InferConfig:
    """How `scripts/infer.py` restores. None leaves a value to the weights, which know what they were trained for."""

    num_inference_steps: int | None = None
    """Denoising steps of each clip (`released`: of each of its passes; its default is 50 and 30)."""
    guidance_scale: float | None = None
    """Classifier-free guidance between no reference and the reference; 1 switches it off and halves the work."""
    strategy: str = "chained"
    """chained (the paper's self-referred refinement, streaming) | released (the released code, for comparison)."""
    seed: int = 0
    """Of all noise. The noise of a frame depends on this and on the frame's index alone."""
    size: int | None = None
    """Side of the square that the network restores [px]."""
    clip_length: int | None = None
    """Frames that are denoised together."""
    overlap: int | None = None
    """Frames that neighbouring clips share."""
    dtype: str = "auto"
    """auto | float32 | bfloat16 | float16. auto is bfloat16 on an accelerator, float32 on the CPU."""
    device: str = "auto"
    """auto, or a torch device."""
    decode_chunk_size: int | None = None
    """Frames that the VAE decodes together; fewer take less memory."""
    reference_frame: str = "best"
    """best (sharpest well-detected frontal face of the first clip) | last | none."""
    face: str = "auto"
    """auto (find the largest face, restore its crop, paste it back) | aligned (the whole frame is the face crop)."""
    detector: str = "auto"
    """auto | insightface | yunet."""
    keep_known: bool | None = None
    """Copy the pixels outside the mask from the input, when inpainting is the only task. Default: in `chained`."""
    keep_luminance: bool | None = None
    """Keep the input's luminance, when colorizing without bfr. Default: in `chained`."""
    format: str = "mp4"
    """mp4 (H.264, audio kept) | png (a folder of frames)."""
    crf: int = 18
    """H.264 quality, 0 (lossless) to 51."""

    def __post_init__(self) -> None:
        _check_choice("strategy", self.strategy, ("chained", "released"))
        _check_choice("dtype", self.dtype, ("auto", "float32", "bfloat16", "float16"))
        _check_choice("reference_frame", self.reference_frame, ("best", "last", "none"))
        _check_choice("face", self.face, ("auto", "aligned"))
        _check_choice("detector", self.detector, ("auto", "insightface", "yunet"))
        _check_choice("format", self.format, ("mp4", "png"))
        for name in ("num_inference_steps", "size", "clip_length", "decode_chunk_size"):
            _check_at_least(name, getattr(self, name), 1)
        for name in ("overlap", "guidance_scale", "crf", "seed"):
            _check_at_least(name, getattr(self, name), 0)
        if self.crf > 51:
            raise ConfigError(f"crf={self.crf}: has to be at most 51")


def load(schema: type[Schema], yaml: Path | None = None, overrides: Sequence[str] = ()) -> Schema:
    """Settings from the schema's defaults, then a yaml file, then `key=value` overrides.

    Raises:
        ConfigError: an unreadable file, an unknown key (the nearest valid one is named), a wrong type or value.
    """
    config = OmegaConf.structured(schema)
    for override in overrides:
        if "=" not in override:
            raise ConfigError(f"'{override}': settings are given as key=value")
    try:
        if yaml is not None:
            config = OmegaConf.merge(config, _load_mapping(yaml))
        config = OmegaConf.merge(config, OmegaConf.from_dotlist(list(overrides)))
        return cast(Schema, OmegaConf.to_object(config))
    except OmegaConfBaseException as error:
        message, *details = str(error).splitlines()
        key = next((line.split(":")[1].strip() for line in details if "full_key" in line), "")
        message = message.replace(f" not in '{schema.__name__}'", " is no setting")
        raise ConfigError(message if key in message else f"{key}: {message}") from error


def _load_mapping(path: Path) -> DictConfig:
    try:
        content = OmegaConf.load(path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from error
    if not isinstance(content, DictConfig):
        raise ConfigError(f"{path}: has to hold settings as 'key: value' lines")
    return content
