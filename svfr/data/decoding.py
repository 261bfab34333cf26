"""One video file: what is in it, and its frames."""

from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path

import av
import numpy as np
from av.filter import Graph
from av.video.reformatter import VideoReformatter

from svfr.data.demuxing import VideoFile
from svfr.data.errors import MAX_PIXELS, VideoError, one_line_errors
from svfr.data.pixels import TURNS, display_matrix, side_data, to_8_bits, to_rgb

IMAGE_RATE = Fraction(25)  # [1/s] of images and frame folders, which have no rate of their own
# A rate in a header, or none, that is this many times off the first frames' times is not a rate (a browser's recording
# says 1000); else it is the better one of a variable rate, as it is of all frames.
WRONG_RATE, FIRST_FRAMES = 1.4, 100
HIGHEST_RATE = 10_000  # [1/s] beyond which nothing films
LOST = 0.1  # Assumption: share of missing frames from which on it is said
MOSTLY = 0.5  # share of hidden frames from which on it is said
# Of interlaced video, fields of two times woven into one picture, as television and camcorders made it.
LOOKED_AT = 60  # frames from the start
COMBED = 0.5  # Assumption: share of the judged ones that have to be combed, as noise combs some
VERDICT = "lavfi.idet.multiple.current_frame"
# What a frame carries beside its pixels that results do not (FFmpeg's AV_FRAME_DATA_...).
DROPPED = {
    "HDR mastering data": {"MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL", "DYNAMIC_HDR_PLUS", "DOVI_METADATA"},
    "closed captions": {"A53_CC"},
    "marks of 360 degrees or 3D": {"SPHERICAL", "STEREO3D"},
}
OnNote = Callable[[str], None]  # takes what a user should know, one line each


@dataclass(frozen=True)
class ReadOptions:
    """How frames are read."""

    max_pixels: int = MAX_PIXELS  # of a picture or a frame; more is refused
    fps: Fraction = IMAGE_RATE  # [1/s] of folders of frames
    deinterlace: bool = False  # make whole pictures of fields, where `is_interlaced`
    deep: bool = False  # give frames their 16-bit picture, too
    salvage: bool = False  # take the readable part of a truncated video, with a note
    first: int = 0  # index of the first frame that is given; those before it are decoded alone


@dataclass(frozen=True)
class VideoInfo:
    """What is known of a source before its frames are read."""

    path: Path
    width: int  # [px] as displayed, after the rotation tag
    height: int
    fps: Fraction  # [1/s] average rate, e.g. 30000/1001
    num_frames: int = 0  # the container's count or an estimate, for progress bars; 0 if unknown
    duration: float = 0.0  # [s] of the video stream; 0 if unknown
    has_audio: bool = False  # whether there is a sound track of a known codec
    rotation: int = 0  # [degrees] counter-clockwise, of the rotation tag: 0, 90, 180 or 270; frames are already turned
    kind: str = "frames"  # "video", "animation", "image" or "frames" (a folder of images, or what is made of frames)
    bits: int = 8  # of a colour; more where the source is deep
    has_alpha: bool = False  # whether parts are transparent; results of stills are, too
    notes: tuple[str, ...] = ()  # what a user should know of it, one line each


@dataclass(frozen=True)
class Frame:
    """One picture of a video."""

    index: int  # 0, 1, 2, ... in presentation order
    image: np.ndarray  # (h, w, 3) uint8 RGB, C-contiguous, upright
    pts: int  # presentation time in units of `time_base`; strictly increasing
    time_base: Fraction  # [s] of one unit
    deep: np.ndarray | None = None  # (h, w, 3) uint16, the same in 16 bits, if asked for


def describe(path: Path, max_pixels: int) -> VideoInfo:
    """What is in a video; decodes its first frame."""
    with closing(VideoFile(path, max_pixels)) as file:
        stream, frame, stamps = file.stream, None, list[int]()
        for packet in file.demux():
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
        duration = file.own_duration or file.whole_duration or stream.frames / fps
        estimate = round(duration * fps)
        has_alpha = any(component.is_alpha for component in frame.format.components)
        dropped = [f"its {what} are dropped" for what, kinds in DROPPED.items() if kinds & side_data(frame).keys()]
        matrix = display_matrix(frame)
        return VideoInfo(
            path,
            width=frame.width if matrix[0] else frame.height,
            height=frame.height if matrix[0] else frame.width,
            fps=fps,
            # A cut made without re-encoding counts frames that its edit list hides: the smaller number is displayed.
            num_frames=min(stream.frames, estimate) if stream.frames and estimate else stream.frames or estimate,
            duration=float(duration),
            has_audio=bool(file.audio),
            rotation=TURNS.get(matrix, 0),
            kind="video",
            bits=max(component.bits for component in frame.format.components),
            has_alpha=has_alpha,
            notes=(*(["its transparency is dropped"] if has_alpha else []), *dropped),
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


def decode(info: VideoInfo, options: ReadOptions, on_note: OnNote) -> Iterator[Frame]:
    """The frames of a video that was described; then VideoError if it ends before its container says so."""
    with closing(VideoFile(info.path, options.max_pixels)) as file:
        stream = file.stream
        stream.thread_type = "AUTO"
        time_base = stream.time_base or 1 / info.fps
        step = max(1, round(1 / (info.fps * time_base)))
        scaler, frames = VideoReformatter(), _decode(file)
        if options.deinterlace:
            frames = _deinterlaced(stream, frames)
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
                deep = to_rgb(frame, info.width, info.height, scaler, deep=True) if options.deep else None
                image = to_rgb(frame, info.width, info.height, scaler) if deep is None else to_8_bits(deep)
                yield Frame(index, image, pts, time_base, deep)
            index += 1
        if file.num_hidden > MOSTLY * file.num_packets:
            on_note(f"its edit list hides {file.num_hidden} of {file.num_packets} frames")
        elif not stream.frames and index < (1 - LOST) * info.num_frames:  # damage inside, which no reader notices
            on_note(f"{index} frames are there, its rate makes {info.num_frames}: some are lost, or the rate varies")
        span = max(end, end - (start or 0) * time_base)  # durations count from 0 or from the first frame
        if file.is_damaged or file.ends_early(span, 1 / info.fps):
            expected = stream.frames - file.num_hidden if stream.frames else info.num_frames
            if index < expected or not expected:
                of = f" of {expected}" if expected else ""
                reason = f"ends after {index}{of} frames: truncated or corrupt"
                if not options.salvage or not index:
                    raise VideoError(f"{info.path}: {reason}")
                on_note(reason)


def _decode(file: VideoFile) -> Iterator[av.VideoFrame]:
    """Yield frames up to the end or the first damage."""
    stream = file.stream
    try:
        for packet in file.demux():
            if packet.stream.index != stream.index:  # a flushing packet's own stream_index is always 0
                continue
            # A file that was cut off ends with half a packet. In broadcasts each lost bit is marked so.
            if packet.is_corrupt and not file.is_broadcast:
                file.is_damaged = True
                break
            yield from stream.decode(packet)
    except av.FFmpegError:
        file.is_damaged = True
    if file.is_damaged:
        with suppress(av.FFmpegError):
            yield from stream.decode(None)  # good frames that the decoder still holds


def seek(info: VideoInfo, wanted: list[int]) -> dict[int, np.ndarray]:
    """Pictures (h, w, 3) uint8 by number: those that there are of `wanted`, which rises; of most videos only what
    follows a keyframe is decoded. None where places cannot be known by times."""
    scaler, found = VideoReformatter(), dict[int, np.ndarray]()
    with closing(VideoFile(info.path, MAX_PIXELS)) as file:
        container, stream = file.container, file.stream
        stream.codec_context.thread_count = 1  # loaders have many processes
        packets = [(p.pts, p.dts, p.is_keyframe) for p in container.demux(stream) if p.size and not p.is_discard]
        stamps = sorted(pts for pts, dts, _ in packets if pts is not None and dts is not None)
        keys = {pts: dts for pts, dts, is_key in packets if is_key and pts is not None and dts is not None}
        if file.is_broadcast or len(stamps) < len(packets) or not keys:
            return found
        frames, current = iter(list[av.VideoFrame]()), None
        for index in (index for index in wanted if index < len(stamps)):
            key = max((pts for pts in keys if pts <= stamps[index]), default=min(keys))
            if key != current:
                container.seek(keys[key], stream=stream)
                frames, current = container.decode(stream), key
            frame = next((frame for frame in frames if frame.pts is not None and frame.pts >= stamps[index]), None)
            if frame is not None:
                found[index] = to_rgb(frame, info.width, info.height, scaler)
    return found


def is_interlaced(path: Path, max_pixels: int = MAX_PIXELS) -> bool:
    """Whether the first frames of a video are flagged so, or most of them look combed (FFmpeg's idet)."""
    with one_line_errors(path), closing(VideoFile(path, max_pixels)) as file:
        stream, frames = file.stream, list[av.VideoFrame]()
        with suppress(av.FFmpegError):  # of a damaged file, which reading tells
            frames.extend(islice(file.container.decode(stream), LOOKED_AT))
        if sum(frame.interlaced_frame for frame in frames) > len(frames) / 2:
            return True
        judged = [frame.metadata.get(VERDICT) for frame in _filtered(stream, "idet", "", iter(frames))]
        known = [verdict for verdict in judged if verdict != "undetermined"]
        return bool(known) and sum(verdict in ("tff", "bff") for verdict in known) > COMBED * len(known)


def _deinterlaced(stream: av.VideoStream, frames: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
    """A whole picture of each pair of fields, as many and of the same times as `frames`, by FFmpeg's bwdif."""
    times: list[tuple[int | None, int]] = []  # of the frames inside the filter, whose own unit is half as long

    def noted() -> Iterator[av.VideoFrame]:
        for frame in frames:
            times.append((frame.pts, frame.duration))
            yield frame

    for frame in _filtered(stream, "bwdif", "mode=send_frame:parity=auto:deint=all", noted()):
        frame.pts, frame.duration = times.pop(0)
        yield frame


def _filtered(
    stream: av.VideoStream, name: str, options: str, frames: Iterator[av.VideoFrame]
) -> Iterator[av.VideoFrame]:
    graph = Graph()
    graph.link_nodes(graph.add_buffer(template=stream), graph.add(name, options), graph.add("buffersink")).configure()
    for frame in chain(frames, (None,)):
        graph.push(frame)
        with suppress(av.BlockingIOError, av.EOFError):
            while True:
                filtered = graph.pull()
                assert isinstance(filtered, av.VideoFrame)
                yield filtered
