"""Each defect of film and tape where it belongs, by what it does to made clips."""

from typing import Any

import numpy as np
import pytest

from svfr.data.degradations import PRESETS, degrade
from svfr.data.media import MEDIA, film, vhs
from svfr.synthetic import render_clip
from tests.data.test_dataset import dataset

SIZE = 128


def still(level: float = 128, num_frames: int = 4) -> np.ndarray:
    return np.full((num_frames, SIZE, SIZE, 3), level, dtype=np.float32)


def rngs(count: int = 20) -> list[np.random.Generator]:
    return [np.random.default_rng(seed) for seed in range(count)]


@pytest.mark.parametrize("name", MEDIA)
@pytest.mark.parametrize("shape", [(2, 64, 48), (1, 33, 47), (2, 8, 8)])
def test_size_range_and_the_same_each_time(name: str, shape: tuple[int, int, int]) -> None:
    frames = np.random.default_rng(0).uniform(0, 255, (*shape, 3)).astype(np.float32)
    for seed in range(6):
        one, other = (MEDIA[name](frames, np.random.default_rng(seed)) for _ in range(2))
        np.testing.assert_array_equal(one, other)
        assert one.shape == frames.shape
        assert np.isfinite(one).all()
        assert 0 <= one.min() <= one.max() <= 255


def test_film_fades_flickers_and_has_grain_of_its_own_in_each_frame() -> None:
    clips = [film(still(), rng) for rng in rngs()]
    tones = np.array([clip.mean(axis=(0, 1, 2)) for clip in clips])
    assert (tones[:, 0] >= tones[:, 2] - 3).all()  # blue, the complement of yellow, goes before red
    assert np.median(tones[:, 0] - tones[:, 2]) > 5
    assert np.ptp(tones[:, 2]) > 20
    assert np.median([np.median(clip, axis=(1, 2, 3)).std() for clip in clips]) > 1  # flicker
    for clip in clips:
        grain = [frame - np.median(frame) for frame in clip.mean(axis=-1)]
        assert abs(np.corrcoef(grain[0].ravel(), grain[1].ravel())[0, 1]) < 0.9
        assert np.abs(grain[0]).mean() > 1
    whites = [film(still(250), rng) for rng in rngs(5)]
    assert max(clip.mean() for clip in whites) < 252


def test_scratches_are_upright_and_stay_while_dust_is_gone_in_the_next_frame() -> None:
    upright = lasting = 0
    for rng in rngs(30):
        luma = film(still(num_frames=6), rng).mean(axis=-1)
        columns = np.abs(np.median(luma, axis=1) - np.median(luma, axis=(1, 2))[:, None])  # (f, w)
        if columns.max() > 25:
            upright += 1
            near = columns.argmax(axis=1)
            lasting += int(np.median(np.abs(near - np.median(near))) <= 3)
    assert upright > 5
    assert lasting > upright / 2


def test_tape_blurs_and_shifts_colour_more_than_luma() -> None:
    frames = np.zeros((1, SIZE, SIZE, 3), np.float32)
    frames[:, :, : SIZE // 2] = (200, 60, 60)
    frames[:, :, SIZE // 2 :] = (60, 101, 200)  # of the same luma, nearly
    edge = np.zeros((1, SIZE, SIZE, 3), np.float32)
    edge[:, :, SIZE // 2 :] = 200

    def width_and_place(profile: np.ndarray) -> tuple[float, float]:
        low, high = profile[: SIZE // 4].mean(), profile[-SIZE // 4 :].mean()
        share = (profile - low) / (high - low)
        rise = [np.flatnonzero(share > level)[0] for level in (0.2, 0.5, 0.8)]
        return float(rise[2] - rise[0]), float(rise[1])

    colours, lumas = [], []
    for seed in range(8):
        coloured = vhs(frames, np.random.default_rng(seed))[0]
        gray = vhs(edge, np.random.default_rng(seed))[0]
        rows = slice(SIZE // 4, SIZE // 2)
        colours.append(width_and_place((coloured[rows, :, 2] - coloured[rows, :, 0]).mean(axis=0)))
        lumas.append(width_and_place(gray[rows, :, 1].mean(axis=0)))
    (colour_width, colour_place), (luma_width, luma_place) = np.mean(colours, axis=0), np.mean(lumas, axis=0)
    assert colour_width > luma_width + 1
    assert colour_place > luma_place


def test_luma_of_a_tape_rings_and_head_switching_tears_its_lowest_lines() -> None:
    edge = still(60, 1)
    edge[:, :, SIZE // 2 :] = 180
    overshoot, torn = [], []
    for rng in rngs(12):
        picture = vhs(edge, rng)[0].mean(axis=-1)
        overshoot.append(np.median(picture[: SIZE // 2], axis=0)[SIZE // 2 :].max() - 180)
        lines = np.abs(picture - edge[0, ..., 0]).mean(axis=1)
        torn.append(lines[-4:].mean() > 3 * lines[: SIZE // 2].mean())
    assert np.mean(overshoot) > 6
    assert 0 < sum(torn) < 12


def test_presets_are_worse_than_their_codec_and_still_show_the_face() -> None:
    truth = render_clip(3, 2, 64).frames
    for name in MEDIA:
        for seed in range(4):
            rng = np.random.default_rng(seed)
            result = degrade(truth, PRESETS[name].sample(rng, 64), rng)
            assert 2 < np.abs(result.astype(float) - truth).mean() < 80
            assert np.corrcoef(result.ravel(), truth.ravel())[0, 1] > 0.7


def test_a_share_of_the_views_with_bfr_is_of_old_media() -> None:
    tasks: dict[str, Any] = {"task_weights": {"bfr": 1.0, "colorization": 1.0}, "num_views": 2, "flip": False}
    plain, some, always = (dataset(old_media=share, **tasks) for share in (0.0, 0.5, 1.0))
    changed = {0.5: 0, 1.0: 0}
    for index in range(10):
        base = plain[0, index]
        view = int(base.task_prompts[:, 0].argmax())  # with bfr
        for share, data in ((0.5, some), (1.0, always)):
            other = data[0, index]
            changed[share] += int((other.lq[view] != base.lq[view]).any())
            assert (other.lq[1 - view] == base.lq[1 - view]).all()
    assert changed[1.0] == 10
