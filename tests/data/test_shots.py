import numpy as np
import pytest

from svfr.data.shots import content_differences, shot_starts, with_cuts
from tests.assets import CLIPS, frames, needs_assets

THRESHOLD = 10.0


def shot(seed: int, length: int, speed: float = 1.0) -> list[np.ndarray]:
    """A moving pattern of its own colour and scale."""
    rng = np.random.default_rng(seed)
    colour, wave = rng.uniform(60, 220, 3), rng.uniform(0.05, 0.2, 2)
    y, x = np.mgrid[:48, :64]
    return [
        (colour * (0.75 + 0.25 * np.sin(wave[0] * x + wave[1] * y + speed * t / 10))[..., None]).astype(np.uint8)
        for t in range(length)
    ]


def starts(images: list[np.ndarray]) -> list[int]:
    return shot_starts(content_differences(images), THRESHOLD)


def test_joints_are_found_and_nothing_else() -> None:
    assert starts(shot(0, 20) + shot(1, 7) + shot(2, 30)) == [0, 20, 27]


def test_cuts_at_the_ends_are_found() -> None:
    assert starts(shot(0, 1) + shot(1, 10) + shot(2, 1)) == [0, 1, 11]


def test_fast_motion_is_no_cut() -> None:
    images = shot(3, 30, speed=40)
    assert content_differences(images).max() > THRESHOLD
    assert starts(images) == [0]


def test_a_flash_is_no_cut() -> None:
    images = shot(4, 20)
    images[10] = np.full_like(images[10], 255)
    assert starts(images) == [0]


def streamed(images: list[np.ndarray]) -> list[int]:
    given = list(with_cuts(images))
    assert all(one is other for (one, _), other in zip(given, images, strict=True))
    return [index for index, (_, starts_shot) in enumerate(given) if starts_shot]


def test_shots_of_a_stream_are_those_of_the_whole() -> None:
    for images in (shot(0, 20) + shot(1, 7) + shot(2, 30), shot(0, 1) + shot(1, 10) + shot(2, 1), shot(4, 3), []):
        assert streamed(images) == starts(images)[: len(images)]


@pytest.mark.parametrize("length", [8, 16])
def test_a_dissolve_starts_one_shot_amid_it(length: int) -> None:
    a, b = shot(0, 60), shot(1, 60)
    share = np.clip((np.arange(60) - 20) / length, 0, 1)
    mixed = [((1 - s) * one + s * other).astype(np.uint8) for s, one, other in zip(share, a, b, strict=True)]
    assert starts(mixed) == [0]
    _, start = streamed(mixed)
    assert 20 <= start <= 20 + length
    assert streamed(shot(3, 60, speed=40)) == [0]


def test_empty_and_single() -> None:
    assert starts([]) == [0]
    assert starts(shot(0, 1)) == [0]


def test_gray_pictures_have_no_hue() -> None:
    rng = np.random.default_rng(0)
    gray = np.full((48, 64, 3), 120, np.uint8)
    noisy = [(gray + rng.integers(-1, 2, gray.shape)).astype(np.uint8) for _ in range(10)]  # hue jumps all over
    assert content_differences(noisy).max() < 2


@needs_assets
@pytest.mark.slow
def test_real_clips_are_cut_where_they_meet() -> None:
    parts = [frames(clip, range(20)) for clip in CLIPS]
    assert starts([image for part in parts for image in part]) == list(range(0, 20 * len(parts), 20))
