"""Measuring the sampling strategies: branch-frames by formula and by count, seconds by stage, peak memory.

A branch-frame is one frame that goes through the UNet once. Their number depends on no machine.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import wraps
from itertools import cycle, islice
from math import ceil
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from svfr.data.video import VideoInfo, VideoWriter
from svfr.inference.chain import RELEASED_OVERLAP_STEPS
from svfr.inference.options import SamplingOptions
from svfr.inference.pipeline import SVFRPipeline
from svfr.models.devices import resolve_device, resolve_dtype
from svfr.models.identity import ID_SIZE
from svfr.models.unet import FixedContext

from .common import peak_rss
from .svd_xt import SVD_XT, random_svd_xt

GUIDANCE = 2.0
STAGES = ("unet", "vae", "io", "other")
KEY_VALUE_ROUNDS = 5
FPS = 25

T = TypeVar("T")


@dataclass(frozen=True)
class Setup:
    """What all measurements of a table have in common."""

    weights: str
    """demo, a folder, a Hub id, or svd-xt."""
    size: int | None
    """Side of the square [px]; None is the weights' own."""
    clip_length: int | None
    """Frames that are denoised together; None is the weights' own."""
    num_steps: int
    """Of every pass."""
    device: str
    dtype: str
    num_threads: int
    """Of PyTorch on the CPU."""


@dataclass(frozen=True)
class KeyValues:
    """What keys and values that are projected once save, and what the weights of a setup are."""

    seconds: dict[str, float]
    """Of the UNet for one clip, by variant of its cross-attention."""
    size: int
    """Side of the square [px]."""
    clip_length: int
    untrained: bool

    @property
    def saving(self) -> float:
        """Seconds of both branches as the released code runs them, per second of ours."""
        return self.seconds["stock, both branches"] / (self.seconds["fixed, zero"] + self.seconds["fixed, referred"])


@dataclass(frozen=True)
class Run:
    """What one restoration took."""

    strategy: str
    num_frames: int
    seconds: dict[str, float]
    """By stage."""
    branch_frames: int
    """Counted."""
    formula: int
    """Branch-frames by the formula."""
    loaded_rss: int
    """Resident memory of the process when the networks were loaded, at its peak [bytes]."""
    peak_rss: int
    """Peak resident memory of the process [bytes]."""
    loaded_device: int
    """Memory of the accelerator when the networks were loaded [bytes]; 0 on the CPU."""
    peak_device: int
    """Peak memory of the accelerator [bytes]; 0 on the CPU."""

    @property
    def total_seconds(self) -> float:
        """Of all stages."""
        return sum(self.seconds.values())

    @property
    def peak(self) -> int:
        """Peak memory of where the networks are [bytes]."""
        return self.peak_device or self.peak_rss


def chained_branch_frames(num_frames: int, clip_length: int, overlap: int, num_steps: int, guided: bool = True) -> int:
    """Branch-frames of `restore_chained` with a reference of its own choice.

    The first clip has one branch; each of the k later ones gives up to (clip_length - overlap) new frames, and has
    two branches if it is guided: steps * (first + branches * (rest + k * overlap)).
    """
    first = min(num_frames, clip_length)
    rest = num_frames - first
    num_later = ceil(rest / (clip_length - overlap))
    return num_steps * (first + (2 if guided else 1) * (rest + num_later * overlap))


def released_branch_frames(num_frames: int, clip_length: int, overlap: int, num_steps: int) -> int:
    """Branch-frames of `restore_released`: all windows of the first clip's pass, then of the pass over all frames.

    Both passes have two branches, and every window has clip_length frames, since windows wrap around:
    2 * clip_length * sum over both passes and their steps of ceil(frames / stride).
    """

    def num_windows(frames: int) -> int:
        overlapping = min(RELEASED_OVERLAP_STEPS, num_steps)
        return overlapping * ceil(frames / (clip_length - overlap)) + (num_steps - overlapping) * ceil(
            frames / clip_length
        )

    return 2 * clip_length * (num_windows(min(num_frames, clip_length)) + num_windows(num_frames))


def load(setup: Setup) -> SVFRPipeline:
    """The pipeline of a setup; also sets the number of threads of this process."""
    torch.set_num_threads(setup.num_threads)
    if setup.weights != SVD_XT:
        return SVFRPipeline.from_pretrained(setup.weights, setup.device, setup.dtype)
    device = resolve_device(setup.device)
    return SVFRPipeline(random_svd_xt(device, resolve_dtype(setup.dtype, device)))


def write_video(path: Path, num_frames: int, size: int) -> None:
    """A made video of moving waves, eight frames that repeat, (size, size) px."""
    info = VideoInfo(path, size, size, Fraction(FPS), num_frames, num_frames / FPS, False, 0, "frames")
    with VideoWriter(path, source=info) as writer:
        for index, frame in enumerate(islice(cycle(list(draw_frames(8, size))), num_frames)):
            writer.write(frame, index, Fraction(1, FPS))


def draw_frames(num_frames: int, size: int) -> Iterator[np.ndarray]:
    """Frames (size, size, 3) uint8 of moving waves."""
    y, x, c = np.ogrid[:size, :size, :3]
    for f in range(num_frames):
        phase = 2 * np.pi * f / num_frames
        waves = np.sin(20 * x / size + phase + 2 * c) * np.cos(15 * y / size - phase + c)
        yield (127.5 + 100 * waves).astype(np.uint8)


class Stopwatch:
    """Seconds by stage; the time of a stage inside of another one counts for the inner one alone.

    Waits at each border for the accelerator to finish, so that its work counts where it was asked for.
    """

    def __init__(self, device: torch.device, stages: Sequence[str] = STAGES) -> None:
        self.seconds = dict.fromkeys(stages, 0.0)
        self._synchronize: Callable[[], None] = torch.get_device_module(device).synchronize
        self._running: list[str] = []
        self._since = 0.0

    def _border(self) -> None:
        self._synchronize()
        now = time.perf_counter()
        if self._running:
            self.seconds[self._running[-1]] += now - self._since
        self._since = now

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """What runs inside counts for `name`."""
        self._border()
        self._running.append(name)
        try:
            yield
        finally:
            self._border()
            self._running.pop()

    def timed(self, function: Callable[..., T], name: str) -> Callable[..., T]:
        """The function, whose calls count for `name`."""

        @wraps(function)
        def call(*arguments: Any, **named: Any) -> T:
            with self.stage(name):
                return function(*arguments, **named)

        return call

    def pull(self, items: Iterator[T], name: str) -> Iterator[T]:
        """The items; the wait for each counts for `name`."""
        end = object()
        while True:
            with self.stage(name):
                item: Any = next(items, end)
            if item is end:
                return
            yield item


def measure_run(setup: Setup, strategy: str, video: Path, num_frames: int) -> Run:
    """Restore a made video from file to file, in a process of its own: its peak memory is the process's.

    I/O is all that happens outside of the sampler: reading, cropping, quantizing, encoding; the encoder works on in
    threads of its own. "other" is what the sampler does around UNet and VAE.
    """
    pipe = load(setup)
    components = pipe.components
    memory = torch.get_device_module(components.device)
    on_accelerator = components.device.type != "cpu"
    loaded_rss, loaded_device = peak_rss(), memory.memory_allocated() if on_accelerator else 0
    options = SamplingOptions.resolve(pipe.components.settings, strategy, clip_length=setup.clip_length)
    clip_length, overlap = options.clip_length, options.overlap

    size = pipe.resolve_size(setup.size)
    warm_up = np.stack(list(draw_frames(min(num_frames, clip_length), size)))
    pipe(warm_up, num_inference_steps=1, size=size, clip_length=clip_length)
    if on_accelerator:
        memory.reset_peak_memory_stats()

    branch_frames = 0

    def count(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        nonlocal branch_frames
        batch, frames = arguments[0].shape[:2]
        branch_frames += batch * frames

    components.model.unet.register_forward_pre_hook(count)
    watch = Stopwatch(components.device)
    parts: tuple[tuple[Any, str, str], ...] = (
        (components.model.unet, "forward", "unet"),
        (components, "encode", "vae"),
        (components, "decode", "vae"),
    )
    for owner, name, stage in parts:
        setattr(owner, name, watch.timed(getattr(owner, name), stage))
    sampler = pipe.stream

    def stream(frames: Iterator[Tensor], *arguments: Any, **named: Any) -> Iterator[Tensor]:
        return watch.pull(sampler(watch.pull(frames, "io"), *arguments, **named), "other")

    pipe.stream = stream  # type: ignore[method-assign]
    with watch.stage("io"):
        pipe.restore_video(
            video,
            video.with_name(f"{video.stem}-{strategy}.mp4"),
            num_inference_steps=setup.num_steps,
            guidance_scale=GUIDANCE,
            sampler="euler",  # one run of the UNet a step and branch, as the formulas have it
            strategy=strategy,
            size=size,
            clip_length=clip_length,
            overlap=overlap,
            face="aligned",
        )
    formula = chained_branch_frames if strategy == "chained" else released_branch_frames
    return Run(
        strategy=strategy,
        num_frames=num_frames,
        seconds=watch.seconds,
        branch_frames=branch_frames,
        formula=formula(num_frames, clip_length, overlap, setup.num_steps),
        loaded_rss=loaded_rss,
        peak_rss=peak_rss(),
        loaded_device=loaded_device,
        peak_device=memory.max_memory_allocated() if on_accelerator else 0,
    )


@torch.no_grad()
def measure_key_values(setup: Setup) -> KeyValues:
    """Time the UNet for one clip, with ID tokens projected in each pass (stock) or once (fixed).

    "stock, both branches" is one batch of two, as the released code runs them; the others are one branch each, zero
    or referred. Medians; the variants take turns.
    """
    pipe = load(setup)
    model, device = pipe.components.model, pipe.components.device
    size = pipe.resolve_size(setup.size)
    side = size // pipe.components.downscale
    num_frames = SamplingOptions.resolve(pipe.components.settings, clip_length=setup.clip_length).clip_length
    latents = torch.randn(1, num_frames, pipe.components.latent_channels, side, side, device=device)
    sigma, gamma = torch.ones(1, device=device), torch.tensor([[1.0, 0, 0]], device=device)
    tokens = pipe.components.id_tokens(torch.rand(1, 3, ID_SIZE, ID_SIZE))  # (1, 49, d)
    zeros = torch.zeros_like(tokens)
    variants: dict[str, Tensor | FixedContext] = {
        "stock, both branches": torch.cat([zeros, tokens]),
        "stock, zero": zeros,
        "stock, referred": tokens,
        "fixed, zero": model.fix_context(zeros),
        "fixed, referred": model.fix_context(tokens),
    }
    synchronize = torch.get_device_module(device).synchronize
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(1 + KEY_VALUE_ROUNDS):
        for name, context in variants.items():
            batch = context.batch_size if isinstance(context, FixedContext) else len(context)
            clip = latents.expand(batch, -1, -1, -1, -1)
            synchronize()
            started = time.perf_counter()
            model(clip, clip, clip[:, 0], context, sigma.expand(batch), gamma.expand(batch, -1))
            synchronize()
            seconds[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(rounds[1:]) for name, rounds in seconds.items()}  # the first warms up
    return KeyValues(medians, size, num_frames, pipe.components.settings.untrained)
