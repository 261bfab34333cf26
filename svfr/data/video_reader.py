"""Reading videos, animations, images and folders of images as streams of frames.

Frames are (h, w, 3) uint8 RGB, turned upright. Whatever is wrong with a user's file ends in a `VideoError` of one line,
never in a silent early end.
"""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from av.container import InputContainer
from av.video.reformatter import VideoReformatter

from svfr.data import images
from svfr.data.deinterlacing import Deinterlacer
from svfr.data.demuxing import (
    Demuxed,
    demux,
    ends_early,
    is_broadcast,
    open_video,
    own_duration,
    video_stream,
    whole_duration,
)
from svfr.data.errors import MAX_PIXELS, VideoError, one_line_errors
from svfr.data.images import IMAGE_SUFFIXES

# fmt: off
VIDEO_SUFFIXES = frozenset({
    ".mp4", ".m4v", ".mov", ".qt", ".mkv", ".webm", ".avi", ".divx", ".ts", ".m2ts", ".mts", ".m2t", ".mpg", ".mpeg",
    ".m2v", ".vob", ".flv", ".f4v", ".wmv", ".asf", ".3gp", ".3g2", ".ogv", ".ogm", ".dv", ".mxf", ".rm", ".rmvb",
    ".nut", ".wtv", ".ivf", ".264", ".h264", ".265", ".hevc", ".mjpeg", ".mjpg", ".y4m", ".gif",
})
# fmt: on
IMAGE_RATE = Fraction(25)  # [1/s] of images and frame folders, which have no rate of their own
ANIMATION_UNIT = Fraction(1, 1000)  # [s]
# A rate in a header, or none, that is this many times off the first frames' times is not a rate (a browser's recording
# says 1000); else it is the better one of a variable rate, as it is of all frames.
WRONG_RATE, FIRST_FRAMES = 1.4, 100
HIGHEST_RATE = 10_000  # [1/s] beyond which nothing films
LOST = 0.1  # Assumption: share of missing frames from which on it is said
MOSTLY = 0.5  # share of hidden frames from which on it is said

# FFmpeg's AVColorSpace of a file -> SWS_CS_* of its scaler. What is not listed counts as untagged.
MATRICES = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9}
if int(av.__version__.split(".")[0]) < 18:  # on Python 3.10: this PyAV would take BT.2020 for another matrix
    del MATRICES[9]
BT709, BT601 = 1, 6
# The scaler's fast path darkens by 1.2 levels on average and is off by 1.8; with these flags 0.0 and 0.4
# (measured: a smooth 640x480 image, RGB -> yuv420p -> RGB). Of FFmpeg's swscale.h, as PyAV names them from 18 on only:
# SWS_BICUBIC, SWS_ACCURATE_RND, SWS_FULL_CHR_H_INT, SWS_FULL_CHR_H_INP.
EXACT = 1 << 2 | 1 << 18 | 1 << 13 | 1 << 14
DEEP = 257  # levels of 16 bits in one of 8
# What a frame carries beside its pixels that results do not (FFmpeg's AV_FRAME_DATA_...).
HDR = {"MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL", "DYNAMIC_HDR_PLUS", "DOVI_METADATA"}
DROPPED = {
    "HDR mastering data": HDR,
    "closed captions": {"A53_CC"},
    "marks of 360 degrees or 3D": {"SPHERICAL", "STEREO3D"},
}
TURNS = {(1, 0, 0, 1): 0, (0, -1, 1, 0): 90, (-1, 0, 0, -1): 180, (0, 1, -1, 0): 270}  # [degrees] of display matrices
OnNote = Callable[[str], None]


@dataclass(frozen=True)
class ReadOptions:
    """How frames are read.

    Attributes:
        max_pixels: of a picture or a frame; more is refused.
        fps: [1/s] of folders of frames.
        deinterlace: make whole pictures of fields (see `svfr.data.deinterlacing`).
        deep: give frames their 16-bit picture, too.
        salvage: take the readable part of a truncated video, with a note.
        first: index of the first frame that is given; those before it are decoded alone.
    """

    max_pixels: int = MAX_PIXELS
    fps: Fraction = IMAGE_RATE
    deinterlace: bool = False
    deep: bool = False
    salvage: bool = False
    first: int = 0


@dataclass(frozen=True)
class VideoInfo:
    """What is known of a source before its frames are read.

    Attributes:
        width, height: [px] as displayed, after the rotation tag.
        fps: [1/s] average rate, e.g. 30000/1001; 25 for images and frame folders.
        num_frames: the container's count or an estimate, for progress bars; 0 if unknown.
        duration: [s] of the video stream; 0 if unknown.
        has_audio: whether there is a sound track of a known codec.
        rotation: [degrees] counter-clockwise, of the rotation tag: 0, 90, 180 or 270; frames are already turned.
        kind: "video", "animation", "image" or "frames" (a folder of images).
        bits: of a colour; more than 8 where the source is deep.
        has_alpha: whether parts are transparent; results of stills are, too.
        notes: what a user should know of it, one line each.
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
    bits: int = 8
    has_alpha: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Frame:
    """One picture of a video.

    Attributes:
        index: 0, 1, 2, ... in presentation order.
        image: (h, w, 3) uint8 RGB, C-contiguous, upright.
        pts: presentation time in units of `time_base`; strictly increasing.
        time_base: [s] of one unit.
        deep: (h, w, 3) uint16, the same in 16 bits, if asked for.
    """

    index: int
    image: np.ndarray
    pts: int
    time_base: Fraction
    deep: np.ndarray | None = None


def probe(path: str | os.PathLike[str], options: ReadOptions = ReadOptions()) -> VideoInfo:
    """Describe a video (decodes its first frame), an animation, an image, or a folder of images (reads all headers).

    Raises:
        VideoError: there is nothing to read, or it cannot be read.
    """
    path = Path(path)
    with one_line_errors(path):
        kind = kind_of(path, options.max_pixels)
        if kind == "video":
            with open_video(path) as container:
                return _describe(container, path, options)
        files = image_files(path) if kind == "frames" else [path]
        width, height = images.image_size(files[0], options.max_pixels)
        for file in files[1:]:
            if (size := images.image_size(file, options.max_pixels)) != (width, height):
                raise VideoError(
                    f"{path}: images differ in size: {files[0].name} is {width}x{height}, "
                    f"{file.name} is {size[0]}x{size[1]}"
                )
        fps, number = options.fps, len(files)
        if kind == "animation":
            number = images.count_frames(path, options.max_pixels)
            shown = [time for _, time in islice(images.read_animation(path, options.max_pixels), FIRST_FRAMES)]
            fps = 1 / (sum(shown) * ANIMATION_UNIT / len(shown))
        has_alpha = kind == "image" and images.read_alpha(path, options.max_pixels) is not None
    return VideoInfo(path, width, height, fps, number, float(number / fps), False, 0, kind, has_alpha=has_alpha)


def read_frames(
    path: str | os.PathLike[str], options: ReadOptions = ReadOptions(), on_note: OnNote = lambda note: None
) -> Iterator[Frame]:
    """Yield the frames of a video, an animation, an image or a folder of images, in presentation order and constant
    memory.

    Of a damaged video, the frames before the damage come first and then the error. Frames lost in the middle of
    Matroska and MPEG-TS files are no error if the decoder does not notice; their timestamps are missing.

    Args:
        path: of the source.
        options: how it is read.
        on_note: called with what a user should know, one line each.

    Raises:
        VideoError: there is nothing to read, it cannot be read, or it ends before its container says so.
    """
    path = Path(path)
    with one_line_errors(path):
        info = probe(path, options)
        if info.kind == "video":
            yield from _read_video(info, options, on_note)
        elif info.kind == "animation":
            pts = 0
            for index, (image, shown) in enumerate(images.read_animation(path, options.max_pixels)):
                if index >= options.first:
                    yield Frame(index, image, pts, ANIMATION_UNIT)
                pts += shown
        else:
            files = [path] if info.kind == "image" else image_files(path)
            for index, file in islice(enumerate(files), options.first, None):
                image = images.read_image(file, options.max_pixels)
                if image.shape != (info.height, info.width, 3):
                    raise VideoError(f"{path}: {file.name} changed while it was read")
                yield Frame(index, image, index, 1 / options.fps)


def frames_at(path: Path, indices: Sequence[int]) -> np.ndarray:
    """Frames by their numbers, as `read_frames` counts them; of most videos only what follows a keyframe is decoded.

    Returns:
        (f, h, w, 3) uint8 in the order of `indices`, which may repeat.

    Raises:
        VideoError: they cannot be read, or it has fewer.
    """
    wanted, found = sorted(set(indices)), dict[int, np.ndarray]()
    with one_line_errors(path):
        info = probe(path)
        if info.kind == "video":
            with open_video(path) as container:
                found = _seek_frames(container, info, wanted)
        found = found or {f.index: f.image for f in islice(read_frames(path), wanted[-1] + 1) if f.index in wanted}
    if missing := [index for index in wanted if index not in found]:
        raise VideoError(f"{path}: frame {missing[0]} is not there, or cannot be decoded")
    return np.stack([found[index] for index in indices])


def _seek_frames(container: InputContainer, info: VideoInfo, wanted: list[int]) -> dict[int, np.ndarray]:
    """Those that there are of the frames `wanted`, in rising order; none where places cannot be known by times."""
    stream, scaler, found = video_stream(container, info.path, MAX_PIXELS), VideoReformatter(), dict[int, np.ndarray]()
    stream.codec_context.thread_count = 1  # loaders have many processes
    packets = [(p.pts, p.dts, p.is_keyframe) for p in container.demux(stream) if p.size and not p.is_discard]
    stamps = sorted(pts for pts, dts, _ in packets if pts is not None and dts is not None)
    keys = {pts: dts for pts, dts, is_key in packets if is_key and pts is not None and dts is not None}
    if is_broadcast(container) or len(stamps) < len(packets) or not keys:
        return found
    frames, current = iter(list[av.VideoFrame]()), None
    for index in (index for index in wanted if index < len(stamps)):
        key = max((pts for pts in keys if pts <= stamps[index]), default=min(keys))
        if key != current:
            container.seek(keys[key], stream=stream)
            frames, current = container.decode(stream), key
        frame = next((frame for frame in frames if frame.pts is not None and frame.pts >= stamps[index]), None)
        if frame is not None:
            found[index] = _to_rgb(frame, info, scaler, "rgb24")
    return found


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


def kind_of(path: Path, max_pixels: int = MAX_PIXELS) -> str:
    """ "frames", "image", "animation" or "video"; a file of an unknown suffix is taken for what it contains.

    Raises:
        VideoError: nothing of these.
        OSError: it is not there.
    """
    if path.is_dir():
        return "frames"
    if path.stat().st_size == 0 and path.is_file():
        raise VideoError(f"{path}: the file is empty (0 bytes)")
    if not path.is_file():
        raise VideoError(f"{path}: neither a file nor a folder")
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES or suffix == ".gif" or (suffix not in VIDEO_SUFFIXES and images.is_image(path)):
        return "animation" if images.is_animation(path, max_pixels) else "image"
    return "video"


def is_media(path: Path) -> bool:
    """Whether a file is a video or a picture, by its suffix or else by its content."""
    if path.suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES:
        return True
    if not path.is_file():
        return False
    try:
        if images.is_image(path):
            return True
        with one_line_errors(path), open_video(path) as container:
            return bool(video_stream(container, path, MAX_PIXELS))
    except VideoError:
        return False


def _describe(container: InputContainer, path: Path, options: ReadOptions) -> VideoInfo:
    stream = video_stream(container, path, options.max_pixels)
    frame, stamps = None, list[int]()
    for packet in demux(container, stream):
        if packet.stream.index != stream.index:
            continue
        if packet.pts is not None:
            stamps.append(packet.pts)
        frame = frame or next(iter(stream.decode(packet)), None)
        if frame is not None and (stream.frames or len(stamps) >= FIRST_FRAMES):
            break
    if frame is None:
        raise VideoError(f"{path}: the video has no frames")
    fps = _rate(stream, sorted(stamps))
    duration = own_duration(container, stream) or whole_duration(container) or stream.frames / fps
    estimate = round(duration * fps)
    # A cut made without re-encoding counts frames that its edit list hides: the smaller number is displayed.
    num_frames = min(stream.frames, estimate) if stream.frames and estimate else stream.frames or estimate
    has_alpha = any(component.is_alpha for component in frame.format.components)
    dropped = [what for what, kinds in DROPPED.items() if not kinds.isdisjoint(_side_data(frame))]
    notes = (*(["its transparency is dropped"] if has_alpha else []), *(f"its {what} are dropped" for what in dropped))
    matrix = _display_matrix(frame)
    width, height = (frame.height, frame.width) if matrix[0] == 0 else (frame.width, frame.height)
    rotation = TURNS.get(matrix, 0)
    has_audio = any(track.codec_context is not None for track in container.streams.audio)
    bits = max(component.bits for component in frame.format.components)
    return VideoInfo(
        path, width, height, fps, num_frames, float(duration), has_audio, rotation, "video", bits, has_alpha, notes
    )


def _rate(stream: av.VideoStream, stamps: list[int]) -> Fraction:
    """[1/s] as the container says; as the times of the first frames say, where that cannot be."""
    said, seen = stream.average_rate or stream.guessed_rate, None
    if not stream.frames and len(stamps) > 1 and stream.time_base:
        steps = np.diff(stamps)
        usual = steps[steps < WRONG_RATE * np.median(steps)]  # without gaps
        if usual.sum():
            seen = (len(usual) / (int(usual.sum()) * stream.time_base)).limit_denominator(1001)
    if said and seen and not 1 / WRONG_RATE < said / seen < WRONG_RATE:
        said = seen
    rate = said or seen or IMAGE_RATE
    return rate if rate <= HIGHEST_RATE else IMAGE_RATE


def _read_video(info: VideoInfo, options: ReadOptions, on_note: OnNote) -> Iterator[Frame]:
    path = info.path
    with open_video(path) as container:
        stream = video_stream(container, path, options.max_pixels)
        stream.thread_type = "AUTO"
        time_base = stream.time_base or 1 / info.fps
        step = max(1, round(1 / (info.fps * time_base)))
        demuxed, scaler = Demuxed(), VideoReformatter()
        frames = _decode(container, stream, demuxed)
        if options.deinterlace:
            frames = Deinterlacer(stream)(frames)
        index, start, pts, end, size = 0, None, -1, Fraction(0), None
        for frame in frames:
            # Some files (AVI, bare streams) have no timestamps, broken ones repeat them.
            stamp = pts + step if frame.pts is None else frame.pts
            pts = stamp if start is None else max(stamp, pts + 1)
            start = pts if start is None else start
            end = (pts + (frame.duration or step)) * time_base
            if size not in (None, (frame.width, frame.height)):
                on_note(f"the picture changes its size at frame {index}: scaled to the first")
            size = frame.width, frame.height
            if index >= options.first:
                deep = _to_rgb(frame, info, scaler, "rgb48le") if options.deep else None
                image = _to_rgb(frame, info, scaler, "rgb24") if deep is None else to_8_bits(deep)
                yield Frame(index, image, pts, time_base, deep)
            index += 1
        if demuxed.hidden > MOSTLY * demuxed.packets:
            on_note(f"its edit list hides {demuxed.hidden} of {demuxed.packets} frames")
        elif not stream.frames and index < (1 - LOST) * info.num_frames:  # damage inside, which no reader notices
            on_note(f"{index} frames are there, its rate makes {info.num_frames}: some are lost, or the rate varies")
        span = max(end, end - (start or 0) * time_base)  # durations count from 0 or from the first frame
        if demuxed.damaged or ends_early(container, stream, demuxed, span, 1 / info.fps):
            expected = stream.frames - demuxed.hidden if stream.frames else info.num_frames
            if index < expected or not expected:
                of = f" of {expected}" if expected else ""
                reason = f"ends after {index}{of} frames: truncated or corrupt"
                if not options.salvage or not index:
                    raise VideoError(f"{path}: {reason}")
                on_note(reason)


def to_8_bits(deep: np.ndarray) -> np.ndarray:
    """uint16 -> uint8, rounded."""
    return ((deep.astype(np.uint32) + DEEP // 2) // DEEP).astype(np.uint8)


def _decode(container: InputContainer, stream: av.VideoStream, demuxed: Demuxed) -> Iterator[av.VideoFrame]:
    """Yield frames up to the end or the first damage; updates `demuxed`."""
    broadcast = is_broadcast(container)
    try:
        for packet in demux(container, stream, demuxed=demuxed):
            if packet.stream.index != stream.index:  # a flushing packet's own stream_index is always 0
                continue
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


def _to_rgb(frame: av.VideoFrame, info: VideoInfo, scaler: VideoReformatter, format: str) -> np.ndarray:
    """(h, w, 3) uint8 or uint16, upright. A frame's own scaler would start a thread on each core, for each frame."""
    a, b, c, d = _display_matrix(frame)
    width, height = (info.height, info.width) if a == 0 else (info.width, info.height)
    # Untagged video is taken for what players take it for.
    matrix = MATRICES.get(frame.colorspace, MATRICES[BT709 if frame.height >= 720 else BT601])
    rgb = scaler.reformat(
        frame,
        format=format,
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
    data = _side_data(frame).get("DISPLAYMATRIX")
    if data is None:
        return next((matrix for matrix, angle in TURNS.items() if angle == frame.rotation % 360), (1, 0, 0, 1))
    # 3x3 in 16.16 fixed point (FFmpeg's display.h)
    a, b, _, c, d = (int(x) for x in np.rint(np.frombuffer(data, "<i4")[:5] / 2**16))
    return (a, b, c, d) if (abs(a), abs(b), abs(c), abs(d)) in ((1, 0, 0, 1), (0, 1, 1, 0)) else (1, 0, 0, 1)


def _side_data(frame: av.VideoFrame) -> dict[str, Any]:
    """What a frame carries beside its pixels, by FFmpeg's name; nothing where some is of a kind that PyAV lacks."""
    try:
        return {data.type.name: data for data in cast(Any, frame.side_data)}
    except ValueError:
        return {}
