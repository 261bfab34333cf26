import cv2
import numpy as np
import pytest

from svfr.demo.clips import degraded_clip, held_out_clip, mean_chroma, median_3d, trivial_baseline, with_chroma

ALL = ("bfr", "colorization", "inpainting")


@pytest.mark.parametrize("tasks", [("bfr",), ("colorization",), ("inpainting",), ALL])
def test_clips_are_the_same_each_time_and_the_scene_is_that_of_every_task(tasks: tuple[str, ...]) -> None:
    clip = held_out_clip(0, tasks, 3, 32, "svfr")
    again = held_out_clip(0, tasks, 3, 32, "svfr")
    np.testing.assert_array_equal(clip.degraded, again.degraded)
    np.testing.assert_array_equal(clip.truth, held_out_clip(0, ("bfr",), 3, 32, "svfr").truth)
    assert clip.seed == 1_000_000
    assert (clip.blurred != clip.truth).any() == ("bfr" in tasks)
    gray = (np.ptp(clip.degraded.astype(int), axis=-1) == 0).all()
    assert gray == ("colorization" in tasks)
    assert (clip.mask is not None) == ("inpainting" in tasks)
    if clip.mask is not None:
        assert (clip.degraded[clip.mask > 127] == 255).all()


def test_median_against_plain_loops() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, 5, 4, 3)).astype(np.uint8)
    padded = np.pad(frames, [(1, 1)] * 3 + [(0, 0)], mode="edge")
    given = median_3d(frames)
    for t, y, x, c in np.ndindex(*frames.shape):
        assert given[t, y, x, c] == np.median(padded[t : t + 3, y : y + 3, x : x + 3, c])


def test_median_removes_single_outliers() -> None:
    frames = np.full((4, 6, 6, 3), 100, np.uint8)
    frames[2, 3, 3] = 255
    assert (median_3d(frames) == 100).all()


def test_chroma_is_replaced_and_luma_kept() -> None:
    frame = np.random.default_rng(0).integers(90, 160, (8, 8, 3)).astype(np.uint8)
    given = cv2.cvtColor(with_chroma(frame, (140.0, 115.0)), cv2.COLOR_RGB2YCrCb).astype(int)
    expected = cv2.cvtColor(frame, cv2.COLOR_RGB2YCrCb).astype(int)
    assert np.abs(given[..., 0] - expected[..., 0]).max() <= 1
    assert np.abs(given[..., 1:] - (140, 115)).max() <= 1


def test_trivial_baselines_do_what_they_are_for() -> None:
    size = 48
    for tasks in (("bfr",), ("colorization",), ("inpainting",), ALL):
        clip = degraded_clip(3, tasks, 4, size, "svfr")
        baseline = trivial_baseline(clip)
        assert baseline.shape == clip.truth.shape
        assert baseline.dtype == np.uint8
        if "inpainting" in tasks:
            assert clip.mask is not None
            hole = clip.mask > 127
            errors = [np.abs(x[hole].astype(int) - clip.truth[hole]).mean() for x in (baseline, clip.degraded)]
            assert errors[0] < errors[1]
        if tasks == ("inpainting",):
            np.testing.assert_array_equal(baseline[clip.mask == 0], clip.truth[clip.mask == 0])
        if tasks == ("colorization",):
            chroma = cv2.cvtColor(baseline[0], cv2.COLOR_RGB2YCrCb)[..., 1:].astype(float)
            inside = (baseline[0] > 5).all(axis=-1) & (baseline[0] < 250).all(axis=-1)
            assert np.abs(chroma[inside] - mean_chroma(size)).max() < 3
