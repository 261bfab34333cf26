"""Restore a test set through the pipeline before it is evaluated (`scripts/eval.py --run`)."""

import sys
from collections.abc import Sequence
from pathlib import Path

from svfr import SVFRPipeline
from svfr.data.video import VideoError
from svfr.evaluation.pairs import Problem, item_name, task_folders
from svfr.evaluation.settings import BASELINES, EvalConfig
from svfr.inference.batch import find_items
from svfr.inference.folder import Share, load_pipeline, restore_folder

RESTORED = "restored"  # folder of the output: a folder a method, in it one a task
PLACES = ("device", "dtype", "detector")  # settings that are not the sampler's


def parse_weights(arguments: Sequence[str], taken: dict[str, Path]) -> dict[str, str]:
    """Weights by the name of their method, from `[NAME=]WEIGHTS`; "svfr" without a name.

    Raises:
        ValueError: a name twice, or reserved.
    """
    weights: dict[str, str] = {}
    for argument in arguments:
        name, equals, source = argument.partition("=")
        name, source = (name, source) if equals else ("svfr", argument)
        if name in weights or name in taken or name in BASELINES or "/" in name or not name:
            raise ValueError(f"--weights {argument}: '{name}' is taken or cannot be a method's name, give NAME=WEIGHTS")
        weights[name] = source
    return weights


def restore_set(
    degraded: Path | None,
    masks: Path | None,
    output: Path,
    weights: dict[str, str],
    *,
    settings: EvalConfig,
    networks: Path | None,
    device: str,
    split: Share,
) -> tuple[dict[str, Path], list[Problem]]:
    """Restore the degraded inputs of every task with each of the weights; finished ones are skipped.

    Args:
        degraded: folder of the inputs, with a subfolder for each task or without.
        masks: of the inpainting task.
        output: folder of the evaluation.
        weights: by name of method.
        settings: of the evaluation; `restore` is the pipeline's part.
        networks: folder of third-party networks.
        device: of the networks, unless `restore.device` says another.
        split: the share of this process.

    Returns:
        Folder of results by name of method, and what could not be restored.

    Raises:
        ValueError: no degraded inputs, or weights that cannot be used.
    """
    if degraded is None:
        raise ValueError("--run restores the degraded inputs: give --degraded DIR")
    tasks = task_folders(degraded, settings.task)[0]
    folders: dict[str, Path] = {}
    problems: list[Problem] = []
    for method, source in weights.items():
        pipe = load_pipeline(source, settings.restore, networks, device)
        folders[method] = output / RESTORED / method
        for task, folder in tasks.items():
            try:
                failed = restore_task(pipe, source, settings, task, folder, masks, folders[method] / task, split)
            except VideoError as error:  # nothing there
                failed = {"": str(error)}
                if split.is_main_process:
                    print(error, file=sys.stderr)
            problems += [Problem(method, task, name, reason) for name, reason in failed.items()]
    return folders, problems


def restore_task(
    pipe: SVFRPipeline,
    source: str,
    settings: EvalConfig,
    task: str,
    folder: Path,
    masks: Path | None,
    output: Path,
    split: Share,
) -> dict[str, str]:
    """Restore the inputs of one task; finished ones are skipped.

    Args:
        pipe: the model.
        source: where its weights come from.
        settings: `restore` is the pipeline's part.
        task: name, as "bfr+colorization".
        folder: of the inputs.
        masks: by the names of the inputs, or one for all; for inpainting.
        output: folder of the results.
        split: the share of this process.

    Returns:
        Why an input could not be restored, in one line, by its name; whichever process it was that tried.

    Raises:
        VideoError: no inputs.
        ValueError: no masks for inpainting.
    """
    tasks = tuple(task.split("+"))
    if "inpainting" in tasks and masks is None:
        raise ValueError(f"{folder}: inpainting needs the masks: give --masks DIR")
    report = restore_folder(
        pipe,
        folder,
        output,
        tasks,
        settings.restore,
        weights=source,
        mask=masks if "inpainting" in tasks else None,
        share=split,
        title=f"restore {task}",
    )
    names = [item_name(item) for item in find_items(folder, output, "png")]
    records = zip(names, report["videos"], strict=True)
    return {name: record["reason"] for name, record in records if record["status"] != "done"}
