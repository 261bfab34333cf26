"""All that a run needs to go on where it stopped, and the moving average of its weights."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from svfr.models.svfr import SVFR
from svfr.training.checkpoint import CheckpointError

STATE = "training.pt"
PREFIX = "model."  # of SVFR's parameters in `TrainedModel`
WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


@dataclass
class Progress:
    """Where a run is, in plain numbers."""

    step: int = 0
    skipped: int = 0  # steps without an update, in all
    skipped_in_row: int = 0
    mean_loss: float | None = None  # running mean, to know an explosion by
    sums: dict[str, float] = field(default_factory=dict)  # of the values since the last line of the metrics
    num_summed: int = 0


class TrainState:
    """Model, optimizer, schedule, moving average, generators and progress of a run.

    Args:
        accelerator: that has prepared the model and the optimizer.
        model: prepared.
        optimizer: prepared.
        schedule: of the learning rate.
        ema_decay: of the moving average.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        model: nn.Module,
        optimizer: Optimizer,
        schedule: LRScheduler,
        ema_decay: float,
    ) -> None:
        self.accelerator = accelerator
        self.model = model
        self.optimizer = optimizer
        self.schedule = schedule
        self.ema = EMAModel(self._trained(), decay=ema_decay)
        self.progress = Progress()

    def _trained(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    def _trained_names(self) -> list[str]:
        unwrapped = self.accelerator.unwrap_model(self.model)
        return [
            name.removeprefix(PREFIX) for name, parameter in unwrapped.named_parameters() if parameter.requires_grad
        ]

    def update_ema(self) -> None:
        """Let the moving average follow the weights, after a step."""
        self.ema.step(self._trained())

    def ema_weights(self) -> dict[str, Tensor]:
        """The whole moving average by SVFR's parameter names, on the CPU. Every process has to call this."""
        return dict(zip(self._trained_names(), map(whole, self.ema.shadow_params), strict=True))

    def save(self, folder: Path) -> None:
        """Write the state into a folder. Every process has to call this; the main one writes."""
        model, optimizer = get_state_dict(self.model, _plain(self.optimizer), options=WHOLE)
        generators = self.accelerator.gather(torch.get_rng_state()[None].to(self.accelerator.device)).cpu()
        ema_weights = self.ema_weights()
        if not self.accelerator.is_main_process:
            return
        scaler = self.accelerator.scaler
        state = {
            "model": model,
            "optimizer": optimizer,
            "schedule": self.schedule.state_dict(),
            "ema": ema_weights,
            "ema_step": self.ema.optimization_step,
            "scaler": None if scaler is None else scaler.state_dict(),
            "generators": generators,
            "progress": asdict(self.progress),
        }
        torch.save(state, folder / STATE)

    def load(self, folder: Path) -> None:
        """Go on from what `save` wrote, also with another number of processes. Every process has to call this.

        Raises:
            CheckpointError: the state is of another model.
        """
        try:
            state: dict[str, Any] = torch.load(folder / STATE, map_location="cpu", weights_only=True)
            set_state_dict(
                self.model,
                _plain(self.optimizer),
                model_state_dict=state["model"],
                optim_state_dict=state["optimizer"],
                options=WHOLE,
            )
        except (RuntimeError, KeyError, ValueError) as error:
            raise CheckpointError(f"{folder / STATE}: of another model ({str(error).splitlines()[0]})") from error
        self.schedule.load_state_dict(state["schedule"])
        for shadow, name in zip(self.ema.shadow_params, self._trained_names(), strict=True):
            _fill(shadow, state["ema"][name])
        self.ema.optimization_step = state["ema_step"]
        if self.accelerator.scaler is not None and state["scaler"] is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        if len(state["generators"]) == self.accelerator.num_processes:
            # Of a view into a larger tensor, PyTorch crashes.
            torch.set_rng_state(state["generators"][self.accelerator.process_index].clone())
        self.progress = Progress(**state["progress"])


def load_trained(model: SVFR, weights: dict[str, Tensor]) -> None:
    """Put `ema_weights` into a copy of the model."""
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, value in weights.items():
            parameters[name].copy_(value)


def _plain(optimizer: Optimizer) -> Iterable[Optimizer]:
    """The optimizer itself, under accelerate's wrapper."""
    return (getattr(optimizer, "optimizer", optimizer),)


def whole(tensor: Tensor) -> Tensor:
    """A copy on the CPU; of one that is split over processes, all of it. Every process has to call this."""
    gathered = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return gathered.detach().cpu().clone()


def _fill(tensor: Tensor, whole: Tensor) -> None:
    if isinstance(tensor, DTensor):
        whole = distribute_tensor(whole.to(tensor.device), tensor.device_mesh, tensor.placements)
    with torch.no_grad():
        tensor.copy_(whole)
