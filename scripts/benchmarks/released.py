"""Load files of the released model's size with `SVFRPipeline.from_released`, and restore a made clip with them.

Writes random weights of SVD-XT's and ArcFace's size (7 GB in float32) into a temporary folder, in the layout of the
released files. The first clip has one branch, the second one a reference and two. Prints seconds and peak memory.
The defaults take minutes on a CPU, and 9 GB of memory.

    python scripts/bench.py released
"""

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from svfr.inference.pipeline import SVFRPipeline
from svfr.models.devices import resolve_device, resolve_dtype
from svfr.models.sources import find_released

from .common import MIB, describe_machine, in_new_process, peak_rss
from .infer_measure import draw_frames
from .svd_xt import random_svd_xt, write_released

CLIP_LENGTH, OVERLAP = 3, 1


@dataclass(frozen=True)
class Measured:
    """What one process needed to load and to restore."""

    load_seconds: float
    restore_seconds: float
    loaded_rss: int
    """Peak resident memory when the networks were loaded [bytes]."""
    peak_rss: int
    """Peak resident memory in the end [bytes]."""
    shape: tuple[int, ...]
    """Of the restored frames."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `bench.py released`."""
    add = parser.add_argument
    add("--size", type=int, default=256, help="side of the square that is restored [px] (default: %(default)s)")
    add("--frames", type=int, default=5, help="length of the made clip (default: %(default)s)")
    add("--steps", type=int, default=2, help="denoising steps (default: %(default)s)")
    add("--device", default="auto", help="default: %(default)s")
    add("--threads", type=int, default=1, help="of PyTorch on the CPU (default: %(default)s, steady on a shared one)")
    add("--folder", type=Path, help="where the files are written for a while (default: the system's temporary folder)")


def run(options: argparse.Namespace) -> int:
    """Measure and print; returns the exit code."""
    if min(options.frames, options.steps, options.threads) < 1:
        raise ValueError("--frames, --steps and --threads have to be at least 1")
    device = resolve_device(options.device)
    machine = describe_machine(device)
    print(f"{machine['device']}; {machine['cpu']}, {machine['cores']} cores, {options.threads} threads used")
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        in_new_process(write_random, folder)
        written = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        print(f"{'files':>22} {written / MIB:9.0f} MiB", flush=True)
        measured = in_new_process(
            load_and_restore, folder, str(device), options.frames, options.size, options.steps, options.threads
        )
    print(
        f"{'loaded in':>22} {measured.load_seconds:9.1f} s, peak {measured.loaded_rss / MIB:.0f} MiB\n"
        f"{'restored in':>22} {measured.restore_seconds:9.1f} s, peak {measured.peak_rss / MIB:.0f} MiB: "
        f"{options.frames} frames of {options.size} px, clips of {CLIP_LENGTH}, {options.steps} steps"
    )
    expected = (options.frames, options.size, options.size, 3)
    if measured.shape != expected:
        print(f"the result is {measured.shape}, it has to be {expected}")
        return 1
    return 0


def write_random(folder: Path) -> None:
    """Write the released model's files with random weights."""
    torch.manual_seed(0)
    write_released(folder, random_svd_xt(torch.device("cpu"), torch.float32))


def load_and_restore(
    folder: Path, device: str, num_frames: int, size: int, num_steps: int, num_threads: int
) -> Measured:
    """Restore a made clip with the released files of a folder."""
    torch.set_num_threads(num_threads)
    files = find_released(folder)
    assert files is not None
    started = time.perf_counter()
    where = resolve_device(device)
    pipe = SVFRPipeline.from_released(*files, device=where, dtype=resolve_dtype("auto", where))
    loaded = time.perf_counter()
    loaded_rss = peak_rss()
    frames = np.stack(list(draw_frames(num_frames, size)))
    restored = pipe(frames, size=size, num_inference_steps=num_steps, clip_length=CLIP_LENGTH, overlap=OVERLAP)
    return Measured(
        load_seconds=loaded - started,
        restore_seconds=time.perf_counter() - loaded,
        loaded_rss=loaded_rss,
        peak_rss=peak_rss(),
        shape=tuple(restored.shape),
    )
