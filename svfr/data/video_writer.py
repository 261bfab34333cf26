"""Writing videos, images and folders of images frame by frame, whole or not at all.

What is written grows under a hidden temporary name beside the final one, which it takes when it is whole.
"""

import io
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Protocol

import av
import numpy as np
from av.video.reformatter import ColorRange, VideoReformatter
from PIL import Image

from svfr.data.video_reader import (
    BT601,
    BT709,
    EXACT,
    MATRICES,
    VideoError,
    VideoInfo,
    audio_streams,
    image_files,
    one_line_errors,
    open_video,
    time_origin,
    video_stream,
)


class VideoWriter:
    """Write restored frames of `source` to `path`; a context manager.

    format "mp4": H.264, with the source's frame rate, timestamps, pixel aspect and colour tags, and its
    sound copied packet by packet. Pixels are 4:2:0; odd sizes, which H.264 cannot have in 4:2:0 (it crops by
    pairs), are 4:4:4 (High 4:4:4 Predictive profile). If MP4 cannot hold the source's sound, the file becomes
    Matroska (with timestamps in ms) or QuickTime: `path` tells.
    format "png": a folder of PNG files without sound: 000000.png, ..., or a folder's own names.
    A source of kind "image" gives one PNG file at `path` in both.

    Leaving the block normally puts the result at `path`, in the place of what was there. Leaving it by an
    exception leaves nothing.

    Attributes:
        path: where the result will be; other than the argument only in its suffix.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        source: VideoInfo,
        crf: int = 18,
        format: str = "mp4",
        width: int | None = None,
        height: int | None = None,
        encoder: Mapping[str, str] | None = None,
    ) -> None:
        """Create the temporary file.

        Args:
            path: of the result. Its folder has to exist.
            source: what `probe` said of the input.
            crf: x264's constant rate factor, 0 (lossless) to 51; 18 is visually close to lossless.
            format: "mp4" or "png".
            width: [px] of the frames, if other than the source's.
            height: [px] of the frames, if other than the source's.
            encoder: further options of x264, such as {"g": "30", "threads": "1"}.

        Raises:
            ValueError: an argument is out of its range.
            VideoError: nothing can be written at `path`, or no container takes the source's sound.
        """
        if format not in ("mp4", "png"):
            raise ValueError(f'format is "{format}": it has to be "mp4" or "png"')
        if not 0 <= crf <= 51:
            raise ValueError(f"crf is {crf}: it has to be in 0..51")
        self.path = Path(path)
        self._shape = (height or source.height, width or source.width, 3)
        self._last_time: Fraction | None = None
        with one_line_errors(source.path):
            container = _container_for(source) if format == "mp4" and source.kind != "image" else None
        if container and container.suffix:
            self.path = self.path.with_suffix(container.suffix)
        self._is_folder = format == "png" and source.kind != "image"
        suffix = "" if self._is_folder else self.path.suffix
        self._temporary = self.path.with_name(f".{self.path.stem}.partial-{os.getpid()}{suffix}")
        with one_line_errors(self.path):
            _check_replaceable(self.path, self._is_folder)
            self._remove_temporary()
            try:
                self._sink: _Sink
                if container:
                    self._sink = _H264(
                        self._temporary, container.format, source, self._shape[:2], {"crf": str(crf), **(encoder or {})}
                    )
                elif self._is_folder:
                    self._sink = _PngFolder(self._temporary, source)
                else:
                    self._sink = _OnePng(self._temporary)
            except BaseException:
                self._remove_temporary()
                raise

    def write(self, image: np.ndarray, pts: int, time_base: Fraction) -> None:
        """Append a frame.

        Args:
            image: (h, w, 3) uint8 RGB of the writer's size.
            pts: its time in units of `time_base`; later than the last frame's. Give `Frame.pts` as read.
            time_base: [s] of one unit.

        Raises:
            ValueError: an argument is not as described.
            VideoError: the frame cannot be written, for example because the disk is full.
        """
        if image.shape != self._shape or image.dtype != np.uint8:
            raise ValueError(f"image is {image.dtype} {image.shape}: it has to be uint8 {self._shape}")
        time = pts * time_base
        if self._last_time is not None and time <= self._last_time:
            raise ValueError(f"pts is {pts} ({float(time)} s), not later than {float(self._last_time)} s before")
        self._last_time = time
        with one_line_errors(self.path):
            self._sink.write(image, time)

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with one_line_errors(self.path):
                if error is None:
                    if self._last_time is None:
                        raise VideoError(f"{self.path}: no frame was written")
                    self._sink.finish()
                    self._publish()
        finally:
            with suppress(OSError, av.FFmpegError):
                self._sink.close()
            self._remove_temporary()

    def _publish(self) -> None:
        if not self._is_folder or not self.path.exists():
            os.replace(self._temporary, self.path)
            return
        # A folder cannot replace one that has files in it.
        old = self.path.with_name(f".{self.path.name}.old-{os.getpid()}")
        os.replace(self.path, old)
        os.replace(self._temporary, self.path)
        shutil.rmtree(old)

    def _remove_temporary(self) -> None:
        if self._temporary.is_dir():
            shutil.rmtree(self._temporary, ignore_errors=True)
        else:
            with suppress(OSError):
                self._temporary.unlink()


def _check_replaceable(path: Path, is_folder: bool) -> None:
    """Refuse, before hours of work, a place where the result cannot go or would push out other things."""
    if not path.parent.is_dir():
        raise VideoError(f"{path}: its folder does not exist")
    if path.is_dir() != is_folder and path.exists():
        raise VideoError(f"{path}: there is a {'file' if is_folder else 'folder'} of this name")
    if is_folder and path.is_dir() and any(file.suffix != ".png" for file in path.iterdir()):
        raise VideoError(f"{path}: the folder holds other files than frames, it will not be replaced")


class _Sink(Protocol):
    def write(self, image: np.ndarray, time: Fraction) -> None: ...

    def finish(self) -> None: ...

    def close(self) -> None: ...


class _OnePng:
    def __init__(self, file: Path) -> None:
        self._file = file
        file.touch()  # fails now rather than after the work

    def write(self, image: np.ndarray, time: Fraction) -> None:
        if time:
            raise ValueError("the source is one image: only one frame, at time 0, can be written")
        _save_png(image, self._file)

    def finish(self) -> None: ...

    def close(self) -> None: ...


class _PngFolder:
    def __init__(self, folder: Path, source: VideoInfo) -> None:
        self._folder = folder
        self._count = 0
        stems = [file.stem for file in image_files(source.path)] if source.kind == "frames" else []
        self._stems = stems if len(set(stems)) == len(stems) else []  # a.png beside a.jpg: numbers instead
        folder.mkdir()

    def write(self, image: np.ndarray, time: Fraction) -> None:
        if self._stems and self._count >= len(self._stems):
            raise ValueError(f"the source has only {len(self._stems)} frames")
        stem = self._stems[self._count] if self._stems else f"{self._count:06d}"
        _save_png(image, self._folder / f"{stem}.png")
        self._count += 1

    def finish(self) -> None: ...

    def close(self) -> None: ...


def _save_png(image: np.ndarray, file: Path) -> None:
    # zlib's fastest level: the default takes several times as long.
    Image.fromarray(image).save(file, format="PNG", compress_level=1)


class _Container(NamedTuple):
    format: str  # FFmpeg's name
    suffix: str | None  # that the output has to have


# In order of preference. MP4 and Matroska each refuse some codecs of sound; QuickTime takes mu-law, ADPCM.
_CONTAINERS = (_Container("mp4", None), _Container("matroska", ".mkv"), _Container("mov", ".mov"))


def _container_for(source: VideoInfo) -> _Container:
    if not source.has_audio:
        return _CONTAINERS[0]
    for container in _CONTAINERS:
        if _holds_audio(container.format, source.path):
            return container
    raise VideoError(f"{source.path}: no container (mp4, mkv, mov) can hold its sound")


def _holds_audio(container_format: str, path: Path) -> bool:
    """Try it with the first packet of each track: some are refused only by then."""
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


class _H264:
    """An H.264 encoder and the sound of the source, interleaved by time."""

    def __init__(
        self,
        file: Path,
        container_format: str,
        source: VideoInfo,
        shape: tuple[int, int],
        x264: Mapping[str, str],
    ) -> None:
        self._source_path = source.path
        self._input = open_video(source.path) if source.kind == "video" else None
        template = video_stream(self._input, source.path) if self._input else None
        self._time_base = (template and template.time_base) or 1 / source.fps
        self._step = max(1, round(1 / (source.fps * self._time_base)))
        options = {}
        if container_format != "matroska":
            # Units of the source, for the frames and for the start of the tracks, or times would be rounded.
            units = self._time_base.denominator
            tracks = audio_streams(self._input) if self._input else []
            common = math.lcm(units, 1000, *(t.time_base.denominator for t in tracks if t.time_base))
            options = {
                "movflags": "+faststart",  # the index first, so that a browser can start at once
                "video_track_timescale": str(units),
                "movie_timescale": str(common if common < 2**31 else max(units, 1000)),
            }
        self._output = av.open(f"file:{file}", "w", format=container_format, options=options)
        height, width = shape
        is_odd = height % 2 or width % 2
        self._stream = self._output.add_stream(
            "libx264",
            rate=source.fps,
            width=width,
            height=height,
            pix_fmt="yuv444p" if is_odd else "yuv420p",
        )
        encoder = self._stream.codec_context
        encoder.time_base = self._time_base
        # veryfast: some 200 frames/s of 512x512 on two cores; slower ones mostly save space. bf=0: MP4 stores
        # steps of decoding times, which B-frames shift; with a variable rate the length would come out wrong.
        # mbtree=0: on processors with AVX-512, the macroblock tree gives other files from run to run; without it they
        # are larger, and better at the same CRF (three clips: by 3 to 38%, 0.0 to 1.2 dB).
        encoder.options = {"preset": "veryfast", "bf": "0", "mbtree": "0", **x264}
        self._matrix = _copy_look(template, encoder, source, height)
        self._scaler = VideoReformatter()
        self._held: av.VideoFrame | None = None  # until the next one tells how long it lasts
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
        frame = self._scaler.reformat(
            av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24"),
            format=self._stream.pix_fmt,
            dst_colorspace=self._matrix,
            dst_color_range=ColorRange.MPEG,
            interpolation=EXACT,
        )
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
    """Give the encoder the source's pixel aspect and colour tags; return the scaler's number of it."""
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
