"""Compare the sampling strategies `chained` (overlap 1) and `released` at the same number of steps.

Prints seconds and peak memory per output frame, the shares of UNet, VAE and video I/O, the UNet's branch-frames
(counted, and by formula), and what keys and values that are projected once save. Restores made videos from
file to file, each in a process of its own, with guidance 2 and a reference of the model's own choice.

The defaults take some minutes on two CPU cores. The figures at the real size, on a GPU, come from
    python scripts/bench.py infer --weights svd-xt --size 512 --steps 30
"""

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from svfr import __version__
from svfr.inference.options import STRATEGIES
from svfr.models.devices import resolve_device, resolve_dtype

from .common import MIB, describe_machine, in_new_process
from .infer_measure import (
    GUIDANCE,
    STAGES,
    KeyValues,
    Run,
    Setup,
    chained_branch_frames,
    measure_key_values,
    measure_run,
    released_branch_frames,
    write_video,
)
from .svd_xt import SVD_XT

PAPER_CLIP_LENGTH, PAPER_OVERLAP, PAPER_STEPS = 16, 3, 30  # of the released code
PAPER_FRAMES = (16, 17, 31, 64, 100, 256, 1000, 10000)
LONGEST = 2000  # frames, of the search for the worst ratio
VIDEO_SCALE = 1.5  # side of the made videos in sides of the crop, so that frames are resized on the way in and out


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `bench.py infer`."""
    add = parser.add_argument
    add("--frames", default="16,64,256", help="lengths of the made videos (default: %(default)s)")
    add("--steps", type=int, default=4, help="denoising steps of every pass (default: %(default)s, for a CPU)")
    add("--weights", default="demo", help=f"demo, a folder, a Hub id, or {SVD_XT}: its size with random weights")
    add("--size", type=int, help="side of the square that is restored [px] (default: the weights' own)")
    add("--clip-length", type=int, help="frames that are denoised together (default: the weights' own)")
    add("--device", default="auto", help="default: %(default)s")
    add("--dtype", default="auto", choices=("auto", "float32", "bfloat16", "float16"), help="default: %(default)s")
    add("--threads", type=int, default=1, help="of PyTorch on the CPU (default: %(default)s, steady on a shared one)")
    add("--output", type=Path, help="file for all figures (JSON)")


def run(options: argparse.Namespace) -> int:
    """Measure and print; returns the exit code."""
    started = time.perf_counter()
    lengths = parse_lengths(options.frames)
    device = resolve_device(options.device)
    setup = Setup(
        weights=options.weights,
        size=options.size,
        clip_length=options.clip_length,
        num_steps=options.steps,
        device=str(device),
        dtype=str(resolve_dtype(options.dtype, device)).removeprefix("torch."),
        num_threads=options.threads,
    )
    if options.steps < 1 or options.threads < 1:
        raise ValueError("--steps and --threads have to be at least 1")
    if options.weights == SVD_XT and device.type == "cpu":
        print("svd-xt on a CPU takes minutes for each step and clip", file=sys.stderr)

    key_values = in_new_process(measure_key_values, setup)
    machine = describe_machine(device)
    print_heading(setup, key_values, machine)
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        for num_frames in lengths:
            video = Path(folder) / f"{num_frames}.mp4"
            write_video(video, num_frames, round(key_values.size * VIDEO_SCALE / 2) * 2)
            for strategy in STRATEGIES:
                runs.append(in_new_process(measure_run, setup, strategy, video, num_frames))
                print_run(runs[-1])
    print_comparison(runs, key_values)
    print_paper_size()
    print(f"\n{time.perf_counter() - started:.0f} s in all")

    if options.output:
        results = {
            "svfr": __version__,
            "machine": machine,
            "setup": {**asdict(setup), "size": key_values.size, "clip_length": key_values.clip_length},
            "key_values": {**asdict(key_values), "saving": key_values.saving},
            "runs": [asdict(run) for run in runs],
            "branch_frames_at_16": paper_size(),
        }
        options.output.write_text(json.dumps(results, indent=2) + "\n")
    wrong = [run for run in runs if run.branch_frames != run.formula]
    for run in wrong:
        print(
            f"bench.py: {run.strategy}, {run.num_frames} frames: counted {run.branch_frames} branch-frames, "
            f"the formula has {run.formula}",
            file=sys.stderr,
        )
    return 1 if wrong else 0


def parse_lengths(text: str) -> list[int]:
    """Numbers of frames from "16,64".

    Raises:
        ValueError: not positive numbers.
    """
    if not all(part.strip().isdecimal() and int(part) for part in text.split(",")):
        raise ValueError(f"--frames {text}: it has to be positive numbers with commas between them")
    return sorted({int(part) for part in text.split(",")})


def print_heading(setup: Setup, key_values: KeyValues, machine: dict[str, Any]) -> None:
    """What is measured, and the head of the table."""
    untrained = ", untrained" if key_values.untrained else ""
    print(
        f"{setup.weights}{untrained}: {key_values.size} px, clips of {key_values.clip_length}, {setup.num_steps} steps "
        f"in every pass, guidance {GUIDANCE:g}, {setup.dtype}\n"
        f"{machine['device']}; {machine['cpu']}, {machine['cores']} cores, {setup.num_threads} threads used; "
        f"torch {machine['torch']}\n\n"
        "branch-frames: frames through the UNet, counted / by formula; "
        "MiB: peak (when loaded)\n"
        f"{'frames':>6} {'strategy':9} {'s/frame':>8} {'UNet':>5} {'VAE':>5} {'I/O':>5} {'other':>5} "
        f"{'branch-frames':>15} {'process MiB':>13} {'device MiB':>15} {'MiB/frame':>9}"
    )


def print_run(run: Run) -> None:
    """A row of the table."""
    shares = " ".join(f"{run.seconds[stage] / run.total_seconds:5.0%}" for stage in STAGES)
    device = f"{run.peak_device / MIB:.0f} ({run.loaded_device / MIB:.0f})" if run.peak_device else "-"
    print(
        f"{run.num_frames:6} {run.strategy:9} {run.total_seconds / run.num_frames:8.3f} {shares} "
        f"{f'{run.branch_frames} / {run.formula}':>15} {f'{run.peak_rss / MIB:.0f} ({run.loaded_rss / MIB:.0f})':>13} "
        f"{device:>15} {run.peak / MIB / run.num_frames:9.1f}",
        flush=True,
    )


def print_comparison(runs: list[Run], key_values: KeyValues) -> None:
    """What `chained` saves, the memory of the longest video, and what the baseline is."""
    chained, released = ([run for run in runs if run.strategy == strategy] for strategy in STRATEGIES)
    print(
        "\nreleased / chained\n"
        f"{'frames':>6} {'branch-frames':>13} {'UNet s':>7} {'all s':>7} {'released code, all s':>21}"
    )
    for ours, theirs in zip(chained, released, strict=True):
        published = theirs.total_seconds + (key_values.saving - 1) * theirs.seconds["unet"]
        print(
            f"{ours.num_frames:6} {theirs.branch_frames / ours.branch_frames:12.2f}x "
            f"{theirs.seconds['unet'] / ours.seconds['unet']:6.2f}x {theirs.total_seconds / ours.total_seconds:6.2f}x "
            f"{published / ours.total_seconds:20.2f}x"
        )
    print(
        "The baseline `released` is this package's run of the released algorithm: its windows and branches, but with\n"
        "keys and values projected once, one branch at a time, and encoding and decoding in chunks. The last column\n"
        "estimates the released code: the same with its UNet passes, by the times below."
    )
    if len(chained) > 1:
        for short, long in (chained[-2:], released[-2:]):
            print(
                f"peak memory of {long.strategy}: {long.num_frames} frames take {long.peak / short.peak - 1:+.1%} "
                f"of what {short.num_frames} take"
            )
    print("\nUNet for one clip with stock cross-attention (keys and values in each pass) and with fixed ones")
    for name, seconds in key_values.seconds.items():
        print(f"{name:>22} {1000 * seconds:9.1f} ms")
    print(f"both branches, stock / fixed: {key_values.saving:.2f}x")


def paper_size() -> list[dict[str, float]]:
    """Branch-frames by the formulas at the released code's clip length and 30 steps, and the worst length."""
    rows = []
    for n in (*PAPER_FRAMES, *range(1, LONGEST + 1)):
        ours = chained_branch_frames(n, PAPER_CLIP_LENGTH, 1, PAPER_STEPS)
        theirs = released_branch_frames(n, PAPER_CLIP_LENGTH, PAPER_OVERLAP, PAPER_STEPS)
        rows.append({"frames": n, "chained": ours, "released": theirs, "ratio": theirs / ours})
    table, searched = rows[: len(PAPER_FRAMES)], rows[len(PAPER_FRAMES) :]
    return [*table, min(searched, key=lambda row: row["ratio"])]


def print_paper_size() -> None:
    """The formulas and their table."""
    print(
        f"\nBranch-frames by formula: n frames, clips of {PAPER_CLIP_LENGTH}, {PAPER_STEPS} steps in every pass\n"
        "chained   steps * (first + 2 * (rest + later * overlap)); first = min(n, clip), rest = n - first,\n"
        "          later = ceil(rest / (clip - overlap)), overlap = 1\n"
        "released  2 * clip * sum of ceil(m / stride) over the passes (m = first, n) and their steps;\n"
        "          stride = clip - 3 in the first 3 steps, then clip\n"
        f"{'frames':>6} {'chained':>9} {'released':>9} {'released / chained':>19}"
    )
    *table, worst = paper_size()
    for row in table:
        print(f"{row['frames']:6} {row['chained']:9} {row['released']:9} {row['ratio']:18.3f}x")
    print(
        f"worst of 1 to {LONGEST} frames: {worst['frames']} frames, {worst['ratio']:.3f}x: "
        f"chained spends {1 / worst['ratio'] - 1:+.1%}"
    )
