"""LoRA: low-rank updates of the UNet's attention and feed-forward layers, beside parts that are trained whole.

On disk it is a folder: `lora.safetensors` holds all that was trained, `lora.json` what it belongs to. SVD's UNet has no
adapter methods of its own, so PEFT's layers are put into it.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from svfr.files import write_json
from svfr.models.svfr import SVFR
from svfr.models.weights import WeightsError, check_keys, read_json, read_state

LORA_WEIGHTS, LORA_INDEX = "lora.safetensors", "lora.json"
TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "net.0.proj", "net.2")  # ends of names: attention, feed-forward
HEADS = ("latent_transformer.", "landmark_predictor.")  # which only training uses
WHOLE = ("unet.conv_in.", "unet.add_embedding.", "id_projector.")  # what SVFR has added to SVD or given another meaning
LAYER, ADAPTER = ".lora_", ".default."  # in PEFT's names; the second one is left out on disk


@dataclass(frozen=True)
class LoRA:
    """What a LoRA belongs to."""

    base: str
    """Name of the weights that it was trained from."""
    sha256: str
    """Of their parts that are trained whole, in bfloat16: the same in whatever files they lie."""
    rank: int
    targets: tuple[str, ...] = TARGETS


def add_lora(model: SVFR, base: str, rank: int) -> LoRA:
    """Give a model, in place, updates of a rank for training; they are zero, so that it computes what it did before.

    A WeightsError where PEFT is not installed.
    """
    lora = LoRA(base, _fingerprint(model), rank)
    _inject(model.unet, lora)
    return lora


def has_lora(model: nn.Module) -> bool:
    """Whether updates lie beside a model's layers, not merged into them."""
    return any(LAYER in name for name, _ in model.named_parameters())


def freeze_base(model: SVFR, dtype: torch.dtype) -> None:
    """Leave, in place, gradients to what a LoRA trains; linear layers and convolutions of the rest are kept in `dtype`.

    Autocast to that type would round these each time, so it computes the same. Normalization stays in float32.
    """
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(_is_trained(name))
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.Conv3d) and not _is_trained(f"{name}."):
            module.to(dtype)
        if hasattr(module, "lora_A"):
            module.cast_input_dtype_enabled = False  # autocast does it


def parse_lora(text: str) -> tuple[Path, float]:
    """A LoRA's folder and weight of DIR or DIR:WEIGHT; a weight is a decimal number."""
    found = re.fullmatch(r"(.+):(-?\d+\.?\d*)", text)
    return (Path(found[1]), float(found[2])) if found else (Path(text), 1.0)


def save_lora(folder: Path, model: SVFR, lora: LoRA, settings: Mapping[str, Any]) -> None:
    """Write what was trained, and what it belongs to, with the result's settings; OSError as of any file."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.contiguous().cpu() for name, tensor in _trained(model).items()}
    (folder / LORA_WEIGHTS).write_bytes(safetensors.torch.save(state, {"format": "pt"}))
    write_json(folder / LORA_INDEX, {**asdict(lora), "settings": settings})


@torch.no_grad()
def apply_lora(model: SVFR, folder: Path, weight: float) -> dict[str, Any]:
    """Put what `save_lora` wrote into the model that it belongs to, in place; a base without heads stays so.

    The weight is that of the update; parts that were trained whole go this share of their way. 0 leaves all as it is.
    Returns what lora.json says. A WeightsError where files are missing, unreadable or of another model, or PEFT is.
    """
    index = read_json(folder / LORA_INDEX, "a LoRA is a folder that training with lora.rank wrote")
    lora = LoRA(**{field.name: index[field.name] for field in fields(LoRA)})
    state = read_state(folder / LORA_WEIGHTS)
    # Numbers that float16 has rounded before are not known again.
    if lora.sha256 != _fingerprint(model) and model.unet.dtype != torch.float16:
        raise WeightsError(f"{folder}: a LoRA of other weights than these; it belongs to {lora.base}")
    if not weight:
        return index
    _inject(model.unet, lora, weight)
    own, device = _trained(model), model.unet.device
    shared = {name: tensor for name, tensor in state.items() if not name.startswith(HEADS) or name in own}
    wanted = {name: tensor for name, tensor in own.items() if not name.startswith(HEADS) or name in state}
    check_keys(wanted, shared, folder / LORA_WEIGHTS, "this LoRA's model")
    for name, target in wanted.items():
        tensor = shared[name].to(device).float()
        if LAYER in name:
            layer = model.get_submodule(name.removesuffix(".weight"))
            layer.get_submodule("default").weight = nn.Parameter(tensor, requires_grad=False)
        else:
            target.copy_(target.float().lerp(tensor, weight))
    model.requires_grad_(False)
    return index


@torch.no_grad()
def merge_lora(model: nn.Module) -> None:
    """Add, in place, the updates to the layers that they lie beside, and leave these alone; nothing without a LoRA."""
    for name, layer in list(model.named_modules()):
        if hasattr(layer, "lora_A"):
            layer.merge()
            model.set_submodule(name, layer.get_base_layer())


def _is_trained(name: str) -> bool:
    return LAYER in name or name.startswith((*WHOLE, *HEADS))


def _trained(model: SVFR) -> dict[str, Tensor]:
    """What a LoRA trains, by its name on disk."""
    named = ((name, parameter) for name, parameter in model.named_parameters() if _is_trained(name))
    return {name.replace(ADAPTER, "."): parameter.detach() for name, parameter in named}


def _inject(unet: nn.Module, lora: LoRA, weight: float | None = None) -> None:
    """Put PEFT's layers in; with a weight, without memory (meta device), to be filled."""
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise WeightsError("a LoRA needs the package peft: pip install svfr[train]") from error
    # Assumption: alpha is the rank, so that a weight of 1 is a factor of 1.
    alpha = lora.rank if weight is None else lora.rank * weight
    config = LoraConfig(r=lora.rank, lora_alpha=alpha, target_modules=list(lora.targets))
    inject_adapter_in_model(config, unet, low_cpu_mem_usage=weight is not None)
    del unet.peft_config  # merged layers would leave it behind


def _fingerprint(model: SVFR) -> str:
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        if name.startswith(WHOLE):
            digest.update(name.encode())
            digest.update(parameter.detach().to("cpu", torch.bfloat16).contiguous().view(torch.int16).numpy().tobytes())
    return digest.hexdigest()
