import cv2
import numpy as np
import pytest

from svfr.data.alignment import FFHQ_TEMPLATE, five_points, similarity_transform
from svfr.models.identity import ARCFACE_TEMPLATE, align_face, id_crop, official_crop, official_matrix
from tests import golden_files as golden


def moved(points: np.ndarray, angle: float, scale: float, shift: tuple[float, float]) -> np.ndarray:
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return points @ (scale * turn).T + shift


def test_similarity_is_recovered() -> None:
    matrix = similarity_transform(moved(FFHQ_TEMPLATE, 0.4, 1.7, (30, -20)), FFHQ_TEMPLATE)
    points = np.column_stack([moved(FFHQ_TEMPLATE, 0.4, 1.7, (30, -20)), np.ones(5)])
    np.testing.assert_allclose(points @ matrix.T, FFHQ_TEMPLATE, atol=1e-9)
    assert matrix.dtype == np.float64


def test_similarity_is_the_least_squares_one() -> None:
    rng = np.random.default_rng(0)
    source, target = rng.normal(size=(5, 2)), rng.normal(size=(5, 2))
    rows = [row for x, y in source for row in ([x, -y, 1, 0], [y, x, 0, 1])]
    a, b, x, y = np.linalg.lstsq(np.array(rows), target.ravel(), rcond=None)[0]
    np.testing.assert_allclose(similarity_transform(source, target), [[a, -b, x], [b, a, y]], atol=1e-12)


def test_no_reflection() -> None:
    matrix = similarity_transform(FFHQ_TEMPLATE * (-1, 1), FFHQ_TEMPLATE)
    assert np.linalg.det(matrix[:, :2]) > 0


@pytest.mark.parametrize("value", [3.0, np.nan])
def test_degenerate_points(value: float) -> None:
    with pytest.raises(ValueError, match="coincide"):
        similarity_transform(np.full((5, 2), value), FFHQ_TEMPLATE)


def dots(points: np.ndarray, size: int) -> np.ndarray:
    image = np.zeros((size, size, 3), dtype=np.uint8)
    for point in points:
        cv2.circle(image, tuple(int(v) for v in np.rint(point)), max(2, size // 60), (255, 255, 255), -1)
    return image


def test_arcface_crop_puts_landmarks_on_the_template() -> None:
    landmarks = moved(FFHQ_TEMPLATE, 0.2, 0.8, (40, 10))
    crop = id_crop(dots(landmarks, 512), landmarks, "arcface")
    assert crop.shape == (3, 112, 112)
    assert crop.dtype.is_floating_point
    assert crop.min() == -1
    for x, y in np.rint(ARCFACE_TEMPLATE).astype(int):
        assert crop[0, y, x] > 0.5


def test_official_crop_is_right_at_256_only() -> None:
    for size, right in ((256, 5), (512, 1)):
        landmarks = FFHQ_TEMPLATE * size / 512
        crop = id_crop(dots(landmarks, size), landmarks, "official")
        assert crop.shape == (3, 112, 112)
        seen = cv2.connectedComponents((crop[0].numpy() > 0).astype(np.uint8))[0] - 1  # without the background
        assert seen == right, size


def test_unknown_style() -> None:
    with pytest.raises(ValueError, match="unknown ID crop 'ffhq': choose from arcface, official"):
        id_crop(np.zeros((8, 8, 3), np.uint8), FFHQ_TEMPLATE, "ffhq")


def test_official_crop_of_a_tiny_image() -> None:
    with pytest.raises(ValueError, match="16 px is too small"):
        official_crop(np.zeros((16, 16, 3), np.uint8))


@pytest.mark.parametrize("run", ["e2e", "combined"])
def test_released_id_crop(run: str) -> None:
    inputs, expected = golden.load(f"{run}_inputs.npz"), golden.load(f"{run}_id.npz")
    size = expected["ref_u8"].shape[0]
    matrix = official_matrix(inputs["landmarks"], size)
    # Its estimator is iterative and stops 2.5e-5 px beside the least squares that it approaches.
    np.testing.assert_allclose(matrix[:, :2], expected["warp_matrix"][:, :2], atol=1e-6)
    np.testing.assert_allclose(matrix[:, 2], expected["warp_matrix"][:, 2], atol=1e-4)
    crop = official_crop(expected["warped_u8"]).numpy()
    np.testing.assert_allclose(crop[0], expected["arcface_in_ch0"], atol=1e-4)
    # OpenCV 5 interpolates otherwise than the 4.14 that made the vectors: 3 levels at most.
    whole = id_crop(expected["ref_u8"], inputs["landmarks"], "official").numpy()
    np.testing.assert_allclose(whole[0], expected["arcface_in_ch0"], atol=3 / 127.5)


def test_five_points_of_68() -> None:
    landmarks = np.zeros((2, 68, 2))
    landmarks[:, 36:42] = [[9, 10], [10, 9], [11, 9], [12, 10], [11, 11], [10, 11]]
    landmarks[:, 42:48] = landmarks[:, 36:42] + (20, 1)
    landmarks[:, 30], landmarks[:, 48], landmarks[:, 54] = (21, 20), (12, 30), (28, 31)
    points = five_points(landmarks)
    assert points.shape == (2, 5, 2)
    np.testing.assert_allclose(points[1], np.array([[10.5, 10], [30.5, 11], [21, 20], [12, 30], [28, 31]]))


def test_aligned_face_is_the_id_crop() -> None:
    landmarks = moved(FFHQ_TEMPLATE, 0.2, 0.8, (40, 10))
    image = dots(landmarks, 512)
    face = align_face(image, landmarks)
    assert face.shape == (112, 112, 3)
    assert face.dtype == np.uint8
    for x, y in np.rint(ARCFACE_TEMPLATE).astype(int):
        assert face[y, x].min() > 200
    np.testing.assert_allclose(id_crop(image, landmarks, "arcface").permute(1, 2, 0), face / 127.5 - 1, atol=1e-6)
