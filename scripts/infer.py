#!/usr/bin/env python
"""Restore a video, an image, a folder of frames or a folder of videos.

    python scripts/infer.py --input PATH --output DIR --tasks bfr,colorization,inpainting --mask PATH [key=value ...]

`accelerate launch scripts/infer.py ...` splits a folder over processes and machines. Run again, it does what is left.
Exit code: 0 all done, 1 some inputs failed (see report.json), 2 the call itself was wrong.
"""

import argparse
import signal
import sys
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

from accelerate import PartialState
from tqdm import tqdm

from svfr import SVFRPipeline, __version__, config
from svfr.data.detectors import FaceDetector, load_detector
from svfr.data.video import probe, read_frames
from svfr.files import digest, fingerprint
from svfr.inference.batch import Item, collect, find_items, mask_of, run_items
from svfr.inference.options import SamplingOptions
from svfr.inference.pipeline import check_mask_needed
from svfr.inference.settings import InferConfig
from svfr.inference.video import VideoReport
from svfr.networks import NetworkMissing
from svfr.tasks import TASKS, parse_tasks

BAR = "{desc}{percentage:3.0f}%|{bar}| {n:.0f}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}]"
INTERRUPTED = 130  # the shell's exit code of Ctrl-C
LONGEST_WAIT = timedelta(days=30)  # of a process that is done with its share for the others


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", type=Path, required=True, help="video, image, folder of frames or of videos")
    parser.add_argument("--output", type=Path, required=True, help="folder of the results")
    parser.add_argument("--tasks", required=True, help=f"one or more of {','.join(TASKS)}")
    parser.add_argument("--mask", type=Path, help="image, video, folder of PNGs, or a folder of one for each input")
    parser.add_argument("--reference", type=Path, help="photo of the person")
    parser.add_argument("--weights", default="demo", help="demo, released, a folder, or a Hub id")
    parser.add_argument("--config", type=Path, help="yaml file of settings")
    parser.add_argument("--networks", type=Path, help="folder of third-party networks (default: $SVFR_NETWORKS)")
    names = ", ".join(InferConfig.__dataclass_fields__)
    parser.add_argument("settings", nargs="*", metavar="key=value", help=f"settings: {names}")
    return parser.parse_intermixed_args(arguments)


def find_detector(settings: InferConfig, networks: Path | None) -> FaceDetector | None:
    """The face detector; frames that are aligned already do without one where there is none."""
    try:
        return load_detector(settings.detector, networks)
    except NetworkMissing:
        if settings.face == "auto" or settings.detector != "auto":
            raise
        return None


def run(options: argparse.Namespace, state: PartialState) -> int:
    """Restore everything; returns the exit code."""
    settings = config.load(InferConfig, options.config, options.settings)
    tasks = parse_tasks(options.tasks)
    check_mask_needed(tasks, options.mask is not None)
    for path in (options.mask, options.reference):
        if path is not None and not path.exists():
            raise ValueError(f"{path}: no such file or folder")
    items = find_items(options.input, options.output, settings.format)
    if options.input.is_dir() and options.input.resolve() == options.output.resolve():
        raise ValueError(f"{options.output}: the output has to be another folder than the input")
    try:
        options.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{options.output}: no folder for the results can be made here ({error.strerror})") from error

    detector = find_detector(settings, options.networks)
    device = state.device if state.num_processes > 1 and settings.device == "auto" else settings.device
    pipe = SVFRPipeline.from_pretrained(options.weights, device=device, dtype=settings.dtype)
    pipe.detector = detector
    size = pipe.resolve_size(settings.size)
    SamplingOptions.resolve(
        pipe.components.settings,
        settings.strategy,
        clip_length=settings.clip_length,
        overlap=settings.overlap,
        sampler=settings.sampler,
    )
    photo = next(read_frames(options.reference)).image if options.reference else None
    if photo is not None:
        pipe.references.from_photo(photo, size, whole=settings.face == "aligned")

    about: dict[str, Any] = {
        "svfr": __version__,
        "weights": options.weights,
        "untrained": pipe.components.settings.untrained,
        "tasks": tasks,
        "detector": detector and {"name": detector.name, "source": detector.source},
        "settings": asdict(settings),
    }
    bar = tqdm(total=len(items), desc="all", unit="file", position=0, disable=not state.is_main_process)
    if about["untrained"] and state.is_main_process:
        bar.write("The bundled model is UNTRAINED: results are noise and only show that the path works.", sys.stderr)

    def call(item: Item) -> str:
        """All that a result depends on."""
        mask = mask_of(item, options.input, options.mask)
        files = (item.source, mask, options.reference, Path(options.weights))
        return digest({**about, "files": [fingerprint(path) for path in files]})

    def restore(item: Item) -> VideoReport:
        """Restore one input, with a bar of its own."""
        total = probe(item.source).num_frames
        with tqdm(
            total=total, unit="frame", position=1, leave=False, disable=bar.disable, bar_format=BAR
        ) as frames_bar:

            def show(frames: float, stage: str) -> None:
                description = f"{item.source.name} {stage}"
                if frames_bar.desc != description + ": ":
                    frames_bar.reset(total)
                    frames_bar.set_description(description)
                frames_bar.update(frames)

            names = ("device", "dtype", "detector")
            sampling = {key: value for key, value in asdict(settings).items() if key not in names}
            mask = mask_of(item, options.input, options.mask)
            return pipe.restore_video(
                item.source, options.output / item.target, tasks, mask, photo, **sampling, on_progress=show
            )

    mine = items[state.process_index :: state.num_processes]
    interrupted = False
    try:
        run_items(mine, options.output, call, restore, tell=bar.write, on_done=lambda _: bar.update())
    except KeyboardInterrupt:
        interrupted = True
    finally:
        bar.close()
    if not interrupted:
        state.wait_for_everyone()
    if not state.is_main_process:
        return 0  # the main process speaks for all
    report = collect(items, options.output, call, about)
    if interrupted:
        print("interrupted; run the same command again to go on", file=sys.stderr)
        return INTERRUPTED
    print(f"{report['done']} done, {report['failed']} failed: {options.output / 'report.json'}")
    return 1 if report["failed"] else 0


def main(arguments: list[str] | None = None) -> int:
    """Run, and turn a wrong call into one line."""
    options = parse_arguments(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # of schedulers: stop as cleanly as by Ctrl-C
    try:
        return run(options, PartialState(timeout=LONGEST_WAIT))
    except (ValueError, OSError) as error:
        reason = " ".join(str(error).split())
        if isinstance(error, OSError) and error.filename:
            reason = f"{error.filename}: {error.strerror}"
        print(f"infer.py: {reason}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted before the first input", file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
