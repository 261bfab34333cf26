#!/usr/bin/env python
"""What has to hold of a model of rendered faces, measured on held-out people.

    python scripts/check_demo.py --weights demo --output outputs/check_demo [--clips 20]

Margins over the degraded input and over trivial methods, the right task prompt against wrong ones, a photo of the right
person against another one's, and drift over long clips with and without self-reference. Writes checks.md.
Exit code: 0 all holds, 1 something does not, 2 the call itself was wrong.
"""

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from svfr import SVFRPipeline
from svfr.data.degradations import PRESETS
from svfr.demo.checks import METHODS, drift, judge_margins, margins, person_matters, prompt_matters
from svfr.demo.ladder import TASK_SETS
from svfr.demo.quality import SHOWN, build_quality
from svfr.metrics.identity import IResNetRecognizer
from svfr.models.sources import find_model


def run(options: argparse.Namespace) -> int:
    """Measure everything and write the report; returns the exit code."""
    pipe = SVFRPipeline.from_pretrained(options.weights, dtype="float32")
    folder = find_model(options.weights)
    recognizer = IResNetRecognizer(folder / "id_encoder")
    frames = options.frames or 2 * pipe.parts.settings.clip_length - 1
    total = options.clips * (len(TASK_SETS) + 4) + options.long_clips
    with tqdm(total=total, desc="check", unit="clip", smoothing=0) as bar:
        shared = {"num_clips": options.clips, "num_frames": frames, "preset": options.preset, "on_clip": bar.update}
        means = margins(pipe, build_quality(folder), **shared)
        findings = judge_margins(means)
        findings += prompt_matters(pipe, **shared)
        findings += person_matters(pipe, recognizer, **shared)
        if options.long_clips:
            shared |= {"num_clips": options.long_clips, "num_frames": options.long_frames}
            findings += drift(pipe, recognizer, **shared)

    lines = [
        f"# Checks: {options.clips} held-out clips of {frames} frames a task",
        "",
        "| | | holds |",
        "|---|---|---|",
    ]
    lines += [f"| {finding.what} | {finding.value} | {'yes' if finding.holds else 'NO'} |" for finding in findings]
    for tasks, group in means.items():
        columns = [(c, title) for c, title, _ in SHOWN if group["restored"].get(c) is not None]
        lines += ["", f"## {tasks}", "", "| | " + " | ".join(title for _, title in columns) + " |"]
        lines += ["|---" * (len(columns) + 1) + "|"]
        lines += [f"| {m} | " + " | ".join(f"{group[m][c]:.4g}" for c, _ in columns) + " |" for m in METHODS]
    report = "\n".join(lines) + "\n"
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "checks.md").write_text(report)
    print(report)
    return 0 if all(finding.holds for finding in findings) else 1


def main(arguments: list[str] | None = None) -> int:
    """Run, and turn a wrong call into one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="demo", help="demo or a model folder")
    parser.add_argument("--output", type=Path, required=True, help="folder of the report")
    parser.add_argument("--clips", type=int, default=20, help="held-out clips of each task")
    parser.add_argument("--frames", type=int, help="of a clip; default: two of the model's clips")
    parser.add_argument("--long-clips", type=int, default=16, help="clips of the drift; 0 leaves it out")
    parser.add_argument("--long-frames", type=int, default=96, help="their frames")
    parser.add_argument("--preset", choices=PRESETS, default="svfr", help="degradations of bfr")
    options = parser.parse_args(arguments)
    try:
        for name, value in (("clips", options.clips), ("frames", options.frames), ("long-frames", options.long_frames)):
            if value is not None and value < 1:
                raise ValueError(f"--{name} {value}: has to be at least 1")
        return run(options)
    except (ValueError, OSError) as error:
        print(f"check_demo.py: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
