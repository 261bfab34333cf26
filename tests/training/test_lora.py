"""Training with lora.rank: what is trained, what is written, how it goes on; and its use on the base it belongs to."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors import safe_open

from svfr.inference.folder import load_pipeline
from svfr.inference.pipeline import SVFRPipeline
from svfr.inference.settings import InferConfig
from svfr.models.lora import add_lora, freeze_base, parse_lora, save_lora
from svfr.models.sources import DEMO_FOLDER, load_folder
from svfr.models.weights import WeightsError
from svfr.training.loop import train
from tests import tiny
from tests.runs import config, metrics, overrides, weights
from tests.scripts.test_convert_released import arguments, convert

pytest.importorskip("peft", reason="pip install svfr[train]")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of `start`, the base, and a run of 4 steps in `run`; not to be changed by a test."""
    AcceleratorState._reset_state(reset_partial_state=True)  # conftest's reset comes after this
    folder = tmp_path_factory.mktemp("lora")
    train(config(folder, lora__rank=2, learning_rate=0.05, warmup_steps=0, ema_decay=0))
    return folder


def load(folder: Path) -> SVFRPipeline:
    return SVFRPipeline.from_pretrained(folder / "start", device="cpu")


def lora(folder: Path, step: int = 4) -> Path:
    return folder / "run" / "weights" / f"step_{step:06d}"


def restore(pipe: SVFRPipeline) -> np.ndarray:
    plain: Any = {"keep_known": False, "keep_luminance": False, "keep_tone": False, "output_type": "pt"}
    return pipe(tiny.clip(4), num_inference_steps=1, clip_length=3, reference=tiny.clip(1)[0], **plain).numpy()


def test_applied_merged_and_saved_it_restores_the_same_and_otherwise_than_the_base(run: Path, tmp_path: Path) -> None:
    pipe, base = load(run), restore(load(run))
    pipe.load_lora_weights(lora(run))
    applied = restore(pipe)
    with pytest.raises(ValueError, match="call fuse_lora"):
        pipe.save_pretrained(tmp_path / "beside")
    pipe.fuse_lora()
    pipe.save_pretrained(tmp_path / "merged")
    assert np.abs(restore(pipe) - applied).max() < 1e-4
    assert (restore(SVFRPipeline.from_pretrained(tmp_path / "merged", device="cpu")) == restore(pipe)).all()
    assert np.abs(applied - base).max() > 0.01
    assert pipe.settings.clip_length == 3  # as it was trained; the base has 4


@torch.no_grad()
def test_the_bundled_model_with_updates_applied_and_merged(tmp_path: Path) -> None:
    parts = load_folder(DEMO_FOLDER)
    facts = add_lora(parts.model, "demo", 4)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in parts.model.named_parameters():
        if "lora_B" in name:
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    save_lora(tmp_path, parts.model, facts, asdict(parts.settings))
    pipes = [SVFRPipeline.from_pretrained("demo", device="cpu") for _ in range(3)]
    for pipe, weight in zip(pipes, (0, 0.7, 0.7), strict=True):
        pipe.load_lora_weights(tmp_path, weight)
    pipes[2].fuse_lora()
    base, applied, merged = (restore(pipe) for pipe in pipes)
    assert np.abs(applied - merged).max() < 1e-4
    assert np.abs(applied - base).max() > 0.01


def test_weights_between_the_base_and_what_was_trained(run: Path) -> None:
    base, states = load(run), []
    for weight in (0.0, 0.5, 1.0):
        pipe = load(run)
        pipe.load_lora_weights(lora(run), weight)
        pipe.fuse_lora()
        states.append({name: value for part in ("unet", "id_projector") for name, value in _state(pipe, part)})
        assert (restore(pipe) == restore(base)).all() == (weight == 0)
        assert (pipe.settings == base.settings) == (weight == 0)
    for name, (none, half, whole) in {name: [state[name] for state in states] for name in states[0]}.items():
        torch.testing.assert_close(half, (none + whole) / 2, msg=name)
    changed = {name.rpartition(".")[0] for name in states[0] if not torch.equal(states[0][name], states[2][name])}
    assert {"unet.conv_in", "unet.add_embedding.linear_1", "id_projector.project1024"} < changed
    assert any(name.endswith("transformer_blocks.0.ff.net.2") for name in changed)
    assert not any("resnets" in name or "norm" in name for name in changed if name.startswith("unet."))


def _state(pipe: SVFRPipeline, part: str) -> list[tuple[str, torch.Tensor]]:
    return [(f"{part}.{name}", value) for name, value in getattr(pipe, part).state_dict().items()]


def test_the_scripts_merge_it(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = load(run)
    expected.load_lora_weights(lora(run), 0.5)
    expected.fuse_lora()
    tiny.write_released(tmp_path / "released", load(run).parts)
    files = arguments(tmp_path / "released", tmp_path / "converted")
    assert convert(files, monkeypatch, "--lora", f"{lora(run)}:0.5") == 0
    converted = SVFRPipeline.from_pretrained(tmp_path / "converted", device="cpu")
    assert (restore(converted) == restore(expected)).all()
    settings = InferConfig(face="aligned")
    loaded = load_pipeline(str(run / "start"), settings, device="cpu", lora=f"{lora(run)}:0.5")
    assert np.abs(restore(loaded) - restore(expected)).max() < 1e-4


@pytest.mark.parametrize("optimizer", ["adamw", "adamw_8bit"])
def test_resumed_is_uninterrupted_bit_for_bit(tmp_path: Path, optimizer: str) -> None:
    if optimizer == "adamw_8bit":
        pytest.importorskip("bitsandbytes", reason="pip install svfr[train]")
    settings = {"lora__rank": 8, "optimizer": optimizer, "precision": "bf16", "gradient_checkpointing": True}
    train(config(tmp_path, output_dir=tmp_path / "whole", max_steps=3, **settings))
    for steps in (1, 3):
        train(config(tmp_path, max_steps=steps, **settings))
    assert metrics(tmp_path) == metrics(tmp_path, "whole")
    assert weights(tmp_path, 3) == weights(tmp_path, 3, "whole")
    state = torch.load(tmp_path / "run/checkpoints/step_000003/training.pt", weights_only=True)
    with safe_open(lora(tmp_path, 3) / "lora.safetensors", "pt") as file:
        assert len(state["ema"]) == len(list(file.keys()))  # of what is trained alone
    kinds = {name.partition("/")[0]: value.dtype for name, value in state["trained"].items() if "to_q" in name}
    assert kinds.get("state1", torch.float32) == torch.float32  # 8 x 64 numbers are few
    if optimizer == "adamw_8bit":
        assert state["trained"]["state1/model.landmark_predictor.mlp.0.weight"].dtype == torch.uint8


def test_the_base_computes_in_bfloat16_as_autocast_has_it(tmp_path: Path) -> None:
    for rank in (0, 2):  # the update is zero at first, and the learning rate
        settings = {"max_steps": 1, "precision": "bf16", "validate_every": 0, "lora__rank": rank}
        train(config(tmp_path, output_dir=tmp_path / f"rank_{rank}", **settings))
    full, light = (metrics(tmp_path, f"rank_{rank}")[-1] for rank in (0, 2))
    names = [name for name in full if name.startswith("loss")]
    assert len(names) > 1
    # Not to the bit: matmul of a frozen weight adds up in another order (ATen's should_fold asks requires_grad).
    assert [light[name] for name in names] == pytest.approx([full[name] for name in names], rel=1e-3)


def test_on_other_weights_it_is_refused(run: Path, tmp_path: Path) -> None:
    other = tiny.pipeline()
    with torch.no_grad():
        other.unet.conv_in.bias[0] += 1
    with pytest.raises(WeightsError, match=r"a LoRA of other weights than these; it belongs to .*start"):
        other.load_lora_weights(lora(run))
    half = load(run)
    half.to(torch.bfloat16)  # the same weights
    half.load_lora_weights(lora(run))
    with pytest.raises(ValueError, match="there is a LoRA already"):
        half.load_lora_weights(lora(run))


@pytest.mark.parametrize("fault", ["lora.json", "lora.safetensors", "rank", "targets", "text"])
def test_a_folder_that_is_no_lora_is_one_line(run: Path, tmp_path: Path, fault: str) -> None:
    folder = Path(shutil.copytree(lora(run), tmp_path / "lora"))
    index = json.loads((folder / "lora.json").read_text())
    if fault in index:
        index[fault] = {"rank": 3, "targets": ["to_q"]}[fault]
        (folder / "lora.json").write_text(json.dumps(index))
    elif fault == "text":
        (folder / "lora.safetensors").write_text("no weights")
    else:
        (folder / fault).unlink()
    with pytest.raises(WeightsError, match=str(folder)) as caught:
        load(run).load_lora_weights(folder)
    assert "\n" not in str(caught.value)


def test_heads_that_the_base_lacks_are_left_out(tmp_path: Path) -> None:
    tiny.pipeline(heads=False).save_pretrained(tmp_path / "start")
    train(config(tmp_path, max_steps=2, lora__rank=2))
    pipe = load(tmp_path)
    pipe.load_lora_weights(lora(tmp_path, 2))
    assert pipe.latent_transformer is None


def test_at_the_size_of_svd_xt_it_is_small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from svd_xt import random_svd_xt  # scripts/svd_xt.py

    parts = random_svd_xt(torch.device("meta"), torch.bfloat16)
    base = sum(p.numel() for p in parts.model.unet.parameters())
    monkeypatch.setattr("svfr.models.lora._fingerprint", lambda model: "")  # nothing has numbers there
    add_lora(parts.model, "released", 32)
    freeze_base(parts.model, torch.bfloat16)
    trained = sum(p.numel() for p in parts.model.parameters() if p.requires_grad)
    assert 0.02 * base < trained < 0.05 * base


@pytest.mark.parametrize(
    ("package", "settings"),
    [("peft", {"lora__rank": 2}), ("bitsandbytes", {"optimizer": "adamw_8bit"}), ("peft", {"max_steps": 1})],
)
def test_what_is_not_installed_is_named_and_the_rest_goes_on(
    tmp_path: Path, package: str, settings: dict[str, object]
) -> None:
    without = "import sys; sys.modules[sys.argv[1]] = None; import train; sys.exit(train.main(sys.argv[2:]))"
    file = tmp_path / "none.yaml"
    file.write_text("")
    call = [sys.executable, "-c", without, package, "--config", str(file), *overrides(tmp_path, **settings)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(["scripts", *sys.path])}
    done = subprocess.run(call, capture_output=True, text=True, env=environment, check=False)
    if "max_steps" in settings:
        assert done.returncode == 0
        return
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("train.py: ")
    assert last.endswith("pip install svfr[train]")
    assert not (tmp_path / "run").exists()


def test_the_weight_in_the_name_of_a_folder() -> None:
    assert parse_lora("a/b") == (Path("a/b"), 1.0)
    assert parse_lora("a/b:0.5") == (Path("a/b"), 0.5)
    assert parse_lora("a:b/c") == (Path("a:b/c"), 1.0)
