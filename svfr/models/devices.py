"""Devices and precisions by name, and what fits into a device's memory."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from svfr.networks import first_line

PLANNED_FRAME = 512  # [px] side of the frames that plans count


@dataclass(frozen=True, order=True)
class MemoryPlan:
    """What SVD's networks may take; lengths are of frames of 512 x 512, and shorter as frames are larger.

    Measured in bfloat16 (`scripts/bench.py infer --memory 8,12,16,24`): weights take 3.1 GiB, each frame that the VAE
    decodes 0.5 GiB (in float16 twice that: its VAE stays in float32), a clip of 16 frames in the UNet 1.1 GiB, with
    both guidance branches at once 2.2. A plan leaves a tenth of the memory to others, and 1 GiB to the libraries.
    """

    decode_chunk_size: int  # frames that the VAE decodes together: its norms are global, so it is cut in time alone
    clip_length: int  # frames that are denoised together
    batch_guidance: bool  # whether both guidance branches run at once
    offload: bool  # whether the networks wait on the CPU for their turn

    def fit(self, size: int) -> tuple[int, int]:
        """The lengths of a chunk and of a clip for frames with this side [px], at least 1 and 2."""
        share = (PLANNED_FRAME / size) ** 2
        return max(1, int(self.decode_chunk_size * share)), max(2, int(self.clip_length * share))


MEMORY_PLANS = {  # by the memory [GiB] of the device
    24: MemoryPlan(16, 120, batch_guidance=True, offload=False),
    16: MemoryPlan(8, 72, batch_guidance=True, offload=False),
    12: MemoryPlan(6, 48, batch_guidance=True, offload=False),
    8: MemoryPlan(4, 40, batch_guidance=False, offload=True),
}
USABLE = 0.9  # of a device's memory


def choose_plan(free: float, size: int) -> int:
    """The number of the largest memory plan that fits into what is free [bytes]; frames below 512 px take less."""
    fitting = (gib for gib in MEMORY_PLANS if free >= USABLE * gib * 2**30 * min(1.0, (size / PLANNED_FRAME) ** 2))
    return next(fitting, min(MEMORY_PLANS))


def free_memory(networks: Iterable[nn.Module], device: torch.device) -> float:
    """Memory of a device that is free or that these networks have already [bytes]; endless where nothing says it."""
    taken = sum(p.nbytes for network in networks for p in network.parameters() if p.device.type == device.type)
    module = torch.get_device_module(device)
    if measure := getattr(module, "mem_get_info", None):
        return measure(device)[0] + taken
    if limit := getattr(module, "recommended_max_memory", None):  # MPS
        return limit() - module.driver_allocated_memory() + taken
    known = Path("/proc/meminfo")  # Linux
    return 1024 * int(known.read_text().split("MemAvailable:")[1].split()[0]) + taken if known.exists() else math.inf


def wait_on_cpu(modules: Sequence[nn.Module], device: torch.device) -> None:
    """Let modules wait on the CPU, in place; one that is called comes to its `run_device`, and the others leave it."""

    def take_turn(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        if next(module.parameters()).device.type != device.type:
            for other in modules:
                nn.Module.to(other, "cpu")
            nn.Module.to(module, device)

    for module in modules:
        nn.Module.to(module, "cpu")
        object.__setattr__(module, "run_device", device)
        module.register_forward_pre_hook(take_turn)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: an accelerator's, NumPy's, or PyTorch's on the CPU, which has no type for it."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator" in str(error)


def check_compiler(device: torch.device) -> None:
    """Compile something small; a ValueError where PyTorch cannot do that for this device here."""
    try:
        torch.compile(torch.sin)(torch.ones(2, device=device))
    except Exception as error:  # each backend raises its own
        raise ValueError(f"compile=true: PyTorch cannot compile here ({first_line(error)})") from error


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """A torch device, "auto": the accelerator if there is one, else the CPU; a ValueError where there is none such."""
    if device != "auto":
        try:
            return torch.empty(0, device=device).device
        except (RuntimeError, AssertionError) as error:
            raise ValueError(f"device '{device}' cannot be used here ({first_line(error)})") from error
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return accelerator or torch.device("cpu")


def resolve_dtype(dtype: str | torch.dtype, device: torch.device) -> torch.dtype:
    """A torch dtype by name, or a ValueError; "auto" is bfloat16 on an accelerator (MPS: float16), else float32."""
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype == "auto":
        return {"cpu": torch.float32, "mps": torch.float16}.get(device.type, torch.bfloat16)
    named = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype not in named:
        raise ValueError(f"dtype '{dtype}': choose from auto, {', '.join(named)}")
    return named[dtype]
