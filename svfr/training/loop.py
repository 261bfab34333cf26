"""Training: one visible loop. Run the same command again to go on where it stopped."""

import importlib.util
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs, set_seed
from diffusers.optimization import get_scheduler
from torch import Tensor
from tqdm import tqdm

from svfr.config import ConfigError
from svfr.data.clip_sources import ClipSource, ImageFolder, ManifestClips, RenderedClips
from svfr.data.dataset import ClipDataset, Sample
from svfr.data.loader import load_batches
from svfr.data.sampler import ClipBatchSampler
from svfr.models.components import Components
from svfr.models.identity import id_crop
from svfr.models.unet import checkpoint_blocks
from svfr.training.initialize import initialize
from svfr.training.objective import Gather, Objective, TrainedModel
from svfr.training.run_folder import RunFolder, find_newest, keep_newest, step_name, writing_step
from svfr.training.settings import TrainConfig
from svfr.training.state import ModelAndOptimizer, MovingAverage, Progress, State, gather_whole
from svfr.training.validation import show, validate

STATE = "training.pt"  # in the folder of a checkpoint
LONGEST_WAIT = timedelta(hours=2)  # of processes for the one that validates and writes
VAL_SEEDS = 1_000_000  # rendered clips from here up are never trained on


class TrainingError(ValueError):
    """Training that cannot go on; one line."""


def train(config: TrainConfig) -> bool:
    """Train SVFR; `init_from` and a source of data have to be given.

    Returns:
        Whether the run is at `max_steps`; False if a signal (SIGTERM, Ctrl-C) stopped it, after a checkpoint.

    Raises:
        ConfigError: settings that cannot be, or a run folder of other settings or another model.
        WeightsError: `init_from` cannot be used.
        TrainingError: the loss is not finite or explodes, step after step.
        OSError: the run folder cannot be written.
    """
    accelerator = make_accelerator(config)
    is_main = accelerator.is_main_process
    run = RunFolder(Path(config.output_dir))
    set_seed(config.seed)
    if is_main:
        run.claim(config)
    accelerator.wait_for_everyone()

    # 1. Networks: what is trained in float32, the rest frozen in low precision.
    components = initialize(config)
    averaged = deepcopy(components) if is_main else None  # takes the moving average to validate and write it
    frozen = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[config.precision]
    components.to(accelerator.device, frozen, model_dtype=torch.float32)
    model = TrainedModel(components.model.train().requires_grad_(True))
    if config.gradient_checkpointing:
        checkpoint_blocks(components.model.unet)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    schedule = make_schedule(config, optimizer)
    model, optimizer = accelerator.prepare(model, optimizer)
    trained = ModelAndOptimizer(model, optimizer.optimizer)
    ema = MovingAverage(accelerator.unwrap_model(model), config.ema_decay)
    scaler = accelerator.scaler or torch.amp.GradScaler(enabled=False)
    progress = Progress()

    # 2. All that resuming needs.
    state: State = {
        "trained": trained,
        "schedule": schedule,
        "ema": ema,
        "scaler": scaler,
        "progress": progress,
    }
    resume(state, run, accelerator)
    if is_main:
        run.cut_metrics(progress.step)

    # 3. Data: what a sample is depends on (seed, epoch, index) alone.
    if config.lambda_ulr and config.batch_size * accelerator.num_processes == 1:
        accelerator.print("one clip in a batch: the regularization (ULR) has no negatives and no effect")
    dataset = make_dataset(config, "train", components.settings.id_crop)
    batches = make_loader(dataset, config, accelerator, start=progress.step * config.accumulate)
    held_out = make_held_out(config, components) if is_main and config.validate_every else []
    objective = Objective(config, components, make_gather(accelerator), accelerator.autocast)
    accelerator.init_trackers("svfr", init_kwargs={"wandb": {"name": run.path.name}})

    # 4. The loop.
    stop = False
    bar = tqdm(total=config.max_steps, initial=progress.step, desc="train", unit="step", disable=not is_main)
    with interruptible() as interrupted, bar:
        while progress.step < config.max_steps and not stop:
            # Resumed or not, a step draws the same numbers.
            torch.manual_seed(config.seed + progress.step * accelerator.num_processes + accelerator.process_index)
            values: dict[str, Tensor] = {}
            for micro_step in range(config.accumulate):
                # Split gradients are summed over the processes each time: whole ones would not fit.
                sums_gradients = micro_step == config.accumulate - 1 or accelerator.is_fsdp2
                with nullcontext() if sums_gradients else accelerator.no_sync(model):
                    loss, parts = objective(model, next(batches))
                    accelerator.backward(loss / config.accumulate)
                values = {name: values.get(name, 0) + part / config.accumulate for name, part in parts.items()}
            grad_norm = accelerator.clip_grad_norm_(model.parameters(), config.max_grad_norm)

            # All processes see the same numbers, so they skip and stop together.
            values["stop"] = torch.tensor(float(bool(interrupted)))
            means = mean_over_processes(accelerator, values)
            stop = means.pop("stop") > 0
            means["grad_norm"] = float(gather_whole(grad_norm))
            if is_sound(means, progress.mean_loss, config.explosion):
                optimizer.step()
                schedule.step()
                ema.update()
                progress.add_step(means)
            else:
                skip_step(scaler)
                progress.add_step(None)
            optimizer.zero_grad(set_to_none=True)
            step, is_last = progress.step, progress.step == config.max_steps
            bar.update()
            bar.set_postfix(loss=f"{progress.mean_loss or float('nan'):.4f}", skipped=progress.skipped, refresh=False)

            if step % config.log_every == 0 or is_last:
                facts = {"learning_rate": float(schedule.get_last_lr()[0]), "skipped": float(progress.skipped)}
                log(accelerator, run, step, progress.take_means() | facts)
            if progress.skipped_in_row > config.max_skipped:
                raise TrainingError(
                    f"step {step}: {progress.skipped_in_row} steps in a row without a sound loss "
                    f"({describe(means)}); go on from an earlier checkpoint with a lower learning_rate"
                )
            saves = step % config.checkpoint_every == 0 or is_last or stop
            validates = bool(config.validate_every) and step % config.validate_every == 0
            if saves or validates:
                weights = ema.weights()
                if averaged is not None:
                    TrainedModel(averaged.model).load_state_dict(weights)
                if averaged is not None and held_out and validates:
                    pictures = run.samples / step_name(step)
                    results = validate(objective, averaged.model, held_out, accelerator.autocast(), pictures)
                    log(accelerator, run, step, results)
                    show(accelerator.trackers, pictures, step)
                    bar.write(f"step {step}: {describe(results)}")
                if saves:
                    save(state, run, averaged, step, config.keep_checkpoints)
                accelerator.wait_for_everyone()
    accelerator.end_training()
    return progress.step >= config.max_steps


def make_accelerator(config: TrainConfig) -> Accelerator:
    """Devices, processes and precision, as `accelerate launch` and the settings say."""
    tracker: Any = None if config.tracker == "none" else config.tracker  # one that is not installed is left out
    accelerator = Accelerator(
        mixed_precision="no" if config.precision == "fp32" else config.precision,
        cpu=config.device == "cpu",
        log_with=tracker,
        project_dir=config.output_dir,
        kwargs_handlers=[
            InitProcessGroupKwargs(timeout=LONGEST_WAIT),
            DistributedDataParallelKwargs(gradient_as_bucket_view=True),  # else they are there twice
        ],
    )
    if tracker is not None and importlib.util.find_spec(tracker) is None:
        accelerator.print(f"{tracker} is not installed (pip install svfr[track]): metrics.jsonl alone is written")
    if config.precision == "fp16" and accelerator.device.type == "cpu":
        # accelerate silently leaves float16 out on CPUs.
        accelerator.native_amp, accelerator.scaler = True, torch.amp.GradScaler("cpu")
    if accelerator.is_fsdp2:
        # Autocast alone lowers the precision, as everywhere else; FSDP's own would round the latents and the result.
        accelerator.state.fsdp_plugin.mixed_precision_policy = None
    return accelerator


def make_schedule(config: TrainConfig, optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
    """The learning rate: a linear rise over the warm-up, then constant or half a cosine down to 0 at `max_steps`."""
    name = "constant_with_warmup" if config.schedule == "constant" else config.schedule
    return get_scheduler(name, optimizer, num_warmup_steps=config.warmup_steps, num_training_steps=config.max_steps)


def make_source(config: TrainConfig, split: str) -> ClipSource:
    """The clips of a split; of images and rendered clips, some are held out for validation."""
    data = config.data
    if data.manifests:
        best = data.best if split == "train" else None
        return ManifestClips([Path(path) for path in data.manifests], split, best, data.size)
    if data.images is not None:
        return ImageFolder(Path(data.images), split, data.val_clips)
    if data.rendered_clips:
        return RenderedClips(*((data.rendered_clips, 0) if split == "train" else (data.val_clips, VAL_SEEDS)))
    raise TrainingError("no data: give data.manifests, data.images or data.rendered_clips")


def make_dataset(config: TrainConfig, split: str, crop_style: str) -> ClipDataset:
    """The samples of training; or of validation: as long as two clips that share a frame, where there are any so long,
    under every combination of tasks, with a reference."""
    data, source = config.data, make_source(config, split)
    if split == "val":
        weights = dict.fromkeys(data.resolved_task_weights, 1.0)
        data = replace(
            data,
            num_frames=min(2 * data.num_frames - 1, max(source.lengths)),
            num_views=len(weights),
            task_weights=weights,
            reference_dropout=0.0,
            flip=False,
            max_broken_share=1.0,
        )
    return ClipDataset(source, partial(id_crop, style=crop_style), data, config.seed)


def make_loader(dataset: ClipDataset, config: TrainConfig, accelerator: Accelerator, start: int) -> Iterator[Sample]:
    """Batches of this process, from global batch number `start` on, without end."""
    process, num_processes = accelerator.process_index, accelerator.num_processes
    sampler = ClipBatchSampler(len(dataset), config.batch_size, process, num_processes, config.seed, start)
    return load_batches(dataset, sampler, config.data.num_workers, pin_memory=accelerator.device.type != "cpu")


def make_held_out(config: TrainConfig, components: Components) -> list[Sample]:
    """The samples of validation, of videos spread over all; none, with a line that says why, where there is no clip."""
    try:
        dataset = make_dataset(config, "val", components.settings.id_crop)
    except ValueError as error:
        tqdm.write(f"no validation: {error}")
        return []
    first_of_video = {video: index for index, video in reversed(list(enumerate(dataset.video_ids)))}
    places = sorted(first_of_video.values())
    count = min(config.data.val_clips, len(places))
    return [dataset[0, places[number * len(places) // count]] for number in range(count)]


def make_gather(accelerator: Accelerator) -> Gather:
    """Rows of all processes, with gradients, for a loss that all of them compute alike."""
    processes = accelerator.num_processes

    def gather(rows: Tensor) -> Tensor:
        parts = list(accelerator.gather(rows.detach()).chunk(processes))
        if rows.requires_grad:
            own = rows.clone()
            # Each process has the gradient of its own rows alone, and the mean over the processes is taken.
            own.register_hook(lambda gradient: gradient * processes)
            parts[accelerator.process_index] = own
        return torch.cat(parts)

    return gather


def mean_over_processes(accelerator: Accelerator, values: Mapping[str, Tensor]) -> dict[str, float]:
    """Means of scalars over all processes, by name."""
    numbers = torch.stack([value.float().to(accelerator.device) for value in values.values()])
    return dict(zip(values, accelerator.reduce(numbers, reduction="mean").tolist(), strict=True))


def is_sound(values: dict[str, float], mean_loss: float | None, explosion: float) -> bool:
    """Whether a step may be taken: all finite, and no explosion against the running mean."""
    if not all(torch.tensor(list(values.values())).isfinite()):
        return False
    return mean_loss is None or values["loss"] <= explosion * max(mean_loss, 1e-8)


def skip_step(scaler: torch.amp.GradScaler) -> None:
    """Leave the weights alone; in fp16 the scaler lowers its scale if a gradient overflowed, and starts anew."""
    scaler.update()


def log(accelerator: Accelerator, run: RunFolder, step: int, values: dict[str, float]) -> None:
    """Write numbers of a step to metrics.jsonl and the trackers."""
    if accelerator.is_main_process:
        run.add_metrics(step, values)
    accelerator.log(values, step=step)


def save(state: State, run: RunFolder, averaged: Components | None, step: int, keep: int) -> None:
    """Write a step's weights and checkpoint. Every process has to call this; the one that has `averaged` writes."""
    content = {name: part.state_dict() for name, part in state.items()}
    if averaged is None:
        return
    with writing_step(run.weights, step) as folder:
        averaged.save(folder)
        run.describe(folder)
    with writing_step(run.checkpoints, step) as folder:
        torch.save(content, folder / STATE)
    keep_newest(run.checkpoints, keep)


def resume(state: State, run: RunFolder, accelerator: Accelerator) -> None:
    """Go on from the newest whole checkpoint of the run, if there is one. Every process has to call this.

    Raises:
        ConfigError: the checkpoint is of another model.
    """
    found = find_newest(run.checkpoints, accelerator.print)
    if found is None:
        return
    step, folder = found
    try:
        content = torch.load(folder / STATE, map_location="cpu", weights_only=True)
        for name, part in state.items():
            part.load_state_dict(content[name])
    except (RuntimeError, KeyError, ValueError) as error:
        raise ConfigError(f"{folder / STATE}: of another model ({str(error).splitlines()[0]})") from error
    accelerator.print(f"{run.path}: goes on after step {step}")


@contextmanager
def interruptible() -> Iterator[list[int]]:
    """Inside, SIGTERM and the first Ctrl-C are only noted, in the list; a second Ctrl-C stops at once."""
    seen: list[int] = []

    def note(number: int, frame: Any) -> None:
        if seen and number == signal.SIGINT:
            raise KeyboardInterrupt
        seen.append(number)
        tqdm.write("stopping after this step; a checkpoint is being written")

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield seen
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def describe(values: dict[str, float]) -> str:
    """Values in one line."""
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())
