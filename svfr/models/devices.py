"""Devices and precisions by name."""

import torch


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """A torch device; "auto" is the accelerator if there is one, else the CPU.

    Raises:
        ValueError: no such device here.
    """
    if device != "auto":
        try:
            return torch.empty(0, device=device).device
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"device '{device}' cannot be used here ({reason})") from error
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return accelerator or torch.device("cpu")


def resolve_dtype(dtype: str | torch.dtype, device: torch.device) -> torch.dtype:
    """A torch dtype by name; "auto" is bfloat16 on an accelerator, float32 on the CPU.

    Raises:
        ValueError: another name.
    """
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    named = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype not in named:
        raise ValueError(f"dtype '{dtype}': choose from auto, {', '.join(named)}")
    return named[dtype]
