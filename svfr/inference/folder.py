"""Restore a file or all files of a folder: what `scripts/infer.py` and `scripts/eval.py --run` do."""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, fields
from functools import lru_cache
from os.path import realpath  # unlike Path.resolve, of links in a circle too
from pathlib import Path
from typing import Any

import svfr
from svfr import __version__
from svfr.data.detectors import load_detector
from svfr.data.parsing import load_parser
from svfr.data.recognition import load_recognizer
from svfr.data.video import read_frames
from svfr.files import digest, fingerprint, sha256_of_all, sweep, versions, write_json
from svfr.inference import processes
from svfr.inference.batch import REPORT, Item, collect, find_items, key_of, mask_of, printable, run_items
from svfr.inference.film import film_folder
from svfr.inference.masks import AUTO
from svfr.inference.pipeline import SVFRPipeline
from svfr.inference.plan import contact_sheet, plan_lines
from svfr.inference.processes import Processes
from svfr.inference.settings import InferConfig, VideoSettings
from svfr.inference.strategies import clip_seconds
from svfr.inference.video import VideoReport
from svfr.models.lora import parse_lora
from svfr.models.sources import weights_files
from svfr.networks import NetworkMissing, describe
from svfr.tasks import check_mask_needed

PACKAGES = ("torch", "diffusers", "numpy", "opencv-python", "av", "onnxruntime", "insightface")  # that pixels depend on
SHOWN = 5  # names in one line


def load_pipeline(
    weights: str, settings: InferConfig, networks: Path | None = None, device: str = "auto", lora: str | None = None
) -> SVFRPipeline:
    """A pipeline with its face detector, and networks of recognition and parsing if they are there.

    Frames that are aligned already do without a detector where `auto` finds none. `networks` is a folder of third-party
    ones, `lora` DIR or DIR:WEIGHT, to be merged into the weights.

    Raises:
        ValueError: weights that cannot be used, or no detector, although it is asked for by name or needed.
    """
    detector = None
    try:
        detector = load_detector(settings.detector, networks)
    except NetworkMissing:
        if settings.face == "auto" or settings.detector != "auto":
            raise
    pipe = SVFRPipeline.from_pretrained(weights, device=device, dtype=settings.dtype)
    pipe.detector = detector
    pipe.parser = load_parser(networks)
    with suppress(NetworkMissing):
        pipe.recognizer = load_recognizer("auto", networks, download=False)
    if lora is not None:
        pipe.load_lora_weights(*parse_lora(lora))
        pipe.fuse_lora()
    return pipe.prepare(settings.memory, settings.vae, settings.compile)


def check_inputs(
    source: Path,
    output: Path,
    tasks: tuple[str, ...],
    settings: InferConfig,
    mask: Path | None = None,
    references: Sequence[Path] = (),
    skipped: list[Path] | None = None,
) -> list[Item]:
    """Find the inputs, and what is wrong with a call, before weights are loaded; arguments as `restore_folder`.

    Files that are no inputs are added to `skipped`.

    Raises:
        ValueError: a call that cannot be.
    """
    check_mask_needed(tasks, mask is not None)
    for path in (mask, *references):
        if path not in (None, AUTO) and not path.exists():
            raise ValueError(f"{path}: no such file or folder")
    items = find_items(source, output, settings.format, skipped)
    if any(realpath(item.source) == realpath(output / item.target) for item in items):
        raise ValueError(f"{output}: results would replace inputs; choose another folder for the output")
    if source.is_dir() and source.resolve() == output.resolve():
        raise ValueError(f"{output}: the output has to be another folder than the input")
    return items


def restore_folder(
    pipe: SVFRPipeline,
    source: Path,
    output: Path,
    tasks: tuple[str, ...],
    settings: InferConfig,
    *,
    weights: str,
    mask: Path | None = None,
    references: Sequence[Path] = (),
    share: Processes,
    title: str = "all",
) -> dict[str, Any]:
    """Restore the inputs at a path, each into a file of its own; finished ones are skipped.

    A bad input is recorded with its reason and does not stop the others. Several processes share the inputs, and the
    main one writes the report, also when it is interrupted.

    Args:
        pipe: of `load_pipeline`, by the name `weights`, on which results depend.
        source, output: as of `find_items`.
        tasks: from `parse_tasks`.
        settings: of the restoration.
        mask: see `mask_of`.
        references: photos of the person, or of several.
        share, title: of this process, and of its progress bar.

    Returns:
        What `report.json` says: `done`, `failed`, the resolved `settings`, `weights_sha256` (see `sha256_of_all`),
        `packages`, `skipped` files, `videos`, a record of each input.

    Raises:
        ValueError: a call that cannot be; nothing was restored.
        OSError: the output cannot be written.
    """
    others: list[Path] = []
    items = check_inputs(source, output, tasks, settings, mask, references, others)
    resolved = settings.resolve(pipe.parts)
    photos = [next(read_frames(file)).image for file in references]
    for photo, file in zip(photos, references, strict=True):
        try:
            pipe.references.face_of(photo, resolved.size or 0, or_whole=settings.face == "aligned")
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error
    detector, recognizer, parser = pipe.detector, pipe.recognizer, pipe.parser
    files = tuple((name, file, str(fingerprint(file))) for name, file in sorted(weights_files(weights).items()))
    about: dict[str, Any] = {
        "svfr": __version__,
        "weights": weights,
        "tasks": tasks,
        "detector": detector and {"name": detector.name, **describe(Path(detector.source))},
        "recognizer": recognizer and {"name": recognizer.name, "sha256": recognizer.sha256},
        "parser": parser and {"name": parser.name, "sha256": parser.sha256},
        "settings": asdict(resolved),
    }
    if pipe.lora:
        about["lora"] = pipe.lora
    # Of the settings as they were asked for, since what memory=auto finds free is not always the same.
    depends_on = digest({**about, "settings": asdict(settings), "weights_files": files})

    def cache_key(item: Item) -> str:
        files = item.source, mask_of(item, source, mask), *references, settings.photo
        return digest([depends_on, *map(fingerprint, files)])

    bar = svfr.bar(len(items), "file", title, share.is_main_process, position=0)
    if share.is_main_process:
        skipped = [str(path.relative_to(source)) for path in others]
        about |= {"skipped": skipped, "weights_sha256": _sha256_once(files)}
        about |= {"dtype": str(pipe.dtype), "packages": versions(*PACKAGES)}
        if skipped:
            shown = ", ".join(skipped[:SHOWN]) + (", ..." if len(skipped) > SHOWN else "")
            svfr.note(printable(f"{source}: {len(skipped)} files are neither videos nor pictures: {shown}"))
        # Nobody else writes here.
        sweep(output, {film_folder(output / item.target, key_of(item, cache_key)) for item in items})
    share.wait_for_everyone()

    def restore(item: Item) -> VideoReport:
        title = {"desc": item.source.name, "unit": "frame", "position": 1, "leave": False}
        pipe.set_progress_bar_config(**title, disable=bar.disable)
        place = item.source, output / item.target, tasks, mask_of(item, source, mask), photos
        how = {"key": cache_key(item), **_for_video(settings)}
        return pipe.restore_video(*place, lambda *_: processes.progress(), **how)

    mine = items[share.process_index :: share.num_processes]
    try:
        run_items(mine, output, cache_key, restore, bar.update)
        bar.close()
        share.wait_for_everyone()
    finally:
        bar.close()
        report = {**about, **collect(items, output, cache_key)}
        if share.is_main_process:
            write_json(output / REPORT, report)
    return report


def plan_folder(pipe: SVFRPipeline, source: Path, output: Path, tasks: tuple[str, ...], settings: InferConfig) -> int:
    """Print what `restore_folder` would do, and write a picture of the people of each input beside its result's place.

    Returns:
        How many inputs cannot be planned; each is named with its reason.
    """
    if settings.face == "aligned":
        raise ValueError("--dry-run plans faces: face=aligned has nothing to plan")
    resolved, failed = settings.resolve(pipe.parts), 0
    of_a_clip = clip_seconds(pipe.parts, resolved, tasks)
    for item in find_items(source, output, settings.format):
        started = time.perf_counter()
        try:
            plan = pipe.plan_video(item.source, **_for_video(settings))
        except (ValueError, OSError) as error:
            failed += 1
            print(printable(f"{item.source}: {str(error).removeprefix(f'{item.source}: ')}"))
            continue
        for line in plan_lines(plan, resolved, time.perf_counter() - started, of_a_clip):
            print(printable(f"{item.source}: {line}"))
        if plan.people:
            sheet = (output / item.target).with_suffix(".plan.png")
            sheet.parent.mkdir(parents=True, exist_ok=True)
            contact_sheet(plan, sheet)
            print(printable(f"{item.source}: {sheet} shows the people; faces=1,2 chooses"))
    return failed


def _for_video(settings: InferConfig) -> dict[str, Any]:
    return {field.name: getattr(settings, field.name) for field in fields(VideoSettings)}


@lru_cache(maxsize=1)
def _sha256_once(files: tuple[tuple[str, Path, str], ...]) -> str:
    """`sha256_of_all` of names and files; with their fingerprints, since gigabytes should not be read for each task."""
    return sha256_of_all({name: file for name, file, _ in files})
