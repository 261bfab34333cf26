import cv2
import numpy as np
import pytest

from svfr.data.masks import Stroke, brush_strokes, mask_clip, paint


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
