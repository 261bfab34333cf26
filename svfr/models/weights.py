"""Weights on disk: SVD's folders, the released SVFR files and our own folders, checked key by key."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from svfr.models.heads import IDProjector
from svfr.models.identity import IRESNET_LAYERS, IResNet

Part = TypeVar("Part", bound=nn.Module)

WEIGHTS_NAME = "diffusion_pytorch_model"
# Full precision first; the fp16 variants are what the hub serves beside it.
WEIGHTS_FILES = tuple(
    WEIGHTS_NAME + suffix
    for suffix in (
        ".safetensors",
        ".safetensors.index.json",
        ".fp16.safetensors",
        ".safetensors.index.fp16.json",
    )
)
COUNTERS = "num_batches_tracked"  # of BatchNorm: only training reads them, and not every checkpoint has them
SHOWN_KEYS = 3
COUNTED = re.compile("layers|blocks|depth")  # in the names of settings that count what has weights of its own
LONGEST_TEXT = 100  # of a setting, such as a name


class WeightsError(ValueError):
    """Weights that are missing, unreadable or of another architecture; one line that names the file and what to do."""


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a state dict from .safetensors, a sharded index (.json) or a plain .pth, without unpickling objects.

    Raises:
        WeightsError: no such file, or it holds anything but tensors by name.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such weights file")
    try:
        if path.suffix == ".json":
            shards = sorted(set(json.loads(path.read_text())["weight_map"].values()))
            state: dict[str, Tensor] = {}
            for shard in shards:
                state |= read_state(path.parent / shard)
        elif path.suffix == ".safetensors":
            state = safetensors.torch.load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except WeightsError:
        raise
    except (SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise WeightsError(f"{path}: not a readable weights file ({_first_line(error)})") from error
    except Exception as error:  # torch.load raises a dozen types on files that are not its own
        raise WeightsError(f"{path}: not a state dict of plain tensors ({_first_line(error)})") from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"{path}: not a state dict: it holds more than tensors by name")
    return {key.removeprefix("module."): value for key, value in state.items()}  # the prefix is DDP's


def check_keys(expected: Mapping[str, Tensor], state: Mapping[str, Tensor], source: Path, name: str) -> None:
    """Every key and shape of `expected`, and no other, has to be in `state`.

    Raises:
        WeightsError: naming the first keys that are missing, unexpected or of another shape; `name` says of what.
    """
    missing = [key for key in expected if key not in state]
    unexpected = [key for key in state if key not in expected]
    reshaped = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(value.shape)}"
        for key, value in expected.items()
        if key in state and state[key].shape != value.shape
    ]
    faults = [
        f"{len(keys)} {what} ({', '.join(keys[:SHOWN_KEYS])}{', ...' if len(keys) > SHOWN_KEYS else ''})"
        for what, keys in (("missing", missing), ("unexpected", unexpected), ("of another shape", reshaped))
        if keys
    ]
    if faults:
        raise WeightsError(f"{source}: weights of another architecture than {name}; keys: {'; '.join(faults)}")


def load_strict(module: nn.Module, state: dict[str, Tensor], source: Path) -> None:
    """Put a state dict into a module (which may be on the meta device); every key and shape has to fit.

    Raises:
        WeightsError: naming the first keys that are missing, unexpected or of another shape.
    """
    expected = module.state_dict()
    state = dict(state)
    for key, value in expected.items():
        if key.endswith(COUNTERS) and key not in state:
            state[key] = torch.zeros(value.shape, dtype=value.dtype)
    check_keys(expected, state, source, type(module).__name__)
    for key in expected:
        # A copy, since a tensor that lies unaligned in its file makes other kernels run, which round otherwise.
        state[key] = state[key].clone()
    module.load_state_dict(state, strict=True, assign=True)


def build_part(
    part_class: type[Part], config: Mapping[str, Any], source: Path, device: str | torch.device = "meta"
) -> Part:
    """A part from its configuration: without memory for its weights (meta device), to be filled by `load_strict`, or,
    on another device, with weights at random.

    Raises:
        WeightsError: a configuration that the class cannot be built from; names `source`.
    """
    try:
        with torch.device(device):
            return part_class.from_config(dict(config))  # type: ignore[attr-defined]
    except Exception as error:  # diffusers' classes raise whatever their layers do
        raise WeightsError(
            f"{source}: no {part_class.__name__} can be built from its configuration ({_first_line(error)})"
        ) from error


def read_json(path: Path, hint: str) -> dict[str, Any]:
    """A JSON file of a model folder; `hint` says what it belongs to.

    Raises:
        WeightsError: it is missing or no JSON.
    """
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        raise WeightsError(f"{path}: missing; {hint}") from error
    except (ValueError, RecursionError) as error:  # of JSON or of its encoding
        raise WeightsError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: not a JSON object; {hint}")
    return content


def read_config(folder: Path) -> dict[str, Any]:
    """The `config.json` of a part's folder; errors as `read_json`."""
    return read_json(folder / "config.json", f"'{folder.name}/' of a model folder in diffusers layout")


def find_weights(folder: Path) -> Path:
    """The weights file of a part's folder, full precision before fp16.

    Raises:
        WeightsError: there is none.
    """
    for name in WEIGHTS_FILES:
        if (folder / name).is_file():
            return folder / name
    raise WeightsError(f"{folder}: no weights there; expected {WEIGHTS_FILES[0]} (or its .fp16 variant)")


def has_weights(folder: Path) -> bool:
    """Whether a part's folder holds weights."""
    return any((folder / name).is_file() for name in WEIGHTS_FILES)


def load_part(part_class: type[Part], folder: Path, dtype: torch.dtype) -> Part:
    """Load one part (UNet, VAE, ...) from its folder in diffusers layout.

    Raises:
        WeightsError: as `read_config`, `find_weights`, `read_state` and `load_strict`.
    """
    return load_file(part_class, read_config(folder), find_weights(folder), dtype)


def load_file(
    part_class: type[Part],
    config: Mapping[str, Any] | Callable[[Mapping[str, Tensor], Path], Mapping[str, Any]],
    path: Path,
    dtype: torch.dtype,
) -> Part:
    """Load one part from a file of weights; `config` is its configuration, or reads it off the weights.

    Raises:
        WeightsError: as `read_state`, `build_part` and `load_strict`; a configuration of more layers than the weights
            can have.
    """
    state = read_state(path)
    values = config(state, path) if callable(config) else config
    for key, value in values.items():
        layers = len(value) if isinstance(value, list | tuple | str) else value if COUNTED.search(key) else 0
        if isinstance(layers, int | float) and layers > max(len(state), LONGEST_TEXT):
            raise WeightsError(f"{path}: {len(state)} tensors cannot have the {layers} of {key} in the configuration")
    part = build_part(part_class, values, path)
    load_strict(part, state, path)
    return nn.Module.to(part, dtype).eval()  # diffusers' own `to` warns of parts that none of these has


def id_projector_config(state: Mapping[str, Tensor], source: Path) -> dict[str, Any]:
    """The `IDProjector` arguments that fit a released `id_linear.pth`."""
    weight = state.get("project1024.weight")
    if weight is None or weight.ndim != 4:
        raise WeightsError(f"{source}: no ID projector: the key project1024.weight is missing")
    return {"in_channels": weight.shape[1], "out_channels": weight.shape[0]}


def iresnet_config(state: Mapping[str, Tensor], source: Path) -> dict[str, Any]:
    """The `IResNet` arguments that fit an ArcFace checkpoint, read off its keys and shapes."""
    blocks = tuple(
        len({key.split(".")[1] for key in state if key.startswith(f"layer{stage}.")}) for stage in range(1, 5)
    )
    depths = {layers: depth for depth, layers in IRESNET_LAYERS.items()}
    if blocks not in depths or "fc.weight" not in state:
        raise WeightsError(f"{source}: no ArcFace IResNet-18/34/50/100 (blocks per stage: {blocks})")
    channels = tuple(state[f"layer{stage}.0.conv2.weight"].shape[0] for stage in range(1, 5))
    return {
        "depth": depths[blocks],
        "block_out_channels": channels,
        "embedding_dim": state["fc.weight"].shape[0],
    }


def load_id_projector(path: Path, dtype: torch.dtype) -> IDProjector:
    """Load the released `id_linear.pth`; errors as `load_file`."""
    return load_file(IDProjector, id_projector_config, path, dtype)


def load_iresnet(path: Path, dtype: torch.dtype) -> IResNet:
    """Load an ArcFace checkpoint (`insightface_glint360k.pth`); errors as `load_file`."""
    return load_file(IResNet, iresnet_config, path, dtype)


@contextmanager
def one_line_errors(source: Path) -> Iterator[None]:
    """Turn whatever crafted or broken files of a model raise into a `WeightsError` of one line, not too long."""
    try:
        yield
    except WeightsError as error:
        raise WeightsError(_first_line(error, 500)) from error
    except Exception as error:  # the libraries' classes raise whatever comes
        raise WeightsError(f"{source}: cannot be used ({type(error).__name__}: {_first_line(error)})") from error


def _first_line(error: Exception, length: int = 200) -> str:
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return line if len(line) <= length else f"{line[:length]}..."
