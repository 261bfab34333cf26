"""Videos made for tests, copies of them, and what is in a video file."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.audio.stream import AudioStream
from av.video.stream import VideoStream

from svfr.data.video import Frame, VideoWriter, probe, read_frames

NTSC = Fraction(30000, 1001)


def picture(index: int, width: int = 64, height: int = 48) -> np.ndarray:
    """A smooth picture whose four corners differ, brighter with `index`."""
    y, x = np.mgrid[0:height, 0:width]
    red, green = 200 * x / max(width - 1, 1), 200 * y / max(height - 1, 1)
    return np.stack([red, green, np.full_like(red, 4 * (index % 50))], axis=-1).astype(np.uint8)


def make_clip(
    path: Path,
    *,
    pts: list[int] | None = None,
    time_base: Fraction = 1 / NTSC,
    audio: str | None = None,
    size: tuple[int, int] = (64, 48),
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    rotation: int | None = None,
    noise: bool = False,
    audio_delay: float = 0,
    codec_options: dict[str, str] | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """Encode with PyAV alone; `noise` makes packets big, so that damage hits frames."""
    pts = list(range(24)) if pts is None else pts
    rng = np.random.default_rng(0)
    with av.open(str(path), "w", options=options or {}) as container:
        video = cast(
            VideoStream, container.add_stream(codec, rate=NTSC, width=size[0], height=size[1], pix_fmt=pix_fmt)
        )
        video.codec_context.time_base = time_base
        video.codec_context.options = {"g": "8", **(codec_options or {})}
        if rotation is not None:
            video.set_display_rotation(rotation)
        sound = None
        if audio:
            sound = cast(AudioStream, container.add_stream(audio, rate=48000))
            sound.layout = "mono"
        for index, stamp in enumerate(pts):
            image = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8) if noise else picture(index, *size)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = stamp, time_base
            container.mux(video.encode(frame))
            if sound:
                wave = rng.integers(-9999, 9999, (1, 1600), dtype=np.int16)
                block = av.AudioFrame.from_ndarray(wave, format="s16", layout="mono")
                block.sample_rate, block.time_base = 48000, Fraction(1, 48000)
                block.pts = index * 1600 + round(audio_delay * 48000)
                container.mux(sound.encode(block))
        container.mux(video.encode(None))
        if sound:
            container.mux(sound.encode(None))
    return path


def cut_without_encoding(source: Path, target: Path, start: Fraction) -> Path:
    """As `ffmpeg -ss START -c copy`: frames from the keyframe before on, hidden by an edit list."""
    with av.open(str(source)) as container, av.open(str(target), "w") as output:
        streams = {stream.index: output.add_stream_from_template(stream) for stream in container.streams}
        container.seek(int(start * av.time_base))
        for packet in container.demux():
            if packet.dts is None or packet.pts is None:
                continue
            shift = round(start / packet.time_base)
            packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
            if packet.stream.type == "video" or packet.pts >= 0:
                packet.stream = streams[packet.stream.index]
                output.mux(packet)
    return target


def copy_video(source: Path, target: Path, **options: object) -> tuple[list[Frame], Path]:
    info = probe(source)
    frames = []
    with VideoWriter(target, source=info, **options) as writer:  # type: ignore[arg-type]
        for frame in read_frames(source):
            frames.append(frame)
            writer.write(frame.image, frame.pts, frame.time_base)
    return frames, writer.path


def times(frames: Iterator[Frame] | list[Frame]) -> list[Fraction]:
    return [frame.pts * frame.time_base for frame in frames]


def sound(path: Path) -> list[tuple[bytes, Fraction]]:
    """Payload and time of the first packet, of each track."""
    tracks: dict[int, list[tuple[bytes, Fraction]]] = {}
    with av.open(str(path)) as container:
        for packet in container.demux(container.streams.audio) if container.streams.audio else ():
            if packet.size and packet.pts is not None:
                start = packet.pts * packet.time_base
                tracks.setdefault(packet.stream.index, []).append((bytes(packet), start))
    return [(b"".join(data for data, _ in track), track[0][1]) for track in tracks.values()]


def assert_copied(source: Path, target: Path) -> Path:
    frames, written = copy_video(source, target)
    before, after = probe(source), probe(written)
    assert times(read_frames(written)) == times(frames)
    assert (after.width, after.height, after.rotation) == (before.width, before.height, 0)
    assert abs(after.duration - before.duration) <= 1 / before.fps
    assert [data for data, _ in sound(written)] == [data for data, _ in sound(source)]
    for (_, start), (_, kept) in zip(sound(source), sound(written), strict=True):
        assert abs(start - kept) < Fraction(1, 10000)
    assert [file.name for file in written.parent.iterdir() if "partial" in file.name] == []
    return written


def frames_of(path: Path) -> list[Frame]:
    return list(read_frames(path))
