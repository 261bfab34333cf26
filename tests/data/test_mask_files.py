"""Masks as people bring them: which pixels are read as holes."""

from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from svfr.data.masks import find_holes, read_masks
from svfr.data.video import ReadOptions

HOLE = np.zeros((24, 32), bool)
HOLE[4:12, 6:20] = True
PHOTO = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)


def write(path: Path, kind: str) -> Path:
    one = HOLE.astype(np.uint8)
    if kind == "0 and 1":
        Image.fromarray(one).save(path)
    elif kind == "16 bit":
        Image.fromarray(one.astype(np.uint16) * 40000).save(path)
    elif kind == "16 bit, 0 and 1":
        Image.fromarray(one.astype(np.uint16)).save(path)
    elif kind == "16 bit that hold 8":
        Image.fromarray(one.astype(np.uint16) * 255).save(path)
    elif kind == "16 bit colour, 0 and 1":
        cv2.imwrite(str(path), np.repeat(one[..., None], 3, axis=-1).astype(np.uint16))
    elif kind == "photo with a transparent hole":
        Image.fromarray(np.dstack([PHOTO, 255 - 255 * one])).save(path)
    elif kind == "0 and 1 in a video":
        with av.open(str(path.with_suffix(".mkv")), "w") as container:
            stream = container.add_stream("ffv1", rate=25, width=32, height=24, pix_fmt="gray")
            for image in (0 * one, one):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="gray")))
            container.mux(stream.encode(None))
        return path.with_suffix(".mkv")
    elif kind == "photos, the first without a hole":
        path.with_suffix("").mkdir()
        for index, alpha in enumerate((255 + 0 * one, 255 - 255 * one)):
            Image.fromarray(np.dstack([PHOTO, alpha])).save(path.with_suffix("") / f"{index}.png")
        return path.with_suffix("")
    return path


KINDS = [
    "0 and 1",
    "16 bit",
    "16 bit, 0 and 1",
    "16 bit that hold 8",
    "16 bit colour, 0 and 1",
    "photo with a transparent hole",
    "0 and 1 in a video",
    "photos, the first without a hole",
]


@pytest.mark.parametrize("kind", KINDS)
def test_masks_are_read_as_they_are_meant(tmp_path: Path, kind: str) -> None:
    masks = list(read_masks(write(tmp_path / "mask.png", kind), ReadOptions()))
    np.testing.assert_array_equal(masks[-1], np.where(HOLE, 255, 0))
    assert not np.any(masks[:-1])
    assert len(masks) == 1 + (kind == "0 and 1 in a video" or kind.startswith("photos"))


def film(seed: int = 0) -> list[np.ndarray]:
    """Moving blobs, with all levels from dark to bright."""
    rng = np.random.default_rng(seed)
    noise = [cv2.GaussianBlur(rng.random((96, 128, 3), np.float32), (0, 0), 6) for _ in range(5)]
    return [np.clip(128 + 900 * (image - 0.5), 20, 235).astype(np.uint8) for image in noise]


def test_painted_holes_are_found_and_bars_flashes_and_what_moves_are_not() -> None:
    images = film()
    for index, image in enumerate(images):
        image[20:40, 30:50], image[60:70, 90:120] = 255, 0  # these alone
        image[:8], image[-6:] = 0, 255  # bars
        image[75:85, 10 + 12 * index : 20 + 12 * index] = 255  # moves
    found, num_holes = find_holes(images)
    assert num_holes == 2
    wanted = np.zeros((96, 128), np.uint8)
    wanted[20:40, 30:50], wanted[60:70, 90:120] = 1, 1
    assert (found[wanted > 0] == 255).all()
    assert not found[cv2.dilate(wanted, np.ones((9, 9), np.uint8)) == 0].any()


def test_a_bright_sky_is_no_hole() -> None:
    y, x = np.mgrid[:96, :128]
    glow = np.clip(400 - 4 * np.hypot(y - 48, x - 64), 0, 255).astype(np.uint8)
    assert find_holes([np.repeat(glow[..., None], 3, axis=-1)] * 3)[1] == 0
