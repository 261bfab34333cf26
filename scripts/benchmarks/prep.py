"""Throughput of each step of data preparation, and from it what a million clips take.

Prepares made clips of rendered heads, or those of a folder, in one process, and prints for each step clips per second
and core, milliseconds per frame and the share of the time. Time is that of the processor, so that other work on the
machine counts little. The table for a million clips is computed from these figures, for clips like the measured ones:
no input waits for another, so that cores divide the time; waiting for a disk or a network is not in it.

Networks are taken from --networks or $SVFR_NETWORKS; a step whose network is missing is left out and named.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import torch

from benchmarks.common import describe_machine

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # where the package data_prep lies

from data_prep.networks import detector, landmarker, recognizer, scorer
from data_prep.prepare import RUN
from data_prep.records import STEPS, read_step
from data_prep.settings import DataPrepConfig, SourceConfig, WriteConfig
from data_prep.workers import start_workers
from svfr.data.video import VideoInfo, VideoWriter
from svfr.networks import NetworkMissing
from svfr.synthetic import TEST_SEEDS, render_clip

MILLION = 1_000_000
CORES = (1, 64, 256, 1024)
PEOPLE = 4  # that are rendered; more clips are the same ones in another light
RENDERED = 128  # [px], enlarged to --size


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command line."""
    add = parser.add_argument
    add("--footage", type=Path, help="folder of videos (default: made ones)")
    add("--clips", type=int, default=12, help="made clips (default: %(default)s)")
    add("--frames", type=int, default=50, help="of a made clip (default: %(default)s)")
    add("--size", type=int, default=512, help="side of the made clips [px] (default: %(default)s)")
    add("--networks", help="folder of third-party networks (default: $SVFR_NETWORKS)")
    add("--output", type=Path, help="file for all figures (JSON)")


def run(options: argparse.Namespace) -> int:
    """Measure and print."""
    if min(options.clips, options.frames) < 1 or options.size < 64:
        raise ValueError("--clips and --frames have to be at least 1, --size at least 64")
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    machine = describe_machine(torch.device("cpu"))
    print(f"{machine['cpu']}, {machine['cores']} cores, load {os.getloadavg()[0]:.1f}; one process")
    with tempfile.TemporaryDirectory() as folder:
        footage = options.footage or make_footage(Path(folder) / "raw", options.clips, options.frames, options.size)
        settings = available(
            DataPrepConfig(
                source=SourceConfig(path=str(footage)),
                output=str(Path(folder) / "out"),
                networks=options.networks,
                processes=0,
                write=WriteConfig(size=512),
            )
        )
        steps = measure(settings)
        clips = read_step(Path(settings.output), "write")
    num_frames = sum(clip["clip"]["num_frames"] for clip in clips)
    print_steps(steps, len(clips), num_frames)
    print_million(steps, len(clips), num_frames)
    if options.output:
        facts = {"machine": machine, "clips": len(clips), "frames": num_frames, "seconds": steps}
        options.output.write_text(json.dumps(facts, indent=2) + "\n")
    return 0


def make_footage(folder: Path, count: int, num_frames: int, size: int) -> Path:
    """Clips of rendered heads."""
    folder.mkdir()
    people = [render_clip(TEST_SEEDS + person, num_frames, RENDERED).frames for person in range(min(PEOPLE, count))]
    rng = np.random.default_rng(0)
    for number in range(count):
        light = rng.uniform(0.8, 1.0, 3)
        path = folder / f"{number:04d}.mp4"
        facts = VideoInfo(path, size, size, Fraction(25), num_frames, 0.0, False, 0, "frames")
        with VideoWriter(path, source=facts) as writer:
            for index, frame in enumerate(people[number % len(people)]):
                image = cv2.resize((frame * light).astype(np.uint8), (size, size), interpolation=cv2.INTER_CUBIC)
                writer.write(image, index, 1 / facts.fps)
    return folder


def available(settings: DataPrepConfig) -> DataPrepConfig:
    """The settings without the networks that are missing."""
    detector(settings)  # without one there is nothing to measure
    for name, load in (("recognizer", recognizer), ("landmarks", landmarker), ("score", scorer)):
        try:
            load(settings)
        except (NetworkMissing, ValueError) as error:
            print(f"not measured: {name} ({error})", file=sys.stderr)
            setattr(settings, name, "none")
    return settings


def measure(settings: DataPrepConfig) -> dict[str, float]:
    """Processor seconds of each step, without a score that is left out."""
    seconds = {}
    for name in STEPS:
        started = time.process_time()
        RUN[name](settings, start_workers(settings))
        seconds[name] = time.process_time() - started
    left_out = {name for name in ("score", "landmarks") if getattr(settings, name) == "none"}
    return {name: value for name, value in seconds.items() if name not in left_out}


def print_steps(steps: dict[str, float], clips: int, num_frames: int) -> None:
    """Print the table of the steps."""
    total = sum(steps.values())
    print(
        f"\n{clips} clips, {num_frames} frames\n\n| step | clips/s per core | ms per frame | share |\n|---|---|---|---|"
    )
    for name, seconds in {**steps, "all": total}.items():
        print(f"| {name} | {clips / seconds:.2f} | {1000 * seconds / num_frames:.2f} | {seconds / total:.0%} |")


def print_million(steps: dict[str, float], clips: int, num_frames: int) -> None:
    """Print what a million clips like these take."""
    core_hours = sum(steps.values()) / clips * MILLION / 3600
    print(
        f"\nComputed, not measured: a million clips of {num_frames / clips:.0f} frames, {core_hours:.0f} core hours\n"
    )
    print("| cores | hours |\n|---|---|")
    for cores in CORES:
        print(f"| {cores} | {core_hours / cores:.1f} |")
