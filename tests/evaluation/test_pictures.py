"""The report's pictures show the frames that they say they show; the lag that fits best."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from svfr.data.frames import resize
from svfr.data.video import VideoInfo, probe
from svfr.evaluation import pictures
from svfr.evaluation.pictures import Pictures, best_lag
from svfr.evaluation.settings import EvalConfig

FRAMES, SIDE, HEIGHT = 20, 32, 16
JPEG_SLACK = 12  # levels, on the mean


def image(file: Path) -> np.ndarray:
    return np.asarray(Image.open(file)).astype(float)


def near(picture: np.ndarray, expected: np.ndarray) -> bool:
    return picture.shape == expected.shape and float(np.abs(picture - expected).mean()) < JPEG_SLACK


@pytest.fixture
def truth() -> list[np.ndarray]:
    """A bright bar that moves over a gray ramp."""
    frames = []
    for index in range(FRAMES):
        frame = np.repeat(np.linspace(0, 120, SIDE)[None, :, None], SIDE, axis=0).repeat(3, axis=2)
        frame[index : index + 8] += 120
        frames.append(frame.astype(np.uint8))
    return frames


def take(folder: Path, restored: list[np.ndarray], truth: list[np.ndarray], is_truth: bool = False) -> None:
    info = VideoInfo(folder, SIDE, SIDE, Fraction(25), FRAMES, FRAMES / 25, False, 0, "frames")
    settings = EvalConfig(picture_size=HEIGHT, slice_column=0.25)
    with Pictures(folder, info, settings, is_truth) as taken:
        for pair in zip(restored, truth, strict=True):
            taken.add(*pair)


def test_strip_slice_and_clip(tmp_path: Path, truth: list[np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "SLICE_FRAMES", 18)
    monkeypatch.setattr(pictures, "CLIP_FRAMES", 15)
    monkeypatch.setattr(pictures, "STRIP_FRAMES", 3)
    take(tmp_path, truth, truth, is_truth=True)
    small = [resize(frame, HEIGHT, HEIGHT) for frame in truth]
    assert near(image(tmp_path / "strip.jpg"), np.concatenate([small[0], small[10], small[19]], axis=1))
    slices = np.stack([frame[:, round((SIDE - 1) / 4)] for frame in truth[:18]], axis=1)
    assert np.array_equal(image(tmp_path / "slice.png"), slices)  # every pixel, so that flicker is what it is
    assert sorted(file.name for file in tmp_path.glob("frame_*")) == [f"frame_0000{i:02}.png" for i in (0, 10, 19)]
    assert np.array_equal(image(tmp_path / "frame_000010.png"), truth[10])
    assert probe(tmp_path / "clip.mp4").num_frames == 15
    assert not list(tmp_path.glob("worst_*"))


def test_worst_frames_beside_the_truth(tmp_path: Path, truth: list[np.ndarray]) -> None:
    restored = [frame.copy() for frame in truth]
    restored[3][:] = 255
    restored[5][:, 16:] = 255  # less wrong, and of the same moment
    restored[18][:, 28:] = 255
    take(tmp_path, restored, truth)
    assert sorted(file.name for file in tmp_path.glob("worst_*")) == ["worst_000003.jpg", "worst_000018.jpg"]
    beside = [resize(frame, HEIGHT, HEIGHT) for frame in (restored[3], truth[3])]
    assert near(image(tmp_path / "worst_000003.jpg"), np.concatenate(beside, axis=1))


@pytest.mark.parametrize("lag", [-3, -1, 0, 2])
def test_the_lag_that_fits_best(lag: int) -> None:
    random = np.random.default_rng(0)
    motion = np.cumsum(random.normal(0, 4, (40, 64)), axis=0)
    truth, restored = motion[5:35], motion[5 - lag : 35 - lag]
    assert best_lag(restored + random.normal(0, 2, restored.shape), truth) == lag
    assert best_lag(0.5 * restored + 30, truth) == lag  # another tone


def test_what_stands_still_or_is_short_has_no_lag() -> None:
    random = np.random.default_rng(0)
    still = np.full((30, 64), 7.0)
    for seed in range(20):
        noise = np.random.default_rng(seed).normal(0, 3, (2, 30, 64))
        assert best_lag(still + noise[0], still + 0.1 * noise[1]) == 0
    assert best_lag(still, still) == 0
    motion = random.normal(0, 9, (7, 64))
    assert best_lag(np.roll(motion, 1, axis=0), motion) == 0
