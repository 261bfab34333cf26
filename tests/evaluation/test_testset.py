"""Fixed test sets: numbers by seed and name alone, alignment, the order of degradations."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from svfr.data.alignment import FFHQ_TEMPLATE
from svfr.data.video import VideoError, probe, read_frames
from svfr.evaluation import settings, testset
from tests import tiny

TASKS = ["bfr", "colorization", "inpainting", "bfr+colorization+inpainting"]


def inputs(name: str = "a", seed: int = 0, tasks: list[str] = TASKS):
    truth = tiny.clip(4, 64, 64)
    made = testset.make_inputs(truth, name, tasks, settings.TestsetConfig(preset="vfhq", seed=seed))
    return truth, made.frames, made.mask, made.made_by


def test_numbers_depend_on_seed_and_name_alone() -> None:
    _, first, mask, done = inputs()
    _, again, same_mask, same = inputs(tasks=TASKS[::-1])
    assert done == same
    assert all(np.array_equal(first[task], again[task]) for task in TASKS)
    assert np.array_equal(mask, same_mask)
    for other in (inputs(name="b"), inputs(seed=1)):
        assert other[3]["bfr"] != done["bfr"]
        assert not np.array_equal(other[1]["bfr"], first["bfr"])
        assert not np.array_equal(other[2], mask)


def test_each_task_does_its_part_in_order() -> None:
    truth, made, mask, done = inputs()
    assert mask is not None
    hole = np.broadcast_to(mask > 127, truth.shape[:3])
    assert 0 < hole.mean() < 1
    assert done["inpainting"]["mask"] == {"share": pytest.approx(hole.mean())}
    gray = np.stack([np.asarray(Image.fromarray(frame).convert("L")) for frame in truth])
    assert np.array_equal(made["colorization"], np.repeat(gray[..., None], 3, axis=-1))
    assert np.array_equal(made["inpainting"][~hole], truth[~hole])
    assert (made["inpainting"][hole] == 255).all()
    assert made["bfr"].shape == truth.shape
    assert np.abs(made["bfr"].astype(int) - truth).mean() > 3
    low = np.stack([np.asarray(Image.fromarray(frame).convert("L")) for frame in made["bfr"]])
    combined = made["bfr+colorization+inpainting"]
    assert np.array_equal(combined[~hole], np.repeat(low[..., None], 3, axis=-1)[~hole])
    assert (combined[hole] == 255).all()
    assert done["bfr+colorization+inpainting"]["degradation"] == done["bfr"]["degradation"]
    assert done["colorization"].keys() == {"gray"}


def test_alignment_puts_the_median_face_on_the_template() -> None:
    points = np.tile(FFHQ_TEMPLATE * 0.5 + (30, 10), (5, 1, 1)).astype(np.float32)
    points[1] += 1.5
    points[2] -= 1.5
    points[3] = np.nan
    matrices = testset.alignment_matrices(points, 256, each_frame=False)
    assert matrices == pytest.approx(np.array([[[1, 0, -30], [0, 1, -10]]]), abs=1e-5)
    each = testset.alignment_matrices(points, 256, each_frame=True)
    assert each[:, :, 2] == pytest.approx(
        np.array([(-30, -10), (-31.5, -11.5), (-28.5, -8.5), (-28.5, -8.5), (-30, -10)]), abs=1e-4
    )
    with pytest.raises(VideoError, match="no face"):
        testset.alignment_matrices(np.full((2, 5, 2), np.nan), 256, each_frame=False)


def test_warp_keeps_places_also_where_it_shrinks() -> None:
    y, x = np.mgrid[:120, :160].astype(float)
    ramp = np.stack([x, y, x + y], axis=-1) / 2
    frames = np.rint(ramp)[None].astype(np.uint8)
    for scale in (0.25, 0.5, 1.3):
        size = 24
        matrix = np.array([[[scale, 0, -5.0], [0, scale, -3.0]]])
        warped = testset.warp(frames, matrix, size)[0].astype(float)
        v, u = np.mgrid[:size, :size]
        expected = np.stack([(u + 5) / scale, (v + 3) / scale], axis=-1) / 2
        assert np.abs(warped[..., :2] - expected)[2:-2, 2:-2].max() < 1.0
    outside = testset.warp(frames, np.array([[[1.0, 0, 300], [0, 1, 0]]]), 24)
    assert tuple(outside[0, 5, 5]) == testset.BORDER
    mask = np.where(x > 80, np.uint8(255), np.uint8(0))[None]
    holes = testset.warp(mask, np.array([[[0.5, 0, -30], [0, 0.5, 0]]]), 24, nearest=True)
    assert set(np.unique(holes)) == {0, 255}


def test_written_pixels_come_back(tmp_path: Path) -> None:
    frames = tiny.clip(3)
    sha256 = testset.write_clip(tmp_path / "deep" / "a", frames)
    back = np.stack([frame.image for frame in read_frames(tmp_path / "deep" / "a")])
    assert np.array_equal(back, frames)
    assert sha256 == testset.pixels_sha256(back)
    testset.write_clip(tmp_path / "m", frames[:1, ..., 0])
    assert probe(tmp_path / "m.png").kind == "image"
    frames[1, 2, 3, 0] ^= 1
    assert testset.pixels_sha256(frames) != sha256


def test_landmark_files(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    np.savetxt(file, np.arange(30).reshape(3, 10))
    points = testset.read_points(file, 2)
    assert points.shape == (2, 5, 2)
    assert points[1, 0].tolist() == [10, 11]
    with pytest.raises(VideoError, match=r"3 lines of 10 numbers, 4 of 10 are needed"):
        testset.read_points(file, 4)
    file.write_text("1 2 x")
    with pytest.raises(VideoError, match="cannot be read"):
        testset.read_points(file, 1)
