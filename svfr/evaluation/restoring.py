"""Restore a test set before it is evaluated (`scripts/eval.py --run`)."""

import sys
from collections.abc import Sequence
from pathlib import Path

from svfr.data.video import VideoError
from svfr.evaluation.pairs import Problem, item_name, task_folders
from svfr.evaluation.settings import BASELINES, EvalConfig
from svfr.inference.batch import find_items
from svfr.inference.folder import Share, load_pipeline, restore_folder

RESTORED = "restored"  # folder of the output: a folder a method, in it one a task


def parse_weights(arguments: Sequence[str], taken: dict[str, Path]) -> dict[str, str]:
    """Weights by the name of their method, from `[NAME=]WEIGHTS`, "svfr" without one; no name twice, none reserved."""
    weights: dict[str, str] = {}
    for argument in arguments:
        name, equals, source = argument.partition("=")
        name, source = (name, source) if equals else ("svfr", argument)
        if name in weights or name in taken or name in BASELINES or "/" in name or not name:
            raise ValueError(f"--weights {argument}: '{name}' is taken or cannot be a method's name, give NAME=WEIGHTS")
        weights[name] = source
    return weights


def restore_set(
    weights: dict[str, str],
    degraded: Path | None,
    masks: Path | None,
    output: Path,
    settings: EvalConfig,
    networks: Path | None,
    device: str,
    share: Share,
) -> tuple[dict[str, Path], list[Problem]]:
    """Restore the degraded inputs of every task with each of the weights; see `restore_folder`.

    Returns:
        Folder of results by name of method, and what could not be restored.
    """
    if not weights:
        return {}, []
    if degraded is None:
        raise ValueError("--run restores the degraded inputs: give --degraded DIR")
    folders: dict[str, Path] = {}
    problems: list[Problem] = []
    for method, source in weights.items():
        pipe = load_pipeline(source, settings.restore, networks, device)
        folders[method] = output / RESTORED / method
        for task, folder in task_folders(degraded, settings.task)[0].items():
            tasks = tuple(task.split("+"))
            mask = masks if "inpainting" in tasks else None
            place = folders[method] / task
            try:
                report = restore_folder(
                    pipe, folder, place, tasks, settings.restore, weights=source, mask=mask, share=share, title=task
                )
            except VideoError as error:  # no inputs
                if share.is_main_process:
                    print(error, file=sys.stderr)
                problems.append(Problem(method, task, "", str(error)))
                continue
            names = {str(item.source): item_name(item) for item in find_items(folder, place, "png")}
            failed = [video for video in report["videos"] if video["status"] != "done"]
            problems += [Problem(method, task, names[video["input"]], video["reason"]) for video in failed]
    return folders, problems
