"""The three restoration tasks and the task prompt gamma = [bfr, colorization, inpainting] (SVFR, Sec. 4.1)."""

from collections.abc import Iterable

import torch
from torch import Tensor

TASKS = ("bfr", "colorization", "inpainting")
# Combinations of tasks that are trained, and how often each is drawn: all three at once half as often as one, pairs
# rarely. Assumption: the paper states no proportions.
TASK_WEIGHTS = {
    "bfr": 1.0,
    "colorization": 1.0,
    "inpainting": 1.0,
    "bfr,colorization": 0.2,
    "bfr,inpainting": 0.2,
    "colorization,inpainting": 0.2,
    "bfr,colorization,inpainting": 0.5,
}


def parse_tasks(tasks: str | Iterable[str]) -> tuple[str, ...]:
    """Tasks in canonical order, without repeats, from names or one comma-separated string; ValueError if it is none."""
    names = tasks.split(",") if isinstance(tasks, str) else list(tasks)
    names = [name.strip() for name in names if name.strip()]
    unknown = [name for name in names if name not in TASKS]
    if unknown:
        raise ValueError(f"unknown task '{unknown[0]}': choose from {', '.join(TASKS)}")
    if not names:
        raise ValueError(f"no task given: choose one or more of {', '.join(TASKS)}")
    return tuple(task for task in TASKS if task in names)


def task_prompt(tasks: str | Iterable[str]) -> Tensor:
    """The binary task prompt gamma, (3,) float32: 1 where a task of `TASKS` is asked for."""
    chosen = parse_tasks(tasks)
    return torch.tensor([float(task in chosen) for task in TASKS])


def check_mask_needed(tasks: Iterable[str], has_mask: bool) -> None:
    """ValueError unless a mask goes with inpainting, and inpainting with a mask."""
    if "inpainting" in tasks and not has_mask:
        raise ValueError("the task inpainting needs a mask (white = fill in)")
    if "inpainting" not in tasks and has_mask:
        raise ValueError("a mask is given, but inpainting is not among the tasks")
