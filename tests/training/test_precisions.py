"""Runs in low precision with loader workers, alone and under torchrun: they learn the same, and resuming is exact."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from accelerate.state import AcceleratorState

from svfr.training.loop import train
from tests import tiny
from tests.runs import config, metrics, overrides, weights
from tests.training.test_distributed import free_port
from tests.training.test_loop import SCRIPT

STEPS, FRAMES = 2, 2
CHANGES = {"max_steps": STEPS, "checkpoint_every": 1, "data__num_workers": 2, "data__num_frames": FRAMES}
PARTS = ("loss", "loss_noise", "loss_ulr", "loss_prior", "grad_norm")


@pytest.fixture(autouse=True)
def no_precision() -> Iterator[None]:
    """accelerate keeps the precision of a process's first run."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a run in float32, `fp32`. All is small: CPUs are slow in low precision."""
    path = tmp_path_factory.mktemp("precisions")
    tiny.patch_pipeline().save_pretrained(path / "start")
    AcceleratorState._reset_state(reset_partial_state=True)
    train(config(path, output_dir=path / "fp32", max_steps=STEPS, data__num_frames=FRAMES))
    return path


def kill_after_step_1(run: Path, copy: Path) -> None:
    """A copy of a run as it was when only the checkpoint of step 1 was there."""
    shutil.copytree(run, copy)
    for kind in ("checkpoints", "weights"):
        shutil.rmtree(copy / kind / f"step_{STEPS:06d}")


def check(folder: Path, whole: str, resumed: str) -> None:
    *_, last = lines = metrics(folder, whole)
    float32 = metrics(folder, "fp32")[-1]  # of the same weights: the first step of a warm-up has the learning rate 0
    assert [line["step"] for line in lines] == [1, 2]
    assert last["skipped"] <= 1  # a gradient overflows in float16 until the scaler has found its scale
    assert {part: last[part] for part in PARTS} == pytest.approx({part: float32[part] for part in PARTS}, rel=0.1)
    assert last["loss_noise"] != pytest.approx(float32["loss_noise"], rel=1e-6)  # it is lower precision
    assert metrics(folder, resumed) == lines
    assert weights(folder, STEPS, resumed) == weights(folder, STEPS, whole)


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "schedule"), [("bf16", "constant"), ("fp16", "cosine")])
def test_low_precision_learns_as_float32_and_resumes_bit_for_bit(folder: Path, precision: str, schedule: str) -> None:
    changes = {"precision": precision, "schedule": schedule, **CHANGES}
    train(config(folder, output_dir=folder / precision, **changes))
    kill_after_step_1(folder / precision, folder / f"{precision}_killed")
    train(config(folder, output_dir=folder / f"{precision}_killed", **changes))
    check(folder, precision, f"{precision}_killed")


@pytest.mark.slow
def test_fp16_under_torchrun_learns_as_float32_and_resumes_bit_for_bit(folder: Path) -> None:
    def launch(run: str) -> None:
        changes = {"precision": "fp16", "schedule": "cosine", **CHANGES}
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={free_port()}"]
        command += [str(SCRIPT), *overrides(folder, output_dir=folder / run, batch_size=1, **changes)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr

    launch("torchrun")
    kill_after_step_1(folder / "torchrun", folder / "torchrun_killed")
    launch("torchrun_killed")
    check(folder, "torchrun", "torchrun_killed")
