"""Measure training: the data path, a step, and the memory that SVD-XT's size needs, counted.

data    samples per second of one loader worker (one thread), of rendered clips and, with --manifest, of prepared
        videos, and the share of each stage; frames per second of the renderer alone (to read a rendered clip is
        also to render its reference, more frames or a photo).
step    seconds and peak memory of an optimizer step with and without gradient checkpointing, model FLOPs, and how
        much of the GPU's published peak they come to.
memory  parameters, gradients, optimizer, moving average and activations at 512 px and 16 frames per setting, counted
        on tensors without data: no GPU is needed.

The defaults take some minutes on two CPU cores. The figures at the real size, on a GPU, come from
    python scripts/bench.py train --sections step --weights svd-xt
"""

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from svfr import __version__
from svfr.data.degradations import PRESETS
from svfr.models.components import ModelSettings, load_folder
from svfr.models.devices import resolve_device
from svfr.models.sources import find_model
from svfr.training.settings import TrainConfig

from .common import MIB, describe_machine, in_new_process
from .svd_xt import SVD_XT
from .train_measure import (
    DATA_STAGES,
    STEP_STAGES,
    DataPath,
    Setup,
    Step,
    measure_data,
    measure_rendering,
    measure_step,
)
from .train_memory import Counted, Row, count, rows

SECTIONS = ("data", "step", "memory")
GIB = 2**30
# Dense bf16 TFLOP/s as NVIDIA's data sheets publish them; the longer name first.
PUBLISHED_TFLOPS = {"H100 PCIe": 756.0, "H100": 989.0, "H200": 989.0, "A100": 312.0}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `bench.py train`."""
    add = parser.add_argument
    add("--sections", default=",".join(SECTIONS), help="which tables (default: %(default)s)")
    add("--weights", default="demo", help=f"demo, a folder, or {SVD_XT}: its size with random weights")
    add("--size", type=int, help="side of the frames [px] (default: the weights' own)")
    add("--frames", type=int, help="frames of a clip (default: the weights' own)")
    add(
        "--views",
        type=int,
        default=TrainConfig().data.num_views,
        help="degraded views of a clip (default: %(default)s)",
    )
    add("--preset", default="svfr", choices=tuple(PRESETS), help="degradations (default: %(default)s)")
    add("--manifest", type=Path, help="prepared videos, to measure the data path with")
    add("--samples", type=int, default=16, help="of the data path (default: %(default)s)")
    add("--batch-size", type=int, default=1, help="clips of a step (default: %(default)s)")
    add("--steps", type=int, default=3, help="after one that warms up (default: %(default)s)")
    add("--precision", choices=("fp32", "bf16", "fp16"), help="default: bf16 on a GPU, fp32 on the CPU")
    add("--peak-tflops", type=float, help="of the device [TFLOP/s] (default: published, of GPUs that are known)")
    add("--device", default="auto", help="default: %(default)s")
    add("--threads", type=int, default=1, help="of PyTorch on the CPU (default: %(default)s, steady on a shared one)")
    add("--output", type=Path, help="file for all figures (JSON)")


def run(options: argparse.Namespace) -> int:
    """Measure and print; returns the exit code."""
    started = time.perf_counter()
    sections = options.sections.split(",")
    if unknown := set(sections) - set(SECTIONS):
        raise ValueError(f"--sections {sorted(unknown)[0]}: choose from {', '.join(SECTIONS)}")
    for name in ("samples", "steps", "threads", "batch_size", "views"):
        if getattr(options, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} has to be at least 1")
    device = resolve_device(options.device)
    machine = describe_machine(device)
    print(f"{machine['device']}; {machine['cpu']}, {machine['cores']} cores; torch {machine['torch']}")
    results: dict[str, Any] = {"svfr": __version__, "machine": machine}
    if {"data", "step"} & set(sections):
        setup = make_setup(options, device)
        results["setup"] = asdict(setup) | {"manifest": options.manifest and str(options.manifest)}
        if "data" in sections:
            results["data"] = bench_data(setup, options.samples)
            results["rendering"] = bench_rendering(setup, options.samples)
        if "step" in sections:
            peak_tflops = options.peak_tflops or published_tflops(machine["device"])
            results["step"] = bench_step(setup, options.steps, peak_tflops)
    if "memory" in sections:
        results["memory"] = bench_memory()
    print(f"\n{time.perf_counter() - started:.0f} s in all")
    if options.output:
        options.output.write_text(json.dumps(results, indent=2) + "\n")
    return 0


def make_setup(options: argparse.Namespace, device: torch.device) -> Setup:
    """The options, with the weights' own size and clip length where none is given."""
    settings = (
        ModelSettings() if options.weights == SVD_XT else load_folder(find_model(options.weights), seed=0).settings
    )
    return Setup(
        weights=options.weights,
        size=options.size or settings.size,
        num_frames=options.frames or settings.clip_length,
        num_views=options.views,
        preset=options.preset,
        manifest=options.manifest,
        batch_size=options.batch_size,
        precision=options.precision or ("fp32" if device.type == "cpu" else "bf16"),
        device=str(device),
        num_threads=options.threads,
    )


def published_tflops(device_name: str) -> float | None:
    """Dense bf16 peak of a GPU [TFLOP/s], if it is a known one."""
    return next((peak for name, peak in PUBLISHED_TFLOPS.items() if all(w in device_name for w in name.split())), None)


def bench_data(setup: Setup, num_samples: int) -> list[dict[str, Any]]:
    """Measure and print the data path."""
    print(
        f"\ndata: {setup.size} px, {setup.num_frames} frames, {setup.num_views} views, preset {setup.preset}; "
        f"{num_samples} samples, one worker, one thread\n"
        f"{'samples/s':>9} {'frames/s':>9} " + " ".join(f"{stage:>10}" for stage in DATA_STAGES) + "  source"
    )
    results = []
    for rendered in (True, False) if setup.manifest else (True,):
        result = in_new_process(measure_data, setup, rendered, num_samples)
        print_data(result, setup.num_frames)
        results.append(asdict(result))
    return results


def bench_rendering(setup: Setup, num_clips: int) -> dict[str, float]:
    """Measure and print the renderer alone."""
    rate = in_new_process(measure_rendering, setup, num_clips)
    print(
        f"renderer alone: {rate:.1f} frames/s, {num_clips} clips of {setup.num_frames} frames at {setup.size} px",
        flush=True,
    )
    return {"frames_per_second": rate}


def print_data(result: DataPath, num_frames: int) -> None:
    """A row of the table."""
    rate = result.num_samples / result.total_seconds
    shares = " ".join(f"{result.seconds[stage] / result.total_seconds:10.1%}" for stage in DATA_STAGES)
    print(f"{rate:9.2f} {rate * num_frames:9.1f} {shares}  {result.source}", flush=True)


def bench_step(setup: Setup, num_steps: int, peak_tflops: float | None) -> dict[str, Any]:
    """Measure and print a step with and without gradient checkpointing."""
    if setup.weights == SVD_XT and setup.device == "cpu":
        print(f"{SVD_XT} on a CPU takes many minutes and over 30 GiB of memory for a step", file=sys.stderr)
    place = "process" if setup.device == "cpu" else "device"
    peak = f"{peak_tflops:g} TFLOP/s" if peak_tflops else "unknown (--peak-tflops)"
    print(
        f"\nstep: {setup.weights}, {setup.size} px, {setup.num_frames} frames, {setup.num_views} views, "
        f"{setup.batch_size} clips, {setup.precision}; {setup.num_threads} threads; peak of the device: {peak}\n"
        f"{'checkpointing':>13} {'s/step':>8} "
        + " ".join(f"{stage:>9}" for stage in STEP_STAGES)
        + f" {f'{place} MiB (before)':>21} {'model TFLOPs':>12} {'TFLOP/s':>8} {'utilization':>11}"
    )
    results = []
    for checkpointing in (False, True):
        try:
            step = in_new_process(measure_step, setup, checkpointing, num_steps)
        except torch.OutOfMemoryError:
            print(f"{'yes' if checkpointing else 'no':>13} out of memory", flush=True)
            continue
        print_step(step, peak_tflops)
        results.append(asdict(step))
    return {"peak_tflops": peak_tflops, "rows": results}


def print_step(step: Step, peak_tflops: float | None) -> None:
    """A row of the table."""
    shares = " ".join(f"{step.seconds[stage] / step.total_seconds:9.0%}" for stage in STEP_STAGES)
    rate = step.flops / step.total_seconds / 1e12
    print(
        f"{'yes' if step.checkpointing else 'no':>13} {step.total_seconds:8.3f} {shares} "
        f"{f'{step.peak / MIB:.0f} ({step.loaded / MIB:.0f})':>21} {step.flops / 1e12:12.3f} {rate:8.2f} "
        f"{f'{rate / peak_tflops:.1%}' if peak_tflops else '-':>11}",
        flush=True,
    )


def bench_memory() -> dict[str, Any]:
    """Count and print the memory of SVD-XT's size at the default settings of training."""
    data = TrainConfig().data
    counted = in_new_process(count, data.size, data.num_frames, data.num_views)
    table = list(rows(counted))
    print_memory(counted, table)
    return asdict(counted) | {"rows": [asdict(row) | {"total": row.total} for row in table]}


def print_memory(counted: Counted, table: list[Row]) -> None:
    """The table, and how it was counted."""
    print(
        f"\nmemory per process [GiB], COUNTED, NOT MEASURED: {SVD_XT}, {counted.size} px, {counted.num_frames} frames, "
        f"{counted.num_views} views, 1 clip\n"
        f"{counted.trained / 1e6:.0f} M trained parameters, {counted.frozen / 1e6:.0f} M frozen; model TFLOPs "
        f"per step: {counted.flops / 1e12:.1f}, and {counted.frozen_flops / 1e12:.1f} of the frozen networks\n"
        f"{'checkpointing':>13} {'precision':>9} {'processes':>9} {'parameters':>10} {'gradients':>9} {'AdamW':>6} "
        f"{'EMA':>6} {'frozen':>6} {'activations':>11} {'total':>6}"
    )
    for row in table:
        print(
            f"{'yes' if row.checkpointing else 'no':>13} {row.precision:>9} {row.num_processes:>9} "
            f"{row.parameters / GIB:10.1f} {row.gradients / GIB:9.1f} {row.optimizer / GIB:6.1f} "
            f"{row.average / GIB:6.1f} {row.frozen / GIB:6.1f} {row.working / GIB:11.1f} {row.total / GIB:6.1f}"
        )
    print(
        "1 process: also each process of DDP. 2, 8: FSDP splits parameters, gradients, AdamW's moments and the moving\n"
        "average (EMA), all float32, and nothing else; the weights of the block at work, gathered, come on top.\n"
        "activations: the peak of forward and backward pass; where it is more, what AdamW allocates for a moment.\n"
        "Attention is fused (flash), as on GPUs: no matrix of positions by positions. The allocator's own losses and\n"
        "the CUDA context (1 to 2 GiB) come on top."
    )
