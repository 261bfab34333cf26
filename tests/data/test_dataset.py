import json
import logging
import os
import platform
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, default_collate

import svfr.data.dataset
from svfr.data.clip_sources import ClipError, ClipSource, DataError, Excerpt, ImageFolder, ManifestClips, RenderedClips
from svfr.data.dataset import ClipDataset, Sample, SampleConfig, set_up_worker
from svfr.data.loader import ClipBatchSampler
from svfr.data.manifest import Clip, read_manifest, write_manifest
from svfr.models.identity import id_crop
from svfr.synthetic import render_clip
from tests import clips

SIZE, FRAMES = 48, 3
WEIGHTS = {"bfr": 1.0, "colorization": 1.0, "inpainting": 1.0, "bfr,colorization,inpainting": 0.5}
PICTURES = ("gt", "lq", "reference")
LEFT_EYE, RIGHT_EYE, NOSE, LEFT_MOUTH, RIGHT_MOUTH = 36, 42, 30, 48, 54
COLOURS = {LEFT_EYE: (250, 40, 40), RIGHT_EYE: (40, 250, 40), NOSE: (40, 40, 250)}


def face(shift: float = 0.0, side: int = SIZE) -> np.ndarray:
    """(68, 2) points [px] around a face in the middle of a square."""
    angles = np.linspace(0, 2 * np.pi, 68, endpoint=False)
    points = 0.5 + 0.3 * np.column_stack([np.cos(angles), np.sin(angles)])
    points[36:42], points[42:48] = (0.35, 0.4), (0.65, 0.4)
    points[[NOSE, LEFT_MOUTH, RIGHT_MOUTH]] = (0.55, 0.55), (0.4, 0.72), (0.6, 0.72)
    return (points * side + shift).astype(np.float32)


def picture(points: np.ndarray, side: int = SIZE, shade: int = 90) -> np.ndarray:
    """Dots of their own colour at some landmarks."""
    image = np.full((side, side, 3), shade, dtype=np.uint8)
    for index, colour in COLOURS.items():
        x, y = np.rint(points[index]).astype(int)
        image[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2] = colour
    return image


class MadeClips(ClipSource):
    """Clips of 8 frames whose brightness tells the clip and frame; some of them are broken."""

    length = 8

    def __init__(self, count: int = 10, broken: tuple[int, ...] = ()) -> None:
        self.video_ids, self.lengths = [index // 2 for index in range(count)], [self.length] * count
        self.broken = broken

    def read(self, index: int, num_frames: int, size: int, rng: np.random.Generator, reference: bool) -> Excerpt:
        if index in self.broken:
            raise ClipError(f"made {index}: broken")
        start = int(rng.integers(self.length - num_frames + 1))
        shades = [10 * index + frame for frame in range(start, start + num_frames)]
        points = np.stack([face(shift=frame) for frame in range(num_frames)])
        frames = np.stack([picture(p, shade=shade) for p, shade in zip(points, shades, strict=True)])
        other = (start + num_frames) % self.length
        return Excerpt(
            frames=frames,
            landmarks=points,
            valid=np.array([True, False, True][:num_frames]),
            reference=picture(face(), shade=10 * index + other) if reference else None,
            reference_landmarks=face() if reference else None,
        )


def dataset(source: ClipSource | None = None, seed: int = 5, **settings) -> ClipDataset:
    values: dict[str, Any] = {
        "size": SIZE,
        "num_frames": FRAMES,
        "num_views": 2,
        "task_weights": WEIGHTS,
        "preset": "svfr",
        **settings,
    }
    return ClipDataset(source or MadeClips(), partial(id_crop, style="arcface"), SampleConfig(**values), seed)


def same(a: Sample, b: Sample) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_shapes_types_and_ranges() -> None:
    sample = dataset(num_views=3, reference_dropout=0)[(0, 1)]
    f, s = FRAMES, SIZE
    expected = {
        "gt": ((f, 3, s, s), torch.uint8),
        "lq": ((3, f, 3, s, s), torch.uint8),
        "task_prompts": ((3, 3), torch.float32),
        "landmarks": ((f, 68, 2), torch.float32),
        "landmarks_valid": ((f,), torch.bool),
        "reference": ((3, s, s), torch.uint8),
        "has_reference": ((), torch.bool),
        "id_face": ((3, 112, 112), torch.float32),
        "video_id": ((), torch.int64),
        "seed": ((), torch.int64),
    }
    assert {name: (tuple(t.shape), t.dtype) for name, t in sample._asdict().items()} == expected
    for name in (*PICTURES, "id_face"):
        assert -1 <= getattr(sample.to_float(), name).min() < getattr(sample.to_float(), name).max() <= 1
    assert sample.landmarks_valid.tolist() == [True, False, True]
    assert not sample.landmarks[1].any()
    assert sample.seed >= 0
    batch = default_collate([sample, sample])
    assert batch.lq.shape == (2, 3, f, 3, s, s)
    assert batch.video_id.shape == (2,)


def test_a_sample_is_as_large_as_it_says() -> None:
    data = dataset(num_views=3)
    size = sum(tensor.nbytes for tensor in data[(0, 0)])
    assert data.sample_bytes == pytest.approx(size, abs=100)


NEEDS_GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=NEEDS_GPU)])
def test_pictures_become_the_floats_that_they_always_were(device: str) -> None:
    levels = torch.arange(256).repeat(27).reshape(1, 3, SIZE, SIZE).to(torch.uint8)
    samples = [dataset(reference_dropout=dropout)[(0, 0)] for dropout in (0, 1)]
    batch = default_collate([sample._replace(gt=levels, lq=levels[None]) for sample in samples])
    pictures = batch.to_float(torch.device(device))
    for name in PICTURES:
        assert getattr(pictures, name).device.type == device
        expected = getattr(batch, name).float().div(127.5).sub(1)
        if name == "reference":
            expected[1] = 0  # there is none
        assert torch.equal(getattr(pictures, name).cpu(), expected), name
    kept = set(Sample._fields) - set(PICTURES)
    assert all(torch.equal(getattr(pictures, name), getattr(batch, name)) for name in kept)


def test_what_a_sample_is_depends_on_seed_epoch_and_index_alone() -> None:
    first, second = dataset(), dataset()
    for index in (3, 0, 7):
        second[(1, index)]
    assert same(first[(1, 4)], second[(1, 4)])
    assert not same(first[(1, 4)], first[(2, 4)])
    assert not same(first[(1, 4)], first[(1, 5)])
    assert not same(first[(1, 4)], dataset(seed=6)[(1, 4)])
    assert len({int(first[(e, i)].seed) for e in range(2) for i in range(10)}) == 20


def loader(source: ClipDataset, workers: int, start: int = 0) -> Iterator[Sample]:
    sampler = ClipBatchSampler(len(source), 2, 0, 1, seed=1, start=start)
    return iter(DataLoader(source, batch_sampler=sampler, num_workers=workers, worker_init_fn=set_up_worker))


def test_workers_change_nothing_and_a_later_start_goes_on() -> None:
    alone, shared = loader(dataset(), 0), loader(dataset(), 2)
    batches = [next(alone) for _ in range(7)]
    assert all(same(batch, next(shared)) for batch in batches)
    resumed = loader(dataset(), 0, start=4)
    assert all(same(batch, next(resumed)) for batch in batches[4:])


def test_views_have_distinct_tasks_drawn_by_weight() -> None:
    data = dataset(task_weights={"bfr": 3, "colorization": 1, "inpainting,bfr": 0}, num_views=1, preset="dicface")
    prompts = [tuple(data[(epoch, i)].task_prompts[0].tolist()) for epoch in range(12) for i in range(10)]
    share = prompts.count((1, 0, 0)) / len(prompts)
    assert set(prompts) == {(1, 0, 0), (0, 1, 0)}
    assert share == pytest.approx(0.75, abs=4 * np.sqrt(0.75 * 0.25 / len(prompts)))
    for index in range(10):
        views = dataset(num_views=4)[(0, index)].task_prompts
        assert len(torch.unique(views, dim=0)) == 4


def test_each_task_degrades_as_inference_does() -> None:
    for index in range(4):
        sample = dataset(num_views=4, flip=False)[(0, index)].to_float()
        views = {tuple(p.int().tolist()): lq for p, lq in zip(sample.task_prompts, sample.lq, strict=True)}
        gray = views[0, 1, 0]
        assert torch.equal(gray[:, 0], gray[:, 1])
        weights = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
        assert (gray[:, 0] - (sample.gt * weights).sum(dim=1)).abs().max() < 2 / 127.5
        holes = views[0, 0, 1]
        changed = (holes != sample.gt).any(dim=1)
        assert changed.any()
        assert (holes.movedim(1, -1)[changed] == 1).all()
        assert (views[1, 0, 0] != sample.gt).any()
        everything = views[1, 1, 1]
        assert torch.equal(everything[:, 0], everything[:, 2])
        assert (everything == 1).any()


def test_some_masks_move_and_some_do_not() -> None:
    data = dataset(num_views=1, task_weights={"inpainting": 1.0}, flip=False)
    moving = []
    for index in range(10):
        holes = data[(0, index)].lq[0].min(dim=1).values == 255
        moving.append(bool((holes[0] != holes[2]).any()))
    assert 0 < sum(moving) < 10


@pytest.mark.parametrize("flip", [True, False])
def test_holes_are_as_often_left_as_right(flip: bool) -> None:
    data = dataset(num_views=1, task_weights={"inpainting": 1.0}, flip=flip, num_frames=1)
    draws = 240
    holes = torch.stack([data[(i // 10, i % 10)].lq[0, 0].min(dim=0).values == 255 for i in range(draws)])
    shares = holes.float().mean(dim=1).reshape(draws, 8, -1).mean(dim=2)  # of each eighth of the width
    for left, right in zip(shares.T[:4], shares.T.flip(0)[:4], strict=True):
        difference = left - right
        assert abs(difference.mean()) < 4 * difference.std() / draws**0.5, shares.mean(dim=0)


def test_pairs_of_tasks_are_drawn_by_default_but_rarely() -> None:
    data = ClipDataset(MadeClips(), partial(id_crop, style="arcface"), SampleConfig(size=SIZE, num_frames=1), 0)
    counts = torch.cat([data[(e, i)].task_prompts for e in range(15) for i in range(10)]).sum(dim=1)
    assert 0.05 < (counts == 2).float().mean() < 0.25
    assert (counts == 1).float().mean() > 0.6


def coloured(frame: torch.Tensor, colour: tuple[int, ...]) -> np.ndarray:
    """(2,) mean place of a colour, in fractions of the sides."""
    image = (frame.movedim(0, -1).numpy() + 1) * 127.5
    y, x = np.nonzero(np.abs(image - colour).max(axis=-1) < 60)
    return (np.array([x.mean(), y.mean()]) + 0.5) / SIZE


def test_landmarks_stay_on_what_they_mark_when_mirrored() -> None:
    mirrored = 0
    for index in range(10):
        sample = dataset(reference_dropout=0)[(0, index)].to_float()
        flipped = bool(coloured(sample.gt[2], COLOURS[LEFT_EYE])[0] > 0.5)  # the left eye's dot is on the right
        for landmark, colour in COLOURS.items():
            place = coloured(sample.gt[2], colour)
            named = {LEFT_EYE: RIGHT_EYE, RIGHT_EYE: LEFT_EYE, NOSE: NOSE}[landmark] if flipped else landmark
            np.testing.assert_allclose(sample.landmarks[2, named], place, atol=0.6 / SIZE)
        assert flipped == bool(coloured(sample.reference, COLOURS[LEFT_EYE])[0] > 0.5)
        mirrored += flipped
        # The aligned face has whichever eye is left in the picture at the template's left eye.
        left = (sample.id_face[:, 52, 38].numpy() + 1) * 127.5
        assert np.abs(left - COLOURS[RIGHT_EYE if flipped else LEFT_EYE]).max() < 60
    assert 0 < mirrored < 10
    assert coloured(dataset(flip=False)[(0, 0)].to_float().gt[0], COLOURS[LEFT_EYE])[0] < 0.5


def test_half_of_the_samples_have_no_reference() -> None:
    data = dataset()
    samples = [data[(epoch, index)] for epoch in range(12) for index in range(10)]
    share = np.mean([bool(s.has_reference) for s in samples])
    assert share == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(120))
    for sample in samples:
        assert bool(sample.reference.any()) == bool(sample.id_face.any()) == bool(sample.has_reference)


def test_broken_clips_are_named_once_and_replaced_alike_everywhere(caplog: pytest.LogCaptureFixture) -> None:
    source = MadeClips(10, broken=(4,))
    with caplog.at_level(logging.WARNING):
        data = dataset(source, max_broken_share=0.1)
        batches = list(islice(loader(data, 0), 10))
    assert caplog.text.count("made 4: broken") == 1
    assert data.num_broken == 1
    shades = torch.cat([batch.gt for batch in batches])[:, 0, :, -1, -1]  # 10 clip + frame
    assert not ((shades > 39.5) & (shades < 47.5)).any()
    with_workers = dataset(source, max_broken_share=0.1)
    shared = loader(with_workers, 2)
    assert all(same(batch, next(shared)) for batch in batches)
    assert with_workers.num_broken == 1
    assert same(dataset(source, max_broken_share=0.1)[(0, 4)], data[(0, 4)])


@pytest.mark.parametrize("workers", [0, 1])  # after an error, PyTorch waits 5 s for each worker
def test_too_many_broken_clips_stop_in_one_line(workers: int) -> None:
    batches = loader(dataset(MadeClips(10, broken=(1, 5)), max_broken_share=0.1), workers)
    with pytest.raises(DataError) as error:
        list(islice(batches, 10))
    assert "2 of 10 clips cannot be read" in str(error.value)
    assert "broken" in str(error.value)
    assert "\n" not in str(error.value)


def test_nothing_but_broken_clips_stops_even_if_all_may_be_broken() -> None:
    with pytest.raises(DataError, match="3 of 3"):
        dataset(MadeClips(3, broken=(0, 1, 2)), max_broken_share=1.0)[(0, 0)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_views": 5}, "num_views=5"),
        ({"task_weights": {"bfr": 1, "colour": 1}}, "unknown task 'colour'"),
        ({"preset": "nice"}, "unknown preset 'nice'"),
        ({"num_frames": 9}, "the longest has 8"),
    ],
)
def test_settings_that_cannot_be(settings: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        dataset(**settings)


# Sources.


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips of one video of 20 frames, 96x64: the square at (20, 4)-(68, 52), and the whole frame; one for val."""
    folder = tmp_path_factory.mktemp("data")
    frames = []
    for index in range(20):
        frame = np.full((64, 96, 3), 20 + 10 * index, dtype=np.uint8)
        frame[4:52, 20:68] = picture(face(), shade=20 + 10 * index)
        frames.append(frame)
    clips.video(folder / "videos.mp4", frames)
    points = np.stack([face() for _ in range(8)])
    score = np.ones(8, dtype=np.float32)
    score[0] = 0
    np.savez(folder / "one.npz", points=points, score=score)
    whole = Clip("two", "videos.mp4", "a.mov", "train", start_frame=10, num_frames=10, fps=30.0, width=96, height=64)
    cut = replace(
        whole, id="one", start_frame=2, num_frames=8, width=SIZE, height=SIZE, crop=(20, 4, 68, 52), landmarks="one.npz"
    )
    write_manifest(folder / "manifest.jsonl", [cut, whole, replace(whole, id="three", split="val")])
    return folder / "manifest.jsonl"


def shades(frames: np.ndarray) -> list[int]:
    """Frame numbers by the brightness of the lower left corner."""
    return [round((float(frame[-3:, :3].mean()) - 20) / 10) for frame in frames]


def test_manifest_clips_are_cut_and_their_landmarks_follow(manifest: Path) -> None:
    source = ManifestClips(manifest, "train")
    assert source.video_ids == [0, 0]
    assert source.lengths == [8, 10]
    starts = set()
    for seed in range(8):
        excerpt = source.read(0, 3, 24, np.random.default_rng(seed), True)
        numbers = shades(excerpt.frames)
        starts.add(numbers[0])
        assert numbers == list(range(numbers[0], numbers[0] + 3))
        assert excerpt.reference is not None
        other = shades(excerpt.reference[None])[0]
        assert other in set(range(2, 10)) - set(numbers)
        assert other != 2  # its landmarks aren't reliable
        assert excerpt.valid.tolist() == [number != 2 for number in numbers]
        np.testing.assert_allclose(excerpt.landmarks[0], (face() + 0.5) / 2 - 0.5, atol=1e-5)
        assert excerpt.reference_landmarks is not None
    assert min(starts) >= 2
    assert max(starts) <= 7
    assert len(starts) > 2


def test_a_frame_that_is_not_square_gives_its_middle(manifest: Path) -> None:
    excerpt = ManifestClips(manifest, "train").read(1, 2, 32, np.random.default_rng(0), False)
    assert excerpt.frames.shape == (2, 32, 32, 3)
    assert excerpt.reference is None
    assert not excerpt.valid.any()
    dot = np.argwhere(np.abs(excerpt.frames[0].astype(int) - COLOURS[LEFT_EYE]).max(axis=-1) < 70).mean(axis=0)
    x, y = face()[LEFT_EYE] + (20 - 16, 4)
    np.testing.assert_allclose(dot, (np.array([y, x]) + 0.5) / 2 - 0.5, atol=1)


def test_a_manifest_end_to_end(manifest: Path) -> None:
    batches = loader(dataset(ManifestClips([manifest], "train"), num_frames=4), 2)
    batch = next(batches)
    assert batch.gt.shape == (2, 4, 3, SIZE, SIZE)
    assert batch.video_id.tolist() == [0, 0]
    short = dataset(ManifestClips(manifest, "train"), num_frames=9)
    assert len(short) == 1


def test_a_reference_from_the_clip_itself_when_there_is_no_other_frame(manifest: Path) -> None:
    excerpt = ManifestClips(manifest, "train").read(0, 8, 24, np.random.default_rng(0), True)
    assert excerpt.reference is not None
    assert 2 < shades(excerpt.reference[None])[0] < 10


def test_no_clip_of_a_split(manifest: Path) -> None:
    with pytest.raises(DataError, match="no clip of the split 'test'"):
        ManifestClips(manifest, "test")


def broken_manifest(manifest: Path, folder: Path, kind: str) -> tuple[Path, str]:
    """A copy with one fault; what a message about it names."""
    data = (manifest.parent / "videos.mp4").read_bytes()
    landmarks = (manifest.parent / "one.npz").read_bytes()
    points, lines = np.stack([face() for _ in range(8)]), manifest.read_text()
    if kind in FAULTS:
        lines = lines.replace(*FAULTS[kind], 1)
    elif kind == "empty landmarks":
        landmarks = b""
    elif kind == "landmarks of 1e30":
        np.savez(folder / "far.npz", points=points * 1e30, score=np.ones(8))
        landmarks = (folder / "far.npz").read_bytes()
    elif kind == "landmarks of text":
        np.savez(folder / "text.npz", points=points, score=["good"] * 8)
        landmarks = (folder / "text.npz").read_bytes()
    elif kind == "landmarks alone":
        np.save(folder / "alone.npy", points)
        landmarks = (folder / "alone.npy").read_bytes()
    elif kind == "truncated":
        data = data[: len(data) // 2]
    elif kind == "no video":
        data = b"this is no video at all" * 40
    elif kind == "no landmarks":
        landmarks = b"no"
    elif kind == "too few landmarks":
        np.savez(folder / "few.npz", points=np.zeros((3, 68, 2)), score=np.ones(3))
        landmarks = (folder / "few.npz").read_bytes()
    elif kind == "too short":
        clips.video(folder / "short.mp4", [np.zeros((64, 96, 3), dtype=np.uint8)] * 4)
        data = (folder / "short.mp4").read_bytes()
    if kind != "missing":
        (folder / "videos.mp4").write_bytes(data)
    (folder / "one.npz").write_bytes(landmarks)
    (folder / "manifest.jsonl").write_text(lines)
    if kind in FAULTS and kind not in UNSEEN_FAULTS:
        return folder / "manifest.jsonl", "manifest.jsonl, line 1: "
    return folder / "manifest.jsonl", "one.npz" if "landmarks" in kind else "videos.mp4"


UNSEEN_FAULTS = {  # what only the video shows
    "crop beside the frame": ("[20, 4, 68, 52]", "[1020, 4, 1068, 52]"),
    "crop as wide as a continent": ("[20, 4, 68, 52]", "[-4e12, -4e12, 4e12, 4e12]"),
    "crop without area": ("[20, 4, 68, 52]", "[20, 4, 20.000000001, 52]"),
}
FAULTS = {
    "no start": ('"start_frame": 2', '"start_frame": null'),
    "no video's name": ('"video": "videos.mp4"', '"video": null'),
    "no width": ('"width": 48', '"width": 0'),
    "no crop": ("[20, 4, 68, 52]", "5"),
    "a crop backwards": ("[20, 4, 68, 52]", "[68, 4, 20, 52]"),
    "a row cut off": ('"split": "train"', '"spl'),
    **UNSEEN_FAULTS,
}
KINDS = ["truncated", "no video", "no landmarks", "too few landmarks", "too short", "missing", "empty landmarks"]
KINDS += ["landmarks of 1e30", "landmarks of text", "landmarks alone", *FAULTS]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_broken_is_named_counted_and_replaced(
    manifest: Path, tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    path, name = broken_manifest(manifest, tmp_path, kind)
    clips.video(tmp_path / "whole.mp4", [np.full((64, 96, 3), 90, dtype=np.uint8)] * 8)
    whole = {"id": "whole", "video": "whole.mp4", "source": "b", "split": "train", "start_frame": 0, "num_frames": 8}
    lines = [line for line in path.read_text().splitlines() if '"id": "two"' not in line]
    path.write_text("\n".join([*lines, json.dumps({**whole, "fps": 30, "width": 96, "height": 64})]))
    data = dataset(ManifestClips(path, "train"), num_frames=8, max_broken_share=0.5, reference_dropout=0)
    for index in (0, 1, 0):
        assert ((data[(0, index)].gt.int() - 90).abs() < 4).all()  # of the whole one
    assert data.num_broken == 1
    [line] = [record.getMessage() for record in caplog.records]
    assert name in line
    assert "\n" not in line


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    """Three clips in files of their own."""
    rows = []
    (tmp_path / "data").mkdir()
    for number, quality in enumerate((0.3, 0.9, 0.5)):
        name = f"{number}.mp4"
        clips.video(tmp_path / "data" / name, [np.full((64, 64, 3), 60 * number + 20, dtype=np.uint8)] * 4)
        rows.append(Clip(str(number), name, name, "train", 0, 4, 30.0, 64, 64, quality=quality))
    write_manifest(tmp_path / "data" / "manifest.jsonl", rows)
    return tmp_path / "data" / "manifest.jsonl"


def test_a_source_that_comes_back_changes_nothing(
    collection: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected, data = (dataset(ManifestClips(collection, "train")) for _ in range(2))
    away = collection.parent.rename(collection.parent.with_name("away"))
    monkeypatch.setattr(svfr.data.dataset, "FIRST_PAUSE", 0.1)
    back = threading.Timer(1.0, lambda: away.rename(collection.parent))
    back.start()
    found = [data[(0, index)] for index in range(3)]
    back.join()
    assert all(same(sample, expected[(0, index)]) for index, sample in enumerate(found))
    assert data.num_broken == 0
    pauses = [record.getMessage().split("again in ")[1] for record in caplog.records]
    assert pauses[:3] == ["0.1 s", "0.2 s", "0.4 s"]


def test_a_source_that_does_not_come_back_ends_in_one_line(collection: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = dataset(ManifestClips(collection, "train"))
    collection.parent.rename(collection.parent.with_name("away"))
    monkeypatch.setattr(svfr.data.dataset, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(svfr.data.dataset, "PATIENCE", 0.05)
    with pytest.raises(
        DataError, match=r"\.mp4: No such file or directory; nor can any of 2 other files.*for 0 s"
    ) as error:
        data[(0, 0)]
    assert "\n" not in str(error.value)


def test_one_file_that_is_gone_is_not_waited_for(collection: Path) -> None:
    (collection.parent / "1.mp4").unlink()
    data = dataset(ManifestClips(collection, "train"), max_broken_share=0.4)
    start = time.monotonic()
    data[(0, 1)]
    assert time.monotonic() - start < 1
    assert data.num_broken == 1


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(collection: Path) -> None:
    (collection.parent / "1.mp4").unlink()
    os.mkfifo(collection.parent / "1.mp4")
    data = dataset(ManifestClips(collection, "train"), max_broken_share=0.4)
    data[(0, 1)]
    assert data.num_broken == 1


def test_the_best_clips_of_several_collections(collection: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(collection.parent, other)
    rows = read_manifest(other / "manifest.jsonl")
    write_manifest(other / "manifest.jsonl", [replace(row, quality=row.quality and row.quality + 0.1) for row in rows])
    both = [collection, other / "manifest.jsonl"]
    assert len(ManifestClips(both, "train").lengths) == 6
    best = ManifestClips(both, "train", best=3)
    shades = [best.read(i, 1, 8, np.random.default_rng(0), False).frames.mean() for i in range(3)]
    assert len(best.lengths) == len(set(best.video_ids)) == 3
    assert [round((shade - 20) / 60) for shade in shades] == [1, 1, 2]  # of qualities 1.0, 0.9 and 0.6
    assert len(ManifestClips(both, "train", best=100).lengths) == 6
    write_manifest(other / "manifest.jsonl", [replace(row, quality=None) for row in rows])
    with pytest.raises(DataError, match=r"other/manifest\.jsonl: '0' has no quality"):
        ManifestClips(both, "train", best=3)


def test_clips_that_have_to_be_enlarged_are_told(collection: Path, caplog: pytest.LogCaptureFixture) -> None:
    ManifestClips(collection, "train", size=64)
    assert not caplog.records
    ManifestClips(collection, "train", size=80)
    assert "3 of 3 clips are enlarged to 80 px" in caplog.text


def test_images_are_clips_of_one_frame(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    cv2.imwrite(str(tmp_path / "a.png"), picture(face())[..., ::-1])
    cv2.imwrite(str(tmp_path / "sub" / "b.jpg"), np.full((60, 40, 3), 77, dtype=np.uint8))
    (tmp_path / "c.png").write_bytes(b"not an image")
    source = ImageFolder(tmp_path)
    assert [file.name for file in source.files] == ["a.png", "c.png", "b.jpg"]
    excerpt = source.read(0, 1, SIZE, np.random.default_rng(0), True)
    np.testing.assert_array_equal(excerpt.frames[0], picture(face()))
    assert excerpt.reference is None
    with pytest.raises(ClipError, match=r"c\.png"):
        source.read(1, 1, SIZE, np.random.default_rng(0), True)
    sample = dataset(source, num_frames=1, reference_dropout=0, max_broken_share=0.5)[(0, 1)]
    assert not sample.has_reference
    assert not sample.landmarks_valid.any()
    with pytest.raises(DataError, match="the longest has 1"):
        dataset(source, num_frames=2)
    with pytest.raises(DataError, match="no image"):
        ImageFolder(tmp_path / "none")


def test_some_images_are_held_out(tmp_path: Path) -> None:
    for number in range(30):
        assert cv2.imwrite(str(tmp_path / f"{number:02d}.png"), picture(face()))
    names = [
        [file.stem for file in source.files]
        for source in (ImageFolder(tmp_path, split, 2) for split in ("train", "val"))
    ]
    assert names[1] == ["00", "15"]
    assert sorted(names[0] + names[1]) == [f"{number:02d}" for number in range(30)]
    assert len(ImageFolder(tmp_path, "val", 100).files) == 3
    for number in range(9, 30):
        (tmp_path / f"{number:02d}.png").unlink()
    assert len(ImageFolder(tmp_path, "train", 2).files) == 9
    with pytest.raises(DataError, match="9 images, 10 are needed"):
        ImageFolder(tmp_path, "val", 2)


def find(frames: np.ndarray, clip: np.ndarray) -> list[int]:
    """Which frames of a clip these are."""
    return [number for frame in frames for number, other in enumerate(clip) if np.array_equal(frame, other)]


def test_rendered_clips_have_a_reference_of_the_same_clip_or_a_photo_from_another_scene() -> None:
    source = RenderedClips(2, first_seed=7)
    excerpts = [source.read(1, 2, 32, np.random.default_rng(seed), True) for seed in range(24)]
    clip = render_clip(8, 3, 32)
    photos = []
    for excerpt in excerpts:
        numbers, landmarks = find(excerpt.frames, clip.frames), excerpt.reference_landmarks
        assert numbers in ([0, 1], [1, 2])
        assert excerpt.reference is not None
        assert landmarks is not None
        other = find(excerpt.reference[None], clip.frames)
        if other:
            assert sorted(numbers + other) == [0, 1, 2]
            np.testing.assert_array_equal(landmarks, clip.landmarks[other[0]])
        else:
            assert numbers == [0, 1]
            photos.append(excerpt)
    assert 6 <= len(photos) <= 18
    assert len({excerpt.reference.tobytes() for excerpt in photos if excerpt.reference is not None}) == len(photos)
    assert source.read(1, 2, 32, np.random.default_rng(0), False).reference is None


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_freed_memory_is_kept() -> None:
    # In a process of its own: page faults of ten times 8 MiB, when freed memory is kept and when it is not.
    code = """
import resource, sys, numpy as np
from svfr.data.dataset import keep_freed_memory
assert sys.argv[1] == "no" or keep_freed_memory()
np.ones(2**20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    np.ones(2**22), np.ones(2**22)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    faults = {
        keep: int(subprocess.run([sys.executable, "-c", code, keep], capture_output=True, check=True, text=True).stdout)
        for keep in ("yes", "no")
    }
    assert faults["yes"] < faults["no"] / 3


def test_rendered_clips() -> None:
    source = RenderedClips(2, first_seed=7)
    assert list(source.video_ids) == [7, 8]
    sample = dataset(source, size=32, num_frames=2, reference_dropout=0)[(0, 0)]
    assert sample.landmarks_valid.all()
    assert sample.id_face.std() > 0.1
    with pytest.raises(DataError, match="kept for tests"):
        RenderedClips(20, first_seed=999_990)
