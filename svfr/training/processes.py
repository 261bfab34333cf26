"""What the processes of a run do together."""

import importlib.util
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from torch import Tensor, distributed

from svfr import note
from svfr.training.objective import Gather
from svfr.training.settings import TrainConfig

LONGEST_WAIT = timedelta(hours=2)  # of processes for the one that validates and writes
Value = TypeVar("Value")


class Stopped(Exception):
    """Another process has failed and says why; this one ends with it."""


class Processes:
    """How the processes of a run agree, and wait for the main one, which may validate or write for long.

    They do so on gloo: the network of the gradients keeps its own short limit, by which a hanging process is noticed.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.index, self.count = accelerator.process_index, accelerator.num_processes
        self.is_main = accelerator.is_main_process
        self._group: distributed.ProcessGroup | None = None
        if self.count > 1:
            self._group = cast(distributed.ProcessGroup, distributed.new_group(backend="gloo", timeout=LONGEST_WAIT))

    def share(self, value: Value) -> Value:
        """The main process's value, on all. Every process has to call this."""
        values = [value]
        if self._group is not None:
            distributed.broadcast_object_list(values, src=0, group=self._group)
        return values[0]

    @contextmanager
    def agreeing(self) -> Iterator[None]:
        """All leave the block together, or none: the first process with an error raises it, and all others `Stopped`.

        Inside, no process may wait for another.
        """
        error: Exception | None = None
        try:
            yield
        except Exception as caught:
            error = caught
        failed = [error is not None] * self.count
        if self._group is not None:
            distributed.all_gather_object(failed, error is not None, group=self._group)
        if any(failed):
            raise error if error is not None and failed.index(True) == self.index else Stopped


def make_accelerator(config: TrainConfig) -> Accelerator:
    """Devices, processes and precision, as `accelerate launch` and the settings say."""
    tracker: Any = None if config.tracker == "none" else config.tracker  # one that is not installed is left out
    accelerator = Accelerator(
        mixed_precision="no" if config.precision == "fp32" else config.precision,
        cpu=config.device == "cpu",
        log_with=tracker,
        project_dir=config.output_dir,
        kwargs_handlers=[DistributedDataParallelKwargs(gradient_as_bucket_view=True)],  # else they are there twice
    )
    if tracker is not None and importlib.util.find_spec(tracker) is None:
        note(f"{tracker} is not installed (pip install svfr[track]): metrics.jsonl alone is written")
    if config.precision == "fp16" and accelerator.device.type == "cpu":
        # accelerate silently leaves float16 out on CPUs.
        accelerator.native_amp, accelerator.scaler = True, torch.amp.GradScaler("cpu")
    if config.precision == "bf16" and accelerator.device.type == "cpu":
        # Its gradients of convolutions over time are no numbers, now and then, where the processor has instructions for
        # bfloat16 (torch 2.14).
        torch.backends.mkldnn.enabled = False  # type: ignore[assignment]  # a property, which its type does not say
    if accelerator.is_fsdp2:
        # Autocast alone lowers the precision, as everywhere else; FSDP's own would round the latents and the result.
        accelerator.state.fsdp_plugin.mixed_precision_policy = None
    return accelerator


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
