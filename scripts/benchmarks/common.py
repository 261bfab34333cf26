"""What all benchmarks use: facts of the machine, a process of its own, peak memory."""

import multiprocessing
import os
import platform
import resource
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import torch

MIB = 2**20

P = ParamSpec("P")
T = TypeVar("T")


def in_new_process(function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """Call a function in a process of its own, so that its memory is its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments, **named).result()


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Facts of this machine."""
    cpu_info = Path("/proc/cpuinfo")
    lines = cpu_info.read_text().splitlines() if cpu_info.exists() else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "device": "cpu" if device.type == "cpu" else torch.get_device_module(device).get_device_name(device),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
    }


def peak_rss() -> int:
    """Peak resident memory of this process [bytes].

    On Linux from /proc: `ru_maxrss` starts at what the parent process had when it started this one.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
