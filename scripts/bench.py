#!/usr/bin/env python
"""Measure this machine with the model.

    python scripts/bench.py infer --weights svd-xt        ways to restore against the released algorithm
    python scripts/bench.py infer --memory 8,12,16,24     what SVD-XT takes with each setting of memory
    python scripts/bench.py film --networks DIR           frames/s of a film of 720p, and where the time goes
    python scripts/bench.py train --weights svd-xt        steps of training, and a loader worker
    python scripts/bench.py eval --networks DIR           each metric alone
    python scripts/bench.py prep networks=DIR score=none  each step of data preparation, on 1 and 2 processes

Memory is the peak of a fresh process: what an accelerator gave to tensors; on the CPU, all resident memory.
Exit code: 0 measured, 1 a measurement died, 2 the call itself was wrong.
"""

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, closing, contextmanager
from copy import copy, deepcopy
from dataclasses import replace
from functools import partial
from itertools import cycle, islice, product
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from demo import write_clip
from svd_xt import count_memory, random_svd_xt
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # where the package data_prep lies

from data_prep import prepare
from data_prep.runner import start_workers
from data_prep.settings import DataPrepConfig
from svfr import config, inference
from svfr.data import decoding
from svfr.data.alignment import five_points
from svfr.data.frames import resize
from svfr.data.video import VideoWriter
from svfr.evaluation.settings import EvalConfig
from svfr.inference.cost import device_name, peak_memory
from svfr.inference.folder import load_pipeline
from svfr.inference.pipeline import SVFRPipeline
from svfr.inference.settings import InferConfig
from svfr.metrics import METRICS, Chunk, build_metrics
from svfr.models.components import ModelSettings
from svfr.models.devices import MEMORY_PLANS, PLANNED_FRAME, resolve_device, resolve_dtype
from svfr.models.lora import add_lora
from svfr.models.unet import checkpoint_blocks, compile_blocks
from svfr.synthetic import TEST_SEEDS, render_clip
from svfr.training.initialize import initialize
from svfr.training.loop import METHODS, PRECISIONS, find_optimizer, make_accelerator, make_dataset, make_loader
from svfr.training.objective import TrainedModel
from svfr.training.settings import TrainConfig
from svfr.training.state import MovingAverage

SVD_XT = "svd-xt"  # in the place of a name of weights
RENDERED = 128  # [px] of rendered clips, before they are enlarged
ALL_FRAMES = 345_000  # of 7 methods and baselines, 3 tasks, 50 videos of VFHQ-test
HOURS = "h for 345,000 frames"

Row = dict[str, Any]  # of a table, by the titles of its columns
GUIDED: Row = {"guidance_scale": 2.0}
WAYS: dict[str, Row] = {"released": {"strategy": "released"} | GUIDED, "chained": GUIDED, "one_step": {}}
WAYS |= {speed: {"speed": speed} | GUIDED for speed in ("balanced", "fast")}
SHORT = ["data.size=64", "data.num_frames=8", "data.num_workers=1", "max_steps=5"]
SHORT += ["tracker=none"]  # of training, unless the command line says otherwise


def bench_infer(options: argparse.Namespace) -> Iterator[Row]:
    """Ways to restore against the first; or, with --memory, what SVD-XT takes of it."""
    if options.memory:
        for row in count_memory(options.memory, options.size or PLANNED_FRAME):
            if resolve_device(options.device).type != "cpu":
                measured = in_new_process(restore, options, 17, "fast", False, row["memory"])
                row["peak, measured GiB"] = measured["peak GiB"]
            yield row
        return
    for num_frames in options.frames:
        first: Row = {}
        for way, compiled in product(options.strategies, options.compile.split(",")):
            row = in_new_process(restore, options, num_frames, way, compiled == "yes")
            first = first or row
            ratios = {f"{name}, ratio": row[name] / first[name] for name in ("branch-frames", "all s")}
            yield {"frames": num_frames, "strategy": way, "compiled": compiled} | row | ratios


def restore(options: argparse.Namespace, num_frames: int, way: str, compiled: bool, memory: Any = "auto") -> Row:
    """Restore a file of a rendered clip, after a short one that warms up; guidance 2, except in one step.

    A frame counts once for each guidance branch. What neither UNet nor VAE take is reading, pasting and writing.
    """
    device = resolve_device(options.device)
    dtype = resolve_dtype("auto", device)
    if options.weights == SVD_XT:
        parts = random_svd_xt(device, dtype)
    else:
        parts = SVFRPipeline.from_pretrained(options.weights, device, dtype).parts
    sampling: Row = {"size": options.size, **WAYS[way]}
    # What is timed is the work: any weights can be run in one step or in many.
    parts.settings = replace(parts.settings, one_step_sigma=20.0 if way == "one_step" else None)
    if way in ("released", "chained") and options.steps is not None:
        sampling |= {"num_inference_steps": options.steps, "sampler": "euler"}
    pipe = SVFRPipeline.from_components(parts).prepare(memory, compile=compiled)
    length, size = parts.settings.clip_length, options.size or parts.settings.size
    rendered = [resize(frame, size, size) for frame in render_clip(TEST_SEEDS, min(num_frames, 16), RENDERED).frames]
    everywhere = {"guidance_interval": (0, 1e9)} if "speed" in sampling else {}
    start = clock(device)
    pipe(np.resize(rendered, (length + 1, size, size, 3)), **sampling | everywhere | {"num_inference_steps": 1})
    warm_up = clock(device) - start
    unet, vae = (timed(modules, device) for modules in ([pipe.unet], [pipe.vae.encoder, pipe.vae.decoder]))
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "clip.mp4"
        write_clip(source, islice(cycle(rendered), num_frames))
        report = pipe.restore_video(source, Path(folder) / "restored.mp4", face="aligned", **sampling)
    seconds = {"UNet s": sum(unet), "VAE s": sum(vae)}
    seconds |= {"rest s": report.seconds - sum(seconds.values()), "all s": report.seconds, "warm-up s": warm_up}
    return {"branch-frames": report.cost["unet_frames"]} | seconds | {"peak GiB": report.cost["peak_memory"] / 2**30}


def timed(modules: Sequence[torch.nn.Module], device: torch.device) -> list[float]:
    """A list that grows as the modules run; its sum is the time [s] that they took."""
    times: list[float] = []
    for module in modules:
        module.register_forward_pre_hook(lambda *_: times.append(-clock(device)))
        module.register_forward_hook(lambda *_: times.append(clock(device)))
    return times


def bench_film(options: argparse.Namespace) -> Iterator[Row]:
    """Films of 720p in which a face moves: frames/s, seconds of each kind of work (some beside others), memory."""
    for num_frames in options.frames:
        yield {"frames": num_frames} | in_new_process(film, options, num_frames)


def film(options: argparse.Namespace, num_frames: int) -> Row:
    """Restore a film; `peak GiB` is of planning and of restoring."""
    device = resolve_device(options.device)
    pipe = load_pipeline(options.weights, InferConfig(), options.networks, options.device)
    networks = timed([pipe.unet, pipe.vae.encoder, pipe.vae.decoder], device)
    times, peaks, decode = dict.fromkeys(("decode", "detect", "paste", "encode"), 0.0), [0], decoding.decode

    @contextmanager
    def measuring(kind: str) -> Iterator[None]:  # decorates functions, too
        start = time.perf_counter()
        yield
        times[kind] += time.perf_counter() - start

    def decoded(*arguments: Any) -> Iterator[Any]:
        yield from iter(measuring("decode")(partial(next, decode(*arguments), None)), None)

    def on_progress(frames: float, stage: str) -> None:
        if stage == "faces":  # the report's peak begins after these
            peaks[0] = peak_memory(device)[0]

    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        source = Path(folder) / "film.mp4"
        in_new_process(make_film, source, num_frames)
        stack.enter_context(patch.object(decoding, "decode", decoded))
        for owner, name, kind in (
            (type(pipe.detector), "__call__", "detect"),
            (inference.stream, "put_back", "paste"),
            (VideoWriter, "write", "encode"),
        ):
            stack.enter_context(patch.object(owner, name, measuring(kind)(getattr(owner, name))))
        report = pipe.restore_video(source, Path(folder) / "restored.mp4", on_progress=on_progress)
    row: Row = {"frames/s": num_frames / report.seconds, "restored": report.restored_frames, "all s": report.seconds}
    row |= {f"{kind} s": value for kind, value in (times | {"networks": sum(networks)}).items()}
    return row | {"peak GiB": max(*peaks, report.cost["peak_memory"]) / 2**30}


def make_film(path: Path, num_frames: int) -> None:
    """A rendered head that moves about in a picture of 1280x720."""
    heads = [resize(frame, 480, 480) for frame in render_clip(TEST_SEEDS, 50, RENDERED).frames]

    def draw(number: int) -> np.ndarray:
        picture, left = np.full((720, 1280, 3), 90, np.uint8), round(400 + 300 * np.sin(number / 50))
        picture[120:600, left : left + 480] = heads[49 - abs(number % 98 - 49)]
        return picture

    write_clip(path, map(draw, range(num_frames)))


def bench_train(options: argparse.Namespace) -> Iterator[Row]:
    """Steps of training with these settings, and what a loader worker makes."""
    sources = ("data.manifests=", "data.images=", "data.rendered_clips=")
    rendered = [] if any(word.startswith(sources) for word in options.settings) else ["data.rendered_clips=1000"]
    settings = config.load(TrainConfig, None, [*SHORT, *rendered, f"init_from={options.weights}", *options.settings])
    settings.device = "cpu" if resolve_device(options.device).type == "cpu" else "auto"
    row = in_new_process(train, settings)
    yield row | ({"MFU": row["model TFLOP/s"] / options.peak} if options.peak else {})
    dataset = make_dataset(settings, "train", ModelSettings().id_crop)
    batches = iter(make_loader(dataset, settings, make_accelerator(settings), start=0))
    next(batches)  # warms up
    start = time.perf_counter()
    for _ in range(settings.max_steps):
        next(batches)
    rate = settings.max_steps * settings.batch_size / (time.perf_counter() - start)
    print(f"\nA loader worker makes {rate:.3g} clips/s; a step takes {settings.batch_size}.")


def train(settings: TrainConfig) -> Row:
    """Train on one batch as `svfr.training.loop.train` does, after a step that warms up."""
    accelerator = make_accelerator(settings)
    device = accelerator.device
    is_random = settings.init_from == SVD_XT
    components = random_svd_xt(device, torch.float32) if is_random else initialize(settings)
    if is_random and settings.lora.rank:
        components.lora = add_lora(components.model, SVD_XT, settings.lora.rank)
    vae_dtype = torch.float32 if settings.decoder_rate else None
    components.to(device, PRECISIONS[settings.precision], model_dtype=torch.float32, vae_dtype=vae_dtype)
    objective = METHODS[settings.method](settings, components, autocast=accelerator.autocast)
    module = objective.module()
    followed = TrainedModel(module.model, module.decoder)
    optimizer = find_optimizer(settings)(objective.groups(module), lr=settings.learning_rate)
    model, optimizer = accelerator.prepare(module, optimizer)
    ema = MovingAverage(followed, deepcopy(followed).cpu(), settings.ema_decay)
    dataset = make_dataset(settings, "train", components.settings.id_crop)
    batch = next(iter(make_loader(dataset, settings, accelerator, start=0)))
    targets = objective.look_back(model, objective.prepare(batch), batch)
    with torch.no_grad(), objective.autocast(), FlopCounterMode(display=False) as counter:
        model(targets)
    # Backward computes gradients of activations and, where all is trained, as much again for those of weights.
    flops = counter.get_total_flops() * (2 if settings.lora.rank else 3)
    if settings.compile:
        compile_blocks(components.model.unet)
    if settings.gradient_checkpointing:
        checkpoint_blocks(components.model.unet)
    times = []
    for step in range(1 + settings.max_steps):
        start = clock(device)
        loss, _ = objective(model, batch)
        forward = clock(device)
        accelerator.backward(loss)
        backward = clock(device)
        accelerator.clip_grad_norm_(model.parameters(), settings.max_grad_norm)
        optimizer.step()
        ema.update(step)
        optimizer.zero_grad(set_to_none=True)
        times.append((start, forward, backward, clock(device)))
    parts = np.diff(times)[1:].mean(axis=0).tolist()
    names = ("encoding and forward s", "backward s", "optimizer and EMA s")
    rates = {"model TFLOP/s": flops / sum(parts) / 1e12, "peak GiB": peak_memory(device)[0] / 2**30}
    return {"step s": sum(parts)} | dict(zip(names, parts, strict=True)) | rates


def bench_eval(options: argparse.Namespace) -> Iterator[Row]:
    """Each metric alone, and the hours that an evaluation of 7 rows, 3 tasks, 50 videos and 300 frames takes."""
    seconds = 0.0  # a frame, of all metrics
    for name in options.metrics:
        row = in_new_process(evaluate, options, name)
        if isinstance(rate := row["frames/s"], float):
            seconds += 1 / rate
            row[HOURS] = ALL_FRAMES / rate / 3600
        yield row
    if seconds:
        yield {"metric": "all", "frames/s": 1 / seconds, HOURS: ALL_FRAMES * seconds / 3600, "peak GiB": "-"}


def evaluate(options: argparse.Namespace, name: str) -> Row:
    """Compare rendered clips with noise, each the same, with one ground truth, after one that warms up."""
    device, size = resolve_device(options.device), options.size
    built = build_metrics([name], options.networks, str(device), download=False)
    if built.missing:
        return {"metric": name, "frames/s": built.missing[name], HOURS: "-", "peak GiB": "-"}
    metric: Any = (*built.video, *built.sets)[0]
    clip = render_clip(TEST_SEEDS, options.frames[0], size)
    truth = torch.from_numpy(clip.frames).movedim(-1, 1)
    noise = 12 * torch.randn(truth.shape, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(len(truth), size, size, dtype=torch.bool)
    video = ((truth + noise).clamp(0, 255).byte(), truth, mask, torch.from_numpy(five_points(clip.landmarks)))
    for num_rows in (1, options.rows):
        rows = [copy(metric) for _ in range(num_rows)]
        for row in rows:
            row.reset()
        start = clock(device)
        for parts in zip(*(part.split(EvalConfig.chunk_size) for part in video), strict=True):
            shared: dict[str, Any] = {}
            for row in rows:
                row.update(Chunk(*parts, shared=shared))
        seconds = clock(device) - start
    rate = options.rows * len(truth) / seconds
    return {"metric": name, "frames/s": rate, HOURS: "", "peak GiB": peak_memory(device)[0] / 2**30}


def bench_prep(options: argparse.Namespace) -> Iterator[Row]:
    """Each step of data preparation, on some numbers of processes, of videos of rendered heads."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        own = [f"source.path={folder / 'footage'}", f"output={folder}"]
        settings = config.load(DataPrepConfig, None, [*options.settings, *own])
        (folder / "footage").mkdir()
        for index in range(options.files):
            frames = render_clip(TEST_SEEDS + index, 50, RENDERED).frames
            write_clip(folder / f"footage/{index:04d}.mp4", (resize(frame, 512, 512) for frame in frames))
        rows: dict[str, Row] = {step: {"step": step} for step in prepare.RUN}
        for processes in options.processes:
            with closing(start_workers(replace(settings, processes=processes))) as workers:
                for turn in ("warm-up", "measured"):  # the first one starts the processes and loads the networks
                    settings = replace(settings, output=str(folder / f"{turn} {processes}"))
                    Path(settings.output).mkdir()
                    for step, row in rows.items():
                        start = time.perf_counter()
                        prepare.RUN[step](settings, workers)
                        row[f"files/s, processes: {processes}"] = options.files / (time.perf_counter() - start)
        yield from (row for step, row in rows.items() if getattr(settings, step, None) != "none")


class Died(ChildProcessError):
    """A process of `in_new_process` has ended."""

    exit_code = 1


def in_new_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a process of its own, so that its memory is its own."""
    try:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            return pool.submit(function, *arguments).result()
    except (BrokenProcessPool, torch.OutOfMemoryError) as error:
        raise Died("a measurement died, most likely for want of memory") from error


def clock(device: torch.device) -> float:
    """The time [s] when the device has done all that it was asked for."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter()


def run(options: argparse.Namespace) -> int:
    """Print what this machine is, and each row of the table as soon as it is there; returns the exit code."""
    names = dict.fromkeys(map(device_name, (resolve_device(options.device), torch.device("cpu"))))
    print(f"{'; '.join(names)}, {torch.get_num_threads()} of {os.cpu_count()} cores; torch {torch.__version__}")
    for index, row in enumerate(options.bench(options)):
        if not index:
            print(f"\n| {' | '.join(row)} |\n|{'---|' * len(row)}")
        cells = (f"{value:#.3g}" if isinstance(value, float) else str(value) for value in row.values())
        print(f"| {' | '.join(cells)} |", flush=True)
    return 0


def numbers(text: str) -> list[int]:
    """Whole numbers with commas between them."""
    return [int(part) for part in text.split(",")]


words = partial(str.split, sep=",")
OPTIONS: dict[str, dict[str, Any]] = {
    "weights": {"default": "demo", "help": f"demo, released, a folder, a Hub id, or {SVD_XT}: its size, random"},
    "frames": {"type": numbers, "help": "lengths of the clips"},
    "size": {"type": int, "help": "side of the frames [px]; None: the weights' own"},
    "strategies": {"type": words, "default": ",".join(WAYS), "help": "ways to restore"},
    "steps": {"type": int, "help": "of denoising (Euler's; None: the strategies' own)"},
    "compile": {"choices": ("no", "yes", "no,yes"), "default": "no", "help": "the networks"},
    "memory": {"type": numbers, "help": f"some of {', '.join(map(str, MEMORY_PLANS))}: computes what SVD-XT takes"},
    "peak": {"type": float, "help": "TFLOP/s of the device at that precision, for the share that is made use of (MFU)"},
    "metrics": {"type": words, "default": ",".join(METRICS), "help": "names of metrics"},
    "rows": {"type": int, "default": 7, "help": "videos that are compared with one ground truth"},
    "networks": {"type": Path, "help": "folder of third-party networks; None: $SVFR_NETWORKS"},
    "processes": {"type": numbers, "default": "1,2", "help": "numbers of processes"},
    "files": {"type": int, "default": 8, "help": "videos"},
    "settings": {"nargs": "*", "metavar": "key=value", "help": "of scripts/train.py, or of data_prep/prepare.py"},
    "device": {"default": "auto", "help": "auto, or a torch device"},
}
COMMANDS = {  # and their options beside the device, some with a default of their own
    bench_infer: "weights frames=16,64 size strategies steps compile memory",
    bench_film: "weights frames=10000 networks",
    bench_train: "weights peak settings",
    bench_eval: "metrics frames=16 rows size=512 networks",
    bench_prep: "files processes settings",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; a wrong call becomes one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="NAME")
    for bench, names in COMMANDS.items():
        name = bench.__name__.removeprefix("bench_")
        command = commands.add_parser(name, help=bench.__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
        command.set_defaults(bench=bench)
        for option, equals, default in (word.partition("=") for word in [*names.split(), "device"]):
            name = option if option == "settings" else f"--{option}"
            command.add_argument(name, **OPTIONS[option] | ({"default": default} if equals else {}))
    options = parser.parse_args(arguments)
    return config.run_command("bench.py", lambda: run(options), goes_on=False)


if __name__ == "__main__":
    sys.exit(main())
