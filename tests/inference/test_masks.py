"""Holes wherever they are: under faces, beside them, or to be found; and what starts from the input."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from svfr.config import ConfigError
from svfr.inference.chain import Chain
from svfr.inference.masks import frame_holes
from svfr.inference.pipeline import SVFRPipeline
from svfr.inference.reference import ReferenceFinder
from svfr.inference.settings import Sampling
from svfr.models.components import Components
from tests import tiny
from tests.assets import FIELD, NETWORKS, needs_field
from tests.clips import MarkDetector, pixels, scene, video
from tests.inference.test_chain import GAMMA
from tests.inference.test_chain import video as noise
from tests.inference.test_video import FACE, changed, run


def mask(folder: Path, *boxes: tuple[int, int, int, int]) -> Path:
    hole = np.zeros((96, 128), np.uint8)
    for x0, y0, x1, y1 in boxes:
        hole[y0:y1, x0:x1] = 255
    Image.fromarray(hole).save(folder / "mask.png")
    return folder / "mask.png"


@pytest.mark.parametrize("tasks", [("inpainting",), ("bfr", "inpainting")])
def test_a_hole_outside_of_the_face_is_filled_and_said(tmp_path: Path, tasks: tuple[str, ...]) -> None:
    source = video(tmp_path / "in.mp4", scene(5, [FACE]))
    given = {"tasks": tasks, "format": "png", "keep_known": True}
    report = run(source, tmp_path / "out", mask=mask(tmp_path, (0, 0, 12, 10), (50, 40, 60, 50)), **given)
    differs = changed(source, report.output)
    assert differs[:, :10, :12].mean() > 0.95
    assert differs[:, 40:50, 50:60].mean() > 0.95
    assert not differs[:, :, 100:].any()
    assert any("outside of the faces" in note for note in report.notes)
    inside = run(source, tmp_path / "inside", mask=mask(tmp_path, (50, 40, 60, 50)), **given)
    assert not any("outside" in note for note in inside.notes)


def test_filling_a_hole_is_progress(tmp_path: Path) -> None:
    source, told = video(tmp_path / "in.mp4", scene(10, [None] * 4 + [FACE] * 6), fps=Fraction(5)), list[float]()

    def note(frames: float, stage: str) -> None:
        told.extend([frames] if stage == "restore" else [])

    run(source, tmp_path / "out", mask=mask(tmp_path, (0, 0, 12, 10)), tasks=("inpainting",), on_progress=note)
    assert told[0] == pytest.approx(3 * 10 / 16)  # a clip of three, of all frames' ten holes and six faces
    assert sum(told) == pytest.approx(10)


def test_an_empty_mask_is_said(tmp_path: Path) -> None:
    source = video(tmp_path / "in.mp4", scene(3, [FACE]))
    report = run(source, tmp_path / "out", mask=mask(tmp_path), tasks=("inpainting",), format="png", keep_known=True)
    assert any("mask is empty" in note for note in report.notes)
    assert not changed(source, report.output).any()


def test_holes_are_found_and_shown(tmp_path: Path) -> None:
    images = scene(4, [FACE])
    for image in images:
        image[70:80, 90:110] = 255
    source = video(tmp_path / "in.mp4", images)
    given = {"tasks": ("inpainting",), "format": "png", "keep_known": True}
    report = run(source, tmp_path / "out", mask=Path("auto"), **given)
    shown = pixels(tmp_path / "out.mask.png")[0, ..., 0] > 0
    assert shown[70:80, 90:110].all()
    assert shown.sum() < 600
    assert changed(source, report.output)[:, 70:80, 90:110].mean() > 0.95
    assert any("1 hole found" in note and "out.mask.png" in note for note in report.notes)


def test_crops_of_holes_stay_in_place_over_a_shot_and_hold_all_that_is_left() -> None:
    masks = np.zeros((6, 100, 200), np.uint8)
    for index, each in enumerate(masks):
        each[10:20, 20 + 5 * index : 40 + 5 * index] = 255
        each[50:60, 150:160] = 255
    face = np.array([140.0, 40.0, 170.0, 70.0])
    crops = frame_holes(masks, [[(0, face)]] * 6, (200, 100), 64, starts=[0, 3])
    assert [crop[:2] for crop in crops] == [(0, 3), (3, 2**63 - 1)]
    for (start, _, box), last in zip(crops, (2, 5), strict=True):
        assert box[0] < 20 + 5 * start
        assert 40 + 5 * last < box[2] < 150
        assert box[2] - box[0] == pytest.approx(box[3] - box[1])
        assert box[1] < 10 < 20 < box[3]
    face -= 0, 50, 0, 50
    assert frame_holes(masks[:, 50:], [[(0, face)]] * 6, (200, 50), 64) == []
    turned = np.array([face[1], 200 - face[2], face[3], 200 - face[0]])  # of the frame after a quarter turn
    assert frame_holes(masks[:, 50:], [[(1, turned)]] * 6, (200, 50), 64) == []


@needs_field
@pytest.mark.parametrize("name", ["mask_0_1.png", "mask_hole_outside_face_box.png"])
def test_masks_that_once_left_holes(tmp_path: Path, name: str) -> None:
    from svfr.data.detectors import load_detector

    given: dict[str, Any] = {"tasks": ("inpainting",), "format": "png", "keep_known": True}
    source, detector = FIELD / "mask_clip.mp4", load_detector("yunet", NETWORKS)
    report = run(source, tmp_path / "out", mask=FIELD / name, detector=detector, **given)
    hole = pixels(FIELD / name)[0].max(axis=-1) > 0
    differs = changed(source, report.output)
    assert differs[:, hole].mean() > 0.95
    assert not differs[:, ~hole].any()


# Strength


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m"])
def test_less_strength_changes_less(components: Components, sampler: str) -> None:
    clip, errors = torch.stack(list(noise(4))), []
    known = components.decode(components.vae.config.scaling_factor * components.encode(clip), 4)
    for strength in (0.0, 1.0):
        given = Sampling(strength=strength, sampler=sampler, num_inference_steps=4, guidance_scale=1)
        restored = Chain(components, given.resolve(components), GAMMA)(clip)
        errors.append(float((restored - known).abs().mean()))
    assert errors[0] < 0.2 * errors[1]


def test_strength_is_refused_where_it_cannot_be(components: Components, pipe: SVFRPipeline) -> None:
    one_step = tiny.pipeline(settings=replace(tiny.SETTINGS, one_step_sigma=20.0, num_inference_steps=1)).parts
    with pytest.raises(ConfigError, match=r"strength=0\.5: these weights restore in one step; strength=1 alone"):
        Sampling(strength=0.5).resolve(one_step)
    with pytest.raises(ConfigError, match=r"strength=1\.5: has to be at most 1"):
        Sampling(strength=1.5)
    with pytest.raises(ValueError, match=r"strength=0\.5: holes"):
        pipe(tiny.clip(2), "inpainting", np.zeros((8, 8), np.uint8), strength=0.5)


# Photos


def test_each_face_takes_the_photo_that_is_most_like_it(components: Components) -> None:
    finder = ReferenceFinder(components, MarkDetector())
    rng = np.random.default_rng(0)
    photos: list[Any] = [(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8), None) for _ in range(3)]
    for index, (image, _) in enumerate(photos):
        seen: list[Any] = [(np.clip(image * 0.8 + 10 * k, 0, 255).astype(np.uint8), None) for k in range(3)]
        chosen, likeness = finder.best_match(photos, seen)
        assert chosen == index
        assert likeness <= 1
