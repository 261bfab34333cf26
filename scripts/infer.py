#!/usr/bin/env python
"""Restore a video, an image, a folder of frames or a folder of videos.

    python scripts/infer.py --input PATH --output DIR --tasks bfr,colorization,inpainting --mask PATH [key=value ...]

`torchrun` or `accelerate launch scripts/infer.py ...` splits a folder over processes and machines. Run again, it does
what is left.
Exit code: 0 all done, 1 some inputs failed (see report.json), 2 the call itself was wrong.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import svfr
from svfr import config
from svfr.inference.batch import REPORT, summary_table
from svfr.inference.folder import check_inputs, load_pipeline, plan_folder, restore_folder
from svfr.inference.processes import Processes, watched
from svfr.inference.settings import InferConfig
from svfr.tasks import TASKS, parse_tasks


def run(options: argparse.Namespace) -> int:
    """Restore everything; returns the exit code."""
    svfr.quiet = options.quiet
    settings = config.load(InferConfig, options.config, options.settings)
    tasks = parse_tasks(options.tasks)
    what = options.input, options.output, tasks, settings
    check_inputs(*what, options.mask, options.reference)
    share = Processes()
    weights = options.weights, settings, options.networks, share.device(settings.device), options.lora
    if options.dry_run:
        return 1 if plan_folder(load_pipeline(*weights), *what) else 0
    with share.alone_in(options.output):
        given: dict[str, Any] = {"weights": options.weights, "mask": options.mask, "references": options.reference}
        report = restore_folder(load_pipeline(*weights), *what, **given, share=share)
    if not share.is_main_process:
        return 0  # the main process speaks for all
    if options.json:
        print(json.dumps(report["summary"]))
    else:
        line = f"{report['done']} done, {report['failed']} failed: {options.output / REPORT}"
        print(*([] if options.quiet else [summary_table(report)]), line, sep="\n")
    return 1 if report["failed"] else 0


def main(arguments: list[str] | None = None) -> int:
    """Run, and turn a wrong call into one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", type=Path, required=True, help="video, image, folder of frames or of videos")
    parser.add_argument("--output", type=Path, required=True, help="folder of the results")
    parser.add_argument("--tasks", required=True, help=f"one or more of {','.join(TASKS)}")
    parser.add_argument("--mask", type=Path, help="image, video, folder of PNGs or of one for each input; auto")
    parser.add_argument("--reference", type=Path, action="append", default=[], help="photo of the person; repeatable")
    parser.add_argument("--weights", default="released", help="released (default), demo, a folder, or a Hub id")
    parser.add_argument("--dry-run", action="store_true", help="print shots, people, clips and the time to expect")
    parser.add_argument("--lora", metavar="DIR[:WEIGHT]", help="folder that training with lora.rank wrote, on its base")
    parser.add_argument("--quiet", action="store_true", help="show errors and the last line alone")
    parser.add_argument("--json", action="store_true", help="print report.json's summary alone on stdout")
    parser.add_argument("--config", type=Path, help="yaml file of settings")
    parser.add_argument("--networks", type=Path, help="folder of third-party networks (default: $SVFR_NETWORKS)")
    names = ", ".join(InferConfig.__dataclass_fields__)
    parser.add_argument("settings", nargs="*", metavar="key=value", help=f"settings: {names}")
    options = parser.parse_intermixed_args(arguments)
    return config.run_command("infer.py", lambda: run(options))


if __name__ == "__main__":
    sys.exit(watched(main))
