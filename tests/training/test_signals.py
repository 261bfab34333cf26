"""Runs that are killed, or interrupted by the signals that launchers send, and go on."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from svfr.training.loop import train
from svfr.training.run_folder import find_steps
from tests.runs import config, metrics, overrides, weights
from tests.training.test_distributed import free_port

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "train.py"
WORKERS: dict[str, Any] = {"data__num_workers": 2, "precision": "bf16"}
STEPS = 30


def start(folder: Path, launcher: tuple[str, ...] = (), **changes: Any) -> subprocess.Popen[str]:
    """A run of the script in a process group of its own, once it has done a step."""
    process = subprocess.Popen(
        [sys.executable, *launcher, str(SCRIPT), *overrides(folder, **changes)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    before = len(metrics(folder)) if (folder / "run" / "metrics.jsonl").exists() else 0
    for _ in range(1200):
        done = len(metrics(folder)) if (folder / "run" / "metrics.jsonl").exists() else 0
        if done > before or process.poll() is not None:
            break
        signal.sigtimedwait([], 0.05)
    return process


@pytest.mark.slow
def test_killed_at_random_and_run_again_is_uninterrupted(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"data__num_workers": 2, "checkpoint_every": 1, "max_steps": 8}
    train(config(tmp_path, output_dir=tmp_path / "whole", **settings))
    random = np.random.default_rng(0)
    for _ in range(2):
        process = start(tmp_path, **settings)
        signal.sigtimedwait([], float(random.uniform(0, 0.5)))
        process.kill()
        process.communicate()
    train(config(tmp_path, **settings))
    assert metrics(tmp_path) == metrics(tmp_path, "whole")
    assert weights(tmp_path, 8) == weights(tmp_path, 8, "whole")


@pytest.mark.slow
def test_sigterm_to_all_processes_of_a_run_saves_and_leaves(tmp_path: Path) -> None:
    process = start(tmp_path, max_steps=STEPS, checkpoint_every=100_000, **WORKERS)
    os.killpg(process.pid, signal.SIGTERM)
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    (step,) = find_steps(tmp_path / "run" / "checkpoints")
    assert 0 < step < STEPS
    assert train(config(tmp_path, max_steps=step + 1, **WORKERS))
    assert [line["step"] for line in metrics(tmp_path)] == list(range(1, step + 2))


@pytest.mark.slow
def test_ctrl_c_under_torchrun_saves_and_leaves_and_one_process_goes_on(tmp_path: Path) -> None:
    launcher = ("-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={free_port()}")
    process = start(tmp_path, launcher, max_steps=STEPS, checkpoint_every=100_000, batch_size=1, **WORKERS)
    os.killpg(process.pid, signal.SIGINT)  # which the launcher hands on again to processes that had it already
    _, errors = process.communicate(timeout=200)
    (step,) = find_steps(tmp_path / "run" / "checkpoints")
    assert 0 < step < STEPS, errors
    assert train(config(tmp_path, max_steps=step + 1, batch_size=2, **WORKERS))
    assert [line["step"] for line in metrics(tmp_path)] == list(range(1, step + 2))
