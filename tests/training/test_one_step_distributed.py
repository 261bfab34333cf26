"""Two processes compute what one process does with the whole batch, in stage 2 of `one_step`."""

from pathlib import Path

import pytest
import torch
from accelerate import Accelerator, PartialState
from torch import Tensor, multiprocessing

from svfr.training.one_step import OneStep
from svfr.training.processes import make_gather
from svfr.training.settings import TrainConfig
from tests import tiny
from tests.training.test_distributed import free_port, join, made_batch
from tests.training.test_one_step import BOTH, STAGE_2


def gradients(accelerator: Accelerator, clips: slice) -> dict[str, Tensor]:
    settings = TrainConfig(**STAGE_2, context_frames=1, context_share=1.0, reference_own=1.0)
    made = OneStep(settings, tiny.pipeline().parts, make_gather(accelerator))
    model = accelerator.prepare(made.module())
    accelerator.backward(made(model, made_batch(clips))[0])
    return {n: p.grad.clone() for n, p in accelerator.unwrap_model(model).named_parameters() if p.grad is not None}


def worker(rank: int, port: int, file: str) -> None:
    join(rank, port)
    found = gradients(Accelerator(cpu=True), slice(rank, rank + 1))
    if rank == 0:
        torch.save(found, file)
    PartialState().destroy_process_group()


@pytest.mark.slow
def test_two_processes_give_the_gradient_of_one_with_the_double_batch(tmp_path: Path) -> None:
    file = tmp_path / "gradients.pt"
    multiprocessing.spawn(worker, args=(free_port(), str(file)), nprocs=2)
    two = torch.load(file, weights_only=True)
    one = gradients(Accelerator(cpu=True), BOTH)
    assert two.keys() == one.keys()
    for part in ("model.", "discriminator."):
        found = {name: gradient for name, gradient in one.items() if name.startswith(part)}
        largest = max(gradient.abs().max().item() for gradient in found.values())
        for name, gradient in found.items():
            assert torch.allclose(two[name], gradient, rtol=1e-3, atol=1e-4 * largest), name
