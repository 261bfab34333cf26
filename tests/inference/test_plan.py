"""Scenes of several people: the right tracks, nobody swapped, nothing changed away from the faces."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from svfr.config import ConfigError
from svfr.data.detectors import Face
from svfr.data.linking import square_around
from svfr.data.video import ReadOptions, probe, read_frames
from svfr.inference.plan import Plan, choose, make_plan, turned
from svfr.inference.reference import Looks
from svfr.inference.settings import VideoSettings
from svfr.models.components import Reference
from tests.assets import ASSETS, FIELD, needs_assets, needs_field
from tests.clips import MarkDetector, pixels, video
from tests.clips import scene as marks
from tests.inference.scenes import ANNA, BERT, CARL, detector, looks, scene
from tests.inference.test_video import invert, run

FPS = Fraction(25)


def plan_of(source: Path, **about: Any) -> Plan:
    return make_plan(source, probe(source), ReadOptions(), detector(), looks(), **about)


def spans(plan: Plan) -> list[tuple[int, int, int]]:
    """(start, stop, person) of each track."""
    return [(track.face.start, track.face.stop, track.person) for track in plan.tracks]


def two_then_one_then_nobody() -> list[np.ndarray]:
    frames = [scene(i, (ANNA, 20), (BERT, 300)) for i in range(12)]
    return frames + [scene(i, (CARL, 160)) for i in range(12, 20)] + [scene(i) for i in range(20, 26)]


@needs_assets
@pytest.mark.parametrize("turns", [0, 1, *(pytest.param(turns, marks=pytest.mark.slow) for turns in (2, 3))])
def test_a_scene_turned_any_way(tmp_path: Path, turns: int) -> None:
    source = video(tmp_path / "in.mp4", [np.rot90(f, turns) for f in two_then_one_then_nobody()], fps=FPS)
    plan = plan_of(source)
    assert plan.shots[:2] == [0, 12]
    assert spans(plan) == [(0, 12, 1), (0, 12, 2), (12, 20, 3)]
    assert {track.turns for track in plan.tracks} == {-turns % 4}
    middles = [float(track.face.boxes[:, [0, 2]].mean()) for track in plan.tracks]
    np.testing.assert_allclose(middles, [96, 385, 236], atol=8)
    report = run(source, tmp_path / "out", detector=detector(), looks=looks(), format="png")
    assert (report.num_people, report.num_tracks, report.restored_frames) == (3, 3, 20)
    before, after = pixels(source).astype(int), pixels(report.output).astype(int)
    for index, (one, other) in enumerate(zip(before, after, strict=True)):
        away, upright = np.ones((200, 480), dtype=bool), [turned(np.abs(one - other), -turns)]
        for track in plan.tracks:
            if track.face.start <= index < track.face.stop:
                x0, y0, x1, y1 = track.face.boxes[index - track.face.start]
                away[max(0, int(y0)) : int(y1) + 1, max(0, int(x0)) : int(x1) + 1] = False
                middle = upright[0][round((y0 + y1) / 2) - 5 :, round((x0 + x1) / 2) - 5 :][:10, :10]
                assert middle.mean() > 20
        assert not upright[0][away].any()


@needs_assets
def test_people_who_cross_are_not_swapped(tmp_path: Path) -> None:
    frames = [scene(i, (BERT, 320 - 6 * i), (ANNA, 10 + 6 * i)) for i in range(52)]
    plan = plan_of(video(tmp_path / "in.mp4", frames, fps=FPS))
    assert spans(plan) == [(0, 52, 1), (0, 52, 2)]
    to_the_right, to_the_left = (track.face for track in plan.tracks)
    assert to_the_right.boxes[-1, 0] - to_the_right.boxes[0, 0] > 280
    assert to_the_left.boxes[0, 0] - to_the_left.boxes[-1, 0] > 280
    assert to_the_right.visible.all()
    assert 5 <= (~to_the_left.visible).sum() <= 10  # while she is behind


@needs_assets
def test_who_comes_back_is_known_again(tmp_path: Path) -> None:
    frames = [scene(i, (ANNA, 200 + 15 * i), (BERT, 0)) for i in range(20)] + [scene(i, (BERT, 0)) for i in range(14)]
    frames += [scene(i, (BERT, 0), (ANNA, 480 - 15 * i)) for i in range(16)]
    plan = plan_of(video(tmp_path / "in.mp4", frames, fps=FPS))
    people = [person for *_, person in spans(plan)]
    assert sorted(people) == [1, 2, 2]
    assert spans(plan)[people.index(1)] == (0, 50, 1)
    # Whose face is on the photo is restored, and nobody else.
    for photo, expected in ((ANNA, 2), (BERT, 1), (CARL, None)):
        chosen = choose(plan, VideoSettings(faces=str(ASSETS / f"{photo}.mp4")), looks(), detector())
        assert {track.person for track in chosen.tracks} == {expected} - {None}
        assert chosen.notes
    largest = choose(plan, VideoSettings(faces="largest"), looks(), detector())
    assert spans(largest) == [(0, 50, 1)]
    assert [person.number for person in choose(plan, VideoSettings(faces="2"), looks(), detector()).restored] == [2]
    with pytest.raises(ValueError, match="faces=1,3: 2 people"):
        choose(plan, VideoSettings(faces="1,3"), looks(), detector())


@needs_assets
@needs_field
def test_the_cut_between_overlapping_faces() -> None:
    source = FIELD / "cut_two_people_overlapping_boxes.mp4"
    plan = plan_of(source)
    assert spans(plan) == [(0, 14, 1), (14, 28, 2)]
    find = detector()
    for index, frame in enumerate(read_frames(source)):
        face = plan.tracks[index >= 14].face
        box = find(frame.image)[0].box
        off = square_around(box) - face.boxes[index - face.start]
        assert np.abs(off[:2] + off[2:]).max() / 2 < 0.05 * max(box[2:] - box[:2])


@needs_assets
@needs_field
def test_flashes_are_no_faces() -> None:
    [track] = plan_of(FIELD / "two_white_flash_frames.mp4").tracks
    assert np.flatnonzero(~track.face.visible).tolist() == [8, 9]


@needs_assets
def test_small_faces_are_found_by_a_closer_look(tmp_path: Path) -> None:
    import cv2

    small = [cv2.resize(scene(i, (ANNA, 20), (BERT, 300)), (64, 28), interpolation=cv2.INTER_AREA) for i in range(4)]
    plan = plan_of(video(tmp_path / "in.mp4", small, fps=FPS))
    assert len(plan.tracks) == 2
    assert "closer look" in plan.notes[0]
    nothing = plan_of(video(tmp_path / "empty.mp4", [scene(0)] * 4, fps=FPS))
    assert nothing.tracks == []
    assert "no face" in nothing.notes[0]


def test_a_box_for_what_no_detector_sees(tmp_path: Path) -> None:
    source = video(tmp_path / "in.mp4", marks(4, [None]))
    box = VideoSettings(face_box="40,30,70,60").face_box
    plan = make_plan(source, probe(source), ReadOptions(), MarkDetector(), Looks(None), box)
    assert spans(plan) == [(0, 4, 1)]
    np.testing.assert_allclose(plan.tracks[0].face.boxes[2], square_around(np.array([40, 30, 70, 60])), atol=1e-4)
    with pytest.raises(ValueError, match="outside of the picture"):
        make_plan(source, probe(source), ReadOptions(), MarkDetector(), Looks(None), (400.0, 0.0, 500.0, 100.0))


@pytest.mark.parametrize("setting", [{"faces": "nowhere.png"}, {"face_box": "1,2,3"}, {"face_box": (5, 5, 5, 9)}])
def test_settings_that_cannot_be(setting: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(setting))):
        VideoSettings(**setting)


def test_a_person_starts_with_the_reference_of_an_earlier_shot(tmp_path: Path) -> None:
    """And no other does; a flash passes through."""
    images = marks(30, [(20, 30, 30)])
    images[6] = images[7] = np.full_like(images[6], 255)
    images[10:20] = [255 - image for image in marks(10, [None])]
    for image in images[20:]:
        image[5:35, 80:110] = (255, 0, 255)
    started: list[Any] = []

    def restore(*arguments: Any, **about: Any) -> Any:
        choose, reference = arguments[4:]
        started.append(reference and reference.latents)
        choose(None)
        return invert(*arguments, **about)

    def embed(faces: list[Face], image: np.ndarray | None) -> np.ndarray:
        return np.stack([np.eye(4)[int(face.box[0] > 60)] for face in faces])

    source = video(tmp_path / "in.mp4", images, fps=Fraction(10))
    how: dict[str, Any] = {"networks": restore, "looks": Looks(embed), "format": "png"}
    report = run(source, tmp_path / "out", **how, choose=lambda frames: Reference(torch.tensor(len(started)), frames))
    assert started == [None, 1, None]
    differs = (pixels(source) != pixels(report.output)).any(axis=(1, 2, 3))
    assert np.flatnonzero(~differs).tolist() == [6, 7, *range(10, 20)]
