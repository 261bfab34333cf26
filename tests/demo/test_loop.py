import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from svfr.demo.loop import SAVE_EVERY, Losses, fit, schedule


class Stopped(Exception):
    """A process that was killed."""


def batches(start: int) -> Iterator[Tensor]:
    step = start
    while True:
        yield torch.from_numpy(np.random.default_rng(step).standard_normal((8, 3))).float()
        step += 1


def run(folder: Path, max_steps: int, stop_at: int | None = None) -> nn.Linear:
    torch.manual_seed(0)
    model = nn.Linear(3, 1)

    def compute(index: int, batch: Tensor) -> Losses:
        if index == stop_at:
            raise Stopped
        return {"loss": (model(batch) - batch.sum(dim=1, keepdim=True)).square().mean()}

    fit("test", model, batches, compute, folder, max_steps=max_steps, learning_rate=0.05)
    return model


def test_a_run_that_was_killed_ends_as_one_that_was_not(tmp_path: Path) -> None:
    max_steps = SAVE_EVERY + 40
    whole = run(tmp_path / "whole", max_steps)
    with pytest.raises(Stopped):
        run(tmp_path / "killed", max_steps, stop_at=SAVE_EVERY + 7)
    resumed = run(tmp_path / "killed", max_steps)
    assert torch.equal(resumed.weight, whole.weight)
    assert not resumed.training
    lines = [json.loads(line) for line in (tmp_path / "whole/metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["loss"] < lines[0]["loss"] / 100
    assert [line["step"] for line in lines] == list(range(1, max_steps + 1))


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    first = run(tmp_path, 20)
    again = run(tmp_path, 20, stop_at=0)
    assert torch.equal(again.weight, first.weight)


def test_loss_that_is_not_finite(tmp_path: Path) -> None:
    model = nn.Linear(1, 1)
    with pytest.raises(FloatingPointError, match="the loss is nan at step 0"):
        fit(
            "test",
            model,
            lambda start: iter([1]),
            lambda index, batch: {"loss": model.weight.sum() * float("nan")},
            tmp_path,
            max_steps=1,
            learning_rate=0.1,
        )


def test_schedule_rises_and_falls() -> None:
    values = [schedule(step, 100) for step in range(100)]
    assert values[0] == pytest.approx(0.2)
    assert max(values) == values[5] == 1.0
    assert values[-1] < 0.01
    assert values[:5] == sorted(values[:5])
    assert values[5:] == sorted(values[5:], reverse=True)
