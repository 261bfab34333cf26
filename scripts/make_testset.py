#!/usr/bin/env python
"""Make a fixed test set: aligned ground truth, degraded inputs for each task, masks, and a manifest of every number.

    python scripts/make_testset.py --ground-truth DIR --output DIR [--config configs/eval_vfhq.yaml] [key=value ...]

Settings are those of `testset` in the protocol's file: preset, tasks, seed, alignment, ... The result is
OUTPUT/ground_truth, OUTPUT/degraded/TASK, OUTPUT/masks (PNG files), manifest.jsonl and testset.json. With
`--expect manifest.jsonl` of another lab, it says whether the pixels are the same; with `--videos`, the inputs are
there as lossless OUTPUT/videos/TASK/NAME.mp4 too. Run again, it does what is left.
Exit code: 0 all done, 1 some clips failed or differ, 2 the call itself was wrong.
"""

import argparse
import sys
from pathlib import Path

from svfr import config
from svfr.evaluation.collect import lossless_videos
from svfr.evaluation.settings import EvalConfig, TestsetConfig
from svfr.evaluation.testset import MANIFEST, make_testset, other_pixels


def run(options: argparse.Namespace) -> int:
    """Make everything; returns the exit code."""
    overrides = [f"testset.{word}" for word in options.settings]
    settings = config.load(EvalConfig, options.config, overrides).testset
    if options.expect is not None and not options.expect.is_file():
        raise ValueError(f"{options.expect}: no such file")
    report = make_testset(options.ground_truth, options.output, settings, options.networks)
    if options.videos and report["done"]:
        lossless_videos(options.output)
    manifest = options.output / MANIFEST
    problems = other_pixels(manifest, options.expect) if options.expect else []
    for problem in problems:
        print(problem, file=sys.stderr)
    same = ", all pixels as expected" if options.expect and not problems else ""
    print(f"{report['done']} clips, {report['failed']} failed{same}: {manifest}")
    return 1 if report["failed"] or problems else 0


def main(arguments: list[str] | None = None) -> int:
    """Run, and turn a wrong call into one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--ground-truth", type=Path, required=True, help="videos or frame folders, or DicFace's test_data"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder of the test set")
    parser.add_argument("--config", type=Path, help="yaml file of the protocol, such as configs/eval_vfhq.yaml")
    parser.add_argument("--networks", type=Path, help="folder of third-party networks (default: $SVFR_NETWORKS)")
    parser.add_argument("--expect", type=Path, metavar="MANIFEST", help="manifest.jsonl to compare the pixels with")
    parser.add_argument("--videos", action="store_true", help="write the inputs as lossless MP4 files too")
    names = ", ".join(TestsetConfig.__dataclass_fields__)
    parser.add_argument("settings", nargs="*", metavar="key=value", help=f"settings: {names}")
    options = parser.parse_intermixed_args(arguments)
    return config.run_command("make_testset.py", lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
