#!/usr/bin/env python
"""The quality ladder of a model of rendered faces: steps x guidance x sampler against runs of the UNet.

    python scripts/ladder.py --weights runs/demo_64/model --output outputs/ladder [--clips 20]
    python scripts/ladder.py --weights demo --output outputs/ladder --clips 2 --steps 1 4 --guidance 1 2      (minutes)

Held-out clips, degraded by seed, for each task and all at once. Writes records.jsonl (run again, it goes on), ladder.md
and ladder.png, and names the cheapest setting that is not worse than the best.
"""

import argparse
import math
import sys
from pathlib import Path

from tqdm import tqdm

from svfr import SVFRPipeline
from svfr.data.degradations import PRESETS
from svfr.demo.build import set_default
from svfr.demo.ladder import BASELINES, TASK_SETS, choose, climb, make_points, plot, summarize, to_table
from svfr.demo.quality import build_quality
from svfr.diffusion import SAMPLERS
from svfr.models.sources import find_model


def run(options: argparse.Namespace) -> int:
    """Measure, then write the table and the picture."""
    pipe = SVFRPipeline.from_pretrained(options.weights, dtype="float32")
    frames = options.frames or 2 * pipe.parts.settings.clip_length - 1
    metrics = build_quality(find_model(options.weights))
    points = make_points(options.steps, options.guidance, options.samplers)
    total = len(TASK_SETS) * options.clips * (len(points) + len(BASELINES))
    with tqdm(total=total, desc="ladder", unit="clip", smoothing=0) as bar:
        records = climb(
            pipe,
            metrics,
            points,
            options.output / "records.jsonl",
            num_clips=options.clips,
            num_frames=frames,
            preset=options.preset,
            on_record=bar.update,
        )
    summary = summarize(records)
    chosen = choose(summary)
    sections = [f"# Quality ladder: {options.clips} held-out clips of {frames} frames a task\n\nChosen: {chosen}\n"]
    sections += [f"## All tasks\n\n{to_table(summary)}"]
    sections += [f"## {', '.join(tasks)}\n\n{to_table(summarize(records, ','.join(tasks)))}" for tasks in TASK_SETS]
    (options.output / "ladder.md").write_text("\n".join(sections))
    plot(summary, options.output / "ladder.png")
    if options.set_default:
        point = next(point for point in points if point.name == chosen)
        set_default(find_model(options.weights), point.steps, point.guidance, point.sampler)
    print(f"{to_table(summary)}\nCheapest that is not worse than the best: {chosen}")
    print(f"See {options.output}: ladder.md, ladder.png, records.jsonl")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run, and turn a wrong call into one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="demo", help="demo or a model folder")
    parser.add_argument("--output", type=Path, required=True, help="folder; one for each model")
    parser.add_argument("--clips", type=int, default=20, help="held-out clips of each task")
    parser.add_argument("--frames", type=int, help="of a clip; default: two of the model's clips")
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2, 4, 8, 15, 30])
    parser.add_argument("--guidance", type=float, nargs="+", default=[1.0, 1.5, 2.0, 3.0])
    parser.add_argument("--samplers", nargs="+", choices=SAMPLERS, default=list(SAMPLERS))
    parser.add_argument("--preset", choices=PRESETS, default="svfr", help="degradations of bfr")
    parser.add_argument("--set-default", action="store_true", help="write the choice into the model's settings")
    options = parser.parse_args(arguments)
    try:
        if options.clips < 1:
            raise ValueError(f"--clips {options.clips}: has to be at least 1")
        if options.frames is not None and options.frames < 1:
            raise ValueError(f"--frames {options.frames}: has to be at least 1")
        for guidance in options.guidance:
            if not 0 <= guidance < math.inf:
                raise ValueError(f"--guidance {guidance}: has to be a number from 0")
        return run(options)
    except (ValueError, OSError) as error:
        print(f"ladder.py: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
