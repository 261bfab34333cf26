"""A made collection of footage: many tiny files of rendered heads, some broken, some good but unusual."""

import shutil
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from PIL import Image

from svfr.synthetic import TEST_SEEDS, render_clip
from tests import clips

SIDE = 64  # [px]; YuNet finds the rendered heads at this size
LENGTH = 18  # frames of the longest file
SHORTEST = 12
PEOPLE = 3
RATE = Fraction(25)
EVERY = 20  # one in so many is broken, another one unusual: 5% each


class Made(NamedTuple):
    """What has to come out of a file.

    Attributes:
        kind: how it was made.
        result: good | bad | same (as a file before).
        num_frames: of a good one.
    """

    kind: str
    result: str
    num_frames: int


def make_collection(folder: Path, count: int, seed: int = 0) -> dict[str, Made]:
    """Make `count` files in a folder; returns what has to come out, by path relative to the folder."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    made: dict[str, Made] = {}
    for index in range(count):
        frames = _frames(rng)
        path = folder / f"{index // 100:02d}" / f"{index:05d}.mp4"
        path.parent.mkdir(exist_ok=True)
        if index % EVERY == 0:
            kind = list(BROKEN)[index // EVERY % len(BROKEN)]
            BROKEN[kind](path, frames)
            made[str(path.relative_to(folder))] = Made(kind, "bad", 0)
        elif index % EVERY == 1:
            kind = list(UNUSUAL)[index // EVERY % len(UNUSUAL)]
            path, number = UNUSUAL[kind](path, frames)
            result = "same" if kind == "copy" else "good"
            made[str(path.relative_to(folder))] = Made(kind, result, number)
        else:
            _encode(path, frames)
            made[str(path.relative_to(folder))] = Made("plain", "good", len(frames))
    return made


@lru_cache(maxsize=1)
def _people() -> list[np.ndarray]:
    return [render_clip(TEST_SEEDS + person, LENGTH, SIDE).frames for person in range(PEOPLE)]


def _frames(rng: np.random.Generator) -> list[np.ndarray]:
    """Some of a person's frames in a light of its own."""
    frames = _people()[rng.integers(PEOPLE)]
    light = rng.uniform(0.8, 1.0, 3)
    return [(frame * light).astype(np.uint8) for frame in frames[: rng.integers(SHORTEST, LENGTH + 1)]]


def _encode(path: Path, frames: list[np.ndarray], **options: object) -> Path:
    return clips.video(path, frames, fps=RATE, **options)  # type: ignore[arg-type]


def _index_first(path: Path, frames: list[np.ndarray]) -> bytearray:
    return bytearray(_encode(path, frames, options={"movflags": "+faststart"}).read_bytes())


def _cut_off(path: Path, frames: list[np.ndarray]) -> None:
    data = _index_first(path, frames)
    path.write_bytes(data[: len(data) * 6 // 10])


def _without_index(path: Path, frames: list[np.ndarray]) -> None:
    data = _encode(path, frames).read_bytes()
    path.write_bytes(data[: len(data) // 2])


def _damaged(path: Path, frames: list[np.ndarray]) -> None:
    data = _index_first(path, frames)
    low, high = len(data) // 2, len(data) * 3 // 4
    data[low:high] = np.random.default_rng(0).bytes(high - low)
    path.write_bytes(data)


def _text(path: Path, frames: list[np.ndarray]) -> None:
    del frames
    path.write_text("not a video at all\n" * 50)


def _odd(path: Path, frames: list[np.ndarray]) -> tuple[Path, int]:
    return _encode(path, [np.pad(frame, ((0, 1), (1, 2), (0, 0)), mode="edge") for frame in frames]), len(frames)


def _ten_bit(path: Path, frames: list[np.ndarray]) -> tuple[Path, int]:
    path = path.with_suffix(".mkv")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=RATE, width=SIDE, height=SIDE, pix_fmt="yuv420p10le")
        for index, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = index, 1 / RATE
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path, len(frames)


def _rotated(path: Path, frames: list[np.ndarray]) -> tuple[Path, int]:
    return _encode(path, [np.rot90(frame, -1) for frame in frames], rotation=90), len(frames)


def _variable_rate(path: Path, frames: list[np.ndarray]) -> tuple[Path, int]:
    pts = np.cumsum([0, *([20, 60, 40] * len(frames))])[: len(frames)].tolist()  # [ms]
    return _encode(path, frames, pts=pts, options={"video_track_timescale": "1000"}), len(frames)


def _cut_without_encoding(path: Path, frames: list[np.ndarray]) -> tuple[Path, int]:
    """As `ffmpeg -ss 0.08 -c copy` makes it: the frames before are there, hidden by an edit list."""
    whole = _encode(path.with_name(f".{path.name}"), frames)
    hidden = 2
    with av.open(str(whole)) as source, av.open(str(path), "w") as output:
        stream = output.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None and packet.pts is not None and packet.time_base is not None:
                shift = round(hidden / RATE / packet.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, stream
                output.mux(packet)
    whole.unlink()
    return path, len(frames) - hidden


def _broadcast(path: Path, frames: list[np.ndarray]) -> tuple[Path, int]:
    return _encode(path.with_suffix(".ts"), frames, sound=True), len(frames)


def _strange_name(path: Path, frames: list[np.ndarray]) -> tuple[Path, int]:
    return _encode(path.with_name(f"Übung #{path.stem}: 1,5 'x'.mp4"), frames), len(frames)


def _frame_folder(path: Path, frames: list[np.ndarray]) -> tuple[Path, int]:
    folder = path.with_suffix("")
    folder.mkdir()
    for index, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{index}.png")
    return folder, len(frames)


def _copy(path: Path, frames: list[np.ndarray]) -> tuple[Path, int]:
    first = next(file for file in sorted(path.parents[1].glob("00/*.mp4")) if int(file.stem) % EVERY > 1)
    shutil.copyfile(first, path)
    return path, 0


BROKEN: dict[str, Callable[[Path, list[np.ndarray]], object]] = {
    "empty": lambda path, frames: path.touch(),
    "text": _text,
    "cut off": _cut_off,
    "damaged": _damaged,
    "sound only": lambda path, frames: clips.audio_only(path),
    "without index": _without_index,
    "no frames": lambda path, frames: clips.no_frames(path),
}
UNUSUAL: dict[str, Callable[[Path, list[np.ndarray]], tuple[Path, int]]] = {
    "odd size": _odd,
    "10 bit": _ten_bit,
    "rotated": _rotated,
    "variable rate": _variable_rate,
    "cut without encoding": _cut_without_encoding,
    "broadcast": _broadcast,
    "strange name": _strange_name,
    "frames": _frame_folder,
    "copy": _copy,
}
