"""The training script on two processes (gloo, on the CPU), plain and under the shipped configuration of FSDP."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
import train as script  # scripts/train.py
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from accelerate.utils.launch import prepare_multi_gpu_env
from safetensors.torch import load
from torch import multiprocessing

from tests.runs import metrics, overrides, weights
from tests.training.test_distributed import free_port

FSDP_CONFIG = Path(__file__).resolve().parents[2] / "configs/accelerate/fsdp.yaml"


def launched_with(config: Path) -> dict[str, str]:
    """What `accelerate launch --config_file CONFIG` tells its processes on GPUs."""
    arguments = launch_command_parser().parse_args(["--config_file", str(config), "--num_processes", "2", "train.py"])
    arguments, _, _ = _validate_launch_command(arguments)
    environment = prepare_multi_gpu_env(arguments)
    return {name: value for name, value in environment.items() if os.environ.get(name) != value}


def allow_fsdp_on_cpus() -> None:
    """Let accelerate do on CPUs what it does for FSDP on GPUs; by itself it takes plain DDP there."""
    plain = AcceleratorState.__init__

    def init(
        self: AcceleratorState,
        *arguments: Any,
        fsdp_plugin: FullyShardedDataParallelPlugin | None = None,
        **named: Any,
    ) -> None:
        is_first = not self.initialized
        plain(self, *arguments, fsdp_plugin=fsdp_plugin, **named)
        if is_first and fsdp_plugin is not None:
            self.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP
            if self._mixed_precision != "no":
                fsdp_plugin.set_mixed_precision(self._mixed_precision)
            self.fsdp_plugin = fsdp_plugin

    AcceleratorState.__init__ = init


def worker(rank: int, port: int, run: list[str], environment: dict[str, str]) -> None:
    torch.set_num_threads(1)
    os.environ |= environment
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "1"}
    if "ACCELERATE_USE_FSDP" in environment:
        allow_fsdp_on_cpus()
    assert script.main(run) == 0
    assert AcceleratorState().is_fsdp2 == ("ACCELERATE_USE_FSDP" in environment)


def train(run: list[str], environment: dict[str, str]) -> None:
    multiprocessing.spawn(worker, args=(free_port(), run, environment), nprocs=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of an uninterrupted plain run of three steps, `whole`."""
    path = tmp_path_factory.mktemp("two_processes")
    train(overrides(path, output_dir=path / "whole", batch_size=1, max_steps=3, checkpoint_every=3), {})
    return path


@pytest.mark.slow
def test_resumed_is_uninterrupted_on_two_processes(folder: Path) -> None:
    for steps in (2, 3):
        train(overrides(folder, batch_size=1, max_steps=steps), {})
    assert metrics(folder) == metrics(folder, "whole")
    assert metrics(folder)[-1]["loss_ulr"] > 0  # the other process's clip is a negative
    assert weights(folder, 3) == weights(folder, 3, "whole")


@pytest.mark.slow
def test_shipped_fsdp_config_trains_as_plain_processes_do(folder: Path) -> None:
    environment = launched_with(FSDP_CONFIG)
    assert environment["ACCELERATE_USE_FSDP"] == "true"
    for steps in (2, 3):
        train(overrides(folder, output_dir=folder / "split", batch_size=1, max_steps=steps), environment)
    for split, whole in zip(metrics(folder, "split"), metrics(folder, "whole"), strict=True):
        assert split == pytest.approx(whole, rel=1e-5)
    found, wanted = weights(folder, 3, "split"), weights(folder, 3, "whole")
    assert found.keys() == wanted.keys()
    for name in wanted:
        one, other = load(found[name]), load(wanted[name])
        assert one.keys() == other.keys()
        for key in one:
            # Adam's first steps, of 1e-3, are the sign of gradients that may be rounding noise.
            torch.testing.assert_close(one[key], other[key], rtol=0, atol=2e-4)
