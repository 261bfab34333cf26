"""A tiny run, for tests of training."""

import json
from pathlib import Path
from typing import Any

from svfr.config import load
from svfr.training.settings import TrainConfig
from tests import tiny

SETTINGS = {
    "device": "cpu",
    "precision": "fp32",
    "max_steps": 4,
    "batch_size": 2,
    "learning_rate": 1e-3,
    "warmup_steps": 2,
    "log_every": 1,
    "validate_every": 0,
    "checkpoint_every": 2,
    "tracker": "none",
    "gradient_checkpointing": False,
    "data.rendered_clips": 6,
    "data.size": tiny.SIZE,
    "data.num_frames": 3,
    "data.num_workers": 0,
    "data.val_clips": 1,
}


def overrides(folder: Path, **changes: Any) -> list[str]:
    """Settings of a tiny run below a folder; `data__size` stands for data.size."""
    start = folder / "start"
    if not start.exists():
        tiny.pipeline().save_pretrained(start)
    values = {**SETTINGS, "init_from": start, "output_dir": folder / "run"}
    values |= {key.replace("__", "."): value for key, value in changes.items()}
    return [f"{key}={value}" for key, value in values.items()]


def config(folder: Path, **changes: Any) -> TrainConfig:
    return load(TrainConfig, None, overrides(folder, **changes))


def metrics(folder: Path, run: str = "run") -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / run / "metrics.jsonl").read_text().splitlines()]


def weights(folder: Path, step: int, run: str = "run") -> dict[str, bytes]:
    """All weights of a step, byte for byte."""
    place = folder / run / "weights" / f"step_{step:06d}"
    return {str(file.relative_to(place)): file.read_bytes() for file in sorted(place.rglob("*.safetensors"))}
