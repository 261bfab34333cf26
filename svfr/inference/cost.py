"""What a restoration took: passes through the UNet, and memory."""

import platform
import re
import resource
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn


class Cost:
    """Measures during a `with` block.

    Attributes:
        unet_frames: frames of all passes through the UNet; each step counts, and each guidance branch.
        peak_memory, memory: see `peak_memory`; of the block alone on accelerators and on Linux.
    """

    def __init__(self, unet: nn.Module, device: torch.device) -> None:
        self._unet, self._device = unet, device
        self.unet_frames = self.peak_memory = 0
        self.memory = ""

    def __enter__(self) -> "Cost":
        self._hook = self._unet.register_forward_pre_hook(self._count, with_kwargs=True)
        if reset := getattr(torch.get_device_module(self._device), "reset_peak_memory_stats", None):
            reset(self._device)
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak is what there is now
        return self

    def __exit__(self, *error: object) -> None:
        self._hook.remove()
        self.peak_memory, self.memory = peak_memory(self._device)

    def _count(self, unet: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        batch, frames = (arguments[0] if arguments else named["sample"]).shape[:2]
        self.unet_frames += batch * frames


def peak_memory(device: torch.device) -> tuple[int, str]:
    """Peak memory of this process [bytes], and its kind: "allocated", what the accelerator gave to tensors, or
    "resident", all that the process had, where tensors lie on the CPU."""
    if measure := getattr(torch.get_device_module(device), "max_memory_allocated", None):
        return measure(device), "allocated"
    if sys.platform == "linux":  # where `ru_maxrss` begins with what the parent process had
        return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) << 10, "resident"
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, "resident"


def device_name(device: torch.device) -> str:
    """The accelerator's name, or the processor's."""
    if name := getattr(torch.get_device_module(device), "get_device_name", None):
        return name(device)
    info = Path("/proc/cpuinfo").read_text() if sys.platform == "linux" else ""
    return [*re.findall(r"model name\s*: (.*)", info), platform.machine()][0]
