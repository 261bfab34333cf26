from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import scipy.ndimage

from svfr.data.alignment import FFHQ_TEMPLATE
from svfr.data.detectors import Face
from svfr.data.linking import MARGIN, SHIFT_UP, FaceLinker, LinkedTrack, face_boxes, smooth, track_largest_face

FPS = 25.0


def face(x: float, y: float = 200, side: float = 100) -> Face:
    """A face whose box is centred at x, y."""
    box = np.array([x - side * 0.4, y - side / 2, x + side * 0.4, y + side / 2], dtype=np.float32)
    points = (FFHQ_TEMPLATE / 512 - 0.5) * side + (x, y)
    return Face(box, points.astype(np.float32), 0.9)


def centres(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, :2] + boxes[:, 2:]) / 2


def sides(boxes: np.ndarray) -> np.ndarray:
    return boxes[:, 2] - boxes[:, 0]


def test_no_face_at_all() -> None:
    assert track_largest_face([], FPS) == []
    assert track_largest_face([[], [], []], FPS) == []


def test_detections_are_streamed() -> None:
    def stream() -> Iterator[list[Face]]:
        for _ in range(5):
            yield [face(100)]

    [track] = track_largest_face(stream(), FPS)
    assert (track.start, track.stop) == (0, 5)


def test_a_single_frame() -> None:
    [track] = track_largest_face([[], [face(100, 200)], []], FPS)
    assert (track.start, track.stop) == (1, 2)
    np.testing.assert_allclose(centres(track.boxes), [[100, 200 - SHIFT_UP * 100]], atol=1e-4)
    np.testing.assert_allclose(sides(track.boxes), [MARGIN * 100], atol=1e-4)
    assert track.boxes.dtype == np.float64
    assert track.landmarks.shape == (1, 5, 2)
    assert track.landmarks.dtype == np.float32
    np.testing.assert_array_equal(track.landmarks[0], face(100, 200).landmarks)


def test_boxes_are_square() -> None:
    [track] = track_largest_face([[face(100 + i, 90, 50 + i)] for i in range(20)], FPS)
    np.testing.assert_allclose(sides(track.boxes), track.boxes[:, 3] - track.boxes[:, 1])


def test_jitter_is_smoothed() -> None:
    rng = np.random.default_rng(0)
    detections = [[face(200 + rng.normal(0, 3), 200 + rng.normal(0, 3), 100 + rng.normal(0, 3))] for _ in range(100)]
    [track] = track_largest_face(detections, FPS)
    raw = np.array([d[0].box for d in detections])
    shaking = np.abs(np.diff(centres(raw), axis=0)).mean()
    assert np.abs(np.diff(centres(track.boxes), axis=0)).mean() < 0.1 * shaking
    assert np.abs(sides(track.boxes) - MARGIN * 100).max() < 6
    assert np.abs(sides(track.boxes).mean() - MARGIN * 100) < 1


def test_steady_motion_is_followed_to_the_very_ends() -> None:
    [track] = track_largest_face([[face(100 + 4 * i, 200, 100 + 2 * i)] for i in range(40)], FPS)
    np.testing.assert_allclose(centres(track.boxes)[:, 0], 100 + 4 * np.arange(40), atol=1e-3)
    np.testing.assert_allclose(sides(track.boxes), MARGIN * (100 + 2 * np.arange(40)), atol=1e-3)


def test_smoothing_is_a_gaussian_mean_and_that_of_what_it_missed() -> None:
    values = np.random.default_rng(0).normal(size=(160, 1))
    steady, count = np.zeros((160, 1)), 0
    while count < 3:
        rest, count = values - steady, count + 1
        steady = steady + scipy.ndimage.gaussian_filter1d(rest, 5, axis=0, truncate=3)
    np.testing.assert_allclose(smooth(values, 5)[60:100], steady[60:100])


def test_a_fast_motion_is_followed() -> None:
    x = 300 + 100 * np.sin(2 * np.pi * np.arange(90) / FPS)  # once a second to both sides, by its own width
    [track] = track_largest_face([[face(each)] for each in x], FPS)
    assert np.abs(centres(track.boxes)[:, 0] - x).max() < 20  # 55 by the Gaussian alone


def test_a_short_gap_is_filled() -> None:
    detections = [[] if 10 <= i < 20 else [face(100 + 2 * i)] for i in range(40)]
    [track] = track_largest_face(detections, FPS)
    assert (track.start, track.stop) == (0, 40)
    np.testing.assert_allclose(centres(track.boxes)[:, 0], 100 + 2 * np.arange(40), atol=1e-3)
    np.testing.assert_allclose(track.landmarks[14], face(128).landmarks, atol=1e-3)


def test_a_long_gap_ends_the_track() -> None:
    detections = [[] if 10 <= i < 30 else [face(100)] for i in range(40)]
    assert [(t.start, t.stop) for t in track_largest_face(detections, FPS)] == [(0, 10), (30, 40)]


def test_the_longest_gap_is_in_seconds() -> None:
    detections = [[] if 10 <= i < 30 else [face(100)] for i in range(40)]
    assert len(track_largest_face(detections, 60.0)) == 1


def test_a_cut_starts_a_track() -> None:
    detections = [[face(100)]] * 10 + [[face(400, 220, 120)]] * 10
    first, second = track_largest_face(detections, FPS)
    assert (first.start, first.stop, second.start, second.stop) == (0, 10, 10, 20)
    np.testing.assert_allclose(centres(first.boxes)[:, 0], 100, atol=1e-3)
    np.testing.assert_allclose(centres(second.boxes)[:, 0], 400, atol=1e-3)


def test_a_cut_in_the_last_frame() -> None:
    tracks = track_largest_face([[face(100)]] * 10 + [[face(400)]], FPS)
    assert [(t.start, t.stop) for t in tracks] == [(0, 10), (10, 11)]


def test_a_cut_then_nothing() -> None:
    tracks = track_largest_face([[face(100)]] * 10 + [[face(400)]] * 2 + [[]] * 40, FPS)
    assert [(t.start, t.stop) for t in tracks] == [(0, 10), (10, 12)]


def test_one_false_detection_cuts_nothing() -> None:
    detections = [[face(400, 220, 120)] if i == 10 else [face(100)] for i in range(20)]
    [track] = track_largest_face(detections, FPS)
    assert (track.start, track.stop) == (0, 20)
    np.testing.assert_allclose(centres(track.boxes)[:, 0], 100, atol=1e-3)


def test_of_two_equal_faces_the_first_stays() -> None:
    rng = np.random.default_rng(0)
    detections = []
    for _ in range(50):
        pair = [face(100, side=100 + rng.normal(0, 4)), face(400, side=100 + rng.normal(0, 4))]
        detections.append(sorted(pair, key=lambda f: -f.area))
    assert len({round(float(d[0].box[0]) > 200) for d in detections}) == 2, "either is the largest at times"
    [track] = track_largest_face(detections, FPS)
    assert np.ptp(centres(track.boxes)[:, 0]) < 1


def test_a_far_larger_face_takes_over() -> None:
    detections = [[face(100)]] * 10 + [[face(400, 220, 200), face(100)]] * 10
    first, second = track_largest_face(detections, FPS)
    assert (first.stop, second.start, second.stop) == (10, 10, 20)
    np.testing.assert_allclose(centres(second.boxes)[:, 0], 400, atol=1e-3)


def test_a_larger_face_in_the_last_frame_is_not_yet_followed() -> None:
    tracks = track_largest_face([[face(100)]] * 10 + [[face(400, 220, 200), face(100)]], FPS)
    assert [(t.start, t.stop) for t in tracks] == [(0, 11)]


def test_a_face_left_alone_takes_over() -> None:
    detections = [[face(100), face(400, side=60)]] * 10 + [[face(400, side=60)]] * 10
    first, second = track_largest_face(detections, FPS)
    assert (first.start, first.stop, second.start, second.stop) == (0, 10, 10, 20)


def test_tracks_never_overlap() -> None:
    rng = np.random.default_rng(1)
    for _ in range(30):
        detections = [
            sorted(
                (face(rng.choice([100, 150, 400, 700]), side=rng.choice([60, 100, 250])) for _ in range(n)),
                key=lambda f: -f.area,
            )
            for n in rng.integers(0, 4, size=60)
        ]
        tracks = track_largest_face(detections, FPS)
        assert tracks
        assert all(a.stop <= b.start for a, b in pairwise(tracks))
        assert tracks[-1].stop <= 60
        for track in tracks:
            assert (sides(track.boxes) > 0).all()
            assert np.isfinite(track.boxes).all()


@pytest.mark.parametrize("fps", [0.0, -1.0, float("nan")])
def test_frame_rates_that_are_none(fps: float) -> None:
    with pytest.raises(ValueError, match="fps must be above 0"):
        track_largest_face([], fps)


RATE = 20.0
ANNA, BERT = np.eye(8, dtype=np.float32)[:2]


def link(frames: list[list[Face]]) -> list[LinkedTrack]:
    linker = FaceLinker(RATE)
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
    linker = FaceLinker(RATE, network)
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
