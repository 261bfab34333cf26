"""Made masks; masks as people bring them: which pixels are read as holes."""

from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from svfr.data.masks import Stroke, brush_strokes, find_holes, mask_clip, paint, read_masks
from svfr.data.video import ReadOptions


@pytest.mark.parametrize("size", [256, 64])
def test_coverage_is_that_of_gpens_masks(size: int) -> None:
    rng, count = np.random.default_rng(0), 1500
    shares = [100 * (mask_clip(1, (size, size), rng) > 0).mean() for _ in range(count)]
    assert np.mean(shares) == pytest.approx(19.8, abs=3.5 * np.std(shares) / np.sqrt(count))
    low, high = np.percentile(shares, [5, 95])
    assert low == pytest.approx(3.9, abs=0.8)
    assert high == pytest.approx(39.7, abs=2.5)


def test_strokes_have_gpens_parameters() -> None:
    rng = np.random.default_rng(0)
    drawn = [brush_strokes((512, 512), rng) for _ in range(400)]
    strokes = [stroke for each in drawn for stroke in each]
    assert {len(each) for each in drawn} == {1, 2, 3}
    assert {len(stroke.points) - 1 for stroke in strokes} == set(range(8, 28))
    widths = [stroke.width for stroke in strokes]
    assert 12 <= min(widths) < 14
    assert 78 < max(widths) <= 80
    points = np.concatenate([stroke.points for stroke in strokes])
    assert (points >= 0).all()
    assert (points <= 512).all()
    first = np.stack([stroke.points[1] - stroke.points[0] for stroke in strokes])
    whole = [
        ((s.points[1] > 0) & (s.points[1] < 512)).all() and step @ step > 1
        for s, step in zip(strokes, first, strict=True)
    ]
    angles = np.arctan2(-first[whole, 1], first[whole, 0])
    assert 4 * np.pi / 15 <= angles.min()
    assert angles.max() <= 8 * np.pi / 15
    assert angles.mean() == pytest.approx(2 * np.pi / 5, abs=0.02)


def test_values_size_and_seed() -> None:
    mask = mask_clip(1, (48, 96), np.random.default_rng(1))
    assert mask.shape == (1, 48, 96)
    assert mask.dtype == np.uint8
    assert set(np.unique(mask)) == {0, 255}
    np.testing.assert_array_equal(mask, mask_clip(1, (48, 96), np.random.default_rng(1)))
    assert (mask != mask_clip(1, (48, 96), np.random.default_rng(2))).any()


@pytest.mark.parametrize("size", [512, 128])
def test_strokes_are_as_wide_as_they_say(size: int) -> None:
    line = [Stroke(np.array([[size / 4, size / 2], [size * 3 / 4, size / 2]]), size / 8)]
    mask = paint(line, (size, size)) > 0
    assert mask[:, size // 2].sum() == pytest.approx(size / 8, abs=1)
    assert mask[size // 2].sum() == pytest.approx(size * 5 / 8, abs=2)  # with the round ends


def test_a_fixed_mask_is_the_same_on_all_frames() -> None:
    masks = mask_clip(3, (64, 64), np.random.default_rng(0))
    assert masks.shape == (3, 64, 64)
    np.testing.assert_array_equal(masks, np.repeat(mask_clip(1, (64, 64), np.random.default_rng(0)), 3, axis=0))


def test_a_moving_mask_follows_the_face() -> None:
    face = np.array([[40.0, 50], [80, 50], [60, 90]])
    landmarks = np.stack([face, face + np.array([10, -6]), np.full_like(face, np.nan), (face - 60) * 1.25 + 60])
    masks = mask_clip(4, (128, 128), np.random.default_rng(4), landmarks, moving=True)
    fixed = mask_clip(4, (128, 128), np.random.default_rng(4))
    np.testing.assert_array_equal(masks[0], fixed[0])
    shifted = np.roll(fixed[0], (-6, 10), axis=(0, 1))[10:-10, 14:-10]
    assert (masks[1][10:-10, 14:-10] == shifted).mean() > 0.99
    np.testing.assert_array_equal(masks[2], masks[1])  # where it was
    grown = cv2.warpAffine(fixed[0], np.array([[1.25, 0, -15], [0, 1.25, -15]]), (128, 128))[:110, :110]
    assert (masks[3][:110, :110] == np.where(grown > 127, 255, 0)).mean() > 0.98
    assert (masks[3] == fixed[0]).mean() < 0.9


def test_a_mirrored_mask_is_the_mirror_image() -> None:
    face = np.array([[40.0, 50], [80, 50], [60, 90]])
    for landmarks in (None, np.stack([face, face])):
        usual, mirrored = (
            mask_clip(2, (96, 128), np.random.default_rng(5), landmarks, landmarks is not None, mirrored=on)
            for on in (False, True)
        )
        assert (usual != mirrored).mean() > 0.1
        assert (usual[..., ::-1] == mirrored).mean() > 0.99  # but for rounding at the strokes' borders


def test_a_mask_cannot_follow_nothing() -> None:
    with pytest.raises(AssertionError, match="landmarks"):
        mask_clip(2, (32, 32), np.random.default_rng(0), moving=True)


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
