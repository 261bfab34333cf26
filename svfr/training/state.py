"""What a run needs to go on where it stopped: parts with a `state_dict`, whole and on the CPU, and `load_state_dict`.

Every process of a run has to call both; the number of processes may change between them.
"""

from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
from torch.distributed.checkpoint.stateful import Stateful
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

State = dict[str, Stateful]  # what changes with every step, by name
RUNNING_MEAN = 0.98  # of the loss, for its explosions


@dataclass
class Progress:
    """Where a run is, in plain numbers."""

    step: int = 0
    skipped: int = 0  # steps without an update, in all
    skipped_in_row: int = 0
    mean_loss: float | None = None  # running mean, to know an explosion by
    sums: dict[str, float] = field(default_factory=dict)  # of the values since the last line of the metrics
    num_summed: int = 0

    def add_step(self, values: dict[str, float] | None) -> None:
        """Count a step and what it gave; None: it was skipped."""
        self.step += 1
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

    def state_dict(self) -> dict[str, Any]:
        """The numbers."""
        return asdict(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the numbers of a `state_dict`."""
        self.__init__(**state)  # type: ignore[misc]


class ModelAndOptimizer:
    """Weights and optimizer, whole, whether they are split over processes or not.

    Args:
        model: prepared by accelerate.
        optimizer: of its parameters, itself and not accelerate's wrapper.
    """

    options = StateDictOptions(full_state_dict=True, cpu_offload=True)

    def __init__(self, model: nn.Module, optimizer: Optimizer) -> None:
        self.model = model
        self.optimizer = optimizer

    def state_dict(self) -> dict[str, Any]:
        """Weights, and the optimizer's moments by their names."""
        model, optimizer = get_state_dict(self.model, self.optimizer, options=self.options)
        return {"model_state_dict": model, "optim_state_dict": optimizer}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load a `state_dict`."""
        set_state_dict(self.model, self.optimizer, **state, options=self.options)


class MovingAverage:
    """Exponential moving average of a model's parameters.

    Args:
        model: without the wrapper of DDP.
        decay: rises to this from 0 over the first steps.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._parameters = dict(model.named_parameters())
        self._average = EMAModel(self._parameters.values(), decay=decay)

    def update(self) -> None:
        """Follow the parameters, after a step."""
        self._average.step(self._parameters.values())

    def weights(self) -> dict[str, Tensor]:
        """The averages by the parameters' names, whole and on the CPU. Every process has to call this."""
        return dict(zip(self._parameters, map(gather_whole, self._average.shadow_params), strict=True))

    def state_dict(self) -> dict[str, Any]:
        """The averages, and how many steps are in them."""
        return {"weights": self.weights(), "step": self._average.optimization_step}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load a `state_dict`."""
        self._average.optimization_step = state["step"]
        for name, average in zip(self._parameters, self._average.shadow_params, strict=True):
            whole = state["weights"][name]
            if isinstance(average, DTensor):
                whole = distribute_tensor(whole.to(average.device), average.device_mesh, average.placements)
            average.copy_(whole)


def gather_whole(tensor: Tensor) -> Tensor:
    """A copy on the CPU; of one that is split over processes, all of it. Every process has to call this."""
    gathered = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return gathered.detach().cpu().clone()
