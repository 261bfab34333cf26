"""What goes along with the pictures of a video: sound, subtitles, chapters and titles, carried over into the result."""

import io
from collections.abc import Callable
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import av
from av.container import OutputContainer
from av.stream import Stream

from svfr.data.demuxing import VideoFile, audio_streams, open_video
from svfr.data.errors import one_line_errors

# FFmpeg's names, and the suffix that a file has to have. In order of preference: MP4 and Matroska each refuse some
# codecs of sound; QuickTime takes mu-law and ADPCM.
CONTAINERS = {"mp4": None, "matroska": ".mkv", "mov": ".mov"}
AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)  # [Hz]
AAC_CHANNELS = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}
OF_THE_FILE = {"major_brand", "minor_version", "compatible_brands", "encoder", "duration"}  # not of what it shows


def container_for(path: Path) -> str:
    """The first of `CONTAINERS` that can hold a video's sound as it is; MP4 if none can.

    PCM of a QuickTime file stays in one: few players take it in MP4.
    """
    with open_video(path) as source:
        tracks = audio_streams(source)
        is_quicktime = source.metadata.get("major_brand", "").startswith("qt")
        if is_quicktime and any(track.codec_context.name.startswith("pcm_") for track in tracks):
            return "mov"
        held = {name: _held(name, path) for name in CONTAINERS} if tracks else {}
        return next((name for name in held if all(track.index in held[name] for track in tracks)), "mp4")


def _held(container: str, path: Path) -> set[int]:
    """Indices of the sound and subtitle streams that a container takes.

    Tried with a packet of each, since some are refused only then.
    """
    held = set[int]()
    with open_video(path) as source:
        waiting = {stream.index: stream for stream in (*audio_streams(source), *source.streams.subtitles)}
        for packet in source.demux(*waiting.values()):
            stream = waiting.pop(packet.stream.index, None) if packet.size else None
            if stream is not None and _takes(container, stream, packet):
                held.add(stream.index)
            if not waiting:
                break
    return held


def _takes(container: str, stream: Stream, packet: av.Packet) -> bool:
    try:
        with av.open(io.BytesIO(), "w", format=container) as output:
            packet.stream = output.add_stream_from_template(stream)
            packet.dts = packet.pts = 0
            output.mux(packet)
    except (ValueError, av.FFmpegError):
        return False
    return True


class OtherStreams:
    """Copies what goes along with the pictures of a source into an output that has not started, interleaved by time.

    Sound that the output's format takes none of is encoded to AAC. `show` is told what is changed or left out.
    """

    def __init__(self, source: VideoFile, output: OutputContainer, container: str, show: Callable[[str], None]) -> None:
        self._source, self._output, opened = source, output, source.container
        self.last_picture = (-1, 0)  # (pts, duration) of the last video packet of the source so far
        self._targets: dict[int, Stream] = {}  # of the output, by the source's index
        self._decoders: dict[int, av.AudioStream] = {}  # of what is encoded to AAC
        self._ends: dict[int, int] = {}  # decoding times that are taken, by stream
        held, chapters = _held(container, source.path), opened.chapters()
        for stream in opened.streams:
            codec = stream.codec_context.name if stream.codec_context else ""
            if stream.index in held:
                self._targets[stream.index] = output.add_stream_from_template(stream)
            elif isinstance(stream, av.AudioStream) and codec and stream.rate:
                rate = stream.rate if stream.rate in AAC_RATES else 48000
                layout = AAC_CHANNELS.get(stream.channels, "stereo")
                self._targets[stream.index] = output.add_stream("aac", rate=rate, layout=layout)
                self._decoders[stream.index] = stream
                show(f"sound {codec} is encoded to AAC")
            elif stream.type == "audio" and codec:
                show(f"sound {codec} is left out")
            elif stream.type == "subtitle":
                show(f"subtitles ({codec or 'of an unknown kind'}) are left out: {container} does not take them")
            elif stream != source.stream and not (chapters and stream.frames == len(chapters)):  # a track of titles
                kind = codec or stream.metadata.get("handler_name", "data")
                show(f"a further stream ({stream.type} {kind}) is left out")
        for index, target in self._targets.items():
            _copy_about(opened.streams[index], target)
        output.metadata.update({k: v for k, v in opened.metadata.items() if k.lower() not in OF_THE_FILE})
        output.set_chapters(chapters)
        self._packets = source.demux(*opened.streams.subtitles)
        self._pending: av.Packet | None = None

    def copy(self, until: Fraction | None) -> None:
        """Copy up to a time [s], or all that is left."""
        while True:
            if self._pending is None:
                with one_line_errors(self._source.path):
                    self._pending = next(self._packets, None)
            if (packet := self._pending) is None:
                return
            if packet.dts is not None and until is not None and packet.dts * packet.time_base > until:
                return
            self._take(packet)
            self._pending = None

    def finish(self) -> None:
        """Copy what is left, and end the encoders."""
        self.copy(until=None)
        for index in self._decoders:
            self._encode(index, None)

    def _encode(self, index: int, sound: av.AudioFrame | None) -> None:
        encoder = self._targets[index]
        assert isinstance(encoder, av.AudioStream)
        self._output.mux(encoder.encode(sound))

    def _take(self, packet: av.Packet) -> None:
        index = packet.stream.index
        if index == self._source.stream.index:
            if packet.pts is not None:
                self.last_picture = max(self.last_picture, (packet.pts, packet.duration or 0))
        elif index in self._decoders:
            with suppress(av.FFmpegError):  # of a broken packet: the sound goes on after it
                for sound in self._decoders[index].decode(packet):
                    self._encode(index, sound)
        elif packet.dts is not None and index in self._targets:
            target = self._targets[index]
            unit = target.time_base or packet.time_base
            times = (packet.dts, packet.dts if packet.pts is None else packet.pts, packet.duration or 0)
            dts, pts, packet.duration = (round(time * packet.time_base / unit) for time in times)
            # Muxers refuse times that stand still or go back, in their own units, as of damaged files.
            packet.dts = max(dts, self._ends.get(index, dts))
            packet.pts = max(pts, packet.dts)
            self._ends[index] = packet.dts + 1
            packet.time_base, packet.stream = unit, target
            self._output.mux(packet)


def _copy_about(source: Stream, target: Stream) -> None:
    """Language, title and disposition."""
    about = {key: value for key, value in source.metadata.items() if key in ("language", "title", "handler_name")}
    if "name" in source.metadata:  # what QuickTime calls a title
        about.setdefault("title", source.metadata["name"])
    target.metadata.update(about)
    target.disposition = source.disposition
