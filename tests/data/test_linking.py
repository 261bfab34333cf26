from dataclasses import replace

import numpy as np
import pytest

from svfr.data.detectors import Face
from svfr.data.linking import FaceLinker, LinkedTrack, face_boxes
from tests.data.test_tracks import face

FPS = 20.0
ANNA, BERT = np.eye(8, dtype=np.float32)[:2]


def link(frames: list[list[Face]]) -> list[LinkedTrack]:
    linker = FaceLinker(FPS)
    for faces in frames:
        linker.add(faces)
    return linker.finish()


class Person:
    """A made recognition network that tells faces apart by their scores."""

    def __init__(self) -> None:
        self.looks = 0

    def __call__(self, faces: list[Face], image: np.ndarray | None = None) -> np.ndarray:
        self.looks += len(faces)
        return np.stack([BERT if face.score == 0.8 else ANNA for face in faces]) * 20


def link_people(frames: list[list[Face]]) -> tuple[list[LinkedTrack], Person]:
    network = Person()
    linker = FaceLinker(FPS, network)
    for faces in frames:
        linker.add(faces)
    return linker.finish(), network


def bert(x: float) -> Face:
    return replace(face(x), score=0.8)


def spans(tracks: list[LinkedTrack]) -> list[tuple[int, int]]:
    return [(linked.track.start, linked.track.stop) for linked in tracks]


def test_each_face_is_a_track() -> None:
    tracks = link([[face(100 + t), face(400 - t, side=60)] for t in range(30)])
    assert spans(tracks) == [(0, 30), (0, 30)]
    first, second = (linked.track.boxes.mean(axis=0) for linked in tracks)
    assert first[0] < 200 < second[0]
    assert tracks[0].embedding is None


def test_a_short_gap_is_filled_and_a_long_one_is_not() -> None:
    [track] = link([[face(100)]] * 10 + [[]] * 10 + [[face(104)]] * 10)
    assert (track.track.stop, len(track.faces)) == (30, 20)
    assert spans(link([[face(100)]] * 10 + [[]] * 11 + [[face(104)]] * 10)) == [(0, 10), (21, 31)]


def test_the_better_overlap_wins() -> None:
    tracks = link([[face(100), face(160)], [face(115), face(165)]])
    np.testing.assert_allclose([linked.faces[1].box[0] for linked in tracks], [face(115).box[0], face(165).box[0]])


def test_another_person_in_the_same_place_starts_a_track() -> None:
    tracks, _ = link_people([[face(100)]] * 25 + [[bert(100)]] * 25)
    # Looks at 0, 10, 20 and 30; what is between the looks at 20 and 30 is nobody's for sure.
    assert spans(tracks) == [(0, 21), (30, 50)]
    assert [int(np.argmax(linked.embedding)) for linked in tracks if linked.embedding is not None] == [0, 1]


def test_a_jump_of_the_same_person_goes_on() -> None:
    frames = [[face(100)]] * 15 + [[face(300)]] * 15
    assert len(link(frames)) == 2
    tracks, network = link_people(frames)
    assert spans(tracks) == [(0, 30)]
    assert network.looks < 6
    assert len(link_people([[face(100)]] * 15 + [[bert(300)]] * 15)[0]) == 2


def test_rate_has_to_be_known() -> None:
    with pytest.raises(ValueError, match="fps"):
        FaceLinker(0)


def test_face_boxes_undo_the_crop() -> None:
    [linked] = link([[face(200, 180, 90)]])
    np.testing.assert_allclose(face_boxes(linked.track.boxes), [[155, 135, 245, 225]], atol=1e-4)
