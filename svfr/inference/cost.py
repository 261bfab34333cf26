"""What a restoration takes: time, passes through the UNet, and memory; and a bar of how much of it is done."""

import platform
import re
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from svfr.inference.chain import Chain
from svfr.inference.reference import ReferenceFinder
from svfr.inference.settings import Sampling
from svfr.models.components import Components
from svfr.tasks import task_prompt


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


def filling(bar: tqdm, then: Callable[[float, str], object] | None = None) -> Callable[..., None]:
    """A function of (work, stage) that moves a bar by fractions of its unit, once for each stage, and calls `then`."""
    title, now, done = getattr(bar, "desc", "").removesuffix(": "), "", 0.0  # a disabled bar has no `desc`

    def advance(work: float, stage: str = "") -> None:
        nonlocal now, done
        if stage != now and not bar.disable:
            now, done = stage, 0.0
            bar.reset(bar.total)
            bar.set_description(f"{title} {stage}".strip())
        done += work
        bar.update(min(round(done), bar.total or round(done)) - bar.n)
        if then is not None:
            then(work, stage)

    return advance


def clip_seconds(components: Components, sampling: Sampling, tasks: tuple[str, ...]) -> float:
    """How long a clip takes here [s], measured with one and two steps of a gray clip; `sampling` is resolved."""
    length, size, steps = sampling.clip_length, sampling.size, sampling.num_inference_steps
    assert length and size  # resolved
    num_steps = steps if isinstance(steps, int) else sum(steps)
    gray = np.full((size, size, 3), 128, dtype=np.uint8)
    reference = ReferenceFinder(components, None).from_aligned(gray)
    lq, gamma = torch.zeros(length, 3, size, size), task_prompt(tasks).to(components.device)
    seconds = []
    for count in (1, 1, min(num_steps, 2)):  # the first warms up
        few = replace(sampling, strategy="chained", num_inference_steps=count)
        started = time.perf_counter()
        Chain(components, few, gamma, reference=reference)(lq).cpu()
        seconds.append(time.perf_counter() - started)
    return seconds[1] + (num_steps - 1) * max(0.0, seconds[2] - seconds[1])
