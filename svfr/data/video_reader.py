"""Reading videos, images and folders of images as streams of frames.

Frames are (h, w, 3) uint8 RGB, turned upright. Whatever is wrong with a user's file ends in a `VideoError` of one line,
never in a silent early end.
"""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.reformatter import VideoReformatter
from PIL import Image, ImageOps

# fmt: off
VIDEO_SUFFIXES = frozenset({
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".m2ts", ".mts", ".mpg", ".mpeg", ".flv", ".wmv",
    ".3gp", ".ogv", ".gif",
})
# fmt: on
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff"})
IMAGE_RATE = Fraction(25)  # [1/s] of images and frame folders, which have no rate of their own

# FFmpeg's AVColorSpace of a file -> SWS_CS_* of its scaler. What is not listed counts as untagged.
MATRICES = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9}
if int(av.__version__.split(".")[0]) < 18:  # on Python 3.10: this PyAV would take BT.2020 for another matrix
    del MATRICES[9]
BT709, BT601 = 1, 6
TS_DISCONT, NO_TIMESTAMPS = 0x0200, 0x0080  # AVFMT_... flags of formats (FFmpeg's avformat.h)
# The scaler's fast path darkens by 1.2 levels on average and is off by 1.8; with these flags 0.0 and 0.4
# (measured: a smooth 640x480 image, RGB -> yuv420p -> RGB). Of FFmpeg's swscale.h, as PyAV names them from 18 on only:
# SWS_BICUBIC, SWS_ACCURATE_RND, SWS_FULL_CHR_H_INT, SWS_FULL_CHR_H_INP.
EXACT = 1 << 2 | 1 << 18 | 1 << 13 | 1 << 14
# Assumption: frames, and share of all, that may be missing; undamaged files can be off by a frame or two.
MISSING_FRAMES, MISSING_SHARE = 2, Fraction(2, 100)


class VideoError(ValueError):
    """A video that cannot be read or written; its message is one line that names the file and the reason."""


@dataclass(frozen=True)
class VideoInfo:
    """What is known of a source before its frames are read.

    Attributes:
        width, height: [px] as displayed, after the rotation tag.
        fps: [1/s] average rate, e.g. 30000/1001; 25 for images and frame folders.
        num_frames: the container's count or an estimate, for progress bars; 0 if unknown.
        duration: [s] of the video stream; 0 if unknown.
        has_audio: whether there is a sound track that the writer can copy.
        rotation: [degrees] counter-clockwise, of the rotation tag: 0, 90, 180 or 270; frames are already turned.
        kind: "video", "image" or "frames" (a folder of images).
    """

    path: Path
    width: int
    height: int
    fps: Fraction
    num_frames: int
    duration: float
    has_audio: bool
    rotation: int
    kind: str


@dataclass(frozen=True)
class Frame:
    """One picture of a video.

    Attributes:
        index: 0, 1, 2, ... in presentation order.
        image: (h, w, 3) uint8 RGB, C-contiguous, upright.
        pts: presentation time in units of `time_base`; strictly increasing.
        time_base: [s] of one unit.
    """

    index: int
    image: np.ndarray
    pts: int
    time_base: Fraction


def probe(path: str | os.PathLike[str]) -> VideoInfo:
    """Describe a video (decodes one frame), an image, or a folder of images (reads all headers).

    Raises:
        VideoError: there is nothing to read, or it cannot be read.
    """
    path = Path(path)
    with one_line_errors(path):
        kind = _kind(path)
        if kind == "video":
            with open_video(path) as container:
                return _describe(container, path)
        files = [path] if kind == "image" else image_files(path)
        width, height = _image_size(files[0])
        for file in files[1:]:
            if (size := _image_size(file)) != (width, height):
                raise VideoError(
                    f"{path}: images differ in size: {files[0].name} is {width}x{height}, "
                    f"{file.name} is {size[0]}x{size[1]}"
                )
    return VideoInfo(path, width, height, IMAGE_RATE, len(files), float(len(files) / IMAGE_RATE), False, 0, kind)


def read_frames(path: str | os.PathLike[str]) -> Iterator[Frame]:
    """Yield the frames of a video, an image or a folder of images, in presentation order and constant memory.

    Of a damaged video, the frames before the damage come first and then the error. Frames lost in the middle of
    Matroska and MPEG-TS files are no error if the decoder does not notice; their timestamps are missing.

    Raises:
        VideoError: there is nothing to read, it cannot be read, or it ends before its container says so.
    """
    path = Path(path)
    with one_line_errors(path):
        if _kind(path) == "video":
            yield from _read_video(path)
            return
        info = probe(path)
        for index, file in enumerate([path] if info.kind == "image" else image_files(path)):
            image = _read_image(file)
            if image.shape != (info.height, info.width, 3):
                raise VideoError(f"{path}: {file.name} changed while it was read")
            yield Frame(index, image, index, 1 / IMAGE_RATE)


@contextmanager
def one_line_errors(path: Path) -> Iterator[None]:
    """Turn errors of the system and the codecs into a `VideoError` that names `path`."""
    try:
        yield
    except av.InvalidDataError as err:
        raise VideoError(f"{path}: damaged, cut off, or no video at all ({err.strerror})") from err
    except (OSError, av.FFmpegError) as err:
        raise VideoError(f"{path}: {err.strerror or err}") from err


def open_video(path: Path) -> InputContainer:
    """Open a video for reading; the caller closes it."""
    # "file:" because a bare name with a colon in it would be taken for a protocol.
    return av.open(f"file:{path}", metadata_errors="replace")


def video_stream(container: InputContainer, path: Path) -> av.VideoStream:
    """The first video stream that isn't a cover picture."""
    # The "tty" format renders any text file that is named .txt as a video.
    if container.format.name != "tty":
        for stream in container.streams.video:
            if not stream.disposition & Disposition.attached_pic and stream.codec_context is not None:
                return stream
    raise VideoError(f"{path}: no video stream{' (audio only)' if container.streams.audio else ''}")


def audio_streams(container: InputContainer) -> list[av.AudioStream]:
    """All sound tracks of a known codec."""
    return [stream for stream in container.streams.audio if stream.codec_context is not None]


def time_origin(container: InputContainer) -> Fraction:
    """The time [s] to count from: the first timestamp of broadcast formats (MPEG-TS, -PS), 0 of others."""
    starts = [
        stream.start_time * stream.time_base
        for stream in (*container.streams.video, *container.streams.audio)
        if stream.start_time is not None and stream.time_base is not None
    ]
    return min(starts, default=Fraction(0)) if _is_broadcast(container) else Fraction(0)


def image_files(folder: Path) -> list[Path]:
    """The images of a folder, "2.png" before "10.png".

    Raises:
        VideoError: there is none.
    """
    files = [
        file
        for file in folder.iterdir()
        if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".") and file.is_file()
    ]
    if not files:
        raise VideoError(f"{folder}: a folder without images ({' '.join(sorted(IMAGE_SUFFIXES))})")
    return sorted(files, key=lambda file: [int(x) if x.isdigit() else x for x in re.split(r"(\d+)", file.name)])


def _kind(path: Path) -> str:
    if path.is_dir():
        return "frames"
    if path.stat().st_size == 0 and path.is_file():
        raise VideoError(f"{path}: the file is empty (0 bytes)")
    if not path.is_file():
        raise VideoError(f"{path}: neither a file nor a folder")
    return "image" if path.suffix.lower() in IMAGE_SUFFIXES else "video"


def _describe(container: InputContainer, path: Path) -> VideoInfo:
    stream = video_stream(container, path)
    frame = next(container.decode(stream), None)
    if frame is None:
        raise VideoError(f"{path}: the video has no frames")
    fps = stream.average_rate or stream.guessed_rate or IMAGE_RATE
    duration = _own_duration(stream) or Fraction(container.duration or 0, av.time_base) or stream.frames / fps
    estimate = round(duration * fps)
    # A cut made without re-encoding counts frames that its edit list hides: the smaller number is displayed.
    num_frames = min(stream.frames, estimate) if stream.frames and estimate else stream.frames or estimate
    matrix = _display_matrix(frame)
    width, height = (frame.height, frame.width) if matrix[0] == 0 else (frame.width, frame.height)
    rotation = {(0, -1, 1, 0): 90, (-1, 0, 0, -1): 180, (0, 1, -1, 0): 270}.get(matrix, 0)
    has_audio = bool(audio_streams(container))
    return VideoInfo(path, width, height, fps, num_frames, float(duration), has_audio, rotation, "video")


def _own_duration(stream: av.VideoStream) -> Fraction | None:
    """Length [s] of the stream itself, if the container says it (Matroska does in a tag)."""
    if stream.duration and stream.time_base:
        return stream.duration * stream.time_base
    if match := re.fullmatch(r"(\d+):(\d+):(\d+(\.\d*)?)", stream.metadata.get("DURATION", "")):
        return int(match[1]) * 3600 + int(match[2]) * 60 + Fraction(match[3])
    return None


def _read_video(path: Path) -> Iterator[Frame]:
    with open_video(path) as container:
        info = _describe(container, path)
    with open_video(path) as container:
        stream = video_stream(container, path)
        stream.thread_type = "AUTO"
        time_base = stream.time_base or 1 / info.fps
        step = max(1, round(1 / (info.fps * time_base)))
        shift = round(time_origin(container) / time_base)
        demuxed, scaler = _Demuxed(), VideoReformatter()
        index, start, pts, end = 0, None, -1, Fraction(0)
        for frame in _decode(container, stream, demuxed):
            # Some files (AVI, bare streams) have no timestamps, broken ones repeat them.
            stamp = pts + step if frame.pts is None else frame.pts - shift
            pts = stamp if start is None else max(stamp, pts + 1)
            start = pts if start is None else start
            end = (pts + (frame.duration or step)) * time_base
            yield Frame(index, _to_rgb(frame, info, scaler), pts, time_base)
            index += 1
        span = max(end, end - (start or 0) * time_base)  # durations count from 0 or from the first frame
        if demuxed.damaged or _ends_early(container, stream, demuxed, span, 1 / info.fps):
            expected = stream.frames - demuxed.hidden if stream.frames else info.num_frames
            if index < expected or not expected:
                of = f" of {expected}" if expected else ""
                raise VideoError(f"{path}: ends after {index}{of} frames: truncated or corrupt")


@dataclass
class _Demuxed:
    """What was read of a container so far."""

    packets: int = 0  # of the video stream
    hidden: int = 0  # of these, hidden by an edit list
    end: Fraction = Fraction(0)  # [s] of the last packet of any stream
    damaged: bool = False


def _decode(container: InputContainer, stream: av.VideoStream, demuxed: _Demuxed) -> Iterator[av.VideoFrame]:
    """Yield frames up to the end or the first damage; updates `demuxed`."""
    broadcast = _is_broadcast(container)
    try:
        for packet in container.demux(stream, *audio_streams(container)):
            if packet.pts is not None:
                demuxed.end = max(demuxed.end, (packet.pts + (packet.duration or 0)) * packet.time_base)
            if packet.stream.index != stream.index:  # a flushing packet's own stream_index is always 0
                continue
            demuxed.packets += packet.dts is not None
            demuxed.hidden += packet.is_discard
            # A file that was cut off ends with half a packet. In broadcasts each lost bit is marked so.
            if packet.is_corrupt and not broadcast:
                demuxed.damaged = True
                break
            yield from stream.decode(packet)
    except av.FFmpegError:
        demuxed.damaged = True
    if demuxed.damaged:
        with suppress(av.FFmpegError):
            yield from stream.decode(None)  # good frames that the decoder still holds


def _ends_early(
    container: InputContainer, stream: av.VideoStream, demuxed: _Demuxed, span: Fraction, period: Fraction
) -> bool:
    """Whether the container promised more packets or a longer video than the `span` [s] that was read."""
    if stream.frames - demuxed.packets > max(Fraction(MISSING_FRAMES), stream.frames * MISSING_SHARE):
        return True
    if _is_broadcast(container) or container.format.flags & NO_TIMESTAMPS:
        return False  # the duration is only an estimate from the data themselves
    promised = _own_duration(stream)
    if promised is None:  # that of the file, whose sound may be longer
        promised, span = (
            Fraction(container.duration or 0, av.time_base),
            max(span, demuxed.end - time_origin(container)),
        )
    return promised - span > max(MISSING_FRAMES * period, promised * MISSING_SHARE)


def _is_broadcast(container: InputContainer) -> bool:
    return bool(container.format.flags & TS_DISCONT)


def _to_rgb(frame: av.VideoFrame, info: VideoInfo, scaler: VideoReformatter) -> np.ndarray:
    """(h, w, 3) uint8, upright. A frame's own scaler would start a thread on each core, for each frame."""
    a, b, c, d = _display_matrix(frame)
    width, height = (info.height, info.width) if a == 0 else (info.width, info.height)
    # Untagged video is taken for what players take it for.
    matrix = MATRICES.get(frame.colorspace, MATRICES[BT709 if frame.height >= 720 else BT601])
    rgb = scaler.reformat(
        frame,
        format="rgb24",
        width=width,  # of the first frame: a stream may change its size
        height=height,
        src_colorspace=None if frame.format.is_rgb else matrix,
        interpolation=EXACT,
    )
    image = rgb.to_ndarray()
    if a == 0:
        image, flip_x, flip_y = image.transpose(1, 0, 2), c < 0, b < 0
    else:
        flip_x, flip_y = a < 0, d < 0
    return np.ascontiguousarray(image[:: -1 if flip_y else 1, :: -1 if flip_x else 1])


def _display_matrix(frame: av.VideoFrame) -> tuple[int, int, int, int]:
    """(a, b, c, d) of the display transform x' = a x + c y, y' = b x + d y, by right angles and mirrors."""
    data = cast(Mapping[str, bytes], frame.side_data).get("DISPLAYMATRIX")
    if data is not None:
        # 3x3 in 16.16 fixed point (FFmpeg's display.h)
        a, b, _, c, d = (int(x) for x in np.rint(np.frombuffer(data, "<i4")[:5] / 2**16))
        if (abs(a), abs(b), abs(c), abs(d)) in ((1, 0, 0, 1), (0, 1, 1, 0)):
            return a, b, c, d
    return 1, 0, 0, 1


def _image_size(file: Path) -> tuple[int, int]:
    """(width, height) [px] from the header, upright."""
    with _image_errors(file), Image.open(file) as image:
        # PNG's own `getexif` decodes the pixels, to see what may come after them.
        is_plain = image.format == "PNG" and b"eXIf" not in file.read_bytes()
        exif = Image.Image.getexif(image) if is_plain else image.getexif()
        turned = exif.get(0x0112, 1) >= 5  # EXIF orientations 5-8 swap the sides
        return (image.height, image.width) if turned else (image.width, image.height)


def _read_image(file: Path) -> np.ndarray:
    """Decode to (h, w, 3) uint8 RGB, upright; alpha is dropped, 16 bits are cut to 8."""
    with _image_errors(file), Image.open(file) as stored:
        image = ImageOps.exif_transpose(stored)
        if image.mode == "F":  # PIL would cut it to integers: all of 0..1 to black, NaN to 0
            raise ValueError("floating-point pixels; save it with 8 or 16 bits")
        if image.mode.startswith("I"):
            image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
        return np.array(image.convert("RGB"))


@contextmanager
def _image_errors(file: Path) -> Iterator[None]:
    """Turn Pillow's many errors into a `VideoError` that names `file`."""
    try:
        yield
    except (SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as err:
        raise VideoError(f"{file}: not a readable image ({err})") from err
    except OSError as err:
        raise VideoError(f"{file}: {err.strerror or 'not a readable image'}") from err
