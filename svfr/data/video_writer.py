"""Writing videos, images and folders of images frame by frame, completely or not at all.

What is written grows under a hidden name beside the final one, which it takes when it is complete.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from fractions import Fraction
from itertools import chain, count
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from svfr.data.decoding import VideoInfo
from svfr.data.errors import VideoError, one_line_errors
from svfr.data.h264 import SEGMENT, H264File
from svfr.data.images import image_files, read_alpha
from svfr.data.other_streams import CONTAINERS, container_for
from svfr.data.pixels import to_8_bits
from svfr.files import partial_path, remove, replace, replacing


class VideoWriter(AbstractContextManager["VideoWriter"]):
    """Write restored frames of `source` to `path`; VideoError if they cannot be.

    Leaving the block puts the result at `path`, in the place of what was there; leaving it by an exception changes
    nothing.

    Args:
        path: of the result. Its folder has to exist.
        source: of the input, from `probe`. One of kind "image" gives a PNG file, with its transparency, as "mp4", too.
        crf: x264's constant rate factor, 0 (lossless) to 51; 18 is visually close to lossless.
        format: "mp4": H.264 in 4:2:0, of a deep source in 10 bits, with the source's frame rate, timestamps, pixel
            aspect, colour tags, sound, subtitles, chapters and titles. If MP4 cannot hold the source's sound, the file
            becomes Matroska (with timestamps in ms) or QuickTime: `path` says which.
            "nut": a part of such a file, of frames alone, for `join`.
            "png": a folder of PNG files without sound: 000000.png, ..., or a folder's own names.
        width: [px] of the frames, if other than the source's; so is `height`.
        encoder: further options of x264, such as {"g": "30", "threads": "1"}.
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
        if format not in ("mp4", SEGMENT, "png") or not 0 <= crf <= 51:
            raise ValueError(f'format is "{format}", crf is {crf}: it has to be "mp4" or "png", and 0 to 51')
        self.path = Path(path)  # of the result; what it holds may ask for another suffix
        self.notes: list[str] = []  # what is changed or left out, one line each
        self._shape = (height or source.height, width or source.width, 3)
        self._last_time: Fraction | None = None
        container = None if format == "png" or (format == "mp4" and source.kind == "image") else format
        if container == "mp4" and source.kind == "video":
            with one_line_errors(source.path):
                container = container_for(source.path)
        if container and (suffix := CONTAINERS.get(container)):
            self.path = self.path.with_suffix(suffix)
        is_folder = format == "png" and source.kind != "image"
        if is_folder and source.has_audio:
            self.notes.append("a folder of frames has no sound")
        self._partial = partial_path(self.path)
        with one_line_errors(self.path):
            _check_replaceable(self.path, is_folder)
            try:
                self._sink: H264File | _Pngs
                if container:
                    x264 = {"crf": str(crf), **(encoder or {})}
                    self._sink = H264File(self._partial, container, source, self._shape[:2], x264, self.notes.append)
                else:
                    self._sink = _Pngs(self._partial, source)
            except BaseException:
                remove(self._partial)
                raise

    def write(self, image: np.ndarray, pts: int, time_base: Fraction) -> None:
        """Append a frame (h, w, 3) RGB of the writer's size, uint8 or uint16.

        Its time is `pts` units of `time_base` [s], as of `Frame`, and later than the last frame's.
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
        """Append the frames of a file of format "nut", that the same source and encoder gave, as they are encoded."""
        assert isinstance(self._sink, H264File)
        with one_line_errors(self.path):
            self._last_time = self._sink.join(segment)

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
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
    """Write (h, w, 3) uint8 RGB frames, one at least, to an MP4 file of H.264 in RGB, QP 0: every decoder gives them
    back."""
    with one_line_errors(path), replacing(path) as partial, av.open(f"file:{partial}", "w", format="mp4") as output:
        first = next(images := iter(frames))
        height, width = first.shape[:2]
        stream = output.add_stream("libx264rgb", rate=fps, width=width, height=height, pix_fmt="rgb24")
        stream.codec_context.options = {"qp": "0", "preset": "veryfast", "mbtree": "0"}
        for image in chain([first], images):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")))
        output.mux(stream.encode())


def _check_replaceable(path: Path, is_folder: bool) -> None:
    """Refuse, before hours of work, a place where the result cannot go or would push out other things."""
    if not path.parent.is_dir():
        raise VideoError(f"{path}: its folder does not exist")
    if path.is_dir() != is_folder and path.exists():
        raise VideoError(f"{path}: there is a {'file' if is_folder else 'folder'} of this name")
    if is_folder and path.is_dir() and any(file.suffix != ".png" for file in path.iterdir()):
        raise VideoError(f"{path}: the folder holds other files than frames, it will not be replaced")


class _Pngs:
    """A folder of PNG files, or the one of a still."""

    def __init__(self, path: Path, source: VideoInfo) -> None:
        self._alpha: np.ndarray | None = None
        self._files: Iterator[Path] = iter([path])
        if source.kind == "image":
            self._alpha = read_alpha(source.path, source.width * source.height) if source.has_alpha else None
            path.touch()  # fails now rather than at the end
            return
        stems = [file.stem for file in image_files(source.path)] if source.kind == "frames" else []
        named = stems and len(set(stems)) == len(stems)  # a.png beside a.jpg: numbers instead
        self._files = (path / f"{name}.png" for name in (stems if named else map("{:06d}".format, count())))
        path.mkdir()

    def write(self, image: np.ndarray, time: Fraction) -> None:
        file = next(self._files, None)
        if file is None:
            raise ValueError("the source has fewer frames")
        picture = Image.fromarray(image if image.dtype == np.uint8 else to_8_bits(image))
        if self._alpha is not None:
            picture.putalpha(Image.fromarray(self._alpha).resize(picture.size))
        # zlib's fastest level: the default takes several times as long.
        picture.save(file, format="PNG", compress_level=1)

    def finish(self) -> None: ...

    def close(self) -> None: ...
