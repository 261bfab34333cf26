import logging
import platform
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, default_collate

from svfr.data.clip_sources import ClipError, ClipSource, DataError, Excerpt
from svfr.data.dataset import ClipDataset, Sample, SampleConfig, set_up_worker
from svfr.data.loader import ClipBatchSampler
from svfr.models.identity import id_crop

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
