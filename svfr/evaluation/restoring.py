"""Restore a test set before it is evaluated (`scripts/eval.py --run`)."""

import re
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import svfr
from svfr.config import ConfigError
from svfr.data.video import VideoError
from svfr.evaluation.pairs import Problem, canonical_task, item_name, task_folders
from svfr.evaluation.settings import BASELINES
from svfr.inference.batch import find_items
from svfr.inference.folder import load_pipeline, restore_folder
from svfr.inference.pipeline import SVFRPipeline
from svfr.inference.processes import Processes
from svfr.inference.settings import InferConfig

RESTORED = "restored"  # folder of the output: a folder a method, in it one a task


class Run(NamedTuple):
    """What a method does on a task, or, with the task "", on all that it says nothing else of."""

    weights: str
    settings: InferConfig


Runs = dict[str, dict[str, Run]]  # by method and task


def parse_weights(arguments: Sequence[str], taken: dict[str, Path], load: Callable[[list[str]], InferConfig]) -> Runs:
    """What to restore with, from `[NAME[:TASK]=]WEIGHTS[,key=value ...]`; the name is "svfr" without one.

    Methods of the names in `taken` are there already; `load` gives the settings with these `key=value`. ValueError for
    a name or task that is there twice, a reserved name, no such task, or settings that cannot be.
    """
    runs: Runs = {}
    for argument in arguments:
        head, *overrides = re.split(r",(?=\w+=)", argument)
        place, weights = head.split("=", 1) if "=" in head else ("svfr", head)
        name, colon, task_name = place.partition(":")
        task = canonical_task(task_name) if colon else ""
        if name in taken or name in BASELINES or "/" in name or name[:1] in ("", ".") or task in runs.get(name, ()):
            reason = f"'{place}' is taken or cannot be a method's name, give NAME=WEIGHTS"
            raise ValueError(f"--weights {argument}: {reason}")
        if task is None or not weights:
            raise ValueError(f"--weights {argument}: give NAME=WEIGHTS or NAME:TASK=WEIGHTS, such as x:bfr=demo")
        try:
            runs.setdefault(name, {})[task] = Run(weights, load(overrides))
        except ConfigError as error:
            raise ValueError(f"--weights {argument}: {error}") from error
    return runs


def restore_set(
    runs: Runs,
    degraded: Path | None,
    masks: Path | None,
    output: Path,
    task: str,
    networks: Path | None,
    share: Processes,
) -> tuple[dict[str, Path], list[Problem]]:
    """Restore the degraded inputs of every task with each method; see `restore_folder`.

    The inputs have a subfolder for each task, or are those of `task`. Gives the folder of results by name of method,
    and what could not be restored; ValueError for a call that cannot be, unusable weights, or inputs that aren't there.
    """
    if not runs:
        return {}, []
    if degraded is None:
        raise ValueError("--run restores the degraded inputs: give --degraded DIR")
    folders = task_folders(degraded, task)[0]
    for method, by_task in runs.items():
        if absent := by_task.keys() - {"", *folders}:
            raise ValueError(f"--weights {method}:{min(absent)}: {degraded} has no such task, but {', '.join(folders)}")
        old = {name for name in folders if (output / RESTORED / method / name).exists()}
        if "" not in by_task and (old := old - by_task.keys()):
            raise ValueError(f"{output / RESTORED / method / min(old)}: an earlier call's; remove it, or name the task")
    problems: list[Problem] = []
    loaded: tuple[list[str], SVFRPipeline] | None = None
    for method, name in product(runs, folders):
        run = runs[method].get(name, runs[method].get(""))
        if run is None:
            continue
        names = ("detector", "face", "dtype", "device", "memory", "vae", "compile")
        key = [run.weights, *(getattr(run.settings, name) for name in names)]
        if loaded is None or loaded[0] != key:
            loaded = None  # frees it first
            loaded = key, load_pipeline(run.weights, run.settings, networks, share.device(run.settings.device))
        tasks, place, title = tuple(name.split("+")), output / RESTORED / method / name, f"{method} {name}"
        about: dict[str, Any] = {"weights": run.weights, "mask": masks if "inpainting" in tasks else None}
        try:
            report = restore_folder(
                loaded[1], folders[name], place, tasks, run.settings, **about, share=share, title=title
            )
        except VideoError as error:  # no inputs
            if share.is_main_process:
                svfr.error(str(error))
            problems.append(Problem(method, name, "", str(error)))
            continue
        items = {str(item.source): item_name(item) for item in find_items(folders[name], place, "png")}
        failed = [video for video in report["videos"] if video["status"] != "done"]
        problems += [Problem(method, name, items[video["input"]], video["reason"]) for video in failed]
    return {method: output / RESTORED / method for method in runs}, problems
