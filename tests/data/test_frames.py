import numpy as np
import pytest
from PIL import Image

from svfr.data.frames import resize, resize_mask, task_input, to_gray, to_tensor, to_uint8, to_unit


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)


def test_resize_is_pils_bicubic_and_takes_width_first(image: np.ndarray) -> None:
    expected = np.asarray(Image.fromarray(image).resize((20, 10)))
    np.testing.assert_array_equal(resize(image, 20, 10), expected)
    np.testing.assert_array_equal(resize(image, 32, 24), image)


def test_mask_is_resized_by_nearest_and_cut_at_127() -> None:
    mask = np.array([[0, 127], [128, 255]], dtype=np.uint8)
    assert resize_mask(mask, 2, 2).tolist() == [[False, False], [True, True]]
    expected = [[False] * 6] * 2 + [[True] * 6] * 2
    assert resize_mask(mask, 6, 4).tolist() == expected


def test_gray_is_pils(image: np.ndarray) -> None:
    gray = to_gray(image)
    np.testing.assert_array_equal(gray[..., 0], np.asarray(Image.fromarray(image).convert("L")))
    np.testing.assert_array_equal(gray, to_gray(gray))
    assert gray.shape == image.shape


def test_task_input_is_gray_first_and_holes_last(image: np.ndarray) -> None:
    hole = np.zeros((24, 32), dtype=bool)
    hole[3:9, 4:20] = True
    degraded = task_input(image, ("colorization", "inpainting"), hole)
    assert (degraded[hole] == 255).all()
    np.testing.assert_array_equal(degraded[~hole], to_gray(image)[~hole])
    assert degraded.dtype == np.uint8


def test_task_input_leaves_what_no_task_asks_for(image: np.ndarray) -> None:
    np.testing.assert_array_equal(task_input(image, ("bfr",), np.ones((24, 32), dtype=bool)), image)
    np.testing.assert_array_equal(task_input(image, ("inpainting",), None), image)
    np.testing.assert_array_equal(task_input(image, ("bfr", "colorization"), None), to_gray(image))


def test_uint8_survives_the_way_through_tensors() -> None:
    values = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    tensor = to_tensor(values)
    assert tensor.shape == (3, 16, 16)
    assert (tensor.min(), tensor.max()) == (-1, 1)
    np.testing.assert_array_equal(to_uint8(to_unit(tensor)), values)
    np.testing.assert_array_equal(to_uint8(to_unit(tensor[None]))[0], values)


def test_unit_is_clamped(image: np.ndarray) -> None:
    unit = to_unit(to_tensor(image) * 3)
    assert unit.min() == 0
    assert unit.max() == 1
