"""The packets of a video file: which files are opened, which stream is the video, on one clock that starts at 0."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer
from av.stream import Disposition, Stream

from svfr.data.errors import VideoError, check_pixels, refuse_heif

# FFmpeg's names of what is opened. Others render text as videos, read what a file points to, or need a device.
FORMATS = (
    "mov,mp4,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,live_flv,asf,ogg,dv,mxf,nut,rm,ivf,h264,hevc,m4v,mjpeg,"
    "yuv4mpegpipe,vc1,obu,wtv,nsv,gxf,mp3,wav,aac,flac"
)
TS_DISCONT, NO_TIMESTAMPS = 0x0200, 0x0080  # AVFMT_... flags of formats (FFmpeg's avformat.h)
# Assumption: frames, and share of all, that may be missing; undamaged files can be off by a frame or two.
MISSING_FRAMES, MISSING_SHARE = 2, Fraction(2, 100)
# [s] by which times of broadcast formats jump where files were joined: back, or ahead of all streams (as FFmpeg's own
# tools take them).
JUMP_BACK, JUMP_AHEAD = Fraction(1, 10), Fraction(10)


def open_video(path: Path) -> InputContainer:
    """Open a video for reading; VideoError if it is of no format that is read."""
    refuse_heif(path)
    options = {"protocol_whitelist": "file", "format_whitelist": FORMATS}
    try:
        # "file:" because a bare name with a colon in it would be taken for a protocol.
        return av.open(f"file:{path}", metadata_errors="replace", container_options=options)
    except av.ArgumentError as error:
        raise VideoError(f"{path}: not a video of a format that is read") from error


def video_stream(container: InputContainer, path: Path, max_pixels: int) -> av.VideoStream:
    """The video stream with the most pixels that is neither a cover nor a single picture beside others; VideoError if
    there is none, or it has more than `max_pixels`."""
    streams = [
        stream
        for stream in container.streams.video
        if not stream.disposition & Disposition.attached_pic and stream.codec_context is not None
    ]
    if not streams:
        raise VideoError(f"{path}: no video stream{' (audio only)' if container.streams.audio else ''}")
    best = max(streams, key=lambda stream: (stream.frames != 1, stream.width * stream.height))
    check_pixels(path, best.width, best.height, max_pixels)
    best.codec_context.options = {"max_pixels": str(max_pixels)}  # a stream may change its size
    return best


def is_broadcast(container: InputContainer) -> bool:
    """MPEG-TS and -PS, which may be joined and cut anywhere."""
    return bool(container.format.flags & TS_DISCONT)


def audio_streams(container: InputContainer) -> list[av.AudioStream]:
    """All sound tracks of a known codec."""
    return [stream for stream in container.streams.audio if stream.codec_context is not None]


def time_origin(container: InputContainer) -> Fraction:
    """The time [s] to count from: that at which the first sound or picture starts, if it starts late."""
    starts = [
        stream.start_time * stream.time_base
        for stream in (*container.streams.video, *audio_streams(container))
        if stream.start_time is not None and stream.time_base is not None
    ]
    origin = min(starts, default=Fraction(0))
    return origin if is_broadcast(container) else max(origin, Fraction(0))


@dataclass
class Demuxed:
    """What was read of a container so far; the video stream's packets are counted."""

    packets: int = 0
    hidden: int = 0  # of these, hidden by an edit list
    end: Fraction = Fraction(0)  # [s] of the last packet of any stream
    damaged: bool = False


def demux(
    container: InputContainer, video: av.VideoStream, *others: Stream, demuxed: Demuxed | None = None
) -> Iterator[av.Packet]:
    """Packets of the video, all sound and `others`, of times that count from the start of the first sound or picture.

    In broadcast formats they go on where files were joined. Updates `demuxed`.
    """
    demuxed = demuxed or Demuxed()
    offset = -time_origin(container)
    ends: dict[int, Fraction] = {}  # [s] of each stream's last packet
    for packet in container.demux(video, *audio_streams(container), *others):
        index, unit = packet.stream.index, packet.time_base
        if packet.dts is not None:
            dts, end = packet.dts * unit + offset, ends.get(index)
            jumps = end is not None and (dts < end - JUMP_BACK or dts > max(ends.values()) + JUMP_AHEAD)
            if jumps and end is not None and is_broadcast(container):
                offset, dts = offset + end - dts, end
            ends[index] = dts + (packet.duration or 0) * unit
            demuxed.end = max(demuxed.end, ends[index])
            demuxed.packets += index == video.index
        shift = round(offset / unit)
        if packet.dts is not None:
            packet.dts += shift
        if packet.pts is not None:
            packet.pts += shift
        if index == video.index:
            demuxed.hidden += packet.is_discard
        yield packet


def ends_early(
    container: InputContainer, stream: av.VideoStream, demuxed: Demuxed, span: Fraction, period: Fraction
) -> bool:
    """Whether the container promised more packets or a longer video than the `span` [s] that was read."""
    if container.format.name == "avi":  # which counts null frames, that have no packets
        return not _riff_is_whole(Path(container.name.removeprefix("file:")))
    if stream.frames - demuxed.packets > max(Fraction(MISSING_FRAMES), stream.frames * MISSING_SHARE):
        return True
    if is_broadcast(container) or container.format.flags & NO_TIMESTAMPS:
        return False  # the duration is only an estimate from the data themselves
    promised = own_duration(container, stream)
    if promised is None:  # that of the file, whose sound may be longer
        promised, span = whole_duration(container), max(span, demuxed.end)
    return promised - span > max(MISSING_FRAMES * period, promised * MISSING_SHARE)


def own_duration(container: InputContainer, stream: av.VideoStream) -> Fraction | None:
    """Length [s] of the stream itself, if the container says it: QuickTime for each, Matroska in a tag."""
    if stream.frames and stream.duration and stream.time_base:
        return stream.duration * stream.time_base
    if match := re.fullmatch(r"(\d+):(\d+):(\d+(\.\d*)?)", stream.metadata.get("DURATION", "")):
        end = int(match[1]) * 3600 + int(match[2]) * 60 + Fraction(match[3])
        return end - time_origin(container)
    return None


def whole_duration(container: InputContainer) -> Fraction:
    """Length [s] of the longest stream; 0 if unknown."""
    duration = Fraction(container.duration or 0, av.time_base)
    counts_from_0 = container.format.name.startswith("matroska")
    return duration - time_origin(container) if counts_from_0 and duration else duration


def _riff_is_whole(file: Path) -> bool:
    """Whether an AVI has all the bytes that its lists say."""
    size, place = file.stat().st_size, 0
    with file.open("rb") as opened:
        while place + 8 <= size:
            opened.seek(place)
            head = opened.read(8)
            if head[:4] != b"RIFF":
                break  # what follows is not the video's
            place += 8 + int.from_bytes(head[4:], "little")
    return place <= size + 1  # the last byte may be padding
