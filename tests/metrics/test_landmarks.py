from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from svfr.data.detectors import load_detector
from svfr.data.landmarks import load_landmarker
from svfr.metrics.base import Chunk
from svfr.metrics.landmarks import LandmarkError, box_of, landmark_error
from svfr.models.identity import ARCFACE_TEMPLATE
from tests import assets
from tests.metrics.made import check_streaming, measure, video

POINTS = np.random.default_rng(0).uniform(0, 100, (68, 2))


class Shadow:
    """A landmarker whose points are a fixed shape, moved by the gray level in the frame's corner [px]."""

    name, source, sha256 = "shadow", "shadow", "0"

    def __init__(self) -> None:
        self.boxes: list[np.ndarray] = []

    def __call__(self, image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        self.boxes.append(boxes[0])
        return (POINTS + image[0, 0, 0])[None].astype(np.float32)


def test_a_known_shift() -> None:
    eyes = np.linalg.norm(POINTS[36] - POINTS[45])
    assert landmark_error(POINTS + np.array([3, 4]), POINTS) == pytest.approx(500 / eyes)
    assert landmark_error(POINTS, POINTS) == 0
    one = POINTS.copy()
    one[10] += (0, 6.8)
    assert landmark_error(one, POINTS) == pytest.approx(10 / eyes)
    same = POINTS.copy()
    same[36] = same[45]
    assert landmark_error(POINTS, same) is None


def test_both_videos_are_searched_in_the_truths_box() -> None:
    chunk = video(3, 40, landmarks=True)
    chunk.restored[:, :, 0, 0], chunk.truth[:, :, 0, 0] = 5, 2
    shadow = Shadow()
    row, by_frame = measure(LandmarkError(shadow), [chunk])
    expected = 100 * 3 * 2**0.5 / np.linalg.norm(POINTS[36] - POINTS[45])
    assert by_frame["landmark_error"] == pytest.approx([expected] * 3, rel=1e-5)
    assert row["landmark_error"] == pytest.approx(expected, rel=1e-5)
    np.testing.assert_array_equal(shadow.boxes[::2], shadow.boxes[1::2])
    assert chunk.landmarks is not None
    chunk.landmarks[1] = torch.nan
    again = check_streaming(LandmarkError(shadow), Chunk(chunk.restored, chunk.truth, None, chunk.landmarks))
    assert again == row
    assert measure(LandmarkError(shadow), [Chunk(chunk.restored, chunk.truth)])[0] == {"landmark_error": None}


def test_the_box_turns_and_grows_with_the_face() -> None:
    box = box_of(ARCFACE_TEMPLATE)
    assert box == pytest.approx([16.8, 9.3, 96.0, 119.7], abs=1e-6)
    assert box_of(ARCFACE_TEMPLATE * 2 + (10, 20)) == pytest.approx(2 * box + (10, 20, 10, 20), abs=1e-6)
    center = (box[:2] + box[2:]) / 2
    matrix = cv2.getRotationMatrix2D((56, 56), 30, 1)
    turned = box_of(ARCFACE_TEMPLATE @ matrix[:, :2].T + matrix[:, 2])
    assert (turned[:2] + turned[2:]) / 2 == pytest.approx(matrix[:, :2] @ center + matrix[:, 2], abs=1e-6)
    assert turned[2:] - turned[:2] == pytest.approx(box[2:] - box[:2], abs=1e-6)


@assets.needs_assets
@pytest.mark.slow
def test_real_faces_with_pfld(tmp_path: Path) -> None:
    detect = load_detector("yunet", assets.NETWORKS)
    frames = assets.frames(assets.ASSETS / "clips_hq" / "hdtf_RD_Radio10.mp4", range(0, 20, 4))
    truth = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).contiguous()
    faces = [detect(frame)[0] for frame in frames]
    for face in faces:
        overlap = np.minimum(face.box[2:], box_of(face.landmarks)[2:]) - np.maximum(
            face.box[:2], box_of(face.landmarks)[:2]
        )
        assert overlap.prod() > 0.75 * face.area, "the box is the detector's"
    points = torch.from_numpy(np.stack([face.landmarks for face in faces]))
    metric = LandmarkError(load_landmarker("onnx", assets.NETWORKS))
    errors = [
        measure(metric, [Chunk(restored, truth, None, points)])[0]["landmark_error"]
        for restored in (
            truth,
            torch.nn.functional.avg_pool2d(truth.float(), 15, 1, 7).to(torch.uint8),
            truth.roll(8, dims=3),
        )
    ]
    assert errors[0] == 0
    assert 0.5 < errors[1] < 8
    outer = np.mean([np.linalg.norm(face.landmarks[0] - face.landmarks[1]) for face in faces])  # of pupils: less
    assert errors[2] == pytest.approx(100 * 8 / (outer * 1.45), rel=0.35), "a shift of 8 px"
