#!/usr/bin/env python
"""Restore rendered clips of people that the bundled model has never seen: a clip per task, and one with all at once.

Writes for each a side-by-side video, and strip.png, slices.png and table.md; `--weights` takes another model folder.
"""

import argparse
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from tqdm import tqdm

from svfr import SVFRPipeline
from svfr.data.video import VideoInfo, VideoWriter
from svfr.demo.checks import METHODS, judge_margins
from svfr.demo.clips import held_out_clip, trivial_baseline
from svfr.demo.ladder import TASK_SETS
from svfr.demo.quality import SHOWN, build_quality, measure
from svfr.metrics.base import Row
from svfr.metrics.temporal import temporal_slice
from svfr.models.sources import find_model
from svfr.synthetic import FPS

NUM_FRAMES = 24
PRESET = "svfr"
ENLARGE = 256  # [px] small frames are shown about this large in videos
SHOWN_FRAMES = 6  # of the strip
LABEL = 18  # [px], height of a row's title
BAR = "{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}]"


def enlarged(frames: np.ndarray, factor: int) -> np.ndarray:
    """(f, h, w, 3) uint8, each pixel a square of `factor` px."""
    return frames.repeat(factor, axis=1).repeat(factor, axis=2)


def write_clip(path: Path, frames: np.ndarray) -> None:
    """Write (f, h, w, 3) uint8 as an H.264 video."""
    num_frames, height, width = frames.shape[:3]
    info = VideoInfo(path, width, height, Fraction(FPS), num_frames, num_frames / FPS, False, 0, "frames")
    with VideoWriter(path, source=info) as writer:
        for index, frame in enumerate(frames):
            writer.write(frame, index, Fraction(1, FPS))


def titled(title: str, picture: np.ndarray) -> np.ndarray:
    """A picture (h, w, 3) under a title."""
    banner = Image.new("RGB", (picture.shape[1], LABEL), "white")
    ImageDraw.Draw(banner).text((4, 3), title, fill="black")
    return np.concatenate([np.asarray(banner), picture])


def to_table(means: dict[str, dict[str, Row]]) -> str:
    """Markdown: degraded, trivial and restored of each task, and what is not better than both of the others."""
    columns = [(c, title) for c, title, _ in SHOWN if any(g["restored"].get(c) is not None for g in means.values())]
    lines = ["| | | " + " | ".join(title for _, title in columns) + " |", "|---" * (len(columns) + 2) + "|"]
    for tasks, group in means.items():
        for method in METHODS:
            values = [group[method].get(column) for column, _ in columns]
            cells = ["-" if value is None else f"{value:.4g}" for value in values]
            lines.append(f"| {tasks if method == METHODS[0] else ''} | {method} | " + " | ".join(cells) + " |")
    missed = [finding for finding in judge_margins(means) if not finding.holds]
    lines += ["", "Not reached (the aims, and better than degraded and trivial):" if missed else "All aims reached."]
    lines += [f"- {finding.what}: {finding.value}" for finding in missed]
    return "\n".join(lines) + "\n"


def introduce(pipe: SVFRPipeline, weights: str) -> str:
    """One line on what the model is."""
    settings = pipe.parts.settings
    if settings.untrained:
        return "The bundled model is UNTRAINED (a stand-in with random weights): its results are noise."
    name = "The bundled model" if weights == "demo" else weights
    return (
        f"{name} is small and knows rendered faces of {settings.size} px alone; for real footage, take the released "
        "weights: scripts/infer.py --weights released"
    )


def run(options: argparse.Namespace) -> int:
    """Restore, measure, draw."""
    pipe = SVFRPipeline.from_pretrained(options.weights, dtype="float32")
    print(introduce(pipe, options.weights))
    output: Path = options.output
    output.mkdir(parents=True, exist_ok=True)
    metrics = build_quality(find_model(options.weights), untrained=pipe.parts.settings.untrained)
    size = pipe.parts.settings.size
    factor = max(1, ENLARGE // size)

    means: dict[str, dict[str, Row]] = {}
    strips, slices = [], []
    with tqdm(total=len(TASK_SETS) * NUM_FRAMES, desc="restore", unit="frame", bar_format=BAR) as bar:
        for index, tasks in enumerate(TASK_SETS):
            clip = held_out_clip(index, tasks, NUM_FRAMES, size, PRESET)
            restored = pipe(clip.blurred, tasks, mask=clip.mask, on_step=bar.update)
            assert isinstance(restored, np.ndarray)
            results = {"degraded": clip.degraded, "trivial": trivial_baseline(clip), "restored": restored}
            name = ",".join(tasks)
            means[name] = {method: measure(metrics, frames, clip) for method, frames in results.items()}
            shown = {**results, "true": clip.truth}
            write_clip(output / f"{'_'.join(tasks)}.mp4", enlarged(np.concatenate(list(shown.values()), 2), factor))
            chosen = np.linspace(0, NUM_FRAMES - 1, SHOWN_FRAMES).round().astype(int)
            for method, frames in shown.items():
                picture = np.concatenate(list(enlarged(frames[chosen], max(1, factor // 2))), axis=1)
                strips.append(titled(f"{name}: {method}", picture))
            lines = [temporal_slice(frames).repeat(factor, 0).repeat(factor, 1) for frames in shown.values()]
            slices.append(titled(f"{name}, one column over time: {', '.join(shown)}", np.concatenate(lines, axis=1)))
    half = len(strips) // 2
    Image.fromarray(np.concatenate([np.concatenate(strips[:half]), np.concatenate(strips[half:])], axis=1)).save(
        output / "strip.png"
    )
    Image.fromarray(np.concatenate(slices)).save(output / "slices.png")
    table = to_table(means)
    (output / "table.md").write_text(table)
    print(f"\n{table}\nSee {output}: strip.png, slices.png, table.md, a side-by-side video of each task")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run, and turn a wrong call into one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="demo", help="demo, or a folder that scripts/train_demo.py wrote")
    parser.add_argument("--output", type=Path, default=Path("outputs/demo"))
    try:
        return run(parser.parse_args(arguments))
    except (ValueError, OSError) as error:
        print(f"demo.py: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
