import resource
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
import train as script  # scripts/train.py
from diffusers.optimization import get_scheduler

import svfr.training.loop
from svfr.config import ConfigError
from svfr.data.alignment import five_points
from svfr.inference.pipeline import SVFRPipeline
from svfr.models.identity import id_crop
from svfr.training.loop import TrainingError, learning_rate, make_dataset, skip_step, train
from svfr.training.run_folder import RunFolder, find_steps
from svfr.training.settings import TrainConfig
from tests import tiny
from tests.runs import config, metrics, overrides, weights

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "train.py"


def run_script(folder: Path, *more: str, **changes: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *overrides(folder, **changes), *more]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_a_run_makes_what_the_design_names(tmp_path: Path) -> None:
    assert train(config(tmp_path, validate_every=4))
    run = tmp_path / "run"
    assert {"config.yaml", "metrics.jsonl", "samples", "checkpoints", "weights"} <= {f.name for f in run.iterdir()}
    assert (run / "samples" / "step_000004" / "0.png").is_file()
    assert [line["step"] for line in metrics(tmp_path)] == [1, 2, 3, 4, 4]
    assert {"loss", "loss_noise", "loss_ulr", "loss_prior", "grad_norm"} <= set(metrics(tmp_path)[0])
    assert {"val_psnr/bfr", "val_ssim/bfr", "val_psnr_degraded/bfr"} <= set(metrics(tmp_path)[-1])
    assert metrics(tmp_path)[0]["loss_ulr"] > 0


def test_trained_weights_restore_from_their_folder_alone(tmp_path: Path) -> None:
    train(config(tmp_path, max_steps=2))
    pipe = SVFRPipeline.from_pretrained(tmp_path / "run" / "weights" / "step_000002", device="cpu")
    assert (pipe.parts.settings.size, pipe.parts.settings.clip_length) == (tiny.SIZE, 3)
    restored = pipe(tiny.clip(5), num_inference_steps=1)
    before = SVFRPipeline.from_pretrained(tmp_path / "start", device="cpu")(
        tiny.clip(5), num_inference_steps=1, clip_length=3
    )
    assert restored.shape == (5, tiny.SIZE, tiny.SIZE, 3)
    assert not np.array_equal(restored, before)


@pytest.mark.parametrize(
    "settings", [{}, {"precision": "bf16", "data__num_workers": 2, "gradient_checkpointing": True}]
)
def test_resumed_is_uninterrupted_bit_for_bit(tmp_path: Path, settings: dict[str, Any]) -> None:
    train(config(tmp_path, output_dir=tmp_path / "whole", max_steps=4, **settings))
    for steps in (1, 3, 4):
        train(config(tmp_path, max_steps=steps, **settings))
    assert metrics(tmp_path) == metrics(tmp_path, "whole")
    assert weights(tmp_path, 4) == weights(tmp_path, 4, "whole")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_training_starts_from_the_weights_as_they_are(tmp_path: Path, precision: str) -> None:
    done = run_script(tmp_path, max_steps=1, precision=precision)  # the first step of a warm-up has the learning rate 0
    assert done.returncode == 0, done.stderr
    start = {str(f.relative_to(tmp_path / "start")): f.read_bytes() for f in tmp_path.glob("start/*/*.safetensors")}
    assert weights(tmp_path, 1) == start


@pytest.mark.parametrize("style", ["arcface", "official"])
def test_training_crops_faces_as_the_settings_of_the_weights_say(tmp_path: Path, style: str) -> None:
    dataset = make_dataset(config(tmp_path, data__reference_dropout=0, data__flip=False), "train", style)
    sample, excerpt = dataset[0, 0], dataset.source.read(0, 3, tiny.SIZE, np.random.default_rng([0, 0, 0, 1, 0]), True)
    assert excerpt.reference is not None
    assert excerpt.reference_landmarks is not None
    expected = id_crop(excerpt.reference, five_points(excerpt.reference_landmarks), style)
    torch.testing.assert_close(sample.id_face, expected)


def test_a_skipped_step_of_fp16_leaves_the_weights_alone() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer, scaler = torch.optim.AdamW([weight], lr=0.1), torch.amp.GradScaler("cpu", init_scale=8.0)
    for factor, scale in ((1.0, 8.0), (float("inf"), 4.0)):  # a loss that explodes, a gradient that overflows
        scaler.scale((weight * factor).sum()).backward()
        scaler.unscale_(optimizer)
        skip_step(scaler)
        optimizer.zero_grad()
        assert torch.equal(weight, torch.ones(3))
        assert scaler.get_scale() == scale
    scaler.scale(weight.sum()).backward()
    scaler.step(optimizer)
    assert not torch.equal(weight, torch.ones(3))


def test_accumulating_is_a_larger_batch(tmp_path: Path) -> None:
    common = {"max_steps": 1, "lambda_ulr": 0}  # ULR compares within a forward pass
    train(config(tmp_path, batch_size=2, output_dir=tmp_path / "large", **common))
    train(config(tmp_path, batch_size=1, accumulate=2, output_dir=tmp_path / "small", **common))
    large, small = metrics(tmp_path, "large")[0], metrics(tmp_path, "small")[0]
    assert small["loss_noise"] == pytest.approx(large["loss_noise"], rel=1e-5)
    assert small["grad_norm"] == pytest.approx(large["grad_norm"], rel=1e-3)


def test_gradient_checkpointing_changes_nothing(tmp_path: Path) -> None:
    for name, on in (("with", True), ("without", False)):
        train(config(tmp_path, output_dir=tmp_path / name, gradient_checkpointing=on, max_steps=2))
    assert weights(tmp_path, 2, "with") == weights(tmp_path, 2, "without")


@pytest.mark.parametrize("setting", [{"lambda_ulr": 0}, {"lambda_prior": 0}, {"lambda_ulr": 0, "lambda_prior": 0}])
def test_every_term_can_be_left_out(tmp_path: Path, setting: dict[str, float]) -> None:
    train(config(tmp_path, max_steps=1, **setting))
    names = {"loss_ulr": "lambda_ulr", "loss_prior": "lambda_prior"}
    assert {name for name in names if name in metrics(tmp_path)[0]} == {n for n, s in names.items() if s not in setting}


def test_a_run_folder_of_other_settings_is_refused(tmp_path: Path) -> None:
    train(config(tmp_path, max_steps=1))
    with pytest.raises(ConfigError, match=r"weight_decay=0.5: .*run holds a run with weight_decay=0.01"):
        train(config(tmp_path, max_steps=2, weight_decay=0.5))


@pytest.mark.parametrize("mistake", [{"init_from": "nowhere"}, {"data__num_frames": 10**10}, {"data__preset": "vfqh"}])
def test_a_call_that_cannot_be_leaves_the_folder_to_the_corrected_one(tmp_path: Path, mistake: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        train(config(tmp_path, **mistake))
    assert not (tmp_path / "run").exists()
    assert train(config(tmp_path, max_steps=1))


def test_a_run_that_ended_before_its_first_checkpoint_does_not_bind_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(svfr.training.loop.Objective, "loss", _out_of_memory)
        with pytest.raises(torch.OutOfMemoryError):
            train(config(tmp_path))
    assert train(config(tmp_path, max_steps=1, data__num_frames=2))


def _out_of_memory(*arguments: Any) -> None:
    raise torch.OutOfMemoryError


def test_a_lower_learning_rate_goes_on_and_is_announced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(config(tmp_path, max_steps=3))
    train(config(tmp_path, max_steps=4, learning_rate=2e-4))
    assert "learning_rate=0.0002 from here on, 0.001 until now" in capsys.readouterr().err
    assert [line["learning_rate"] for line in metrics(tmp_path)] == [0, 5e-4, 1e-3, 2e-4]


def test_cosine_of_another_length_is_refused(tmp_path: Path) -> None:
    train(config(tmp_path, max_steps=2, schedule="cosine"))
    with pytest.raises(ConfigError, match=r"max_steps=4: .* max_steps=2"):
        train(config(tmp_path, max_steps=4, schedule="cosine"))


def test_the_same_product_goes_on_and_another_is_refused(tmp_path: Path) -> None:
    train(config(tmp_path, output_dir=tmp_path / "whole", lambda_ulr=0))
    train(config(tmp_path, max_steps=2, lambda_ulr=0))
    with pytest.raises(ConfigError, match=r"batch_size x processes x accumulate=1: .*=2"):
        train(config(tmp_path, batch_size=1, lambda_ulr=0))
    train(config(tmp_path, batch_size=1, accumulate=2, lambda_ulr=0))
    for one, other in zip(metrics(tmp_path), metrics(tmp_path, "whole"), strict=True):
        assert one == pytest.approx(other, rel=1e-3)


def test_weights_are_pruned_as_checkpoints_are(tmp_path: Path) -> None:
    train(config(tmp_path, checkpoint_every=1, keep_weights=2, keep_checkpoints=1))
    run = RunFolder(tmp_path / "run")
    assert (find_steps(run.weights), find_steps(run.checkpoints)) == ([3, 4], [4])


@pytest.mark.parametrize("kilobytes", [10, 1000])  # the first does for no weights, the second for no checkpoint
def test_a_full_disk_is_one_line_and_the_run_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kilobytes: int
) -> None:
    train(config(tmp_path, output_dir=tmp_path / "whole"))
    train(config(tmp_path, max_steps=2))
    capsys.readouterr()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (kilobytes * 1000, before[1]))  # a system's other way to refuse bytes
    try:
        code = script.main(overrides(tmp_path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("train.py: ")]
    assert (code, len(lines)) == (1, 1)
    assert "step 4 cannot be written" in lines[0]
    assert "File too large" in lines[0]
    assert find_steps(tmp_path / "run" / "checkpoints") == [2]
    train(config(tmp_path))
    assert metrics(tmp_path) == metrics(tmp_path, "whole")
    assert weights(tmp_path, 4) == weights(tmp_path, 4, "whole")


def test_a_run_folder_where_another_process_trains_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    code = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print(flush=True); input()"
    command = [sys.executable, "-c", code, str(tmp_path / "run" / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(ConfigError, match="is training there"):
            train(config(tmp_path, max_steps=1))
        other.communicate("\n")
    assert train(config(tmp_path, max_steps=1))


class _Broken:
    """An objective that gives NaN at some calls."""

    def __init__(self, original: Any, broken: set[int]) -> None:
        self.original, self.broken, self.calls = original, broken, 0

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        loss, parts = self.original(*arguments, **named)
        self.calls += 1
        if self.calls in self.broken:
            return loss * float("nan"), {name: part * float("nan") for name, part in parts.items()}
        return loss, parts


def test_a_step_that_is_not_finite_is_skipped_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = _Broken(svfr.training.loop.Objective.loss, {2})
    monkeypatch.setattr(svfr.training.loop.Objective, "loss", lambda *a, **k: broken(*a, **k))
    train(config(tmp_path, max_steps=3))
    assert [line["skipped"] for line in metrics(tmp_path)] == [0, 1, 1]
    assert all(torch.isfinite(p).all() for p in _trained(tmp_path, 3))


def test_step_after_step_that_is_not_finite_stops_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = _Broken(svfr.training.loop.Objective.loss, set(range(1, 99)))
    monkeypatch.setattr(svfr.training.loop.Objective, "loss", lambda *a, **k: broken(*a, **k))
    with pytest.raises(TrainingError, match="step 4: 4 steps in a row"):
        train(config(tmp_path, max_steps=10, max_skipped=3))


def _trained(folder: Path, step: int) -> list[torch.Tensor]:
    pipe = SVFRPipeline.from_pretrained(folder / "run" / "weights" / f"step_{step:06d}", device="cpu")
    return list(pipe.parts.model.parameters())


# The script


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"init_from": "nowhere"}, "nowhere: no model folder"),
        ({"learning_rat": 1}, "learning_rate"),
        ({"data__rendered_clips": 0}, "no data"),
        ({"data__size": 33}, "33"),
        ({"data__preset": "vfqh"}, "vfhq"),
        ({"data__task_weights": "{bfr2:1}"}, "bfr2"),
    ],
)
def test_wrong_calls_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], words: str
) -> None:
    assert script.main(overrides(tmp_path, **changes)) in (1, 2)
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("train.py: ")
    assert words in lines[-1]


@pytest.mark.parametrize(("name", "expected"), [("constant", 1.0), ("cosine", 0.5)])
def test_learning_rate_warms_up_and_then_follows_the_schedule(
    name: Literal["constant", "cosine"], expected: float
) -> None:
    config = TrainConfig(schedule=name, warmup_steps=10, max_steps=110, learning_rate=1.0)
    rates = [learning_rate(config, updates) for updates in range(111)]
    assert rates[:10] == pytest.approx([step / 10 for step in range(10)])
    assert rates[60] == pytest.approx(expected, abs=1e-3)
    theirs = get_scheduler(
        "constant_with_warmup" if name == "constant" else name,
        torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0),
        num_warmup_steps=10,
        num_training_steps=110,
    )
    assert rates == pytest.approx([theirs.lr_lambdas[0](updates) for updates in range(111)])
