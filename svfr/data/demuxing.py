"""The packets of a video file: which files are opened, which stream is the video, on one clock that starts at 0."""

import re
from collections.abc import Iterator
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


def audio_streams(container: InputContainer) -> list[av.AudioStream]:
    """All sound tracks of a known codec."""
    return [stream for stream in container.streams.audio if stream.codec_context is not None]


class VideoFile:
    """A video file that is open, and what was read of it so far.

    Its stream is the one with the most pixels that is neither a cover nor a single picture beside others; VideoError if
    there is none, or it has more than `max_pixels`.
    """

    def __init__(self, path: Path, max_pixels: int) -> None:
        self.path, self.container = path, open_video(path)
        try:
            self._choose(max_pixels)
        except BaseException:
            self.container.close()
            raise

    def _choose(self, max_pixels: int) -> None:
        """Find the stream, and what is to be known of all before they are read."""
        path, container = self.path, self.container
        videos = (v for v in container.streams.video if not v.disposition & Disposition.attached_pic)
        streams = [video for video in videos if video.codec_context is not None]
        if not streams:
            raise VideoError(f"{path}: no video stream{' (audio only)' if container.streams.audio else ''}")
        self.stream = max(streams, key=lambda video: (video.frames != 1, video.width * video.height))
        check_pixels(path, self.stream.width, self.stream.height, max_pixels)
        self.stream.codec_context.options = {"max_pixels": str(max_pixels)}  # a stream may change its size
        self.close = container.close
        self.is_broadcast = bool(container.format.flags & TS_DISCONT)  # MPEG-TS, -PS: may be joined and cut anywhere
        self.audio = audio_streams(container)
        timed = (*container.streams.video, *self.audio)
        starts = [each.start_time * each.time_base for each in timed if each.start_time is not None and each.time_base]
        origin = min(starts, default=Fraction(0))
        # [s] that is counted from: at which the first sound or picture starts, if it starts late.
        self.origin = origin if self.is_broadcast else max(origin, Fraction(0))
        self.num_packets = self.num_hidden = 0  # of the video stream; of these, hidden by an edit list
        self.end = Fraction(0)  # [s] of the last packet of any stream
        self.is_damaged = False

    def demux(self, *others: Stream) -> Iterator[av.Packet]:
        """Packets of the video, all sound and `others`, of times that count from the start of the first sound or
        picture; in broadcast formats they go on where files were joined."""
        offset = -self.origin
        ends: dict[int, Fraction] = {}  # [s] of each stream's last packet
        for packet in self.container.demux(self.stream, *self.audio, *others):
            index, unit = packet.stream.index, packet.time_base
            if packet.dts is not None:
                dts, end = packet.dts * unit + offset, ends.get(index)
                jumps = end is not None and (dts < end - JUMP_BACK or dts > max(ends.values()) + JUMP_AHEAD)
                if jumps and end is not None and self.is_broadcast:
                    offset, dts = offset + end - dts, end
                ends[index] = dts + (packet.duration or 0) * unit
                self.end = max(self.end, ends[index])
                self.num_packets += index == self.stream.index
            shift = round(offset / unit)
            if packet.dts is not None:
                packet.dts += shift
            if packet.pts is not None:
                packet.pts += shift
            if index == self.stream.index:
                self.num_hidden += packet.is_discard
            yield packet

    def ends_early(self, span: Fraction, period: Fraction) -> bool:
        """Whether the container promised more packets or a longer video than the `span` [s] that was read."""
        if self.container.format.name == "avi":  # which counts null frames, that have no packets
            return not _riff_is_whole(self.path)
        promised_packets = self.stream.frames
        if promised_packets - self.num_packets > max(Fraction(MISSING_FRAMES), promised_packets * MISSING_SHARE):
            return True
        if self.is_broadcast or self.container.format.flags & NO_TIMESTAMPS:
            return False  # the duration is only an estimate from the data themselves
        promised = self.own_duration
        if promised is None:  # that of the file, whose sound may be longer
            promised, span = self.whole_duration, max(span, self.end)
        return promised - span > max(MISSING_FRAMES * period, promised * MISSING_SHARE)

    @property
    def own_duration(self) -> Fraction | None:
        """Length [s] of the stream itself, if the container says it: QuickTime for each, Matroska in a tag."""
        if self.stream.frames and self.stream.duration and self.stream.time_base:
            return self.stream.duration * self.stream.time_base
        if match := re.fullmatch(r"(\d+):(\d+):(\d+(\.\d*)?)", self.stream.metadata.get("DURATION", "")):
            return int(match[1]) * 3600 + int(match[2]) * 60 + Fraction(match[3]) - self.origin
        return None

    @property
    def whole_duration(self) -> Fraction:
        """Length [s] of the longest stream; 0 if unknown."""
        duration = Fraction(self.container.duration or 0, av.time_base)
        counts_from_0 = self.container.format.name.startswith("matroska")
        return duration - self.origin if counts_from_0 and duration else duration


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
