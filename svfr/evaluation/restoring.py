"""Restore a test set through the pipeline before it is evaluated (`scripts/eval.py --run`)."""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Protocol

from tqdm import tqdm

from svfr import SVFRPipeline, __version__
from svfr.data.detectors import load_detector
from svfr.data.video import VideoError
from svfr.evaluation.pairs import Problem, item_name, task_folders
from svfr.evaluation.settings import BASELINES, EvalConfig
from svfr.files import digest, fingerprint
from svfr.inference.batch import Item, find_items, mask_of, read_records, run_items
from svfr.inference.video import VideoReport
from svfr.networks import NetworkMissing

RESTORED = "restored"  # folder of the output: a folder a method, in it one a task
PLACES = ("device", "dtype", "detector")  # settings that are not the sampler's


class Split(Protocol):
    """Which share of the work is this process's, as accelerate's PartialState says it."""

    process_index: int
    num_processes: int
    is_main_process: bool

    def wait_for_everyone(self) -> None:
        """Until all processes are here."""
        ...


class OneProcess:
    """All of the work is this process's."""

    process_index, num_processes, is_main_process = 0, 1, True

    def wait_for_everyone(self) -> None:
        """Nobody else to wait for."""


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
    weights: dict[str, str],
    degraded: Path,
    masks: Path | None,
    output: Path,
    settings: EvalConfig,
    networks: Path | None,
    device: str,
    split: Split,
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
    tasks = task_folders(degraded, settings.task)[0]
    folders: dict[str, Path] = {}
    problems: list[Problem] = []
    for method, source in weights.items():
        pipe = _load(source, settings, networks, device)
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


def _load(source: str, settings: EvalConfig, networks: Path | None, device: str) -> SVFRPipeline:
    restore = settings.restore
    pipe = SVFRPipeline.from_pretrained(
        source, device=device if restore.device == "auto" else restore.device, dtype=restore.dtype
    )
    try:
        pipe.detector = load_detector(restore.detector, networks)
    except NetworkMissing:
        if restore.face == "auto":
            raise
    return pipe


def restore_task(
    pipe: SVFRPipeline,
    source: str,
    settings: EvalConfig,
    task: str,
    folder: Path,
    masks: Path | None,
    output: Path,
    split: Split,
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
    sampling = {key: value for key, value in asdict(settings.restore).items() if key not in PLACES}
    items = find_items(folder, output, settings.restore.format)
    output.mkdir(parents=True, exist_ok=True)
    about = {"svfr": __version__, "weights": source, "tasks": tasks, "settings": asdict(settings.restore)}

    def mask(item: Item) -> Path | None:
        return mask_of(item, folder, masks) if "inpainting" in tasks else None

    def call(item: Item) -> str:
        return digest({**about, "files": [fingerprint(path) for path in (item.source, mask(item), Path(source))]})

    def restore(item: Item) -> VideoReport:
        return pipe.restore_video(item.source, output / item.target, tasks, mask(item), None, **sampling)

    with tqdm(total=len(items), desc=f"restore {task}", unit="video", disable=not split.is_main_process) as bar:
        mine = items[split.process_index :: split.num_processes]
        tell = partial(bar.write, file=sys.stderr)
        run_items(mine, output, call, restore, tell, on_done=lambda _: bar.update())
    split.wait_for_everyone()
    names = [item_name(item) for item in find_items(folder, output, "png")]
    records = zip(names, read_records(items, output, call), strict=True)
    return {name: record["reason"] for name, record in records if record["status"] != "done"}
