"""A run whose parameters are split over two processes (FSDP 2, on the CPU) saves and loads whole states."""

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator, PartialState
from torch import Tensor, multiprocessing, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from svfr.models.unet import checkpoint_blocks
from svfr.training.loop import make_gather
from svfr.training.objective import Objective, TrainedModel
from svfr.training.processes import Processes
from svfr.training.run_folder import RunFolder, writing_step
from svfr.training.state import STATE, ModelAndOptimizer, MovingAverage, Progress, State, resume
from tests import tiny
from tests.training.test_distributed import CONFIG, free_port, join, made_batch

STEPS = 3
SHARDED_BLOCKS = ("TransformerSpatioTemporalModel", "SpatioTemporalResBlock")  # as configs/accelerate/fsdp.yaml
BOTH_CLIPS = slice(0, 2)
States = dict[str, dict[str, Tensor]]


class Run:
    """A model in training; `salt` makes its first weights others."""

    def __init__(self, accelerator: Accelerator, sharded: bool, salt: float = 0) -> None:
        self.accelerator = accelerator
        self.components = tiny.pipeline().parts
        model = TrainedModel(self.components.model.requires_grad_(True).train())
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(salt)
        if sharded:
            checkpoint_blocks(self.components.model.unet)
            mesh = init_device_mesh("cpu", (accelerator.num_processes,))
            for module in list(model.modules()):
                if type(module).__name__ in SHARDED_BLOCKS:
                    fully_shard(module, mesh=mesh)
            fully_shard(model, mesh=mesh)
            assert all(isinstance(parameter, DTensor) for parameter in model.parameters())
        self.model: nn.Module = model
        # A large eps, so that gradients of rounding noise don't become steps of full size.
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, eps=1e-3)
        is_main = accelerator.is_main_process
        self.average = MovingAverage(model, TrainedModel(tiny.pipeline().parts.model) if is_main else None, decay=0.5)
        trained = ModelAndOptimizer(model, self.optimizer, is_main)
        self.state = State(trained, self.average, torch.amp.GradScaler(enabled=False), Progress())
        self.objective = Objective(CONFIG, self.components, make_gather(accelerator))

    def step(self, clips: slice) -> None:
        self.objective(self.model, made_batch(clips))[0].backward()
        self.accelerator.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.average.update(self.state.progress.updates)
        self.optimizer.zero_grad()
        self.state.progress.step += 1

    def whole(self) -> States:
        """All that is compared, gathered; every process has to call this."""

        def whole(value: Tensor) -> Tensor:
            return (value.full_tensor() if isinstance(value, DTensor) else value).detach().clone()

        parameters = {name.removeprefix("model."): value for name, value in self.model.named_parameters()}
        moments: dict[str, dict[str, Any]] = {name: self.optimizer.state[p] for name, p in parameters.items()}
        return {
            "weights": {name: whole(value) for name, value in parameters.items()},
            "exp_avg": {name: whole(state["exp_avg"]) for name, state in moments.items()},
            "exp_avg_sq": {name: whole(state["exp_avg_sq"]) for name, state in moments.items()},
            "ema": {name.removeprefix("model."): value.clone() for name, value in self.average.state_dict().items()},
        }

    def save(self, folder: Path) -> None:
        content = self.state.state_dict()
        assert bool(content["trained"]) == bool(content["ema"]) == self.accelerator.is_main_process
        if self.accelerator.is_main_process:
            with writing_step(RunFolder(folder).checkpoints, STEPS) as checkpoint:
                torch.save(content, checkpoint / STATE)

    def load(self, folder: Path) -> None:
        assert resume(self.state, RunFolder(folder), Processes(self.accelerator)) == STEPS


def worker(rank: int, port: int, folder: Path) -> None:
    join(rank, port)
    accelerator = Accelerator(cpu=True)
    trained = Run(accelerator, sharded=True)
    for _ in range(STEPS):
        trained.step(slice(rank, rank + 1))
    trained.save(folder)
    accelerator.wait_for_everyone()
    resumed = Run(accelerator, sharded=True, salt=0.1)
    resumed.load(folder)
    states = {"trained": trained.whole(), "resumed": resumed.whole()}
    resumed.step(slice(rank, rank + 1))
    trained.step(slice(rank, rank + 1))
    states |= {"trained on": trained.whole(), "resumed on": resumed.whole()}
    if rank == 0:
        torch.save(states, folder / "whole.pt")
    accelerator.wait_for_everyone()
    PartialState().destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a run over two processes: the checkpoint after its steps, and all states, whole."""
    path = tmp_path_factory.mktemp("sharded")
    multiprocessing.spawn(worker, args=(free_port(), path), nprocs=2)
    return path


@pytest.fixture(scope="module")
def states(folder: Path) -> dict[str, States]:
    return torch.load(folder / "whole.pt", weights_only=True)


def assert_same(one: States, other: States) -> None:
    for kind in one:
        assert one[kind].keys() == other[kind].keys()
        for name, value in one[kind].items():
            assert torch.equal(value, other[kind][name]), (kind, name)


@pytest.mark.slow
def test_two_processes_load_what_two_saved(states: dict[str, States]) -> None:
    assert_same(states["resumed"], states["trained"])
    assert_same(states["resumed on"], states["trained on"])
    weights, average = (states["trained"][kind] for kind in ("weights", "ema"))
    assert any(not torch.equal(weights[name], average[name]) for name in weights)


@pytest.mark.slow
def test_one_process_loads_what_two_saved(folder: Path, states: dict[str, States]) -> None:
    resumed = Run(Accelerator(cpu=True), sharded=False, salt=0.1)
    resumed.load(folder)
    assert_same(resumed.whole(), states["trained"])
    assert resumed.state.progress.step == STEPS


@pytest.mark.slow
def test_split_training_is_plain_training(states: dict[str, States]) -> None:
    plain = Run(Accelerator(cpu=True), sharded=False)
    first = {name: p.detach().clone() for name, p in plain.model.named_parameters()}
    for _ in range(STEPS):
        plain.step(BOTH_CLIPS)
    for kind in ("weights", "ema"):
        for name, value in plain.whole()[kind].items():
            assert torch.allclose(states["trained"][kind][name], value, rtol=0, atol=1e-5), (kind, name)
    moved = max((p.detach() - first[name]).abs().max().item() for name, p in plain.model.named_parameters())
    assert moved > 1e-4
