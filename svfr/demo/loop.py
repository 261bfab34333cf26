"""The training loop that the VAE and the ID network share; SVFR's own is `svfr.training.loop`."""

import json
import math
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

STATE_NAME = "state.pt"
METRICS_NAME = "metrics.jsonl"
SAVE_EVERY = 100  # steps
MAX_GRAD_NORM = 1.0
WARMUP_SHARE = 0.05  # of the steps: the learning rate rises, then falls as a cosine

Losses = dict[str, Tensor]  # "loss" is what is minimized


def fit(
    name: str,
    model: nn.Module,
    batches: Callable[[int], Iterable[Any]],
    compute: Callable[[int, Any], Losses],
    folder: Path,
    *,
    max_steps: int,
    learning_rate: float,
) -> None:
    """Train until `max_steps`; called again with the same arguments, it goes on where it was stopped.

    Args:
        name: of the progress bar.
        model: all parameters are trained, by AdamW.
        batches: what the steps from a given one on read; a step's has to depend on its index alone.
        compute: the losses of a step, from its index and its batch.
        folder: of the state and of metrics.jsonl.
        max_steps: optimizer steps.
        learning_rate: the highest.

    Raises:
        FloatingPointError: the loss is no longer finite.
    """
    folder.mkdir(parents=True, exist_ok=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate)
    start = _resume(folder / STATE_NAME, model, optimizer)
    model.train()
    with (
        tqdm(total=max_steps, initial=start, desc=name, unit="step") as bar,
        (folder / METRICS_NAME).open("a") as metrics,
    ):
        for index, batch in zip(range(start, max_steps), batches(start), strict=False):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * schedule(index, max_steps)
            losses = compute(index, batch)
            if not losses["loss"].isfinite():
                raise FloatingPointError(f"{name}: the loss is {losses['loss'].item()} at step {index}")
            optimizer.zero_grad()
            losses["loss"].backward()
            nn.utils.clip_grad_norm_(model.parameters(), MAX_GRAD_NORM)
            optimizer.step()
            values = {key: round(value.item(), 6) for key, value in losses.items()}
            metrics.write(json.dumps({"step": index + 1, **values}) + "\n")
            bar.update()
            bar.set_postfix(values)
            if (index + 1) % SAVE_EVERY == 0 or index + 1 == max_steps:
                metrics.flush()
                _save(folder / STATE_NAME, model, optimizer, index + 1)
    model.eval()


def schedule(step: int, max_steps: int) -> float:
    """Share of the highest learning rate: a linear rise, then half a cosine down to 0."""
    warmup = max(1, round(WARMUP_SHARE * max_steps))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, max_steps - warmup)))


def _save(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    partial = path.with_name(f".{path.name}.partial")
    torch.save({"step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict()}, partial)
    os.replace(partial, path)


def _resume(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Load a state if there is one; returns the steps that are done."""
    if not path.is_file():
        return 0
    state = torch.load(path, map_location="cpu", weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return state["step"]
