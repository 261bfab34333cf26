"""Reading still pictures and animations (GIF, APNG, WebP, multi-page TIFF) by Pillow.

Pixels are (h, w, 3) uint8 RGB in sRGB, upright.
"""

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps

from svfr.data.errors import MAX_PIXELS, VideoError, check_pixels, refuse_heif

IMAGE_SUFFIXES = frozenset(
    {".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".avif"}
    | {".jp2", ".j2k", ".jpx", ".tga", ".ppm", ".pgm", ".pnm", ".heic", ".heif"}
)
# Pillow knows others, some of which start programs (EPS) or read what they are pointed to.
FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF", "GIF", "AVIF", "JPEG2000", "PPM")
ANIMATED = ("GIF", "PNG", "WEBP", "TIFF", "AVIF")  # may hold a film; the second picture of others is a preview
ANIMATION_UNIT = Fraction(1, 1000)  # [s] of the times of frames
NO_TIME, SHORTEST = 100, 10  # [ms] as browsers show a frame that says nothing, or at most the latter
PAGE_TIME = 40  # [ms] Assumption: of a page, which says nothing
GIF_FRAME = re.compile(rb"!\xf9\x04.{4}\0,", re.DOTALL)  # a graphic control block, and the picture that it is for
# Assumption: neighbouring frames differ by fewer levels (real clips: below 8, at a cut 30 to 80, as between photos).
COMPARED, THUMBNAIL, ALIKE = 12, 16, 20


@contextmanager
def open_image(file: Path, max_pixels: int) -> Iterator[Image.Image]:
    """A picture, not decoded yet. What is wrong with it, here or in the block, or more than `max_pixels`, is a
    VideoError."""
    formats = ("TGA",) if file.suffix.lower() == ".tga" else FORMATS  # TGA has nothing to be known by
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pictures that are odd; errors are told
            limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # ours takes its place
            try:
                image = Image.open(file, formats=formats)
            finally:
                Image.MAX_IMAGE_PIXELS = limit
            with image:
                check_pixels(file, *image.size, max_pixels)
                yield image
    except VideoError:
        raise
    except Image.UnidentifiedImageError as error:
        refuse_heif(file)
        raise VideoError(f"{file}: not a readable image: none of {', '.join(formats)}") from error
    except Exception as error:  # what Pillow raises of broken files has no end
        reason = getattr(error, "strerror", None) or f"not a readable image ({str(error) or type(error).__name__})"
        raise VideoError(f"{file}: {reason}") from error


def is_image(file: Path) -> bool:
    """Whether the content is a picture of a known format, by whatever name."""
    with suppress(VideoError), open_image(file, max_pixels=2**62):
        return True
    return False


def count_frames(file: Path, max_pixels: int) -> int:
    """How many frames a picture holds: more than 1 of an animation."""
    with open_image(file, max_pixels) as image:
        return getattr(image, "n_frames", 1) if image.format in ANIMATED else 1


def image_files(folder: Path) -> list[Path]:
    """The images of a folder, "2.png" before "10.png"; VideoError if there is none."""
    named = (file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES and file.name[0] != ".")
    if files := [file for file in named if file.is_file()]:
        return sorted(files, key=lambda file: [int(x) if x.isdigit() else x for x in re.split(r"(\d+)", file.name)])
    raise VideoError(f"{folder}: a folder without images ({' '.join(sorted(IMAGE_SUFFIXES))})")


def image_size(file: Path, max_pixels: int) -> tuple[int, int]:
    """(width, height) [px] from the header, upright."""
    with open_image(file, max_pixels) as image:
        # PNG's own `getexif` decodes the pixels, to see what may come after them.
        is_plain = image.format == "PNG" and b"eXIf" not in file.read_bytes()
        exif = Image.Image.getexif(image) if is_plain else image.getexif()
        turned = exif.get(0x0112, 1) >= 5  # EXIF orientations 5-8 swap the sides
        return (image.height, image.width) if turned else (image.width, image.height)


def read_image(file: Path, max_pixels: int) -> np.ndarray:
    """Decode a still to (h, w, 3) uint8; of an animation, the first frame."""
    with open_image(file, max_pixels) as image:
        return np.array(_to_srgb(ImageOps.exif_transpose(image)).convert("RGB"))


def read_alpha(file: Path, max_pixels: int) -> np.ndarray | None:
    """(h, w) uint8 opacity of a still; None if it is opaque."""
    with open_image(file, max_pixels) as image:
        if not image.has_transparency_data:
            return None
        return np.array(ImageOps.exif_transpose(image).convert("RGBA").getchannel("A"))


def are_frames(files: Sequence[Path]) -> bool:
    """Whether images are the frames of one film: of one size, not moving themselves, and most like the one before.

    Photos of several people are not. Images that cannot be read speak neither for nor against it.
    """
    alike = list[bool]()
    for index in range(0, len(files), max(1, len(files) // COMPARED)):
        with suppress(VideoError):
            if count_frames(files[index], MAX_PIXELS) > 1:
                return False
            sizes, pictures = zip(*map(_thumbnail, files[index : index + 2]), strict=True)
            alike.append(len({*sizes}) == 1 and float(np.abs(pictures[0] - pictures[-1]).mean()) < ALIKE)
    return not alike or sum(alike) > len(alike) / 2


def _thumbnail(file: Path) -> tuple[tuple[int, int], np.ndarray]:
    """Size, and gray levels of a few pixels."""
    with open_image(file, MAX_PIXELS) as image:
        size = image.size
        image.draft("L", (4 * THUMBNAIL, 4 * THUMBNAIL))  # JPEGs are decoded small
        small = image.convert("L").resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
        return size, np.asarray(small, dtype=np.float32)


def read_animation(file: Path, max_pixels: int) -> Iterator[tuple[np.ndarray, int]]:
    """Frames (h, w, 3) uint8, transparent parts white, each with the time [ms] that it is shown."""
    with open_image(file, max_pixels) as image:
        size, number = image.size, getattr(image, "n_frames", 1)
        for index in range(number):
            image.seek(index)
            image.load()  # WebP says the time only then
            if image.size != size:
                raise VideoError(f"{file}: its pages differ in size; save each as an image of its own")
            shown = PAGE_TIME if image.format == "TIFF" else image.info.get("duration") or 0
            frame = _to_srgb(image)
            if frame.has_transparency_data:
                frame = Image.alpha_composite(Image.new("RGBA", size, "white"), frame.convert("RGBA"))
            yield np.array(frame.convert("RGB")), round(shown) if shown > SHORTEST else NO_TIME
        is_gif = image.format == "GIF"
    data = file.read_bytes().rstrip(b"\0") if is_gif else b""
    if is_gif and (data[-1:] != b";" or len(GIF_FRAME.findall(data)) > number):  # damage can look like its end
        raise VideoError(f"{file}: ends after {number} frames: truncated or corrupt")


def _to_srgb(image: Image.Image) -> Image.Image:
    """8 bits in sRGB. Deeper integers lose their lower bits; those of 32 bits and floats are scaled by their range."""
    if image.mode == "F" or image.mode.startswith("I"):
        values = np.asarray(image, dtype=np.float64)
        if not np.isfinite(values).all():
            raise ValueError("pixels that are no numbers")
        highest = float(values.max(initial=0))
        # Assumption: floats up to 1 or up to 255 are meant so, whatever is brighter by what it holds.
        range_ = next((top for top in ((1.0, 255.0) if image.mode == "F" else (65535.0,)) if highest <= top), highest)
        levels = values / range_ * 255 if image.mode == "F" else values // ((range_ + 1) / 256)
        return Image.fromarray(levels.clip(0, 255).astype(np.uint8))
    profile = image.info.get("icc_profile")
    if profile and image.mode in ("RGB", "RGBA", "CMYK"):
        mode = "RGBA" if image.mode == "RGBA" else "RGB"
        with suppress(OSError, ImageCms.PyCMSError):  # of a broken profile
            source, target = ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
            return ImageCms.profileToProfile(image, source, target, outputMode=mode) or image
    return image
