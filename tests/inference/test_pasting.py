"""Pasting a face: no edge of detail or colour, holes whole, shares as asked."""

from fractions import Fraction

import numpy as np
import pytest

from svfr.data.faces import oval
from svfr.data.video import Frame
from svfr.inference.keep import KeepRules
from svfr.inference.pasting import put_back

BOX = np.array([40.0, 20.0, 168.0, 148.0])


@pytest.fixture
def frame() -> Frame:
    y, x = np.mgrid[:160, :200]
    image = np.stack([80 + 0.3 * x, 90 + 0.4 * y, 100 + 0.2 * (x + y)], axis=-1).astype(np.uint8)
    return Frame(0, image, 0, Fraction(1, 25))


def change(frame: Frame, result: np.ndarray) -> np.ndarray:
    return np.abs(result.astype(int) - frame.image).max(axis=-1)


def test_another_colour_fades_in_without_an_edge(frame: Frame) -> None:
    result = put_back(frame, np.full((64, 64, 3), (220, 40, 40), np.uint8), BOX, None, KeepRules())
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


def test_blend_is_the_share_of_the_face_and_holes_are_filled_in_any_case(frame: Frame) -> None:
    hole = np.zeros((160, 200), bool)
    hole[130:145, 60:80] = True  # where the oval ends
    restored = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    full, half = (put_back(frame, restored, BOX, hole, KeepRules(), blend=blend).astype(int) for blend in (1.0, 0.5))
    assert np.abs(half[80:90, 98:110] - (frame.image[80:90, 98:110] + full[80:90, 98:110]) / 2).max() <= 1
    assert (np.abs(half[hole] - full[hole]) == 0).all()
    assert change(frame, half)[hole].mean() > 20


def test_what_is_pasted_before_stays(frame: Frame) -> None:
    below = frame.image.copy()
    below[:, 170:] = 7
    result = put_back(frame, np.full((64, 64, 3), 200, np.uint8), BOX, None, KeepRules(tone=True), below=below)
    assert (result[:, 170:] == 7).all()
    assert (below[80:90, 98:110] == frame.image[80:90, 98:110]).all(), "and its array is not written to"
