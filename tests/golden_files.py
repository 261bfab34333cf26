"""Vectors computed by the released inference code, and the formula that its random weights follow.

`tests/golden/README.md` says what each tensor is.
"""

import json
import zlib
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from diffusers import AutoencoderKLTemporalDecoder, UNetSpatioTemporalConditionModel
from torch import Tensor, nn

GOLDEN = Path(__file__).with_name("golden")
Part = TypeVar("Part", bound=nn.Module)
SALT = {"unet": 1, "vae": 2, "id_projector": 3, "arcface": 4}


def load(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / name) as file:
        return dict(file)


def settings() -> dict[str, Any]:
    return json.loads((GOLDEN / "settings.json").read_text())


def windows() -> list[dict[str, Any]]:
    """The windows of several lengths."""
    return json.loads((GOLDEN / "windows.json").read_text())


def checksums() -> dict[str, Any]:
    return json.loads((GOLDEN / "weights_checksums.json").read_text())


def rng(seed: int, *shape: int) -> Tensor:
    return torch.from_numpy(np.random.RandomState(seed).standard_normal(shape).astype(np.float32))


def fill(module: Part, salt: int, round_to_half: bool) -> Part:
    """Fill a module with the weights of the golden README's table."""
    state = module.state_dict()
    for name, tensor in state.items():
        if name.endswith("num_batches_tracked"):
            continue
        shape = tuple(tensor.shape)
        seed = (zlib.crc32(name.encode()) + salt) % 2**32
        u = np.random.RandomState(seed).random_sample(shape) * 2 - 1
        if len(shape) >= 2:
            value = u * np.sqrt(3 / np.prod(shape[1:])) * 0.7
        elif name.endswith("running_var"):
            value = 1 + 0.2 * u
        elif name.endswith("running_mean"):
            value = 0.1 * u
        elif name.endswith("mix_factor"):
            value = 0.8 * u
        elif name.endswith("prelu.weight"):
            value = 0.25 + 0.1 * u
        elif name.endswith(".weight"):
            value = 1 + 0.1 * u
        else:
            value = 0.1 * u
        filled = torch.from_numpy(np.asarray(value, dtype=np.float32))
        state[name] = filled.half().float() if round_to_half else filled
    module.load_state_dict(state, assign=True)
    return module.eval()


def tiny_unet() -> UNetSpatioTemporalConditionModel:
    return fill(UNetSpatioTemporalConditionModel(**settings()["unet"]), SALT["unet"], round_to_half=True)


def tiny_vae() -> AutoencoderKLTemporalDecoder:
    return fill(AutoencoderKLTemporalDecoder(**settings()["vae"]), SALT["vae"], round_to_half=True)
