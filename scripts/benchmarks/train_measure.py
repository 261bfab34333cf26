"""Measuring training on this machine: the data path by stage, and a step by stage, with its peak memory."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from diffusers.training_utils import EMAModel
from torch.utils.data import default_collate

from svfr.data import dataset as dataset_module
from svfr.data import degradations
from svfr.data.clip_sources import ClipSource, ManifestClips, RenderedClips
from svfr.data.dataset import ClipDataset, Sample, SampleConfig, set_up_worker
from svfr.models.components import Components
from svfr.models.heads import LandmarkPredictor, LatentTransformer
from svfr.models.identity import id_crop
from svfr.models.unet import checkpoint_blocks
from svfr.synthetic import render_clip
from svfr.training.initialize import initialize
from svfr.training.objective import Objective, TrainedModel
from svfr.training.settings import TrainConfig

from .common import peak_rss
from .infer_measure import Stopwatch
from .svd_xt import SVD_XT, random_svd_xt
from .train_memory import count_flops

DATA_STAGES = ("read", "blur", "noise", "resize", "H.264", "gray, mask", "tensors", "other")
STEP_STAGES = ("encode", "forward", "backward", "optimizer")
SEED = 0


@dataclass(frozen=True)
class Setup:
    """What all measurements have in common."""

    weights: str
    """demo, a folder, or svd-xt."""
    size: int
    """Side of the frames [px]."""
    num_frames: int
    num_views: int
    preset: str
    """Of the degradations."""
    manifest: Path | None
    batch_size: int
    """Clips of a step."""
    precision: str
    """fp32 | bf16 | fp16."""
    device: str
    num_threads: int
    """Of PyTorch on the CPU."""


@dataclass(frozen=True)
class DataPath:
    """One loader worker."""

    source: str
    num_samples: int
    seconds: dict[str, float]
    """By stage."""

    @property
    def total_seconds(self) -> float:
        """Of all stages and samples."""
        return sum(self.seconds.values())


@dataclass(frozen=True)
class Step:
    """Optimizer steps of one process."""

    checkpointing: bool
    seconds: dict[str, float]
    """By stage, of one step."""
    loaded: int
    """Memory before the first step [bytes], of the accelerator or, on the CPU, of the process at its peak."""
    peak: int
    """Peak memory [bytes] of the same."""
    flops: int
    """Of one step: three times those of the forward pass, and those of the frozen networks."""

    @property
    def total_seconds(self) -> float:
        """Of one step."""
        return sum(self.seconds.values())


def make_dataset(setup: Setup, rendered: bool) -> ClipDataset:
    """Rendered clips, or those of the manifest."""
    source: ClipSource = RenderedClips(1000, 0)
    if not rendered:
        assert setup.manifest is not None
        source = ManifestClips(setup.manifest, "train")
    config = SampleConfig(
        size=setup.size,
        num_frames=setup.num_frames,
        num_views=setup.num_views,
        preset=setup.preset,
        max_broken_share=1.0,
    )
    return ClipDataset(source, partial(id_crop, style="arcface"), config, SEED)


def measure_rendering(setup: Setup, num_clips: int) -> float:
    """Frames per second that one loader worker renders, in one thread, after a clip that warms up."""
    set_up_worker(0)
    render_clip(num_clips, setup.num_frames, setup.size)
    started = time.perf_counter()
    for seed in range(num_clips):
        render_clip(seed, setup.num_frames, setup.size)
    return num_clips * setup.num_frames / (time.perf_counter() - started)


def measure_data(setup: Setup, rendered: bool, num_samples: int) -> DataPath:
    """Make samples as one loader worker does, in one thread, after one that warms up."""
    set_up_worker(0)
    data = make_dataset(setup, rendered)
    data[0, 0]
    watch = Stopwatch(torch.device("cpu"), DATA_STAGES)
    with timed_stages(data, watch):
        for index in range(num_samples):
            with watch.stage("other"):
                data[divmod(index + 1, len(data))]
    return DataPath("rendered" if rendered else str(setup.manifest), num_samples, watch.seconds)


@contextmanager
def timed_stages(data: ClipDataset, watch: Stopwatch) -> Iterator[None]:
    """Inside, the functions that a sample goes through count for their stages."""
    parts: tuple[tuple[Any, str, str], ...] = (
        (data.source, "read", "read"),
        (degradations, "_blur", "blur"),
        (degradations, "_add_noise", "noise"),
        (degradations, "_resize", "resize"),
        (degradations, "h264_round_trip", "H.264"),
        (dataset_module, "task_input", "gray, mask"),
        (dataset_module, "mask_clip", "gray, mask"),
        (dataset_module, "_to_tensors", "tensors"),
    )
    with ExitStack() as stack:
        for owner, name, stage in parts:
            stack.enter_context(patch.object(owner, name, watch.timed(getattr(owner, name), stage)))
        yield


def make_model(setup: Setup) -> tuple[Components, TrainedModel]:
    """The networks on the device: frozen ones in the precision of the forward pass, trained ones in float32."""
    device = torch.device(setup.device)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[setup.precision]
    if setup.weights == SVD_XT:
        components = random_svd_xt(device, torch.float32)
        width = components.model.unet.config.block_out_channels[-1]
        components.model.latent_transformer = LatentTransformer(width)
        components.model.landmark_predictor = LandmarkPredictor(width)
    else:
        components = initialize(TrainConfig(init_from=setup.weights, seed=SEED))
    components.to(device, dtype, model_dtype=torch.float32)
    return components, TrainedModel(components.model.train().requires_grad_(True))


def measure_step(setup: Setup, checkpointing: bool, num_steps: int) -> Step:
    """Train a few steps on one batch of rendered clips, in a process of its own; the first one warms up."""
    torch.set_num_threads(setup.num_threads)
    torch.manual_seed(SEED)
    components, model = make_model(setup)
    if checkpointing:
        checkpoint_blocks(components.model.unet)
    device = components.device
    data = make_dataset(setup, rendered=True)
    batch = default_collate([data[0, index] for index in range(setup.batch_size)])
    config = TrainConfig()
    objective = Objective(config, components)
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=config.weight_decay)
    average = EMAModel(parameters, decay=config.ema_decay)
    scaler = torch.amp.GradScaler(device.type, enabled=setup.precision == "fp16")

    on_accelerator = device.type != "cpu"
    memory = torch.get_device_module(device)
    loaded = memory.memory_allocated() if on_accelerator else peak_rss()
    if on_accelerator:
        memory.reset_peak_memory_stats()
    watch = Stopwatch(device, STEP_STAGES)
    for step in range(1 + num_steps):
        if step == 1:
            watch.seconds = dict.fromkeys(STEP_STAGES, 0.0)
        with watch.stage("encode"):
            targets = objective.prepare(batch)
        with watch.stage("forward"):
            with autocast(setup):
                outputs = model(targets)
            loss, _ = objective.loss(outputs, targets, batch)
        with watch.stage("backward"):
            scaler.scale(loss).backward()
        with watch.stage("optimizer"):
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(parameters, config.max_grad_norm)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad(set_to_none=True)
            average.step(parameters)
    peak = memory.max_memory_allocated() if on_accelerator else peak_rss()
    return Step(
        checkpointing=checkpointing,
        seconds={stage: seconds / num_steps for stage, seconds in watch.seconds.items()},
        loaded=loaded,
        peak=peak,
        flops=model_flops(setup, components, model, batch),
    )


def autocast(setup: Setup) -> torch.autocast:
    """Of the forward pass."""
    dtype = torch.float16 if setup.precision == "fp16" else torch.bfloat16
    return torch.autocast(torch.device(setup.device).type, dtype, enabled=setup.precision != "fp32")


@torch.no_grad()
def model_flops(setup: Setup, components: Components, model: TrainedModel, batch: Sample) -> int:
    """FLOPs of a step; the backward pass takes twice what the forward pass takes, recomputing doesn't count."""
    with count_flops() as encoding:
        targets = Objective(TrainConfig(), components).prepare(batch)
    with count_flops() as forward, autocast(setup):
        model(targets)
    return 3 * forward.get_total_flops() + encoding.get_total_flops()
