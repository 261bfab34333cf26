#!/usr/bin/env python
"""Restore rendered clips of people that the bundled model has never seen: a clip per task, and one with all at once.

Writes for each a side-by-side video (degraded, a method without learning, restored, true), strip.png and
table.md; `--weights` takes another model folder.
"""

import argparse
import sys
from collections.abc import Iterable
from fractions import Fraction
from itertools import chain
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image, ImageDraw
from scipy.ndimage import median_filter
from tqdm import tqdm

from svfr import SVFRPipeline
from svfr.config import run_command
from svfr.data.degradations import PRESETS, degrade
from svfr.data.frames import task_input
from svfr.data.masks import mask_clip
from svfr.data.video import VideoInfo, VideoWriter
from svfr.evaluation.markdown import markdown_table
from svfr.evaluation.tables import title
from svfr.metrics import Chunk, build_metrics
from svfr.synthetic import FPS, TEST_SEEDS, render_clip
from svfr.tasks import TASKS

TASK_SETS = (*((task,) for task in TASKS), TASKS)
NUM_FRAMES = 24
ENLARGE = 256  # [px] small frames are shown about this large in videos
SHOWN = ("psnr", "psnr_mask", "ssim", "warping_error")  # columns of the table
BAR = "{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}]"


def restore_simply(frames: np.ndarray, tasks: tuple[str, ...], mask: np.ndarray | None) -> np.ndarray:
    """What needs no learning: Telea's inpainting, a median over space and time, the mean chroma of training clips."""
    if mask is not None:
        frames = np.stack([cv2.inpaint(f, m, 3, cv2.INPAINT_TELEA) for f, m in zip(frames, mask, strict=True)])
    if "bfr" in tasks:
        frames = median_filter(frames, size=(3, 3, 3, 1), mode="nearest")
    if "colorization" in tasks:
        clips = [render_clip(seed, 1, frames.shape[1]).frames[0] for seed in range(64)]
        chroma = np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2YCrCb)[..., 1:] for frame in clips])
        coloured = np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2YCrCb) for frame in frames])
        coloured[..., 1:] = np.rint(chroma.reshape(-1, 2).mean(axis=0))
        frames = np.stack([cv2.cvtColor(frame, cv2.COLOR_YCrCb2RGB) for frame in coloured])
    return frames


def measure(restored: np.ndarray, truth: np.ndarray, mask: np.ndarray | None) -> list[str]:
    """The cells of `SHOWN` for clips (f, h, w, 3) uint8, "-" where a number is not defined."""
    ours, theirs = (torch.from_numpy(clip).movedim(-1, 1) for clip in (restored, truth))
    chunk = Chunk(ours, theirs, None if mask is None else torch.from_numpy(mask > 127))
    row: dict[str, float | None] = {}
    for metric in build_metrics(("psnr", "ssim", "warping")).video:
        metric.reset()
        metric.update(chunk)
        row |= metric.compute()
    return ["-" if (value := row[column]) is None else f"{value:.4g}" for column in SHOWN]


def enlarged(frames: np.ndarray, factor: int) -> np.ndarray:
    """(f, h, w, 3) uint8, each pixel a square of `factor` px."""
    return frames.repeat(factor, axis=1).repeat(factor, axis=2)


def write_clip(path: Path, frames: Iterable[np.ndarray]) -> None:
    """Write frames (h, w, 3) uint8, one by one, as an H.264 video."""
    frames = iter(frames)
    height, width = (first := next(frames)).shape[:2]
    info = VideoInfo(path, width, height, Fraction(FPS))
    with VideoWriter(path, source=info) as writer:
        for index, frame in enumerate(chain([first], frames)):
            writer.write(frame, index, 1 / info.fps)


def titled(title: str, picture: np.ndarray) -> np.ndarray:
    """A picture (h, w, 3) under a title."""
    banner = Image.new("RGB", (picture.shape[1], 18), "white")
    ImageDraw.Draw(banner).text((4, 3), title, fill="black")
    return np.concatenate([np.asarray(banner), picture])


def run(weights: str, output: Path) -> int:
    """Restore, measure, draw; returns the exit code."""
    pipe = SVFRPipeline.from_pretrained(weights, dtype="float32")
    size = pipe.settings.size
    name = "The bundled model" if weights == "demo" else weights
    print(
        f"{name} is small and knows rendered faces of {size} px alone; for real footage, take the released weights: "
        "scripts/infer.py --weights released"
    )
    output.mkdir(parents=True, exist_ok=True)
    factor = max(1, ENLARGE // size)
    lines = [["tasks", "", *map(title, SHOWN)]]
    strips = []
    with tqdm(total=len(TASK_SETS) * NUM_FRAMES, desc="restore", unit="frame", bar_format=BAR) as bar:
        for seed, tasks in enumerate(TASK_SETS, TEST_SEEDS):
            truth, rng = render_clip(seed, NUM_FRAMES, size).frames, np.random.default_rng(seed)
            given = degrade(truth, PRESETS["svfr"].sample(rng, size), rng) if "bfr" in tasks else truth
            holes = mask_clip(NUM_FRAMES, (size, size), np.random.default_rng([seed, 1]))
            mask = holes if "inpainting" in tasks else None
            degraded = np.stack([task_input(f, tasks, hole) for f, hole in zip(given, holes > 127, strict=True)])
            restored = pipe(given, tasks, mask=mask, on_step=bar.update)
            assert isinstance(restored, np.ndarray)
            simple = restore_simply(degraded, tasks, mask)
            shown = {"degraded": degraded, "trivial": simple, "restored": restored, "true": truth}
            write_clip(output / f"{'_'.join(tasks)}.mp4", enlarged(np.concatenate(list(shown.values()), 2), factor))
            name = ",".join(tasks)
            chosen = np.linspace(0, NUM_FRAMES - 1, 6).round().astype(int)
            for method, frames in shown.items():
                picture = np.concatenate(list(enlarged(frames[chosen], max(1, factor // 2))), axis=1)
                strips.append(titled(f"{name}: {method}", picture))
                lines.append([name, method, *measure(frames, truth, mask)])
    halves = np.split(np.stack(strips), 2)
    Image.fromarray(np.concatenate([np.concatenate(half) for half in halves], axis=1)).save(output / "strip.png")
    table = markdown_table(lines) + "\n"
    (output / "table.md").write_text(table)
    print(f"\n{table}\nSee {output}: strip.png, table.md, a side-by-side video of each task")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run, and turn a wrong call into one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="demo", help="demo, or a folder that scripts/train_demo.py wrote")
    parser.add_argument("--output", type=Path, default=Path("outputs/demo"))
    options = parser.parse_args(arguments)
    return run_command("demo.py", lambda: run(options.weights, options.output), goes_on=False)


if __name__ == "__main__":
    sys.exit(main())
