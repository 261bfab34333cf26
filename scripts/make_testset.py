#!/usr/bin/env python
"""Make a fixed test set: aligned ground truth, degraded inputs for each task, masks, and a manifest of every number.

    python scripts/make_testset.py --ground-truth DIR --output DIR [--config configs/eval_vfhq.yaml] [key=value ...]

Settings are those of `testset` in the protocol's file: preset, tasks, seed, alignment, ... The result is
OUTPUT/ground_truth, OUTPUT/degraded/TASK, OUTPUT/masks (PNG files), manifest.jsonl and testset.json. With
`--expect manifest.jsonl` of another lab, it says whether the pixels are the same. Run again, it does what is left.
Exit code: 0 all done, 1 some clips failed or differ, 2 the call itself was wrong.
"""

import argparse
import sys
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import numpy as np
from tqdm import tqdm

from svfr import __version__, config
from svfr.data.degradations import PRESETS
from svfr.data.detectors import FaceDetector, load_detector
from svfr.data.video import VideoError
from svfr.evaluation import testset
from svfr.evaluation.pairs import canonical_task
from svfr.evaluation.settings import EvalConfig
from svfr.evaluation.testset import DEGRADED, GROUND_TRUTH, MASKS, ClipEntry
from svfr.evaluation.testset_settings import TestsetConfig
from svfr.files import digest, fingerprint, write_json
from svfr.inference.batch import REPORT, Item, collect, find_items, run_items

MANIFEST, SETTINGS = "manifest.jsonl", "testset.json"
INTERRUPTED = 130  # the shell's exit code of Ctrl-C


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--ground-truth", type=Path, required=True, help="videos or frame folders, or DicFace's test_data"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder of the test set")
    parser.add_argument("--config", type=Path, help="yaml file of the protocol, such as configs/eval_vfhq.yaml")
    parser.add_argument("--networks", type=Path, help="folder of third-party networks (default: $SVFR_NETWORKS)")
    parser.add_argument("--expect", type=Path, metavar="MANIFEST", help="manifest.jsonl to compare the pixels with")
    names = ", ".join(TestsetConfig.__dataclass_fields__)
    parser.add_argument("settings", nargs="*", metavar="key=value", help=f"settings: {names}")
    return parser.parse_intermixed_args(arguments)


def check(settings: TestsetConfig) -> list[str]:
    """The tasks in canonical spelling.

    Raises:
        ValueError: settings that the schema could not check.
    """
    if settings.preset not in PRESETS:
        raise ValueError(f"preset={settings.preset}: choose from {', '.join(PRESETS)}")
    tasks = []
    for name in settings.tasks:
        task = canonical_task(name)
        if task is None:
            raise ValueError(f"tasks: '{name}' is not made of bfr, colorization and inpainting, joined by +")
        tasks.append(task)
    return tasks


class Maker:
    """Makes the clips of a test set."""

    def __init__(self, options: argparse.Namespace, settings: TestsetConfig, tasks: list[str]) -> None:
        self.root, self.output = options.ground_truth, options.output
        self.settings, self.tasks = settings, tasks
        is_dicface = settings.layout == "dicface"
        self.truth = self.root / testset.DICFACE_TRUTH if is_dicface else self.root
        own_points = self.root / testset.DICFACE_LANDMARKS if is_dicface else None
        self.landmarks = Path(settings.landmarks) if settings.landmarks else own_points
        needs_points = settings.alignment != "none" or settings.moving_masks
        self.detector: FaceDetector | None = None
        if needs_points and self.landmarks is None:
            self.detector = load_detector(settings.detector, options.networks)

    def call(self, item: Item) -> str:
        """Digest of all that a clip depends on."""
        detector = self.detector and [self.detector.name, self.detector.source]
        facts = {"svfr": __version__, "settings": asdict(self.settings), "detector": detector}
        return digest({**facts, "files": [fingerprint(path) for path in self._files(item)]})

    def _files(self, item: Item) -> list[Path]:
        files = [item.source]
        if self.landmarks is not None:
            files.append(self.landmarks / f"{item.target}.txt")
        if self.settings.layout == "dicface":
            files += [self.root / folder / item.target for folder in testset.DICFACE_INPUTS.values()]
        return files

    def make(self, item: Item) -> ClipEntry:
        """Align, degrade and write one clip."""
        settings, name = self.settings, item.target.as_posix()
        truth, info = testset.read_clip(item.source, settings.max_frames)
        points = self._points(truth, float(info.fps), item)
        inputs: dict[str, np.ndarray]
        done: dict[str, dict[str, object]] = {}
        notes: list[str] = []
        mask = None
        if settings.layout == "dicface":
            inputs, mask, notes = testset.dicface_inputs(self.root, name, self.tasks, truth)
        matrices = np.zeros((0, 2, 3))
        if settings.alignment != "none" and points is not None:
            size = settings.size or testset.ALIGNED_SIZE
            matrices = testset.alignment_matrices(points, size, settings.alignment == "ffhq_frames")
            truth = testset.warp(truth, matrices, size)
            points = _move(points, matrices)
            if settings.layout == "dicface":
                inputs = {task: testset.warp(frames, matrices, size) for task, frames in inputs.items()}
                mask = None if mask is None else testset.warp(mask, matrices, size, nearest=True)
        if settings.layout == "videos":
            inputs, mask, done = testset.make_inputs(
                truth,
                name,
                self.tasks,
                preset=settings.preset,
                seed=settings.seed,
                moving_masks=settings.moving_masks,
                points=points,
            )
        sha256 = {GROUND_TRUTH: testset.write_clip(self.output / GROUND_TRUTH / name, truth)}
        for task, frames in inputs.items():
            sha256[task] = testset.write_clip(self.output / DEGRADED / task / name, frames)
        if mask is not None:
            sha256[MASKS] = testset.write_clip(self.output / MASKS / name, mask)
        return ClipEntry(
            output=self.output / GROUND_TRUTH / name,
            name=name,
            source=item.source.relative_to(self.root).as_posix() if item.source != self.root else item.source.name,
            num_frames=len(truth),
            width=truth.shape[2],
            height=truth.shape[1],
            fps=float(info.fps),
            seed=settings.seed,
            matrices=matrices.tolist(),
            tasks=done or {task: {"source": testset.DICFACE_INPUTS[task]} for task in inputs},
            sha256=sha256,
            notes=notes,
        )

    def _points(self, truth: np.ndarray, fps: float, item: Item) -> np.ndarray | None:
        if self.settings.alignment == "none" and not self.settings.moving_masks:
            return None
        if self.landmarks is not None:
            return testset.read_points(self.landmarks / f"{item.target}.txt", len(truth))
        assert self.detector is not None
        return testset.find_points(truth, fps, self.detector)


def _move(points: np.ndarray, matrices: np.ndarray) -> np.ndarray:
    """(f, 5, 2) points by (1 or f, 2, 3) matrices."""
    return points @ matrices[:, :, :2].transpose(0, 2, 1) + matrices[:, None, :, 2]


def run(options: argparse.Namespace) -> int:
    """Make everything; returns the exit code."""
    overrides = [f"testset.{word}" for word in options.settings]
    settings = config.load(EvalConfig, options.config, overrides).testset
    tasks = check(settings)
    if options.expect is not None and not options.expect.is_file():
        raise ValueError(f"{options.expect}: no such file")
    if not options.ground_truth.exists():
        raise ValueError(f"{options.ground_truth}: no such file or folder")
    maker = Maker(options, settings, tasks)
    items = find_items(maker.truth, options.output, "png")
    if settings.num_videos is not None and len(items) != settings.num_videos:
        raise ValueError(f"{maker.truth}: {len(items)} videos, the protocol has {settings.num_videos} (num_videos)")
    options.output.mkdir(parents=True, exist_ok=True)
    interrupted = False
    with tqdm(total=len(items), desc="clips", unit="clip") as bar:
        try:
            run_items(items, options.output, maker.call, maker.make, show=bar.write, on_done=lambda _: bar.update())
        except KeyboardInterrupt:
            interrupted = True
    packages = {name: version(name) for name in ("numpy", "opencv-python", "av", "pillow")}
    about = {"svfr": __version__, "settings": asdict(settings), "packages": packages}
    report = {**about, **collect(items, options.output, maker.call)}
    write_json(options.output / REPORT, report)
    if interrupted:
        print("interrupted; run the same command again to go on", file=sys.stderr)
        return INTERRUPTED
    lines = testset.manifest_lines(video["facts"] for video in report["videos"] if video["status"] == "done")
    write_json(options.output / SETTINGS, about)
    (options.output / MANIFEST).write_text(lines)
    problems = testset.other_pixels(lines, options.expect.read_text()) if options.expect else []
    for problem in problems:
        print(problem, file=sys.stderr)
    same = ", all pixels as expected" if options.expect and not problems else ""
    print(f"{report['done']} clips, {report['failed']} failed{same}: {options.output / MANIFEST}")
    return 1 if report["failed"] or problems else 0


def main(arguments: list[str] | None = None) -> int:
    """Run, and turn a wrong call into one line."""
    options = parse_arguments(arguments)
    try:
        return run(options)
    except (ValueError, OSError, VideoError) as error:
        print(f"make_testset.py: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
