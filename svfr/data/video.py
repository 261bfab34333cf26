"""Videos, animations, images and folders of images as streams of frames: what they are, reading, writing.

Frames are (h, w, 3) uint8 RGB, turned upright. Whatever is wrong with a user's file ends in a `VideoError` of one line,
never in a silent early end.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

import numpy as np

from svfr.data import decoding, images
from svfr.data.decoding import FIRST_FRAMES, Frame, OnNote, ReadOptions, VideoInfo
from svfr.data.demuxing import VideoFile
from svfr.data.errors import MAX_PIXELS, VideoError, one_line_errors
from svfr.data.images import ANIMATION_UNIT, IMAGE_SUFFIXES, image_files
from svfr.data.pixels import DEEP
from svfr.data.video_writer import VideoWriter, write_lossless

__all__ = ["DEEP", "IMAGE_SUFFIXES", "VIDEO_SUFFIXES", "Frame", "ReadOptions", "VideoError", "VideoInfo", "VideoWriter"]
__all__ += ["frames_at", "image_files", "is_media", "kind_of", "probe", "read_frames", "write_lossless"]

# fmt: off
VIDEO_SUFFIXES = frozenset({
    ".mp4", ".m4v", ".mov", ".qt", ".mkv", ".webm", ".avi", ".divx", ".ts", ".m2ts", ".mts", ".m2t", ".mpg", ".mpeg",
    ".m2v", ".vob", ".flv", ".f4v", ".wmv", ".asf", ".3gp", ".3g2", ".ogv", ".ogm", ".dv", ".mxf", ".rm", ".rmvb",
    ".nut", ".wtv", ".ivf", ".264", ".h264", ".265", ".hevc", ".mjpeg", ".mjpg", ".y4m", ".gif",
})
# fmt: on
USUAL = ReadOptions()


def kind_of(path: Path, max_pixels: int = MAX_PIXELS) -> str:
    """ "frames", "image", "animation" or "video"; a file of an unknown suffix is taken for what it contains.

    VideoError if it is nothing of these, OSError if it is not there.
    """
    if path.is_dir():
        return "frames"
    if path.stat().st_size == 0 and path.is_file():
        raise VideoError(f"{path}: the file is empty (0 bytes)")
    if not path.is_file():
        raise VideoError(f"{path}: neither a file nor a folder")
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES or suffix == ".gif" or (suffix not in VIDEO_SUFFIXES and images.is_image(path)):
        return "animation" if images.count_frames(path, max_pixels) > 1 else "image"
    return "video"


def is_media(path: Path) -> bool:
    """Whether a file is a video or a picture, by its suffix or else by its content."""
    if path.suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES:
        return True
    with suppress(VideoError), one_line_errors(path):
        if path.is_file() and not images.is_image(path):
            VideoFile(path, MAX_PIXELS).close()
        return path.is_file()
    return False


def probe(path: str | os.PathLike[str], options: ReadOptions = USUAL) -> VideoInfo:
    """Describe a video (decodes its first frame), an animation, an image, or a folder of images (reads all headers);
    VideoError if there is nothing to read, or it cannot be read."""
    path, most = Path(path), options.max_pixels
    with one_line_errors(path):
        kind = kind_of(path, most)
        if kind == "video":
            return decoding.describe(path, most)
        files = image_files(path) if kind == "frames" else [path]
        sizes = [images.image_size(file, most) for file in files]
        width, height = sizes[0]
        if len(set(sizes)) > 1:
            odd = next(index for index, size in enumerate(sizes) if size != sizes[0])
            one, other = (f"{files[at].name} is {sizes[at][0]}x{sizes[at][1]}" for at in (0, odd))
            raise VideoError(f"{path}: images differ in size: {one}, {other}")
        fps, number = options.fps, len(files)
        if kind == "animation":
            number = images.count_frames(path, most)
            shown = [time for _, time in islice(images.read_animation(path, most), FIRST_FRAMES)]
            fps = 1 / (sum(shown) * ANIMATION_UNIT / len(shown))
        has_alpha = kind == "image" and images.read_alpha(path, most) is not None
    return VideoInfo(path, width, height, fps, number, float(number / fps), kind=kind, has_alpha=has_alpha)


def read_frames(
    path: str | os.PathLike[str], options: ReadOptions = USUAL, on_note: OnNote = lambda note: None
) -> Iterator[Frame]:
    """Yield the frames of what `probe` describes, in presentation order and constant memory.

    Of a damaged video, the frames before the damage come first and then the error. Frames lost in the middle of
    Matroska and MPEG-TS files are no error if the decoder does not notice; their timestamps are missing.

    Raises:
        VideoError: there is nothing to read, it cannot be read, or it ends before its container says so.
    """
    path = Path(path)
    with one_line_errors(path):
        info = probe(path, options)
        if info.kind == "video":
            yield from decoding.decode(info, options, on_note)
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
    """(f, h, w, 3) uint8: frames by numbers, as `read_frames` counts them, which may repeat; or VideoError."""
    wanted = sorted(set(indices))
    with one_line_errors(path):
        info = probe(path)
        found = decoding.seek(info, wanted) if info.kind == "video" else {}
        found = found or {f.index: f.image for f in islice(read_frames(path), wanted[-1] + 1) if f.index in wanted}
    if missing := [index for index in wanted if index not in found]:
        raise VideoError(f"{path}: frame {missing[0]} is not there, or cannot be decoded")
    return np.stack([found[index] for index in indices])
