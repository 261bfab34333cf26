"""What a result keeps of its input; pasting a face: no edge of detail or colour, holes whole, shares as asked."""

from typing import Any

import cv2
import numpy as np
import pytest

from svfr.config import make
from svfr.data.degradations import PRESETS, degrade
from svfr.data.faces import oval
from svfr.data.frames import to_gray
from svfr.inference.keep import TONE_SIGMA, KeepRules, blur, fill_smoothly, keep_luma, keep_tone, put_back
from svfr.inference.settings import Sampling
from tests import tiny
from tests.assets import ASSETS, frames, needs_assets

BOX = np.array([40.0, 20.0, 168.0, 148.0])


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)


def luma(image: np.ndarray) -> np.ndarray:
    return to_gray(image)[..., 0].astype(int)


@pytest.mark.parametrize("seed", range(4))
def test_luma_is_kept_within_one_level_for_any_colours(seed: int) -> None:
    random = np.random.default_rng(seed)
    levels = np.array([0, 1, 127, 254, 255]) if seed % 2 else np.arange(256)
    restored, source = random.choice(levels, (2, 64, 64, 3)).astype(np.uint8)
    kept = keep_luma(restored, source)
    assert np.abs(luma(kept) - luma(source)).max() <= 1


def test_luma_of_the_extreme_colours_is_kept_within_one_level() -> None:
    corners = np.stack(np.meshgrid(*[[0, 255]] * 3), axis=-1).reshape(-1, 3)
    grays = np.arange(256).repeat(3).reshape(-1, 3)
    restored = np.broadcast_to(corners[:, None], (8, 256, 3)).astype(np.uint8)
    source = np.broadcast_to(grays[None], (8, 256, 3)).astype(np.uint8)
    kept = keep_luma(restored, source)
    assert np.abs(luma(kept) - luma(source)).max() <= 1


def test_colours_that_fit_are_kept(image: np.ndarray) -> None:
    source = np.full_like(image, 128)
    mild = (image // 4 + 96).astype(np.uint8)
    chroma = mild.astype(int) - luma(mild)[..., None]
    kept = keep_luma(mild, source)
    assert np.abs(kept.astype(int) - 128 - chroma).max() <= 1
    np.testing.assert_array_equal(keep_luma(image, image), image)


# Tone


def test_tone_is_the_blur_of_the_source_and_detail_that_of_the_result(image: np.ndarray) -> None:
    source = np.roll(image, 5, axis=1) // 2

    def gaussian(x: np.ndarray) -> np.ndarray:
        return cv2.GaussianBlur(x.astype(np.float32), (0, 0), 2)

    expected = image - gaussian(image) + gaussian(source)
    np.testing.assert_allclose(keep_tone(image, source, None, 2, False), expected, atol=1e-3)
    np.testing.assert_array_equal(keep_tone(image, image, None, 2, False), image)


@pytest.mark.parametrize("size", [384, 512, 500, 768])  # 384: shrunk the most for its width
def test_a_wide_blur_is_a_gaussian_one(size: int) -> None:
    # An error as a restoration has it: fine grain, structure of some px, and a slow change of light.
    rng = np.random.default_rng(0)
    error = rng.normal(0, 10, (size, size, 3)) + np.linspace(-20, 20, size)[:, None, None]
    error[size // 3 : size // 2, size // 5 : size // 4] += 30
    error = error.astype(np.float32)
    off = np.abs(blur(error, TONE_SIGMA * size) - cv2.GaussianBlur(error, (0, 0), TONE_SIGMA * size))
    assert off.mean() < 0.015
    assert off.max() < 0.25
    flat = blur(np.full((size, size), 7, dtype=np.float32), TONE_SIGMA * size)
    np.testing.assert_allclose(flat, 7, atol=1e-4)


def test_colours_stay_where_the_source_has_none(image: np.ndarray) -> None:
    kept = keep_tone(image, image // 3, None, 2, True)
    change = kept - image
    assert np.ptp(change, axis=-1).max() < 1e-3
    assert change.max() < -10


@pytest.mark.parametrize("sigma", [2, 16])  # 16: blurred at a smaller size
def test_holes_of_the_source_do_not_count(image: np.ndarray, sigma: float) -> None:
    hole = np.zeros(image.shape[:2], dtype=bool)
    hole[5:15, 8:20] = True
    light = np.full_like(image, 100)
    painted = np.where(hole[..., None], np.uint8(255), light)
    kept = keep_tone(np.full_like(image, 60), painted, hole, sigma, False)
    np.testing.assert_allclose(kept, 100, atol=1e-3)


@needs_assets
@pytest.mark.parametrize("preset", sorted(PRESETS.keys() - {"film"}))  # which fades
@pytest.mark.parametrize("name", ["lp_d6", "vrt_2"])
def test_degradations_leave_the_tone_of_real_clips(preset: str, name: str) -> None:
    clip = frames(ASSETS / "clips_hq" / f"{name}.mp4", range(2))
    truth = np.stack([cv2.resize(frame, (512, 512), interpolation=cv2.INTER_AREA) for frame in clip])
    rng = np.random.default_rng(0)
    error = degrade(truth, PRESETS[preset].sample(rng, 512), rng).astype(np.float32) - truth
    tone = np.stack([cv2.GaussianBlur(frame, (0, 0), 512 * TONE_SIGMA) for frame in error])
    assert 10 * np.log10(255**2 / np.square(tone).mean()) > 38


# Holes


def soap_film(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The exact membrane (h, w): each unknown pixel is the mean of its neighbours; the image ends where it ends."""
    height, width = known.shape
    at = np.arange(known.size).reshape(height, width)
    padded = np.pad(at, 1, mode="edge")
    matrix, right = np.eye(known.size), np.where(known, values, 0).ravel()
    for shifted in (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]):
        np.add.at(matrix, (at[~known], shifted[~known]), -0.25)
    return np.linalg.solve(matrix, right).reshape(height, width)


@pytest.mark.parametrize("box", [(6, 18, 10, 26), (0, 9, 0, 12), (11, 14, 0, 32), (0, 24, 20, 32)])
def test_holes_are_filled_about_as_by_a_soap_film(box: tuple[int, int, int, int]) -> None:
    y, x = np.mgrid[:24, :32]
    values = (3 * np.sin(x / 5) + 4 * np.cos(y / 6) + x / 4).astype(np.float32)
    known = np.ones((24, 32), dtype=bool)
    known[box[0] : box[1], box[2] : box[3]] = False
    filled = fill_smoothly(np.repeat(values[..., None], 3, axis=-1), known)
    np.testing.assert_array_equal(filled[..., 0], filled[..., 2])
    np.testing.assert_array_equal(filled[known][:, 0], values[known])
    assert np.abs(filled[..., 0] - soap_film(values, known)).max() < 0.04 * np.ptp(values)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 3), (64, 64), (37, 50)])
def test_nothing_that_is_not_known_is_used(shape: tuple[int, int]) -> None:
    values = np.full((*shape, 3), np.nan, dtype=np.float32)
    known = np.zeros(shape, dtype=bool)
    np.testing.assert_array_equal(fill_smoothly(values, known), 0)
    known[-1, 0], values[-1, 0] = True, 7
    np.testing.assert_allclose(fill_smoothly(values, known), 7, rtol=1e-5)


def rules(tasks: tuple[str, ...], **sampling: Any) -> KeepRules:
    return KeepRules.resolve(tasks, make(Sampling, sampling).resolve(tiny.pipeline(heads=False).parts))


@pytest.mark.parametrize("tasks", [("inpainting",), ("colorization", "inpainting"), ("bfr", "inpainting")])
def test_no_seam_shows_around_holes(tasks: tuple[str, ...]) -> None:
    y, x = np.mgrid[:64, :64]
    source = np.repeat((60 + x + y // 2)[..., None], 3, axis=-1).astype(np.uint8)
    hole = np.zeros((64, 64), dtype=bool)
    hole[20:40, 16:48] = True
    restored = (source * 0.8 + 30).astype(np.uint8)  # right but for its light
    painted = np.where(hole[..., None], np.uint8(255), source)
    kept = rules(tasks, strategy="chained").apply(restored, painted, hole, 64)
    assert np.abs(kept.astype(int) - source).max() <= 4
    assert np.abs(restored.astype(int) - source).max() > 10


def test_rules_by_task_and_strategy() -> None:
    assert rules(("inpainting",), strategy="chained") == KeepRules(known=True)
    assert rules(("colorization",), strategy="chained") == KeepRules(luminance=True, colorizing=True)
    assert rules(("bfr", "inpainting"), strategy="chained") == KeepRules(tone=True)
    assert rules(("bfr", "colorization"), strategy="chained") == KeepRules(tone=True, colorizing=True)
    assert not rules(("bfr",), strategy="chained", keep_tone=False).anything
    assert not rules(("bfr", "colorization", "inpainting"), strategy="released").anything
    assert rules(("bfr",), strategy="released", keep_tone=True).tone


# Pasting


@pytest.fixture
def frame() -> np.ndarray:
    y, x = np.mgrid[:160, :200]
    return np.stack([80 + 0.3 * x, 90 + 0.4 * y, 100 + 0.2 * (x + y)], axis=-1).astype(np.uint8)


def change(frame: np.ndarray, result: np.ndarray) -> np.ndarray:
    return np.abs(result.astype(int) - frame).max(axis=-1)


def test_another_colour_fades_in_without_an_edge(frame: np.ndarray) -> None:
    result = put_back(frame, frame, np.full((64, 64, 3), (220, 40, 40), np.uint8), BOX, None, KeepRules())
    changed = change(frame, result)
    assert (result[80:92, 98:110] == (220, 40, 40)).all()
    assert changed[20:148, [41, 167]].max() <= 1, "at the crop's border"
    assert changed[22:30, 42:50].max() == 0, "in its corner"
    steps = max(np.abs(np.diff(change(frame, result), axis=axis)).max() for axis in (0, 1))
    assert steps < 12  # of 140 levels; the square of before had 18


def test_the_oval_leans_as_the_face_does() -> None:
    upright = oval(BOX, (40, 20, 168, 148), None, 0.3)[..., 0]
    lying = np.array([[104, 60], [104, 110], [90, 85], [80, 65], [80, 105]], np.float32)  # eyes above one another
    turned = oval(BOX, (40, 20, 168, 148), lying, 0.3)[..., 0]
    np.testing.assert_allclose(turned, np.rot90(upright, -1), atol=1e-5)
    assert upright.max() == 1
    assert upright[64, 0] == upright[0, 0] == 0


def test_blend_is_the_share_of_the_face_and_holes_are_filled_in_any_case(frame: np.ndarray) -> None:
    hole = np.zeros((160, 200), bool)
    hole[130:145, 60:80] = True  # where the oval ends
    restored = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    full, half = (
        put_back(frame, frame, restored, BOX, hole, KeepRules(), blend=blend).astype(int) for blend in (1.0, 0.5)
    )
    assert np.abs(half[80:90, 98:110] - (frame[80:90, 98:110] + full[80:90, 98:110]) / 2).max() <= 1
    assert (np.abs(half[hole] - full[hole]) == 0).all()
    assert change(frame, half)[hole].mean() > 20


def test_what_is_in_front_of_a_face_stays_and_a_parser_that_sees_nothing_is_not_believed(frame: np.ndarray) -> None:
    restored = np.full((64, 64, 3), (220, 40, 40), np.uint8)
    seen = np.full((64, 64), 255, np.uint8)
    seen[40:] = 0  # a hand in front of the chin
    result = put_back(frame, frame, restored, BOX, None, KeepRules(), visible=seen)
    assert (result[80:90, 98:110] == (220, 40, 40)).all()
    assert change(frame, result)[20 + 88 :].max() <= 1
    blind = put_back(frame, frame, restored, BOX, None, KeepRules(), visible=np.zeros_like(seen))
    assert (blind == put_back(frame, frame, restored, BOX, None, KeepRules())).all()


def test_a_parsed_face_whose_oval_lies_outside_of_the_frame_changes_nothing(frame: np.ndarray) -> None:
    corner = np.array([190.0, 150.0, 290.0, 250.0])
    seen = np.full((64, 64), 255, np.uint8)
    with np.errstate(all="raise"):
        result = put_back(frame, frame, np.full((64, 64, 3), 220, np.uint8), corner, None, KeepRules(), visible=seen)
    assert (result == frame).all()


def test_what_is_pasted_before_stays(frame: np.ndarray) -> None:
    below = frame.copy()
    below[:, 170:] = 7
    result = put_back(below, frame, np.full((64, 64, 3), 200, np.uint8), BOX, None, KeepRules(tone=True))
    assert (result[:, 170:] == 7).all()
    assert (below[80:90, 98:110] == frame[80:90, 98:110]).all(), "and its array is not written to"
