"""Clips of manifests, folders of images and the renderer, their references, and what is broken among them."""

import json
import os
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import svfr.data.dataset
from svfr.data.clip_sources import ClipError, DataError, ImageFolder, ManifestClips, RenderedClips
from svfr.data.manifest import Clip, read_manifest, write_manifest
from svfr.synthetic import render_clip
from tests import clips
from tests.data.test_dataset import COLOURS, LEFT_EYE, SIZE, dataset, face, loader, picture, same


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


def test_rendered_clips() -> None:
    source = RenderedClips(2, first_seed=7)
    assert list(source.video_ids) == [7, 8]
    sample = dataset(source, size=32, num_frames=2, reference_dropout=0)[(0, 0)]
    assert sample.landmarks_valid.all()
    assert sample.id_face.std() > 0.1
    with pytest.raises(DataError, match="kept for tests"):
        RenderedClips(20, first_seed=999_990)


SHARES = (0.0, 0.5, 1.0)


@pytest.mark.parametrize("share", SHARES)
def test_a_share_of_the_references_is_degraded_and_the_id_network_sees_the_same(share: float) -> None:
    plain, other = (dataset(reference_dropout=0, reference_degraded=value, flip=False) for value in (0.0, share))
    degraded = []
    for index in range(10):
        a, b = plain[0, index], other[0, index]
        degraded.append(not torch.equal(a.reference, b.reference))
        assert torch.equal(a.id_face, b.id_face) != degraded[-1]
        assert torch.equal(a.lq, b.lq)
        assert (a.reference.float() - b.reference.float()).abs().mean() < 60  # still the same picture
    assert sum(degraded) / 10 == pytest.approx(share, abs=0.4 if share == 0.5 else 0)


@pytest.fixture
def people(manifest: Path) -> Path:  # as fixtures are asked for
    """Two clips of one person, "two" bright below, and one of another."""
    one, two, _ = read_manifest(manifest)
    of_one = (
        replace(one, identity=4),
        replace(one, identity=4, id="late", start_frame=4, num_frames=4, landmarks="l.npz"),
    )
    np.savez(manifest.parent / "l.npz", points=np.stack([face()] * 4), score=np.ones(4))
    write_manifest(manifest.parent / "people.jsonl", [*of_one, replace(two, identity=5), replace(two, id="nobody")])
    return manifest.parent / "people.jsonl"


@pytest.mark.parametrize("share", SHARES)
def test_a_share_of_the_references_is_of_another_clip_of_the_same_identity(people: Path, share: float) -> None:
    source, seen = ManifestClips(people, "train", other_clip=share), []
    for seed in range(20):
        excerpt = source.read(1, 4, 24, np.random.default_rng(seed), True)
        assert excerpt.reference is not None
        assert excerpt.reference_landmarks is not None
        seen.append(shades(excerpt.reference[None])[0])
        assert seen[-1] in range(2, 10)
    outside = sum(number not in range(4, 8) for number in seen) / 20  # the clip's own frames are 4 to 7
    assert (outside == 0) == (share == 0)
    if share:
        assert outside == pytest.approx(share / 2, abs=0.3)


def test_without_another_clip_the_reference_is_of_the_clip_itself(people: Path) -> None:
    always, never = (ManifestClips(people, "train", other_clip=share) for share in (1.0, 0.0))
    for index in (2, 3):  # a person with one clip, and a clip of nobody known
        one, other = (source.read(index, 3, 24, np.random.default_rng(0), True) for source in (always, never))
        assert one.reference is not None
        assert other.reference is not None
        np.testing.assert_array_equal(one.reference, other.reference)
    (people.parent / "l.npz").write_bytes(b"")
    broken = always.read(0, 3, 24, np.random.default_rng(0), True)
    assert broken.reference is not None
