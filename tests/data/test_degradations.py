import dataclasses
import json
import threading
from pathlib import Path

import numpy as np
import pytest

from svfr.data.degradations import PRESETS, Degradation, blur_kernel, degrade, shrinkage
from svfr.data.h264 import h264_round_trip

TASKS = Path("/proc/self/task")  # a folder for each thread
CLEAN = Degradation(
    preset="none",
    kernel_size=1,
    sigma_x=1.0,
    sigma_y=1.0,
    angle=0.0,
    noise=(0.0, 0.0),
    gray_noise=(False, False),
    scale=1.0,
    downsample="area",
    upsample="bicubic",
    crf=0,
    rate=25,
)


def changed(**values) -> Degradation:
    return dataclasses.replace(CLEAN, **values)


def clip(num_frames: int = 4, height: int = 64, width: int = 80) -> np.ndarray:
    """Gray waves that move, with fine detail; gray, since 4:2:0 costs colour whatever the CRF."""
    y, x = np.mgrid[:height, :width]
    frames = [127 + 60 * np.sin(0.2 * x + 0.3 * t) * np.cos(0.17 * y) + 30 * np.sin(1.9 * x) for t in range(num_frames)]
    return np.repeat(np.rint(np.stack(frames))[..., None], 3, axis=-1).astype(np.uint8)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2)))


def apply(degradation: Degradation, seed: int = 0) -> np.ndarray:
    return degrade(clip(), degradation, np.random.default_rng(seed))


@pytest.mark.parametrize("name", PRESETS)
def test_parameters_lie_in_the_presets_ranges_and_fill_them(name: str) -> None:
    preset, rng = PRESETS[name], np.random.default_rng(0)
    drawn = [preset.sample(rng, 512) for _ in range(600)]
    assert {d.preset for d in drawn} == {name}
    assert {d.kernel_size for d in drawn} == {21}
    for values, (low, high) in (
        ([d.sigma_x for d in drawn], preset.sigma),
        ([d.sigma_y for d in drawn], preset.sigma),
        ([d.noise[0] for d in drawn], preset.noise_before),
        ([d.noise[1] for d in drawn], preset.noise_after),
        ([d.scale for d in drawn], preset.scale),
    ):
        assert low <= min(values) <= low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) <= max(values) <= high
    assert {d.crf for d in drawn} == set(range(*preset.crf))
    round_ones = np.mean([d.sigma_x == d.sigma_y for d in drawn])
    assert abs(round_ones - preset.isotropic) < 4 * np.sqrt(0.7 * 0.3 / 600)
    shares = [np.mean([d.downsample == mode for d in drawn]) for mode in ("area", "bilinear", "bicubic")]
    np.testing.assert_allclose(shares, preset.downsample, atol=4 * np.sqrt(0.25 / 600))
    assert all(d.upsample == (preset.upsample or d.downsample) for d in drawn)


def test_bounds_of_the_crf_that_the_sources_state() -> None:
    assert {name: preset.crf for name, preset in PRESETS.items() if name not in ("svfr", "film", "vhs")} == {
        "vfhq": (18, 25),
        "dicface": (18, 25),
        "keep_train": (25, 45),
        "keep_easy": (18, 26),
    }


@pytest.mark.parametrize("name", PRESETS)
def test_parameters_written_down_give_the_same_clip_again(name: str) -> None:
    drawn = PRESETS[name].sample(np.random.default_rng(3), 64)
    again = Degradation(**json.loads(json.dumps(dataclasses.asdict(drawn))))
    assert again.preset == name
    np.testing.assert_array_equal(apply(drawn), apply(again))
    assert (apply(drawn) != apply(drawn, seed=1)).any()


def test_the_next_draw_does_not_depend_on_what_came_out() -> None:
    after = set()
    for preset in PRESETS.values():
        rng = np.random.default_rng(5)
        preset.sample(rng, 512)
        after.add(float(rng.uniform()))
    assert len(after) == 1


def test_nothing_done_is_nearly_nothing_changed() -> None:
    assert psnr(apply(CLEAN), clip()) > 45


@pytest.mark.parametrize(
    "stage",
    [
        {"kernel_size": 11, "sigma_x": 3.0, "sigma_y": 3.0},
        {"noise": (10.0, 0.0)},
        {"noise": (0.0, 10.0)},
        {"scale": 4.0},
        {"crf": 40},
    ],
    ids=lambda stage: next(iter(stage)),
)
def test_each_stage_has_its_effect(stage: dict) -> None:
    assert psnr(apply(changed(**stage)), clip()) < 40


def test_noise_differs_between_frames_and_has_the_given_spread() -> None:
    still = np.full((3, 64, 64, 3), 128, dtype=np.uint8)
    noise = degrade(still, changed(noise=(8.0, 0.0), gray_noise=(True, False)), np.random.default_rng(0)) - 128.0
    assert noise.std() == pytest.approx(8, rel=0.05)
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.05
    assert np.abs(noise[..., 0] - noise[..., 1]).max() <= 3  # gray noise; what is left is rounding
    coloured = degrade(still, changed(noise=(8.0, 0.0)), np.random.default_rng(0)) - 128.0
    assert np.abs(coloured[..., 0] - coloured[..., 1]).max() > 8


def test_noise_before_downsampling_is_averaged_away() -> None:
    still = np.full((1, 64, 64, 3), 128, dtype=np.uint8)
    before = degrade(still, changed(scale=4.0, noise=(10.0, 0.0)), np.random.default_rng(0)).std()
    after = degrade(still, changed(scale=4.0, noise=(0.0, 10.0)), np.random.default_rng(0)).std()
    assert before < after / 2


def test_kernel_has_the_given_spread_along_turned_axes() -> None:
    kernel = blur_kernel(changed(kernel_size=41, sigma_x=4.0, sigma_y=1.5, angle=np.pi / 6)).astype(np.float64)
    assert kernel.sum() == pytest.approx(1, abs=1e-6)
    y, x = np.mgrid[-20:21, -20:21]
    moments = np.array([[(kernel * x * x).sum(), (kernel * x * y).sum()], [0, (kernel * y * y).sum()]])
    moments[1, 0] = moments[0, 1]
    values, vectors = np.linalg.eigh(moments)
    np.testing.assert_allclose(np.sqrt(values), [1.5, 4.0], rtol=0.01)
    assert abs(vectors[:, 1] @ [np.cos(np.pi / 6), np.sin(np.pi / 6)]) == pytest.approx(1, abs=1e-3)


def test_the_same_blur_for_all_frames_whatever_their_number() -> None:
    blurred = changed(kernel_size=11, sigma_x=3.0, sigma_y=1.0)
    whole = degrade(np.repeat(clip(1), 3, axis=0), blurred, np.random.default_rng(0))
    assert np.abs(whole.astype(int) - whole[:1]).max() <= 4  # frames differ only by what the codec makes of them


def test_small_frames_are_degraded_less_in_pixels() -> None:
    large, small = (PRESETS["vfhq"].sample(np.random.default_rng(1), size) for size in (512, 128))
    assert shrinkage(512) == shrinkage(1024) == 1
    assert small.sigma_x == pytest.approx(large.sigma_x * 0.25**0.75)
    assert small.scale == pytest.approx(4 * 0.25**0.75)
    assert (large.scale, small.kernel_size) == (4, 9)
    assert (small.crf, small.noise) == (large.crf, large.noise)


@pytest.mark.parametrize("shape", [(1, 33, 47), (3, 64, 64), (2, 8, 8)])
def test_size_and_number_of_frames_are_kept(shape: tuple[int, int, int]) -> None:
    frames = clip(*shape)
    result = degrade(frames, PRESETS["keep_train"].sample(np.random.default_rng(0), 33), np.random.default_rng(0))
    assert result.shape == frames.shape
    assert result.dtype == np.uint8


def test_compression_is_worse_by_crf_and_milder_at_a_low_rate() -> None:
    frames = clip(8)
    values = [psnr(h264_round_trip(frames, crf), frames) for crf in (0, 12, 24, 36, 48)]
    assert values == sorted(values, reverse=True)
    assert values[0] - values[-1] > 10
    assert psnr(h264_round_trip(frames, 36, rate=1), frames) > values[3] + 3
    np.testing.assert_array_equal(h264_round_trip(frames, 5, rate=1), h264_round_trip(frames, -2))


def test_compression_keeps_order_odd_sizes_and_is_reproducible() -> None:
    frames = np.stack([np.full((31, 45, 3), 20 * t, dtype=np.uint8) for t in range(12)])
    result = h264_round_trip(frames, 20)
    assert np.abs(result.astype(int) - frames).max() < 4
    np.testing.assert_array_equal(result, h264_round_trip(frames, 20))


def test_compression_is_the_same_every_time() -> None:
    # With x264's macroblock tree, 100 runs of this gave up to 9 different results on a processor with AVX-512.
    frames = clip(4, 46, 58)
    first, litter = h264_round_trip(frames, 21), []
    for length in np.random.default_rng(0).integers(10**3, 2 * 10**5, size=40):
        litter.append(np.random.default_rng(length).bytes(length))  # other addresses and other old contents
        np.testing.assert_array_equal(h264_round_trip(frames, 21), first)


@pytest.mark.skipif(not TASKS.is_dir(), reason="threads are counted in /proc")
def test_h264_starts_no_threads() -> None:
    # Loader workers share the cores; the scaler's own choice was as many threads as cores, anew for each frame.
    most, done = 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.is_set():
            most = max(most, len(list(TASKS.iterdir())))

    frames = clip(8)
    h264_round_trip(frames, 28)
    watcher = threading.Thread(target=watch)
    watcher.start()
    before = len(list(TASKS.iterdir()))
    for _ in range(10):
        h264_round_trip(frames, 28)
    done.set()
    watcher.join()
    assert 0 < most <= before


def test_compression_keeps_colours() -> None:
    frames = np.zeros((2, 32, 96, 3), dtype=np.uint8)
    for index, colour in enumerate(((200, 60, 50), (40, 190, 70), (60, 70, 210))):
        frames[:, :, 32 * index : 32 * index + 32] = colour
    result = h264_round_trip(frames, 0)
    assert np.abs(result.astype(int) - frames)[:, :, 8:24].max() <= 3
