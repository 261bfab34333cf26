"""What a restoration takes: passes through the UNet, and memory."""

import platform
import re
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn


@contextmanager
def measuring_cost(unet: nn.Module, device: torch.device) -> Iterator[dict[str, Any]]:
    """Measure what a block takes.

    Yields:
        What at its end has `unet_frames` (frames of all passes through the UNet: each step counts, and each guidance
        branch), `peak_memory` and `memory` (see `peak_memory`; on accelerators and on Linux of the block alone) and
        `device`, its name.
    """
    cost = {"unet_frames": 0, "device": device_name(device)}

    def count(unet: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        batch, frames = (arguments[0] if arguments else named["sample"]).shape[:2]
        cost["unet_frames"] += batch * frames

    if reset := getattr(torch.get_device_module(device), "reset_peak_memory_stats", None):
        reset(device)
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak is what there is now
    with unet.register_forward_pre_hook(count, with_kwargs=True):
        yield cost
    cost["peak_memory"], cost["memory"] = peak_memory(device)


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
