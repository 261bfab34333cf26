"""Training: one visible loop. Run the same command again to go on where it stopped."""

import math
import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, nn

from svfr import bar as make_bar
from svfr import note
from svfr.config import ConfigError
from svfr.data.clip_sources import TEST_SEEDS, ClipSource, ImageFolder, ManifestClips, RenderedClips
from svfr.data.dataset import ClipDataset, Sample
from svfr.data.loader import ClipBatchSampler, ClipLoader
from svfr.files import sha256_of
from svfr.inference.settings import default_overlap
from svfr.models.components import Components
from svfr.models.devices import check_compiler
from svfr.models.identity import id_crop
from svfr.models.lora import freeze_base
from svfr.models.unet import checkpoint_blocks, compile_blocks
from svfr.training.initialize import initialize
from svfr.training.objective import Objective, TrainedModel
from svfr.training.one_step import OneStep
from svfr.training.processes import Processes, make_accelerator, make_gather, mean_over_processes
from svfr.training.run_folder import RunFolder, step_name
from svfr.training.settings import TrainConfig
from svfr.training.state import ModelAndOptimizer, MovingAverage, State, TrainingError, gather_whole, resume, save
from svfr.training.validation import show, validate

SIGNALS = {signal.SIGTERM, signal.SIGINT}  # that end a run after its step
SAME_CTRL_C = 3.0  # [s] a launcher hands on the Ctrl-C that its processes have had from the terminal already
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
METHODS: dict[str, type[Objective]] = {"svfr": Objective, "one_step": OneStep}


def train(config: TrainConfig) -> bool:
    """Train SVFR; returns whether the run is at `max_steps`: False if a signal stopped it, after a checkpoint.

    Raises:
        ConfigError: settings that cannot be, or a run folder of other settings or another model.
        WeightsError: `init_from` cannot be used.
        TrainingError: the loss is not finite or explodes, step after step; a checkpoint cannot be written.
        Stopped: another process has raised one of these.
        OSError: the run folder cannot be written.
    """
    accelerator = make_accelerator(config)
    processes = Processes(accelerator)
    is_main = processes.is_main
    run = RunFolder(Path(config.output_dir))
    set_seed(config.seed)

    # 1. Networks and data. What a sample is depends on (seed, epoch, index) alone.
    with processes.agreeing():
        components = initialize(config)
        averaged = deepcopy(components) if is_main else None  # what is trained of it is the moving average
        make_optimizer = find_optimizer(config)
        if accelerator.is_fsdp2 and (config.lora.rank or config.optimizer == "adamw_8bit"):
            raise ConfigError("lora.rank, optimizer=adamw_8bit: not with FSDP; use configs/accelerate/ddp.yaml")
        if accelerator.is_fsdp2 and config.decoder_rate:  # processes decode as many references as they draw
            raise ConfigError("decoder_rate: not with FSDP; use configs/accelerate/ddp.yaml")
        dataset = make_dataset(config, "train", components.settings.id_crop)
        held_out = make_held_out(config, components) if is_main and config.validate_every else []

    # 2. The run folder, now that the call is known to be right.
    batch_size = config.batch_size * processes.count  # of all processes
    samples_per_step = batch_size * config.accumulate
    with processes.agreeing():
        if is_main:
            manifests = {f"sha256 of {path}": sha256_of(Path(path)) for path in config.data.manifests}
            product = {"batch_size x processes x accumulate": samples_per_step}
            run.claim(config, {**product, "clips": len(dataset), **manifests}, note)

    # 3. What is trained in float32, the rest frozen in low precision; all that resuming needs.
    frozen = PRECISIONS[config.precision]
    vae_dtype = torch.float32 if config.decoder_rate else None
    components.to(accelerator.device, frozen, model_dtype=torch.float32, vae_dtype=vae_dtype)
    if averaged is not None and averaged.lora is not None:
        freeze_base(averaged.model, frozen)
    method = METHODS[config.method](config, components, make_gather(accelerator), accelerator.autocast)
    module = method.module()
    if config.compile:
        check_compiler(accelerator.device)
        compile_blocks(components.model.unet)
    if config.gradient_checkpointing:
        checkpoint_blocks(components.model.unet)
    optimizer = make_optimizer(method.groups(module), weight_decay=config.weight_decay)
    model, optimizer = accelerator.prepare(module, optimizer)
    trained = accelerator.unwrap_model(model)
    scaler = accelerator.scaler or torch.amp.GradScaler(enabled=False)
    average = None if averaged is None else TrainedModel(averaged.model, averaged.vae.decoder)
    ema = MovingAverage(TrainedModel(trained.model, trained.decoder), average, config.ema_decay)
    state = State(ModelAndOptimizer(trained, optimizer.optimizer, is_main), ema, scaler)
    step, progress = resume(state, run, processes), state.progress
    if step is not None and is_main:
        note(f"{run.path}: goes on after step {step}")
    if config.lambda_ulr and batch_size == 1 and is_main:
        note("one clip in a batch: the regularization (ULR) has no negatives and no effect")
    with processes.agreeing():
        if is_main:
            run.cut_metrics(progress.step)
            accelerator.init_trackers("svfr", init_kwargs={"wandb": {"name": run.path.name}})
    loader = make_loader(dataset, config, accelerator, start=progress.samples // batch_size)

    # 4. The loop.
    stop = False
    bar = make_bar(config.max_steps, "step", "train", is_main, initial=progress.step)
    with interruptible() as interrupted, bar, running(loader) as batches:
        while progress.step < config.max_steps and not stop:
            # Resumed or not, a step draws the same numbers.
            torch.manual_seed(config.seed + progress.step * accelerator.num_processes + accelerator.process_index)
            values: dict[str, Tensor] = {}
            for micro_step in range(config.accumulate):
                # Split gradients are summed over the processes each time: whole ones would not fit.
                sums_gradients = micro_step == config.accumulate - 1 or accelerator.is_fsdp2
                with nullcontext() if sums_gradients else accelerator.no_sync(model):
                    loss, parts = method(model, next(batches))
                    accelerator.backward(loss / config.accumulate)
                values = {name: values.get(name, 0) + part / config.accumulate for name, part in parts.items()}
            first, *others = (group["params"] for group in optimizer.param_groups)
            grad_norm = accelerator.clip_grad_norm_(first, config.max_grad_norm)  # of the model that restores
            norms = [nn.utils.clip_grad_norm_(parameters, config.max_grad_norm) for parameters in others]

            # All processes see the same numbers, so they skip and stop together.
            values["stop"] = torch.tensor(float(bool(interrupted)))
            means = mean_over_processes(accelerator, values)
            stop = means.pop("stop") > 0
            if stop and is_main:
                note("stopping after this step; a checkpoint is being written")
            means["grad_norm"] = float(gather_whole(grad_norm))
            rate = learning_rate(config, progress.updates)
            others_norm = sum(float(gather_whole(norm)) for norm in norms)
            if is_sound(means | {"others": others_norm}, progress.mean_loss, config.explosion):
                for group in optimizer.param_groups:
                    group["lr"] = rate * group["scale"]
                optimizer.step()
                ema.update(progress.updates)
                progress.add_step(means, samples_per_step)
            else:
                skip_step(scaler)
                progress.add_step(None, samples_per_step)
            optimizer.zero_grad(set_to_none=True)
            step, is_last = progress.step, progress.step == config.max_steps
            bar.update()
            bar.set_postfix(loss=f"{progress.mean_loss or float('nan'):.4f}", skipped=progress.skipped, refresh=False)

            if step % config.log_every == 0 or is_last:
                facts = {"learning_rate": rate, "skipped": float(progress.skipped)}
                log(accelerator, run, step, progress.take_means() | facts)
            if progress.skipped_in_row > config.max_skipped:
                raise TrainingError(
                    f"step {step}: {progress.skipped_in_row} steps in a row without a sound loss "
                    f"({describe(means)}); go on from an earlier checkpoint with a lower learning_rate"
                )
            if config.validate_every and step % config.validate_every == 0:
                ema.finish()
                with processes.agreeing():
                    if averaged is not None and held_out:
                        pictures = run.samples / step_name(step)
                        results = validate(method, averaged, held_out, accelerator.autocast(), pictures)
                        log(accelerator, run, step, results)
                        show(accelerator.trackers, pictures, step)
                        note(f"step {step}: {describe(results)}")
            if step % config.checkpoint_every == 0 or is_last or stop:
                content = state.state_dict()
                with processes.agreeing():
                    if averaged is not None:
                        save(content, run, averaged, keep=(config.keep_weights, config.keep_checkpoints))
    accelerator.end_training()
    return progress.step >= config.max_steps


def find_optimizer(config: TrainConfig) -> Callable[..., torch.optim.Optimizer]:
    """The class of the optimizer; a ConfigError where bitsandbytes is needed and not installed."""
    if config.optimizer == "adamw":
        return torch.optim.AdamW
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise ConfigError("optimizer=adamw_8bit: needs the package bitsandbytes: pip install svfr[train]") from error
    return AdamW8bit


def learning_rate(config: TrainConfig, updates: int) -> float:
    """Of the update after `updates`: a linear rise over the warm-up, then constant or half a cosine to 0 at the end."""
    if updates < config.warmup_steps:
        return config.learning_rate * updates / config.warmup_steps
    if config.schedule == "constant":
        return config.learning_rate
    done = (updates - config.warmup_steps) / max(1, config.max_steps - config.warmup_steps)
    return config.learning_rate * (1 + math.cos(math.pi * min(1.0, done))) / 2


def make_source(config: TrainConfig, split: str) -> ClipSource:
    """The clips of a split; of images and rendered clips, some are held out for validation."""
    data = config.data
    if data.manifests:
        best = data.best if split == "train" else None
        paths, other_clip = [Path(path) for path in data.manifests], data.reference_other_clip
        return ManifestClips(paths, split, best, data.size, other_clip if split == "train" else 0, data.allow_outside)
    if data.images is not None:
        return ImageFolder(Path(data.images), split, data.val_clips)
    if data.rendered_clips:
        return RenderedClips(*((data.rendered_clips, 0) if split == "train" else (data.val_clips, TEST_SEEDS)))
    raise TrainingError("no data: give data.manifests, data.images or data.rendered_clips")


def make_dataset(config: TrainConfig, split: str, crop_style: str) -> ClipDataset:
    """The samples of training; or of validation: as long as two clips of inference, where there are any so long, under
    every combination of tasks, with a reference."""
    data, source = config.data, make_source(config, split)
    if split == "val":
        weights, clip_length = dict.fromkeys(data.resolved_task_weights, 1.0), config.clip_length or data.num_frames
        length = max(data.num_frames, 2 * clip_length - default_overlap(config.context_frames, clip_length))
        plain: dict[str, Any] = {"flip": False, "reference_dropout": 0.0, "reference_degraded": 0.0}
        plain |= {"num_views": len(weights), "task_weights": weights, "max_broken_share": 1.0}
        data = replace(data, num_frames=min(length, max(source.lengths)), **plain)
    return ClipDataset(source, partial(id_crop, style=crop_style), data, config.seed)


def make_loader(dataset: ClipDataset, config: TrainConfig, accelerator: Accelerator, start: int) -> ClipLoader:
    """Batches of this process, from global batch number `start` on, without end."""
    place = accelerator.process_index, accelerator.num_processes
    sampler = ClipBatchSampler(len(dataset), config.batch_size, *place, config.seed, start)
    return ClipLoader(dataset, sampler, config.data.num_workers, pin_memory=accelerator.device.type != "cpu")


def make_held_out(config: TrainConfig, components: Components) -> list[Sample]:
    """The samples of validation, of videos spread over all; none, with a line that says why, where there is no clip."""
    try:
        dataset = make_dataset(config, "val", components.settings.id_crop)
    except ValueError as error:
        note(f"no validation: {error}")
        return []
    first_of_video = {video: index for index, video in reversed(list(enumerate(dataset.video_ids)))}
    places = sorted(first_of_video.values())
    count = min(config.data.val_clips, len(places))
    return [dataset[0, places[number * len(places) // count]] for number in range(count)]


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


@contextmanager
def running(loader: ClipLoader) -> Iterator[Iterator[Sample]]:
    """Batches of a loader; neither SIGTERM nor Ctrl-C ends its workers, which would end the run, but that of the block.

    A launcher sends these to all processes of a run, but it is for the training process to say what follows.
    """
    others = multiprocessing.active_children()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # which is inherited
    try:
        batches = iter(loader)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    workers = [child for child in multiprocessing.active_children() if child not in others]
    try:
        yield batches
    finally:
        watch = signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # of the loader: a worker that is killed is a failure
        for worker in workers:
            worker.kill()
            worker.join()
        signal.signal(signal.SIGCHLD, watch)


@contextmanager
def interruptible() -> Iterator[list[float]]:
    """Inside, SIGTERM and the first Ctrl-C are only noted, in the list; a second Ctrl-C stops at once."""
    seen: list[float] = []  # [s]

    def note(number: int, frame: Any) -> None:
        if seen and number == signal.SIGINT and time.monotonic() > seen[0] + SAME_CTRL_C:
            raise KeyboardInterrupt
        seen.append(time.monotonic())

    before = {number: signal.signal(number, note) for number in SIGNALS}
    try:
        yield seen
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def describe(values: dict[str, float]) -> str:
    """Values in one line."""
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())
