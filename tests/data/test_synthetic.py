import numpy as np
import pytest

from svfr.data.synthetic import render_clip


def test_equal_arguments_give_equal_clips_and_the_first_frames_do_not_depend_on_the_number() -> None:
    first, second = render_clip(3, 3, 64), render_clip(3, 2, 64)
    assert np.array_equal(first.frames[:2], second.frames)
    assert np.array_equal(first.landmarks[:2], second.landmarks)
    assert not np.array_equal(first.frames, render_clip(4, 3, 64).frames)


def test_shapes_and_types() -> None:
    clip = render_clip(5, 2, 48, identity=7)
    assert clip.frames.shape == (2, 48, 48, 3)
    assert clip.frames.dtype == np.uint8
    assert clip.landmarks.shape == (2, 68, 2)
    assert clip.landmarks.dtype == np.float32
    assert clip.identity == 7
    assert np.isfinite(clip.landmarks).all()


def test_another_size_is_the_same_scene() -> None:
    small, large = render_clip(6, 1, 64), render_clip(6, 1, 128)
    np.testing.assert_allclose((small.landmarks + 0.5) * 2, large.landmarks + 0.5, atol=0.02)
    halved = large.frames[0].reshape(64, 2, 64, 2, 3).mean(axis=(1, 3))
    assert np.abs(halved - small.frames[0]).mean() < 4


@pytest.mark.parametrize("arguments", [(-1, 1, 64), (0, 0, 64), (0, 1, 8), (0, 1, 64, -1)])
def test_numbers_out_of_range_are_refused(arguments: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="must be at least"):
        render_clip(*arguments)
