"""Small made videos, and what is in a video file, for tests of whole files."""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple, cast

import av
import cv2
import numpy as np

from svfr.data.detectors import Face
from svfr.data.video import probe, read_frames

MARK = (255, 0, 255)  # colour of a made face
NTSC = Fraction(30000, 1001)


class Facts(NamedTuple):
    """What has to be the same before and after."""

    size: tuple[int, int]
    fps: Fraction
    rotation: int
    times: list[Fraction]  # [s]
    sound: list[tuple[Fraction, bytes]]  # (time [s], packet)


def video(
    path: Path,
    frames: Iterable[np.ndarray],
    *,
    fps: Fraction = NTSC,
    pts: list[int] | None = None,
    sound: bool = False,
    rotation: int | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """Encode (h, w, 3) uint8 frames by PyAV alone; `pts` is in thousandths of a second."""
    images = list(frames)
    height, width = images[0].shape[:2]
    time_base = Fraction(1, 1000) if pts else 1 / fps
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream("libx264", rate=fps, width=width, height=height)
        stream.pix_fmt = "yuv444p" if height % 2 or width % 2 else "yuv420p"
        stream.codec_context.time_base = time_base
        stream.codec_context.options = {"crf": "4", "preset": "ultrafast"}
        if rotation is not None:
            stream.set_display_rotation(rotation)
        track = container.add_stream("aac", rate=48000) if sound else None
        for index, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts, frame.time_base = pts[index] if pts else index, time_base
            container.mux(stream.encode(frame))
            if track:
                wave = (9999 * np.sin(np.arange(1600) * (index + 1) / 50)).astype(np.int16)
                block = av.AudioFrame.from_ndarray(wave[None], format="s16", layout="mono")
                block.sample_rate, block.time_base, block.pts = 48000, Fraction(1, 48000), index * 1600
                container.mux(track.encode(block))
        for each in (stream, track):
            if each is not None:
                container.mux(each.encode(None))
    return path


def audio_only(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        track = container.add_stream("aac", rate=48000)
        block = av.AudioFrame.from_ndarray(np.zeros((1, 48000), dtype=np.int16), format="s16", layout="mono")
        block.sample_rate, block.pts = 48000, 0
        container.mux(track.encode(block))
        container.mux(track.encode(None))
    return path


def no_frames(path: Path) -> Path:
    """A whole file with a video stream and nothing in it."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, width=32, height=32)
        container.start_encoding()
        container.mux(stream.encode(None))
    return path


def truncated(path: Path, whole: Path) -> Path:
    """The first half of a file whose index stands in front."""
    data = whole.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    return path


def pixels(path: Path) -> np.ndarray:
    """(f, h, w, 3) uint8 of a video, an image or a folder of images."""
    return np.stack([frame.image for frame in read_frames(path)])


def facts(path: Path) -> Facts:
    info = probe(path)
    times = [frame.pts * frame.time_base for frame in read_frames(path)]
    with av.open(str(path)) as container:
        sound = (
            [((p.pts or 0) * p.time_base, bytes(p)) for p in container.demux(audio=0) if p.size]
            if info.has_audio
            else []
        )
    return Facts((info.width, info.height), info.fps, info.rotation, times, cast(Any, sound))


def scene(
    num_frames: int, faces: list[tuple[int, int, int] | None], height: int = 96, width: int = 128
) -> list[np.ndarray]:
    """Gray-blue waves with a made face (x, y, side) [px], drawn where `faces` has one for a frame (cyclically)."""
    y, x = np.mgrid[:height, :width]
    images = []
    for index in range(num_frames):
        back = 90 + 40 * np.sin(0.1 * x + 0.2 * index) * np.cos(0.07 * y)
        image = np.stack([back, back + 20, back + 40], axis=-1).astype(np.uint8)
        face = faces[index % len(faces)]
        if face is not None:
            left, top, side = face
            image[max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)] = MARK
        images.append(image)
    return images


class MarkDetector:
    """Finds squares of the colour `MARK`."""

    name = "marks"
    source = "made"

    def __call__(self, image: np.ndarray, closer: bool = False) -> list[Face]:
        near = (np.abs(image.astype(int) - MARK).max(axis=-1) < 60).astype(np.uint8)
        _, _, boxes, _ = cv2.connectedComponentsWithStats(near)
        faces = []
        for x, y, w, h, area in boxes[1:]:  # the first is the background
            if area < 16:
                continue
            points = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]])
            corner, extent = np.array([x, y]), np.array([w, h])
            box = np.concatenate([corner, corner + extent]).astype(np.float32)
            faces.append(Face(box, (corner + points * extent).astype(np.float32), 0.9))
        return sorted(faces, key=lambda face: face.area, reverse=True)
