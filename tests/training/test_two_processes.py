"""The training script on two processes (gloo, on the CPU), plain and under the shipped configuration of FSDP."""

import io
import json
import os
import shutil
from contextlib import redirect_stderr
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

from svfr.training.run_folder import find_steps
from tests.runs import metrics, overrides, weights
from tests.training.test_distributed import free_port, join

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


def worker(rank: int, port: int, runs: list[list[list[str]]], environment: dict[str, str], outcomes: Path) -> None:
    """Call the script with each of `runs` (one call a process) and note the exit codes and lines of errors."""
    os.environ |= environment
    join(rank, port)
    if "ACCELERATE_USE_FSDP" in environment:
        allow_fsdp_on_cpus()
    results = []
    for run in runs:
        errors = io.StringIO()
        with redirect_stderr(errors):
            code = script.main(run[rank])
        results.append([code, [line for line in errors.getvalue().splitlines() if line.startswith("train.py:")]])
        assert AcceleratorState().is_fsdp2 == ("ACCELERATE_USE_FSDP" in environment)
        AcceleratorState._reset_state(reset_partial_state=True)
    (outcomes / f"{rank}.json").write_text(json.dumps(results))


def train(folder: Path, runs: list[list[list[str]]], environment: dict[str, str] | None = None) -> list[Any]:
    """(exit code, lines of errors) of each run, by process."""
    folder.mkdir(exist_ok=True)
    multiprocessing.spawn(worker, args=(free_port(), runs, environment or {}, folder), nprocs=2)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def both(folder: Path, **changes: Any) -> list[list[str]]:
    """The same call on both processes."""
    return [overrides(folder, batch_size=1, **changes)] * 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of an uninterrupted plain run of three steps, `whole`, and one in two parts, `run`."""
    path = tmp_path_factory.mktemp("two_processes")
    whole = both(path, output_dir=path / "whole", max_steps=3, checkpoint_every=3)
    runs = [whole, both(path, max_steps=2), both(path, max_steps=3)]
    assert train(path, runs) == [[[0, []]] * 3] * 2
    return path


@pytest.mark.slow
def test_resumed_is_uninterrupted_on_two_processes(folder: Path) -> None:
    assert metrics(folder) == metrics(folder, "whole")
    assert metrics(folder)[-1]["loss_ulr"] > 0  # the other process's clip is a negative
    assert weights(folder, 3) == weights(folder, 3, "whole")


@pytest.mark.slow
def test_one_process_goes_on_with_the_samples_of_two(folder: Path) -> None:
    shutil.copytree(folder / "run", folder / "one")
    shutil.rmtree(folder / "one" / "checkpoints" / "step_000003")
    assert script.main(overrides(folder, output_dir=folder / "one", batch_size=1, max_steps=3)) == 2
    assert script.main(overrides(folder, output_dir=folder / "one", batch_size=2, max_steps=3)) == 0
    for one, two in zip(metrics(folder, "one"), metrics(folder, "whole"), strict=True):
        assert one == pytest.approx(two, rel=1e-3)


@pytest.mark.slow
def test_processes_that_see_other_folders_end_with_one_line_and_train_nothing(folder: Path, tmp_path: Path) -> None:
    for name in ("a", "b", "d"):
        shutil.copytree(folder / "run", tmp_path / name)
    shutil.rmtree(tmp_path / "b" / "checkpoints" / "step_000003")
    calls = {name: overrides(folder, output_dir=tmp_path / name, batch_size=1, max_steps=5) for name in "abcdef"}
    runs = [[calls["a"], calls["b"]], [calls["c"], calls["d"]], [calls["e"], calls["e"]]]
    main, other = train(tmp_path, runs)
    for outcome, named in zip(main[:2], ("step_000003", "no checkpoint"), strict=True):
        assert outcome == [1, []], named
    for outcome, named in zip(other[:2], ("step_000003", "no checkpoint"), strict=True):
        assert outcome[0] == 2
        assert len(outcome[1]) == 1
        assert "process 1 does not see there what the main process does" in outcome[1][0]
        assert named in outcome[1][0]
    assert find_steps(tmp_path / "a" / "checkpoints") == [2, 3]
    assert not find_steps(tmp_path / "c" / "checkpoints")
    assert main[2][0] == other[2][0] == 0


@pytest.mark.slow
def test_an_error_of_the_main_process_ends_the_others(folder: Path, tmp_path: Path) -> None:
    run = both(folder, max_steps=3, weight_decay=0.5)
    (main,), (other,) = train(tmp_path, [run])
    assert (main[0], len(main[1]), other) == (2, 1, [1, []])
    assert "weight_decay=0.5" in main[1][0]


@pytest.mark.slow
def test_shipped_fsdp_config_trains_as_plain_processes_do(folder: Path) -> None:
    environment = launched_with(FSDP_CONFIG)
    assert environment["ACCELERATE_USE_FSDP"] == "true"
    for steps in (2, 3):
        run = both(folder, output_dir=folder / "split", max_steps=steps)
        assert train(folder / "outcomes", [run], environment) == [[[0, []]]] * 2
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


@pytest.mark.slow
def test_what_fsdp_cannot_split_is_refused_in_one_line(folder: Path, tmp_path: Path) -> None:
    decoder = {"method": "one_step", "lambda_pixel": 1, "decoder_rate": 1}
    runs = [both(folder, output_dir=tmp_path / "run", **changes) for changes in (decoder, {"lora__rank": 2})]
    main, other = train(tmp_path / "outcomes", runs, launched_with(FSDP_CONFIG))
    for (code, [line]), named in zip(main, ("decoder_rate", "lora.rank, optimizer=adamw_8bit"), strict=True):
        assert code == 2
        assert line == f"train.py: {named}: not with FSDP; use configs/accelerate/ddp.yaml"
    assert other == [[1, []]] * 2
    assert not (tmp_path / "run").exists()
