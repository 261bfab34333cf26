"""The training script on two processes (gloo, on the CPU)."""

import os
from pathlib import Path

import pytest
import torch
import train as script  # scripts/train.py
from torch import multiprocessing

from tests.test_distributed import free_port
from tests.training import metrics, overrides, weights


def worker(rank: int, port: int, run: list[str]) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "1"}
    assert script.main(run) == 0


@pytest.mark.slow
def test_resumed_is_uninterrupted_on_two_processes(tmp_path: Path) -> None:
    runs = (
        overrides(tmp_path, output_dir=tmp_path / "whole", batch_size=1, max_steps=3, checkpoint_every=3),
        overrides(tmp_path, batch_size=1, max_steps=2),
        overrides(tmp_path, batch_size=1, max_steps=3),
    )
    for run in runs:
        multiprocessing.spawn(worker, args=(free_port(), run), nprocs=2)
    assert metrics(tmp_path) == metrics(tmp_path, "whole")
    assert metrics(tmp_path)[-1]["loss_ulr"] > 0  # the other process's clip is a negative
    assert weights(tmp_path, 3) == weights(tmp_path, 3, "whole")
