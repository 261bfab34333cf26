"""Frames per second and peak memory of each metric, at two lengths of video.

Each metric gets a made video in chunks, in a process of its own. Networks that aren't there are taken with random
weights of the same architecture where that is possible, which takes the same time and memory; the table says so.

Exit code 1: the peak memory of a metric grows with the video's length.

    python scripts/bench.py eval --networks DIR
    python scripts/bench.py eval --size 128 --metrics psnr,ssim,ids
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from svfr import __version__
from svfr.data.alignment import FFHQ_TEMPLATE
from svfr.metrics import METRICS, Chunk, build_metrics
from svfr.metrics.base import Metric
from svfr.metrics.lpips import LPIPS, LPIPSAlex
from svfr.models.devices import resolve_device

from .common import MIB, describe_machine, in_new_process, peak_rss
from .infer import parse_lengths

NOISE = 12  # levels, of the made restored frames
# Growth of the peak from the shorter to the longer video that counts as none: allocators don't give all back.
GROWTH = 32 * MIB


@dataclass(frozen=True)
class Setup:
    """What all measurements of a table have in common."""

    networks: Path | None
    size: int
    """Side of the frames [px]."""
    chunk_size: int
    """Frames that a metric is given at once."""
    device: str
    num_threads: int
    """Of PyTorch on the CPU."""


@dataclass(frozen=True)
class Measured:
    """What one metric took for one video."""

    metric: str
    num_frames: int
    seconds: float
    peak_rss: int
    """Peak resident memory of the process [bytes]."""
    peak_device: int
    """Peak memory of the accelerator [bytes]; 0 on the CPU."""
    random_weights: bool
    missing: str | None
    """Why it was not computed; None if it was."""

    @property
    def peak(self) -> int:
        """Peak memory of where the networks are [bytes]."""
        return self.peak_device or self.peak_rss


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `bench.py eval`."""
    add = parser.add_argument
    add("--frames", default="32,128", help="lengths of the made videos (default: %(default)s)")
    add("--metrics", default=",".join(METRICS), help="default: all, %(default)s")
    add("--size", type=int, default=512, help="side of the frames [px] (default: %(default)s)")
    add("--chunk-size", type=int, default=8, help="frames that a metric is given at once (default: %(default)s)")
    add("--networks", type=Path, help="folder of networks")
    add("--device", default="auto", help="default: %(default)s")
    add("--threads", type=int, default=1, help="of PyTorch on the CPU (default: %(default)s, steady on a shared one)")
    add("--output", type=Path, help="file for all figures (JSON)")


def run(options: argparse.Namespace) -> int:
    """Measure and print; returns the exit code."""
    lengths = parse_lengths(options.frames)
    names = [name.strip() for name in options.metrics.split(",")]
    unknown = [name for name in names if name not in METRICS]
    if unknown:
        raise ValueError(f"--metrics: unknown metric '{unknown[0]}': choose from {', '.join(METRICS)}")
    if min(options.size, options.chunk_size, options.threads) < 1:
        raise ValueError("--size, --chunk-size and --threads have to be at least 1")
    device = resolve_device(options.device)
    setup = Setup(options.networks, options.size, options.chunk_size, str(device), options.threads)
    machine = describe_machine(device)
    print(
        f"frames of {setup.size} px in chunks of {setup.chunk_size}\n{machine['device']}; {machine['cpu']}, "
        f"{machine['cores']} cores, {setup.num_threads} threads used; torch {machine['torch']}\n\n"
        f"{'metric':12} {'frames/s':>9}" + "".join(f" {f'MiB, {n} frames':>17}" for n in lengths)
    )
    rows = []
    for name in names:
        row = [in_new_process(measure, setup, name, num_frames) for num_frames in lengths]
        rows.append(row)
        if row[0].missing:
            print(f"{name:12} not computed: {row[0].missing}", flush=True)
            continue
        speed = row[-1].num_frames / row[-1].seconds
        peaks = "".join(f" {one.peak / MIB:17.0f}" for one in row)
        print(f"{name:12} {speed:9.2f}{peaks}{'  random weights' if row[0].random_weights else ''}", flush=True)
    if options.output:
        results = {
            "svfr": __version__,
            "machine": machine,
            "setup": {**asdict(setup), "networks": setup.networks and str(setup.networks)},
            "metrics": [asdict(one) for row in rows for one in row],
        }
        options.output.write_text(json.dumps(results, indent=2) + "\n")
    grown = [row for row in rows if row[-1].peak - row[0].peak > GROWTH]
    for row in grown:
        print(
            f"bench.py: {row[0].metric}: its peak memory grows with the video, from {row[0].peak / MIB:.0f} to "
            f"{row[-1].peak / MIB:.0f} MiB",
            file=sys.stderr,
        )
    return 1 if grown else 0


def measure(setup: Setup, name: str, num_frames: int) -> Measured:
    """Run one metric over a made video; the frames are made as they are needed, and their making isn't timed."""
    torch.set_num_threads(setup.num_threads)
    built = build_metrics([name], setup.networks, setup.device, download=False)
    missing, random_weights = built.missing.get(name), False
    if missing and name in RANDOM:
        built_one: Metric = RANDOM[name](setup.device)
        missing, random_weights = None, True
    elif missing:
        return Measured(name, num_frames, 0.0, 0, 0, False, missing)
    else:
        built_one = (built.video or built.sets)[0]
    memory = torch.get_device_module(torch.device(setup.device))
    on_accelerator = torch.device(setup.device).type != "cpu"
    _feed(built_one, setup, min(num_frames, 2 * setup.chunk_size))  # warms up
    if on_accelerator:
        memory.reset_peak_memory_stats()
    seconds = _feed(built_one, setup, num_frames)
    peak_device = memory.max_memory_allocated() if on_accelerator else 0
    return Measured(name, num_frames, seconds, peak_rss(), peak_device, random_weights, missing)


def _feed(metric: Metric, setup: Setup, num_frames: int) -> float:
    """Seconds that a metric takes for a video."""
    points = torch.from_numpy(FFHQ_TEMPLATE * setup.size / 512)
    generator = torch.Generator().manual_seed(0)
    picture = torch.nn.functional.interpolate(
        torch.rand((1, 3, 16, 32), generator=generator) * 200 + 28, size=(setup.size, 2 * setup.size), mode="bicubic"
    )[0]
    seconds = 0.0
    metric.reset()
    for at in range(0, num_frames, setup.chunk_size):
        shifts = range(at, min(at + setup.chunk_size, num_frames))
        truth = torch.stack([picture.roll(shift, dims=2)[:, :, : setup.size] for shift in shifts])
        restored = (truth + NOISE * torch.randn(truth.shape, generator=generator)).clamp(0, 255)
        mask = torch.zeros((len(truth), setup.size, setup.size), dtype=torch.bool)
        mask[:, setup.size // 4 : setup.size // 2, setup.size // 3 :] = True
        chunk = Chunk(restored.byte(), truth.byte(), mask, points.expand(len(truth), 5, 2))
        start = time.perf_counter()
        metric.update(chunk)
        seconds += time.perf_counter() - start
    return seconds


def _random_lpips(metric: type[LPIPS], device: str) -> LPIPS:
    import torchvision

    with torch.device("meta"):
        features = getattr(torchvision.models, metric.network)(weights=None).features
    features.to_empty(device="cpu").apply(lambda m: m.reset_parameters() if hasattr(m, "reset_parameters") else None)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{metric.network}.pth"
        torch.save({f"features.{name}": value for name, value in features.state_dict().items()}, file)
        return metric(file, device)


RANDOM: dict[str, Callable[[str], Metric]] = {
    "lpips": lambda device: _random_lpips(LPIPS, device),
    "lpips_alex": lambda device: _random_lpips(LPIPSAlex, device),
}
"""Metrics whose networks can be made with random weights."""
