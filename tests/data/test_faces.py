from pathlib import Path

import cv2
import numpy as np
import pytest

from svfr.data.alignment import FFHQ_TEMPLATE
from svfr.data.detectors import load_detector
from svfr.data.faces import crop, feather, fit, frontality, region, sharpness
from svfr.data.linking import track_largest_face
from tests import assets
from tests.assets import needs_assets


def texture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A smooth random picture, without detail that resampling must lose."""
    noise = np.random.default_rng(seed).random((height, width, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 4)
    spread = (smooth - smooth.min()) / (smooth.max() - smooth.min())
    return np.rint(spread * 255).astype(np.uint8)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / max(1e-9, np.mean((a.astype(float) - b.astype(float)) ** 2))))


def shift(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """By how many px b is shifted against a: least squares of their difference on a's slopes."""
    a, b = a.astype(float), b.astype(float)
    slope_y, slope_x = np.gradient(a, axis=(0, 1))
    slopes = np.stack([slope_x.ravel(), slope_y.ravel()], axis=1)
    return np.linalg.lstsq(slopes, (a - b).ravel(), rcond=None)[0]


def waves(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A picture known at any point x, y [px] of the frame."""
    value = 127 + 60 * np.sin(x / 7) * np.cos(y / 9) + 60 * np.sin(y / 6 + x / 15)
    return np.rint(value)[..., None].repeat(3, axis=-1).astype(np.uint8)


@pytest.mark.parametrize("size", [40, 64, 128])
def test_crop_is_subpixel_exact(size: int) -> None:
    rows, columns = np.mgrid[:200, :220] + 0.5
    result = crop(waves(columns, rows), (20.3, 30.7, 84.3, 94.7), size)
    assert result.shape == (size, size, 3)
    assert result.dtype == np.uint8
    rows, columns = (np.mgrid[:size, :size] + 0.5) * 64 / size
    assert np.abs(shift(waves(columns + 20.3, rows + 30.7), result)).max() < 0.03  # [px]


def test_crop_is_antialiased() -> None:
    stripes = np.zeros((128, 128, 3), np.uint8)
    stripes[:, ::2] = 255
    assert np.ptp(crop(stripes, (16, 16, 112, 112), 24)) < 30


def test_crop_repeats_the_edge_outside_of_the_frame() -> None:
    image = np.zeros((40, 50, 3), np.uint8)
    image[:, :2], image[:, -2:], image[-2:] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    result = crop(image, (-20, -10, 70, 80), 90)
    assert (result[5:45, :18] == (255, 0, 0)).all()
    assert (result[5:45, -18:] == (0, 255, 0)).all()
    assert (result[-28:, 30:60] == (0, 0, 255)).all()
    assert crop(image, (100, 100, 120, 120), 8).shape == (8, 8, 3), "even wholly outside"


def test_a_box_without_area() -> None:
    with pytest.raises(ValueError, match="no area"):
        crop(texture(20, 20), (5, 5, 5, 9), 8)


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((10.2, 20.0, 30.9, 40.0), (11, 20, 30, 40)),
        ((-5, -5, 200, 200), (0, 0, 64, 48)),
        ((60.5, 0, 61.2, 1), (61, 0, 61, 1)),
        ((100, 100, 120, 120), (100, 100, 100, 100)),
        ((-30, -30, -10, -10), (0, 0, 0, 0)),
    ],
)
def test_region(box: tuple[float, ...], expected: tuple[int, ...]) -> None:
    result = region(box, 64, 48)
    assert result == expected
    assert all(isinstance(value, int) for value in result)


@pytest.mark.parametrize("factor", [1.0, 1.5, 3.0])
@pytest.mark.parametrize("corner", [(60.0, 50.0), (60.37, 50.81), (-25.4, -10.2), (170.6, 120.1)])
def test_round_trip(factor: float, corner: tuple[float, float]) -> None:
    image = texture(240, 300)
    side = 128.0
    box = (*corner, corner[0] + side, corner[1] + side)
    patch = crop(image, box, round(side * factor))
    x0, y0, x1, y1 = inside = region(box, 300, 240)
    again = fit(patch, box, inside)
    original = image[y0:y1, x0:x1]
    assert again.shape == original.shape
    assert psnr(again, original) > 45
    assert np.abs(shift(original, again)).max() < 0.01  # [px]


def test_fit_antialiases_a_large_patch() -> None:
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 255
    assert np.ptp(fit(stripes, (0, 0, 32, 32), (4, 4, 28, 28))) < 30


def test_feather_rises_smoothly_from_the_border() -> None:
    box = (0.0, 0.0, 120.0, 120.0)
    alpha = feather(box, (0, 0, 120, 120), 1 / 12)
    assert alpha.shape == (120, 120, 1)
    assert alpha.dtype == np.float32
    middle = alpha[60, :, 0]
    np.testing.assert_array_equal(middle, middle[::-1])
    np.testing.assert_array_equal(alpha, alpha.transpose(1, 0, 2))
    assert middle[0] < 0.01
    assert (middle[10:110] == 1).all()
    assert (np.diff(middle[:11]) > 0).all()
    assert middle[5] == pytest.approx(1 - middle[4], abs=1e-6), "half way at half the width"


def test_the_frames_edge_does_not_fade() -> None:
    box = (-60.0, 10.0, 60.0, 130.0)
    alpha = feather(box, region(box, 200, 200), 1 / 12)
    assert alpha.shape == (120, 60, 1)
    assert (alpha[20:100, :50] == 1).all()
    assert alpha[60, -1] < 0.01


def test_sharpness() -> None:
    image = texture(64, 64)
    blurred = cv2.GaussianBlur(image, (0, 0), 6)
    assert sharpness(image) > 2 * sharpness(blurred) > 0
    assert sharpness(np.full((8, 8, 3), 9, np.uint8)) == 0


def test_frontality() -> None:
    straight = np.array([[100, 100], [160, 100], [130, 130], [110, 160], [150, 160]])
    assert frontality(straight) == pytest.approx(1)
    turned, profile, beyond = (straight + np.eye(5)[:, 2:3] * (x, 0) for x in (15, 30, 60))
    assert frontality(turned) == pytest.approx(0.5)
    assert frontality(profile) == pytest.approx(0)
    assert frontality(beyond) == 0
    turn = np.array([[np.cos(0.5), -np.sin(0.5)], [np.sin(0.5), np.cos(0.5)]])
    assert frontality(straight @ turn.T) == pytest.approx(np.cos(0.5))
    assert frontality(np.zeros((5, 2))) == 0
    assert frontality(FFHQ_TEMPLATE) > 0.95


@needs_assets
def test_a_crop_frames_a_face_as_ffhq_does() -> None:
    detector = load_detector("yunet", assets.NETWORKS)
    sides, distances, offsets = [], [], []
    for path in assets.PHOTOS:  # aligned: the wanted crop is the whole photo
        photo = assets.photo(path)
        [track] = track_largest_face([detector(photo)], 25)
        x0, y0, x1, y1 = track.boxes[0]
        sides.append((x1 - x0) / 1024)
        offsets.append([(x0 + x1) / 2048 - 0.5, (y0 + y1) / 2048 - 0.5])
        eyes = track.landmarks[0, 1] - track.landmarks[0, 0]
        distances.append(np.linalg.norm(eyes) / (x1 - x0) * 512)
    assert np.mean(sides) == pytest.approx(1, abs=0.03)
    assert np.abs(np.mean(offsets, axis=0)).max() < 0.03
    assert np.abs(np.array(sides) - 1).max() < 0.2
    assert np.mean(distances) == pytest.approx(126, abs=8)


@needs_assets
@pytest.mark.parametrize("name", ["clips_hq/lp_s20.mp4", "clips_lq/svfr_lq3.mp4"])
def test_a_real_clip_is_one_track_with_steady_crops(name: str) -> None:
    path: Path = assets.ASSETS / name
    detector = load_detector("yunet", assets.NETWORKS)
    frames = assets.frames(path, range(24))
    detections = [detector(frame) for frame in frames]
    [track] = track_largest_face(detections, 25)
    assert (track.start, track.stop) == (0, 24)
    raw = np.array([faces[0].box for faces in detections])
    side = track.boxes[:, 2] - track.boxes[:, 0]
    # Second differences: what a steadily moving crop does not have.
    shaking, steady = (np.abs(np.diff(b, 2, axis=0)).mean() for b in (raw, track.boxes))
    assert steady < 0.25 * shaking
    for frame, box, landmarks in zip(frames[::8], track.boxes[::8], track.landmarks[::8], strict=True):
        inside = (landmarks - box[:2]) / side.mean()
        assert (inside > 0.2).all()
        assert (inside < 0.9).all()
        x0, y0, x1, y1 = within = region(box, frame.shape[1], frame.shape[0])
        assert psnr(fit(crop(frame, box, 512), box, within), frame[y0:y1, x0:x1]) > 40
