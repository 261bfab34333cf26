"""What is wrong with a user's picture or video, in one line."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av

HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")  # ISO/IEC 23008-12
MAX_PIXELS = 40_000_000  # of a picture or a frame; beyond it lies a mistake or a bomb (8K has 33 million)


class VideoError(ValueError):
    """A video or picture that cannot be read or written; its message is one line that names the file and the reason."""


def check_pixels(path: Path, width: int, height: int, max_pixels: int) -> None:
    """Raises VideoError for a picture that may not fit into memory."""
    if width * height > max_pixels:
        pixels, allowing = f"{width * height / 1e6:.0f} million pixels", f"max_pixels={width * height}"
        raise VideoError(f"{path}: {width}x{height} are {pixels}; {allowing} would allow them")


def refuse_heif(path: Path) -> None:
    """Raises VideoError for pictures of iPhones, whatever their name: FFmpeg would show one tile, Pillow nothing."""
    with path.open("rb") as file:
        head = file.read(12)
    if head[4:8] == b"ftyp" and head[8:] in HEIF_BRANDS:
        raise VideoError(f"{path}: a HEIC picture, which is not read: export it as JPEG or PNG (heif-convert does it)")


@contextmanager
def one_line_errors(path: Path) -> Iterator[None]:
    """Turn errors of the system and the codecs into a `VideoError` that names `path`."""
    try:
        yield
    except (av.InvalidDataError, av.EOFError) as err:
        raise VideoError(f"{path}: damaged, cut off, or no video at all ({err.strerror})") from err
    except (OSError, av.FFmpegError) as err:
        raise VideoError(f"{path}: {err.strerror or err}") from err
