"""Writing videos, images and folders of images frame by frame, completely or not at all.

What is written grows under a hidden name beside the final one, which it takes when it is complete.
"""

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Protocol

import av
import numpy as np
from PIL import Image

from svfr.data.errors import VideoError, one_line_errors
from svfr.data.h264 import SEGMENT, H264File
from svfr.data.images import read_alpha
from svfr.data.other_streams import CONTAINERS, container_for
from svfr.data.video_reader import VideoInfo, image_files, to_8_bits
from svfr.files import partial_path, remove, replace, replacing


class VideoWriter:
    """Write restored frames of `source` to `path`; a context manager.

    format "mp4": H.264 in 4:2:0, of a deep source in 10 bits, with the source's frame rate, timestamps, pixel aspect,
    colour tags, sound, subtitles, chapters and titles. If MP4 cannot hold the source's sound, the file becomes Matroska
    (with timestamps in ms) or QuickTime: `path` says which.
    format "nut": a part of such a file, of frames alone, for `join`.
    format "png": a folder of PNG files without sound: 000000.png, ..., or a folder's own names.
    A source of kind "image" gives one PNG file at `path` in both, with the source's transparency.

    Leaving the block puts the result at `path`, in the place of what was there; leaving it by an exception changes
    nothing.

    Attributes:
        path: where the result will be; may differ from the argument in its suffix.
        notes: what is changed or left out, one line each.
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
        """Start the file or the folder under its hidden name.

        Args:
            path: of the result. Its folder has to exist.
            source: of the input, from `probe`.
            crf: x264's constant rate factor, 0 (lossless) to 51; 18 is visually close to lossless.
            format: "mp4", "nut" or "png".
            width: [px] of the frames, if other than the source's.
            height: [px] of the frames, if other than the source's.
            encoder: further options of x264, such as {"g": "30", "threads": "1"}.

        Raises:
            ValueError: an argument is out of its range.
            VideoError: nothing can be written at `path`.
        """
        if format not in ("mp4", SEGMENT, "png"):
            raise ValueError(f'format is "{format}": it has to be "mp4" or "png"')
        if not 0 <= crf <= 51:
            raise ValueError(f"crf is {crf}: it has to be in 0..51")
        self.path = Path(path)
        self.notes: list[str] = []
        self._shape = (height or source.height, width or source.width, 3)
        self._last_time: Fraction | None = None
        with one_line_errors(source.path):
            container = None
            if format == SEGMENT:
                container = SEGMENT
            elif format == "mp4" and source.kind != "image":
                container = container_for(source.path) if source.kind == "video" else "mp4"
        if container and (suffix := CONTAINERS.get(container)):
            self.path = self.path.with_suffix(suffix)
        is_folder = format == "png" and source.kind != "image"
        if is_folder and source.has_audio:
            self.notes.append("a folder of frames has no sound")
        self._partial = partial_path(self.path)
        with one_line_errors(self.path):
            _check_replaceable(self.path, is_folder)
            remove(self._partial)
            try:
                self._sink: _Sink
                if container:
                    x264 = {"crf": str(crf), **(encoder or {})}
                    self._sink = H264File(self._partial, container, source, self._shape[:2], x264, self.notes.append)
                elif is_folder:
                    self._sink = _PngFolder(self._partial, source)
                else:
                    self._sink = _OnePng(self._partial, source)
            except BaseException:
                remove(self._partial)
                raise

    def write(self, image: np.ndarray, pts: int, time_base: Fraction) -> None:
        """Append a frame.

        Args:
            image: (h, w, 3) RGB of the writer's size, uint8 or uint16.
            pts: its time in units of `time_base`; later than the last frame's. Give `Frame.pts` as read.
            time_base: [s] of one unit.

        Raises:
            ValueError: an argument is not as described.
            VideoError: the frame cannot be written, for example because the disk is full.
        """
        if image.shape != self._shape or image.dtype not in (np.uint8, np.uint16):
            raise ValueError(f"image is {image.dtype} {image.shape}: it has to be uint8 or uint16 {self._shape}")
        time = pts * time_base
        if self._last_time is not None and time <= self._last_time:
            raise ValueError(f"pts is {pts} ({float(time)} s), not later than {float(self._last_time)} s before")
        self._last_time = time
        with one_line_errors(self.path):
            self._sink.write(image, time)

    def join(self, segment: Path) -> None:
        """Append the frames of a file of format "nut", that the same source and encoder gave, as they are encoded.

        Raises:
            VideoError: it cannot be read, or nothing can be written.
        """
        assert isinstance(self._sink, H264File)
        with one_line_errors(self.path):
            self._last_time = self._sink.join(segment)

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
                    replace(self.path, self._partial)
        finally:
            with suppress(OSError, av.FFmpegError):
                self._sink.close()
            remove(self._partial)


def write_lossless(path: Path, frames: Iterable[np.ndarray], fps: Fraction) -> None:
    """Write (h, w, 3) uint8 RGB frames of one size to an MP4 file of H.264 in RGB, QP 0: every decoder gives them back.

    Raises:
        VideoError: it cannot be written.
    """
    with one_line_errors(path), replacing(path) as partial, av.open(f"file:{partial}", "w", format="mp4") as output:
        stream: av.VideoStream | None = None
        for image in frames:
            if stream is None:
                height, width = image.shape[:2]
                stream = output.add_stream("libx264rgb", rate=fps, width=width, height=height, pix_fmt="rgb24")
                stream.codec_context.options = {"qp": "0", "preset": "veryfast", "mbtree": "0"}
            output.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")))
        if stream is not None:
            output.mux(stream.encode())


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


class _Png:
    def finish(self) -> None: ...

    def close(self) -> None: ...

    def save(self, image: np.ndarray, file: Path, alpha: np.ndarray | None = None) -> None:
        picture = Image.fromarray(image if image.dtype == np.uint8 else to_8_bits(image))
        if alpha is not None:
            picture.putalpha(Image.fromarray(alpha).resize(picture.size))
        # zlib's fastest level: the default takes several times as long.
        picture.save(file, format="PNG", compress_level=1)


class _OnePng(_Png):
    def __init__(self, file: Path, source: VideoInfo) -> None:
        self._file = file
        self._alpha = read_alpha(source.path, source.width * source.height) if source.has_alpha else None
        file.touch()  # fails now rather than at the end

    def write(self, image: np.ndarray, time: Fraction) -> None:
        if time:
            raise ValueError("the source is one image: only one frame, at time 0, can be written")
        self.save(image, self._file, self._alpha)


class _PngFolder(_Png):
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
        self.save(image, self._folder / f"{stem}.png")
        self._count += 1
