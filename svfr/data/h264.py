"""A video file of H.264 and the sound of its source."""

import io
import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import ColorRange, VideoReformatter

from svfr.data.video_reader import (
    BT601,
    BT709,
    EXACT,
    MATRICES,
    VideoError,
    VideoInfo,
    audio_streams,
    one_line_errors,
    open_video,
    time_origin,
    video_stream,
)

# FFmpeg's names, and the suffix that a file has to have. In order of preference: MP4 and Matroska each refuse some
# codecs of sound; QuickTime takes mu-law and ADPCM.
CONTAINERS = {"mp4": None, "matroska": ".mkv", "mov": ".mov"}


def container_for(source: VideoInfo) -> str:
    """The first of `CONTAINERS` that can hold the source's sound.

    Raises:
        VideoError: none can.
    """
    for container in CONTAINERS:
        if not source.has_audio or _holds_audio(container, source.path):
            return container
    raise VideoError(f"{source.path}: no container (mp4, mkv, mov) can hold its sound")


def yuv_frame(image: np.ndarray, pix_fmt: str, matrix: int, scaler: VideoReformatter, threads: int) -> av.VideoFrame:
    """A picture as encoders take it, in TV range.

    Args:
        image: (h, w, 3) uint8 RGB.
        pix_fmt: FFmpeg's name of the pixel format.
        matrix: the scaler's number of the colour matrix.
        threads: of the scaler; 0: one per core.
    """
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
    return scaler.reformat(
        frame,
        format=pix_fmt,
        dst_colorspace=matrix,
        dst_color_range=ColorRange.MPEG,
        interpolation=EXACT,
        threads=threads,
    )


def _holds_audio(container_format: str, path: Path) -> bool:
    """Whether a container takes the sound; tried with a packet of each track, since some are refused only then."""
    with open_video(path) as source:
        output = av.open(io.BytesIO(), "w", format=container_format)
        try:
            tracks = audio_streams(source)
            waiting = {track.index: output.add_stream_from_template(track) for track in tracks}
            for packet in source.demux(tracks):
                if packet.size and packet.stream.index in waiting:
                    packet.stream = waiting.pop(packet.stream.index)
                    output.mux(packet)
                if not waiting:
                    break
            output.close()
        except (ValueError, av.FFmpegError):
            return False
        finally:
            with suppress(ValueError, av.FFmpegError):
                output.close()
    return True


class H264File:
    """A file of encoded frames and the sound of the source, interleaved by time.

    Args:
        file: where to write it.
        container: one of `CONTAINERS`.
        source: gives its sound, time base, pixel aspect and colour tags.
        shape: (h, w) [px] of the frames.
        x264: options of the encoder.

    Raises:
        OSError, av.FFmpegError: of writing, here as in the methods.
        VideoError: the source cannot be read.
    """

    def __init__(
        self, file: Path, container: str, source: VideoInfo, shape: tuple[int, int], x264: Mapping[str, str]
    ) -> None:
        self._source_path = source.path
        self._input = open_video(source.path) if source.kind == "video" else None
        template = video_stream(self._input, source.path) if self._input else None
        self._time_base = (template and template.time_base) or 1 / source.fps
        self._step = max(1, round(1 / (source.fps * self._time_base)))
        options = {}
        if container != "matroska":
            # Units of the source, for the frames and for the start of the tracks, or times would be rounded.
            units = self._time_base.denominator
            tracks = audio_streams(self._input) if self._input else []
            common = math.lcm(units, 1000, *(t.time_base.denominator for t in tracks if t.time_base))
            options = {
                "movflags": "+faststart",  # the index first, so that a browser can start at once
                "video_track_timescale": str(units),
                "movie_timescale": str(common if common < 2**31 else max(units, 1000)),
            }
        self._output = av.open(f"file:{file}", "w", format=container, options=options)
        height, width = shape
        pix_fmt = "yuv444p" if height % 2 or width % 2 else "yuv420p"
        self._stream = self._output.add_stream("libx264", rate=source.fps, width=width, height=height, pix_fmt=pix_fmt)
        encoder = self._stream.codec_context
        encoder.time_base = self._time_base
        # veryfast: some 200 frames/s of 512x512 on two cores; slower ones mostly save space. bf=0: MP4 stores steps of
        # decoding times, which B-frames shift; with a variable rate the length would come out wrong.
        # mbtree=0: on processors with AVX-512, the macroblock tree gives other files from run to run; without it they
        # are larger, and better at the same CRF (three clips: by 3 to 38%, 0.0 to 1.2 dB).
        encoder.options = {"preset": "veryfast", "bf": "0", "mbtree": "0", **x264}
        self._matrix = _copy_look(template, encoder, source, height)
        self._scaler = VideoReformatter()
        self._held: av.VideoFrame | None = None  # until the next frame's time says its duration
        self._held_pts = 0
        self._durations: dict[int | None, int] = {}  # by pts, of the frames inside the encoder

        self._tracks: dict[int, av.AudioStream] = {}
        self._packets: Iterator[av.Packet] = iter(())
        self._source_end = (-1, 0)  # (pts, duration) of the last video packet of the source so far
        self._origin = Fraction(0)
        if self._input and template:
            self._origin = time_origin(self._input)
            for track in audio_streams(self._input):
                self._tracks[track.index] = self._output.add_stream_from_template(track)
            self._packets = self._input.demux(template, *audio_streams(self._input))
        self._pending: av.Packet | None = None
        self._output.start_encoding()

    def write(self, image: np.ndarray, time: Fraction) -> None:
        """Append a frame (h, w, 3) at a time [s], and the sound up to it."""
        frame = yuv_frame(image, self._stream.pix_fmt or "", self._matrix, self._scaler, threads=0)
        pts = round(time / self._time_base)
        frame.pts, frame.time_base = pts, self._time_base
        if self._held is not None:
            self._encode(self._held, pts - self._held_pts)
        self._held, self._held_pts = frame, pts
        self._copy_audio(until=time)

    def finish(self) -> None:
        """Encode what is left, copy the rest of the sound, complete the file."""
        if self._held is not None:
            source_pts, source_duration = self._source_end
            ends_alike = source_pts == self._held_pts and source_duration > 0
            self._encode(self._held, source_duration if ends_alike else self._step)
        self._encode(None, 0)
        self._copy_audio(until=None)
        self._output.close()

    def close(self) -> None:
        """Release the files; without `finish`, what was written is not complete."""
        if self._input:
            self._input.close()
        self._output.close()

    def _encode(self, frame: av.VideoFrame | None, duration: int) -> None:
        if frame is not None:
            self._durations[frame.pts] = duration
        for packet in self._stream.encode(frame):
            # The encoder assumes a constant rate.
            packet.duration = self._durations.pop(packet.pts)
            self._output.mux(packet)

    def _copy_audio(self, until: Fraction | None) -> None:
        """Copy the source's sound up to a time [s], or all that is left."""
        while True:
            if self._pending is None:
                with one_line_errors(self._source_path):
                    self._pending = next(self._packets, None)
            packet = self._pending
            if packet is None:
                return
            if packet.dts is not None:
                shift = round(self._origin / packet.time_base)
                dts = packet.dts - shift
                if until is not None and dts * packet.time_base > until:
                    return
                pts = None if packet.pts is None else packet.pts - shift
                track = self._tracks.get(packet.stream.index)
                if track is not None:
                    packet.dts, packet.pts, packet.stream = dts, pts, track
                    self._output.mux(packet)
                elif pts is not None:
                    self._source_end = max(self._source_end, (pts, packet.duration or 0))
            self._pending = None


def _copy_look(template: av.VideoStream | None, encoder: av.VideoCodecContext, source: VideoInfo, height: int) -> int:
    """Give the encoder the source's pixel aspect and colour tags; returns the scaler's number of the colour matrix."""
    tags = (BT709,) * 3 if height >= 720 else (BT601,) * 3  # as players take untagged video
    if template is not None:
        look = template.codec_context
        if look.colorspace in MATRICES:
            tags = (look.colorspace, look.color_primaries, look.color_trc)
        if aspect := template.sample_aspect_ratio:
            encoder.sample_aspect_ratio = 1 / aspect if source.rotation in (90, 270) else aspect
    encoder.colorspace, encoder.color_primaries, encoder.color_trc = tags
    encoder.color_range = ColorRange.MPEG
    return MATRICES[tags[0]]
