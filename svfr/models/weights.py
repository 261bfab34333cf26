"""Weights on disk, of one part: a folder in diffusers layout or a file, checked key by key."""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from svfr.models.heads import IDProjector
from svfr.models.identity import IRESNET_LAYERS, IResNet
from svfr.networks import first_line

Part = TypeVar("Part", bound=nn.Module)

WEIGHTS_FILES = [  # full precision before fp16, as the Hub has both; an index names files of which each holds a part
    f"diffusion_pytorch_model.{kind}"
    for kind in ("safetensors", "safetensors.index.json", "fp16.safetensors", "safetensors.index.fp16.json")
]
COUNTERS = "num_batches_tracked"  # of BatchNorm: only training reads them, and not every checkpoint has them
SHOWN_KEYS = 3
COUNTED = re.compile("layers|blocks|depth")  # in the names of settings that count what has weights of its own
LONGEST_TEXT = 100  # of a setting, such as a name


class WeightsError(ValueError):
    """Weights that are missing, unreadable or of another architecture; one line that names the file and what to do."""


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a state dict from .safetensors, an index of several (.json) or a plain .pth, without unpickling objects.

    A WeightsError where there is no such file, or it holds anything but tensors by name.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such weights file")
    try:
        if path.suffix == ".json":
            shards = [
                read_state(path.parent / name) for name in set(json.loads(path.read_text())["weight_map"].values())
            ]
            state = {key: tensor for shard in shards for key, tensor in shard.items()}
        elif path.suffix == ".safetensors":
            state = safetensors.torch.load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except WeightsError:
        raise
    except (SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise WeightsError(f"{path}: not a readable weights file ({first_line(error)})") from error
    except Exception as error:  # torch.load raises a dozen types on files that are not its own
        raise WeightsError(f"{path}: not a state dict of plain tensors ({first_line(error)})") from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"{path}: not a state dict: it holds more than tensors by name")
    return {key.removeprefix("module."): value for key, value in state.items()}  # the prefix is DDP's


def check_keys(expected: Mapping[str, Tensor], state: Mapping[str, Tensor], source: Path, name: str) -> None:
    """Every key and shape of `expected`, which `name` says, and no other, has to be in `state`.

    Else a WeightsError with the first keys that are missing, unexpected or of another shape.
    """
    shapes = {key: (tuple(state[key].shape), tuple(expected[key].shape)) for key in expected if key in state}
    wrong = {
        "missing": [key for key in expected if key not in state],
        "unexpected": [key for key in state if key not in expected],
        "of another shape": [f"{key} {one} instead of {other}" for key, (one, other) in shapes.items() if one != other],
    }
    faults = [
        f"{len(keys)} {what} ({', '.join(keys[:SHOWN_KEYS])}{', ...' if len(keys) > SHOWN_KEYS else ''})"
        for what, keys in wrong.items()
        if keys
    ]
    if faults:
        raise WeightsError(f"{source}: weights of another architecture than {name}; keys: {'; '.join(faults)}")


def load_strict(module: nn.Module, state: dict[str, Tensor], source: Path) -> None:
    """Put a state dict into a module, which may be on the meta device; `check_keys` says what does not fit."""
    expected = module.state_dict()
    counters = {key: torch.zeros(each.shape, dtype=each.dtype) for key, each in expected.items() if COUNTERS in key}
    state = counters | state
    check_keys(expected, state, source, type(module).__name__)
    # Copies, since a tensor that lies unaligned in its file makes other kernels run, which round otherwise.
    module.load_state_dict({key: tensor.clone() for key, tensor in state.items()}, strict=True, assign=True)


def build_part(
    part_class: type[Part], config: Mapping[str, Any], source: Path, device: str | torch.device = "meta"
) -> Part:
    """A part from its configuration: without memory for its weights (meta device), to be filled by `load_strict`, or,
    on another device, with weights at random. A WeightsError that names `source` where the class cannot be built.
    """
    try:
        with torch.device(device):
            return part_class.from_config(dict(config))  # type: ignore[attr-defined]
    except Exception as error:  # diffusers' classes raise whatever their layers do
        reason = f"no {part_class.__name__} can be built from its configuration ({first_line(error)})"
        raise WeightsError(f"{source}: {reason}") from error


def read_json(path: Path, hint: str) -> dict[str, Any]:
    """A JSON file that belongs to what `hint` says; a WeightsError where it is missing or no JSON object."""
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


def load_part(part_class: type[Part], folder: Path, dtype: torch.dtype, or_random: bool = False) -> Part:
    """Load one part (UNet, VAE, ...) from its folder in diffusers layout, in full precision before fp16.

    Errors as `read_config`, `read_state` and `load_state`; and without weights, unless they may be random.
    """
    config = read_config(folder)
    for name in WEIGHTS_FILES:
        if (folder / name).is_file():
            return load_state(part_class, config, read_state(folder / name), folder / name, dtype)
    if not or_random or list(folder.glob("diffusion_pytorch_model*")):  # which are there to be used
        raise WeightsError(f"{folder}: no weights there; expected {WEIGHTS_FILES[0]} (or its .fp16 variant)")
    return nn.Module.to(build_part(part_class, config, folder, "cpu"), dtype)


def load_state(
    part_class: type[Part], config: Mapping[str, Any], state: dict[str, Tensor], source: Path, dtype: torch.dtype
) -> Part:
    """One part of a state dict and its configuration, which must not have more layers than the weights can have.

    Errors as `build_part` and `load_strict`.
    """
    for key, value in config.items():
        layers = len(value) if isinstance(value, list | tuple | str) else value if COUNTED.search(key) else 0
        if isinstance(layers, int | float) and layers > max(len(state), LONGEST_TEXT):
            raise WeightsError(f"{source}: {len(state)} tensors cannot have the {layers} of {key} in the configuration")
    part = build_part(part_class, config, source)
    load_strict(part, state, source)
    return nn.Module.to(part, dtype).eval()  # diffusers' own `to` warns of parts that none of these has


def load_id_projector(path: Path, dtype: torch.dtype) -> IDProjector:
    """Load the released `id_linear.pth`, whose widths are read off its weights; errors as `load_state`."""
    state = read_state(path)
    weight = state.get("project1024.weight")
    if weight is None or weight.ndim != 4:
        raise WeightsError(f"{path}: no ID projector: the key project1024.weight is missing")
    return load_state(
        IDProjector, {"in_channels": weight.shape[1], "out_channels": weight.shape[0]}, state, path, dtype
    )


def load_iresnet(path: Path, dtype: torch.dtype) -> IResNet:
    """Load an ArcFace checkpoint (`insightface_glint360k.pth`) of any depth and width; errors as `load_state`."""
    state, stages = read_state(path), range(1, 5)
    blocks = tuple(len({key.split(".")[1] for key in state if key.startswith(f"layer{i}.")}) for i in stages)
    depths = {layers: depth for depth, layers in IRESNET_LAYERS.items()}
    if blocks not in depths or "fc.weight" not in state:
        raise WeightsError(f"{path}: no ArcFace IResNet-18/34/50/100 (blocks per stage: {blocks})")
    config = {
        "depth": depths[blocks],
        "block_out_channels": tuple(state[f"layer{i}.0.conv2.weight"].shape[0] for i in stages),
        "embedding_dim": state["fc.weight"].shape[0],
    }
    return load_state(IResNet, config, state, path, dtype)


@contextmanager
def one_line_errors(source: Path) -> Iterator[None]:
    """Turn whatever crafted or broken files of a model raise into a `WeightsError` of one line, not too long."""
    try:
        yield
    except WeightsError as error:
        raise WeightsError(first_line(error, 500)) from error
    except Exception as error:  # the libraries' classes raise whatever comes
        raise WeightsError(f"{source}: cannot be used ({type(error).__name__}: {first_line(error)})") from error
