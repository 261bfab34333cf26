"""Training: one visible loop. Run the same command again to go on where it stopped."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs, set_seed
from diffusers.optimization import get_scheduler
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from svfr.data.clip_sources import ClipSource, ImageFolder, ManifestClips, RenderedClips
from svfr.data.dataset import ClipDataset, Sample, collate, set_up_worker
from svfr.data.latent_cache import LatentCache, fingerprint
from svfr.data.sampler import ClipBatchSampler
from svfr.models.components import Components
from svfr.models.identity import id_crop
from svfr.models.unet import checkpoint_blocks
from svfr.training import checkpoint
from svfr.training.initialize import initialize, use_for
from svfr.training.objective import Gather, Objective, TrainedModel
from svfr.training.run_folder import RunFolder
from svfr.training.settings import TrainConfig
from svfr.training.state import TrainState, load_trained, whole
from svfr.training.validation import Validator

RUNNING_MEAN = 0.98  # of the loss, for its explosions
LONGEST_WAIT = timedelta(hours=2)  # of processes for the one that validates and writes
VAL_SEEDS = 1_000_000  # rendered clips from here up are never trained on


class TrainingError(ValueError):
    """Training that cannot go on; one line."""


def train(config: TrainConfig) -> bool:
    """Train SVFR.

    Args:
        config: all settings. `init_from` and a source of data have to be given.

    Returns:
        Whether the run is at `max_steps`; False if a signal (SIGTERM, Ctrl-C) stopped it, after a checkpoint.

    Raises:
        ConfigError: settings that cannot be, or a run folder of other settings.
        WeightsError: `init_from` cannot be used.
        TrainingError: the loss is not finite or explodes, step after step.
        OSError: the run folder cannot be written.
    """
    accelerator = make_accelerator(config)
    run = RunFolder(Path(config.output_dir))
    set_seed(config.seed)
    if accelerator.is_main_process:
        run.claim(config)
    accelerator.wait_for_everyone()

    # 1. Networks: what is trained in float32, the rest frozen in low precision.
    components = make_components(config)
    shadow = deepcopy(components) if accelerator.is_main_process else None  # for the moving average
    frozen = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[config.precision]
    components.to(accelerator.device, frozen, model_dtype=torch.float32)
    model = TrainedModel(components.model.train().requires_grad_(True))
    if config.gradient_checkpointing:
        checkpoint_blocks(components.model.unet)

    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    schedule = make_schedule(config, optimizer)
    model, prepared = accelerator.prepare(model, optimizer)
    state = TrainState(accelerator, model, prepared, schedule, config.ema_decay)
    progress = resume(state, run, accelerator)

    # 2. Data: what a sample is depends on (seed, epoch, index) alone.
    if config.lambda_ulr and config.batch_size * accelerator.num_processes == 1:
        accelerator.print("one clip in a batch: the regularization (ULR) has no negatives and no effect")
    dataset = make_dataset(config, "train", components.settings.id_crop)
    batches = iter(make_loader(dataset, config, accelerator, start=progress.step * config.accumulate))
    encode_clean = make_latent_cache(config, components, dataset.source)
    validator = (
        make_validator(config, components.settings.id_crop)
        if accelerator.is_main_process and config.validate_every
        else None
    )
    objective = make_objective(config)
    start_trackers(accelerator, config)

    # 3. The loop.
    with (
        interruptible() as interrupted,
        tqdm(
            total=config.max_steps,
            initial=progress.step,
            desc="train",
            unit="step",
            disable=not accelerator.is_main_process,
        ) as bar,
    ):
        stop = False
        while progress.step < config.max_steps and not stop:
            values: dict[str, Tensor] = {}
            for micro in range(config.accumulate):
                batch = next(batches)
                # Split gradients are summed over the processes each time: whole ones would not fit.
                last = micro == config.accumulate - 1 or accelerator.is_fsdp2
                with nullcontext() if last else accelerator.no_sync(model):
                    targets = objective.prepare(components, batch, encode_clean)
                    with accelerator.autocast():
                        outputs = model(targets)
                    loss, parts = objective.loss(outputs, targets, batch, gather=gatherer(accelerator))
                    accelerator.backward(loss / config.accumulate)
                values = {name: values.get(name, 0) + part / config.accumulate for name, part in parts.items()}
            grad_norm = accelerator.clip_grad_norm_(model.parameters(), config.max_grad_norm)

            # All processes have to agree on skipping and stopping: they see the same numbers.
            mean, stop = agree(accelerator, values, bool(interrupted))
            mean["grad_norm"] = float(whole(grad_norm))
            if is_sound(mean, progress.mean_loss, config.explosion):
                prepared.step()
                schedule.step()
                state.update_ema()
                progress.skipped_in_row = 0
                previous = mean["loss"] if progress.mean_loss is None else progress.mean_loss
                progress.mean_loss = RUNNING_MEAN * previous + (1 - RUNNING_MEAN) * mean["loss"]
                progress.sums = {name: progress.sums.get(name, 0.0) + value for name, value in mean.items()}
                progress.num_summed += 1
            else:
                skip_step(accelerator.scaler)
                progress.skipped += 1
                progress.skipped_in_row += 1
            prepared.zero_grad(set_to_none=True)
            progress.step += 1
            bar.update()
            bar.set_postfix(loss=f"{progress.mean_loss or float('nan'):.4f}", skipped=progress.skipped, refresh=False)

            if progress.step % config.log_every == 0 or progress.step == config.max_steps:
                log(accelerator, run, state)
            if progress.skipped_in_row > config.max_skipped:
                raise TrainingError(
                    f"step {progress.step}: {progress.skipped_in_row} steps in a row without a sound loss "
                    f"({describe(mean)}); go on from an earlier checkpoint with a lower learning_rate"
                )
            due = progress.step % config.checkpoint_every == 0 or progress.step == config.max_steps or stop
            validate = bool(config.validate_every) and progress.step % config.validate_every == 0
            if due or validate:
                ema = state.ema_weights()
                if shadow is not None:
                    load_trained(shadow.model, ema)
            if validate and validator is not None and shadow is not None:
                picture = run.samples / f"{checkpoint.step_name(progress.step)}.png"
                results = validate_with(validator, components, shadow, accelerator, picture)
                run.add_metrics(progress.step, results)
                accelerator.log(results, step=progress.step)
                bar.write(f"step {progress.step}: {describe(results)}")
            if due:
                save(state, run, accelerator, shadow, config.keep_checkpoints)
            accelerator.wait_for_everyone()
    accelerator.end_training()
    return progress.step >= config.max_steps


def make_accelerator(config: TrainConfig) -> Accelerator:
    """Devices, processes and precision, as `accelerate launch` and the settings say."""
    tracker: Any = None
    if config.tracker != "none":
        tracker = config.tracker
        try:
            __import__({"tensorboard": "tensorboard", "wandb": "wandb"}[config.tracker])
        except ImportError:
            tracker = None
            tqdm.write(f"{config.tracker} is not installed (pip install svfr[track]): metrics.jsonl alone is written")
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
    if accelerator.is_fsdp2:
        # Autocast alone lowers the precision, as everywhere else; FSDP's own would round the latents and the result.
        accelerator.state.fsdp_plugin.mixed_precision_policy = None
    return accelerator


def make_components(config: TrainConfig) -> Components:
    """The networks to start from, on the CPU."""
    if config.init_from is None:
        raise TrainingError("init_from is not given: SVD's folder, released, demo, or a folder of weights")
    components = initialize(
        config.init_from,
        config.seed,
        arcface=config.arcface,
        latent_transformer=config.lambda_ulr > 0,
        landmark_predictor=config.lambda_prior > 0,
    )
    components.check_size(config.data.size)
    use_for(components, config.data.size, config.data.num_frames)
    return components


def make_schedule(config: TrainConfig, optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
    """The learning rate: a linear rise over the warm-up, then constant or half a cosine down to 0 at `max_steps`."""
    name = "constant_with_warmup" if config.schedule == "constant" else config.schedule
    return get_scheduler(name, optimizer, num_warmup_steps=config.warmup_steps, num_training_steps=config.max_steps)


def make_objective(config: TrainConfig) -> Objective:
    """The loss that the settings ask for."""
    return Objective(
        weighting=config.weighting,
        sigma_mean=config.sigma_mean,
        sigma_std=config.sigma_std,
        lambda_ulr=config.lambda_ulr,
        lambda_prior=config.lambda_prior,
        temperature=config.ulr_temperature,
        denominator=config.ulr_denominator,
    )


def make_source(config: TrainConfig, split: str) -> ClipSource:
    """The clips of a split; of images and rendered clips, some are held out for validation."""
    data = config.data
    if data.manifests:
        return ManifestClips([Path(path) for path in data.manifests], split)
    if data.images is not None:
        return ImageFolder(Path(data.images), split, data.val_clips)
    if data.rendered_clips:
        return RenderedClips(*((data.rendered_clips, 0) if split == "train" else (data.val_clips, VAL_SEEDS)))
    raise TrainingError("no data: give data.manifests, data.images or data.rendered_clips")


def make_dataset(config: TrainConfig, split: str, crop_style: str) -> ClipDataset:
    """The samples that training draws, or validation: each clip under every combination of tasks, nothing mirrored.

    Args:
        config: of the run.
        split: "train" or "val".
        crop_style: alignment of the ID network's input, of the weights' settings.
    """
    data, weights = config.data, config.data.resolved_task_weights
    trains = split == "train"
    return ClipDataset(
        make_source(config, split),
        partial(id_crop, style=crop_style),
        size=data.size,
        num_frames=data.num_frames,
        num_views=data.num_views if trains else len(weights),
        task_weights=weights if trains else dict.fromkeys(weights, 1.0),
        preset=data.preset,
        reference_dropout=data.reference_dropout if trains else 1.0,
        flip=data.flip and trains,
        seed=config.seed,
        max_broken_share=data.max_broken_share if trains else 1.0,
    )


def make_latent_cache(config: TrainConfig, components: Components, source: ClipSource) -> LatentCache | None:
    """The latents of clean frames on disk, if the settings ask for them."""
    if config.data.latent_cache is None:
        return None
    folder = Path(config.data.latent_cache)
    return LatentCache(folder, source, components.encode, fingerprint(components.vae), config.data.size)


def make_loader(dataset: ClipDataset, config: TrainConfig, accelerator: Accelerator, start: int) -> DataLoader[Sample]:
    """Batches of this process, from global batch number `start` on, without end."""
    sampler = ClipBatchSampler(
        num_samples=len(dataset),
        batch_size=config.batch_size,
        process_index=accelerator.process_index,
        num_processes=accelerator.num_processes,
        seed=config.seed,
        start=start,
    )
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=config.data.num_workers,
        collate_fn=collate,
        worker_init_fn=set_up_worker,
        pin_memory=accelerator.device.type != "cpu",
    )


def make_validator(config: TrainConfig, crop_style: str) -> Validator | None:
    """Restores held-out clips."""
    try:
        dataset = make_dataset(config, "val", crop_style)
    except ValueError as error:
        tqdm.write(f"no validation: {error}")
        return None
    samples = [dataset[0, index] for index in range(min(config.data.val_clips, len(dataset)))]
    return Validator(samples, config.seed) if samples else None


def resume(state: TrainState, run: RunFolder, accelerator: Accelerator) -> Any:
    """Go on from the newest whole checkpoint of the run, if there is one; returns the progress."""
    found = checkpoint.latest(run.checkpoints, accelerator.print)
    if found is not None:
        step, folder = found
        state.load(folder)
        accelerator.print(f"{run.path}: goes on after step {step}")
    if accelerator.is_main_process:
        run.cut_metrics(state.progress.step)
    return state.progress


def start_trackers(accelerator: Accelerator, config: TrainConfig) -> None:
    """Start tensorboard or wandb."""
    accelerator.init_trackers("svfr", init_kwargs={"wandb": {"name": Path(config.output_dir).name}})


def gatherer(accelerator: Accelerator) -> Gather:
    """Rows of all processes, with gradients, for a loss that all of them compute alike."""
    processes = accelerator.num_processes

    def gather(rows: Tensor) -> Tensor:
        if processes == 1:
            return rows
        parts = list(accelerator.gather(rows.detach()).chunk(processes))
        if rows.requires_grad:
            own = rows.clone()
            # Each process has the gradient of its own rows alone, and the mean over the processes is taken.
            own.register_hook(lambda gradient: gradient * processes)
            parts[accelerator.process_index] = own
        return torch.cat(parts)

    return gather


def agree(accelerator: Accelerator, values: dict[str, Tensor], stop: bool) -> tuple[dict[str, float], bool]:
    """Means of the values over all processes, and whether any of them was told to stop."""
    names = list(values)
    numbers = torch.stack([*(values[name].float() for name in names), torch.tensor(float(stop)).to(accelerator.device)])
    means = accelerator.reduce(numbers, reduction="mean").tolist()
    return dict(zip(names, means[:-1], strict=True)), means[-1] > 0


def is_sound(values: dict[str, float], mean_loss: float | None, explosion: float) -> bool:
    """Whether a step may be taken: all finite, and no explosion against the running mean."""
    if not all(torch.tensor(list(values.values())).isfinite()):
        return False
    return mean_loss is None or values["loss"] <= explosion * max(mean_loss, 1e-8)


def skip_step(scaler: torch.amp.GradScaler | None) -> None:
    """Leave the weights alone; in fp16 the scaler lowers its scale if a gradient overflowed, and starts anew."""
    if scaler is not None:
        scaler.update()


def log(accelerator: Accelerator, run: RunFolder, state: TrainState) -> None:
    """Write the means since the last line to metrics.jsonl and the trackers."""
    progress = state.progress
    values = {name: total / progress.num_summed for name, total in progress.sums.items()}  # none if all were skipped
    values |= {"learning_rate": float(state.schedule.get_last_lr()[0]), "skipped": float(progress.skipped)}
    progress.sums, progress.num_summed = {}, 0
    if accelerator.is_main_process:
        run.add_metrics(progress.step, values)
    accelerator.log(values, step=progress.step)


def validate_with(
    validator: Validator, components: Components, shadow: Components, accelerator: Accelerator, picture: Path
) -> dict[str, float]:
    """Restore the validation clips with the moving average, on the device, and log what comes out."""
    model = shadow.model.to(components.device)
    averaged = Components(model, components.vae, components.id_encoder, components.scheduler, components.settings)
    with accelerator.autocast():
        results = validator(averaged, picture)
    model.cpu()
    return results


def save(
    state: TrainState, run: RunFolder, accelerator: Accelerator, shadow: Components | None, keep_checkpoints: int
) -> None:
    """Write the weights (the moving average, in `shadow` on the main process) and a checkpoint of this step."""
    step = state.progress.step
    if shadow is not None:
        weights = checkpoint.begin(run.weights, step)
        shadow.save(weights)
        run.describe(weights)
        checkpoint.finish(weights)
    partial = checkpoint.begin(run.checkpoints, step) if accelerator.is_main_process else run.checkpoints
    state.save(partial)
    if accelerator.is_main_process:
        checkpoint.finish(partial)
        checkpoint.prune(run.checkpoints, keep_checkpoints)


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
