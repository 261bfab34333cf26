"""What a run needs to go on where it stopped. The number of processes may change in between."""

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import AdamW, Optimizer

import svfr
from svfr.config import ConfigError
from svfr.models.components import Components
from svfr.training.processes import Processes
from svfr.training.run_folder import RunFolder, find_newest, keep_newest, step_name, writing_step

STATE = "training.pt"  # in the folder of a checkpoint
RUNNING_MEAN = 0.98  # of the loss, for its explosions


class TrainingError(ValueError):
    """Training that cannot go on; one line."""

    exit_code = 1


@dataclass
class Progress:
    """Where a run is, in plain numbers."""

    step: int = 0
    samples: int = 0  # clips that all processes together have seen
    skipped: int = 0  # steps without an update, in all
    skipped_in_row: int = 0
    mean_loss: float | None = None  # running mean, to know an explosion by
    sums: dict[str, float] = field(default_factory=dict)  # of the values since the last line of the metrics
    num_summed: int = 0

    @property
    def updates(self) -> int:
        """Of the weights."""
        return self.step - self.skipped

    def add_step(self, values: dict[str, float] | None, samples: int) -> None:
        """Count a step, its samples and what it gave; None: it was skipped."""
        self.step += 1
        self.samples += samples
        if values is None:
            self.skipped += 1
            self.skipped_in_row += 1
            return
        self.skipped_in_row = 0
        previous = values["loss"] if self.mean_loss is None else self.mean_loss
        self.mean_loss = RUNNING_MEAN * previous + (1 - RUNNING_MEAN) * values["loss"]
        self.sums = {name: self.sums.get(name, 0.0) + value for name, value in values.items()}
        self.num_summed += 1

    def take_means(self) -> dict[str, float]:
        """Means of the values since the last call; none if all steps were skipped."""
        means = {name: total / self.num_summed for name, total in self.sums.items()}
        self.sums, self.num_summed = {}, 0
        return means


class ModelAndOptimizer:
    """Weights that are trained and AdamW's moments, which may be split over processes; whole in a checkpoint."""

    def __init__(self, model: nn.Module, optimizer: Optimizer, is_main: bool) -> None:
        """Of a model without DDP's wrapper and of AdamW, or bitsandbytes', without accelerate's, before its first step.

        `is_main` says whether this is the process that writes and reads checkpoints.
        """
        self.is_main = is_main
        self.tensors: dict[str, Tensor] = {}
        names = {parameter: name for name, parameter in model.named_parameters()}
        for place, group in enumerate(optimizer.param_groups):
            for index, parameter in enumerate(group["params"]):
                name, state = names[parameter], optimizer.state[parameter]  # filled as its first step does
                if isinstance(optimizer, AdamW):
                    moments = {kind: torch.zeros_like(parameter) for kind in ("exp_avg", "exp_avg_sq")}
                    state |= {"step": torch.zeros(()), **moments}
                else:
                    optimizer.init_state(group, parameter, place, index)  # type: ignore[attr-defined]  # bitsandbytes' own
                    state["step"] = torch.zeros((), dtype=torch.int64)  # a tensor, as all that a checkpoint holds
                self.tensors[name] = parameter
                self.tensors |= {f"{kind}/{name}": tensor for kind, tensor in state.items()}

    def state_dict(self) -> dict[str, Tensor]:
        """All tensors, whole, on the main process; none on others. Every process has to call this."""
        wholes = ((name, gather_whole(tensor)) for name, tensor in self.tensors.items())
        return {name: whole.cpu() for name, whole in wholes if self.is_main}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take the main process's `state`, one tensor after the other. Every process has to call this."""
        device = next(iter(self.tensors.values())).device
        for name, tensor in self.tensors.items():
            whole = state[name] if self.is_main else torch.empty(tensor.shape, dtype=tensor.dtype)
            whole = whole.to(device)
            if isinstance(tensor, DTensor):
                whole = distribute_tensor(whole, tensor.device_mesh, tensor.placements)
            elif distributed.is_initialized():
                distributed.broadcast(whole, src=0)
            tensor.copy_(whole)


class MovingAverage:
    """Exponential moving average of a model's trained parameters, on the main process alone.

    On a CPU an update takes as long as a step may, so a thread makes it while the next step runs: before the module
    `average` is used, `finish` has to be called.
    """

    def __init__(self, model: nn.Module, average: nn.Module | None, decay: float) -> None:
        """Of a model without DDP's wrapper; `average` has the same parameters, not split, on the CPU, and is None on
        all but the main process. The decay rises from 0 over the first steps."""
        self.decay = decay
        self._parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._device = next(iter(self._parameters.values())).device
        self._average = average
        pinned = self._device.type != "cpu"  # copies are ten times as fast
        self._copies = {name: torch.empty_like(p, pin_memory=pinned) for name, p in self._averages.items()}
        self._thread = ThreadPoolExecutor(1)
        self._update: Future[None] | None = None

    @property
    def _averages(self) -> dict[str, Tensor]:
        """By name, as they are now: a module that was moved to a device and back has others."""
        named = [] if self._average is None else self._average.named_parameters()
        return {name: p.data for name, p in named if name in self._parameters}

    @torch.no_grad()
    def update(self, updates: int) -> None:
        """Follow the parameters, after a step and `updates` before it. Every process has to call this."""
        self.finish()
        for name, parameter in self._parameters.items():
            whole = gather_whole(parameter)
            if self._copies:
                self._copies[name].copy_(whole, non_blocking=True)
        if self._device.type != "cpu":
            torch.accelerator.synchronize(self._device)
        decay = min(self.decay, (1 + updates) / (10 + updates)) if updates else 0.0
        self._update = self._thread.submit(self._follow, 1 - decay)

    @torch.no_grad()
    def _follow(self, weight: float) -> None:
        for name, average in self._averages.items():
            average.lerp_(self._copies[name], weight)

    def finish(self) -> None:
        """Wait for the last update."""
        if self._update is not None:
            self._update.result()

    def state_dict(self) -> dict[str, Tensor]:
        """The averages by the parameters' names; none on all but the main process."""
        self.finish()
        return self._averages

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take a `state_dict`; a KeyError or RuntimeError where it is of another model."""
        if self._averages.keys() != state.keys():
            raise KeyError(*sorted(self._averages.keys() ^ state.keys())[:1])
        for name, average in self._averages.items():
            average.copy_(state[name])


@dataclass
class State:
    """All that changes with every step."""

    trained: ModelAndOptimizer
    ema: MovingAverage
    scaler: torch.amp.GradScaler
    progress: Progress = field(default_factory=Progress)

    def state_dict(self) -> dict[str, Any]:
        """The content of a checkpoint, on the main process. Every process has to call this."""
        numbers = {"scaler": self.scaler.state_dict(), "progress": asdict(self.progress)}
        return {"trained": self.trained.state_dict(), "ema": self.ema.state_dict(), "numbers": numbers}

    def load_numbers(self, numbers: dict[str, Any]) -> None:
        """Take the numbers of a `state_dict`; a TypeError where they are of another revision of the code."""
        self.scaler.load_state_dict(numbers["scaler"])
        self.progress = Progress(**numbers["progress"])


def save(content: dict[str, Any], run: RunFolder, averaged: Components, keep: tuple[int, int]) -> None:
    """Write a step's weights and checkpoint, and leave the newest of each: `keep` says how many.

    Of several processes, the main one calls this, with its `State.state_dict`. A TrainingError where the disk is full,
    or the run folder may not be written; what was there before still is.
    """
    step = content["numbers"]["progress"]["step"]
    try:
        with writing_step(run.weights, step) as folder:
            averaged.save(folder)
            run.describe(folder)
        with writing_step(run.checkpoints, step) as folder, (folder / STATE).open("wb") as file:
            torch.save(content, file)
    except (OSError, RuntimeError) as error:
        reason = error if isinstance(error, OSError) else error.__context__  # torch's own covers that of the disk
        if not isinstance(reason, OSError):
            raise
        advice = "mend that, and run the same command again to go on from the checkpoint before"
        raise TrainingError(f"step {step} cannot be written: {reason}; {advice}") from error
    for steps, count in zip((run.weights, run.checkpoints), keep, strict=True):
        keep_newest(steps, count)


def resume(state: State, run: RunFolder, processes: Processes) -> int | None:
    """Go on from the newest whole checkpoint of the run, if there is one: its step. Every process has to call this.

    The main process chooses and reads it; the others get from it what they need, tensor by tensor. A ConfigError where
    it is of another model, or a process doesn't see it where the main one does.
    """
    with processes.agreeing():
        step = find_newest(run.checkpoints, svfr.error) if processes.is_main else None
        wanted = run.look_at(step) if processes.is_main else None
    step, wanted = processes.share((step, wanted))
    with processes.agreeing():
        if run.look_at(step) != wanted:
            raise ConfigError(
                f"{run.checkpoints.resolve()}: process {processes.index} does not see there what the main process does "
                f"({'no checkpoint' if step is None else step_name(step)}); give output_dir on a disk that all see"
            )
    if step is None:
        return None
    content: dict[str, Any] = {"trained": {}, "numbers": {}}
    with processes.agreeing():
        if processes.is_main:
            file = run.checkpoints / step_name(step) / STATE
            try:
                content = torch.load(file, map_location="cpu", mmap=True, weights_only=True)
                state.ema.load_state_dict(content["ema"])
                state.load_numbers(content["numbers"])
            except (RuntimeError, KeyError, TypeError) as error:
                raise ConfigError(f"{file}: of another model ({str(error).splitlines()[0]})") from error
    state.load_numbers(processes.share(content["numbers"]))
    state.trained.load_state_dict(content["trained"])
    return step


def gather_whole(tensor: Tensor) -> Tensor:
    """All of a tensor that may be split over processes. Every process has to call this."""
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach()
