#!/usr/bin/env python
"""Restore a drawn and degraded clip with the bundled model; shows videos, a picture and a small table."""

import argparse
import sys
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw
from tqdm import tqdm

from svfr import SVFRPipeline
from svfr.data.frames import resize
from svfr.data.video import VideoInfo, VideoWriter, read_frames

SIZE = 128  # [px]
NUM_FRAMES = 24
FPS = 25
DOWNSCALE = 4
NOISE = 6.0  # standard deviation, of 255
SHOWN = 6  # frames of the strip
LABEL = 18  # [px], height of a row's title


def draw_face(time: float) -> np.ndarray:
    """A plain drawn face that turns, blinks and talks; (SIZE, SIZE, 3) uint8; time in [0, 1]."""
    scale = 4  # drawn larger and made smaller: antialiased
    turn = np.sin(2 * np.pi * time)
    side = SIZE * scale
    image = np.empty((side, side, 3), np.uint8)
    image[:] = np.linspace(70, 140, side, dtype=np.uint8)[:, None, None] + np.array([0, 20, 50], np.uint8)

    def ellipse(x: float, y: float, width: float, height: float, colour: tuple[int, int, int]) -> None:
        centre = round((x + 0.03 * turn) * side), round(y * side)
        cv2.ellipse(image, centre, (round(width * side), round(height * side)), 0, 0, 360, colour, -1, cv2.LINE_AA)

    ellipse(0.5, 0.42, 0.33, 0.36, (60, 40, 30))  # hair
    ellipse(0.5, 0.54, 0.27, 0.35, (224, 172, 140))  # head
    open_eyes = 0.035 if (time * 3) % 1 > 0.12 else 0.006
    for eye in (-0.11, 0.11):
        ellipse(0.5 + eye + 0.02 * turn, 0.47, 0.055, open_eyes, (250, 250, 250))
        ellipse(0.5 + eye + 0.03 * turn, 0.47, 0.025, min(open_eyes, 0.025), (50, 80, 60))
        ellipse(0.5 + eye + 0.02 * turn, 0.405, 0.065, 0.012, (70, 45, 35))
    ellipse(0.5 + 0.035 * turn, 0.58, 0.03, 0.05, (206, 150, 120))
    ellipse(0.5 + 0.025 * turn, 0.72, 0.09, 0.02 + 0.02 * abs(np.sin(9 * np.pi * time)), (176, 70, 70))
    return resize(image, SIZE, SIZE)


def degrade(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Downscaled, noisy, upscaled; the same shape."""
    small = resize(image, SIZE // DOWNSCALE, SIZE // DOWNSCALE).astype(np.float32)
    noisy = np.clip(small + rng.normal(0, NOISE, small.shape), 0, 255)
    return resize(noisy.astype(np.uint8), SIZE, SIZE)


def write_clip(path: Path, frames: list[np.ndarray]) -> None:
    """Write (h, w, 3) uint8 frames as an H.264 video."""
    height, width = frames[0].shape[:2]
    info = VideoInfo(path, width, height, Fraction(FPS), len(frames), len(frames) / FPS, False, 0, "frames")
    with VideoWriter(path, source=info) as writer:
        for index, frame in enumerate(frames):
            writer.write(frame, index, Fraction(1, FPS))


def titled(title: str, frames: list[np.ndarray]) -> np.ndarray:
    """Frames side by side under a title."""
    row = np.concatenate(frames, axis=1)
    banner = Image.new("RGB", (row.shape[1], LABEL), "white")
    ImageDraw.Draw(banner).text((4, 3), title, fill="black")
    return np.concatenate([np.asarray(banner), row])


def main() -> int:
    """Run the demo."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("outputs/demo"))
    output: Path = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)

    pipe = SVFRPipeline.from_pretrained("demo")
    untrained = pipe.components.settings.untrained
    if untrained:
        print("The bundled model is UNTRAINED (a stand-in with random weights): its result is noise. For real footage")
        print("use the released weights: scripts/infer.py --weights released")

    rng = np.random.default_rng(0)
    clean = [draw_face(index / NUM_FRAMES) for index in range(NUM_FRAMES)]
    write_clip(output / "degraded.mp4", [degrade(frame, rng) for frame in clean])
    with tqdm(total=NUM_FRAMES, desc="restore", unit="frame") as bar:
        pipe.restore_video(
            output / "degraded.mp4",
            output / "restored.mp4",
            tasks="bfr",
            face="aligned",
            on_progress=lambda frames, _: bar.update(frames),
        )

    rows = {"original": clean}
    rows["degraded"] = [frame.image for frame in read_frames(output / "degraded.mp4")]
    rows["restored"] = [frame.image for frame in read_frames(output / "restored.mp4")]
    titles = {name: f"{name} (UNTRAINED model)" if name == "restored" and untrained else name for name in rows}
    write_clip(
        output / "side_by_side.mp4", [np.concatenate(frames, axis=1) for frames in zip(*rows.values(), strict=True)]
    )
    step = NUM_FRAMES // SHOWN
    strip = np.concatenate([titled(titles[name], frames[::step]) for name, frames in rows.items()])
    Image.fromarray(strip).save(output / "strip.png")

    print(f"\n{'':30} PSNR [dB]")
    for name in ("degraded", "restored"):
        psnr = np.mean([cv2.PSNR(a, b) for a, b in zip(clean, rows[name], strict=True)])
        print(f"{titles[name]:30} {psnr:9.2f}")
    print(f"\nSee {output}: strip.png, side_by_side.mp4, degraded.mp4, restored.mp4")
    return 0


if __name__ == "__main__":
    sys.exit(main())
