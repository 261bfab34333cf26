import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from svfr.data.alignment import similarity_transform
from svfr.data.detectors import load_detector
from svfr.data.recognition import load_recognizer
from svfr.files import sha256_of
from svfr.metrics.base import Chunk
from svfr.metrics.identity import Identity, ids, load_face_network, vidd
from svfr.models.identity import ARCFACE_TEMPLATE, ID_SIZE, IResNet
from svfr.models.weights import WeightsError
from tests import assets
from tests.metrics.made import check_streaming, measure, video
from tests.onnx_files import linear

RADIUS, TURN = 3.0, 0.02  # of made embeddings; rad a gray level


class Dial:
    """A recognizer that turns by TURN for each gray level of the crop's middle."""

    name, source, sha256 = "dial", "dial", "0"

    def __call__(self, faces: np.ndarray) -> np.ndarray:
        angle = faces[:, 56, 56, 0] * TURN
        return RADIUS * np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)


def flat(levels: list[int]) -> Tensor:
    """Frames (n, 3, 112, 112) of one gray level each."""
    return torch.tensor(levels, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 112, 112)


def template(num_frames: int) -> Tensor:
    """Landmarks with which a frame of 112 px is its own crop."""
    return torch.from_numpy(ARCFACE_TEMPLATE).expand(num_frames, 5, 2)


@pytest.fixture
def recognizer(tmp_path: Path) -> Any:
    linear(tmp_path / "made.onnx", 112, 6)
    return load_recognizer(str(tmp_path / "made.onnx"))


def test_known_turns_give_what_geometry_says() -> None:
    levels = list(range(0, 33, 3))  # 11 frames, 3 levels apart
    row, by_frame = measure(Identity(Dial()), [Chunk(flat(levels), flat([a + 10 for a in levels]), None, template(11))])
    step = 3 * TURN
    assert row["ids"] == pytest.approx(math.cos(10 * TURN), abs=1e-6)
    assert row["vidd"] == pytest.approx(2 * math.sin(step / 2), abs=1e-6)
    assert row["vidd_raw"] == pytest.approx(RADIUS * 2 * math.sin(step / 2), abs=1e-6)
    assert row["vidd_cosine"] == pytest.approx(1 - math.cos(step), abs=1e-6)
    assert row["vidd_stride5"] == pytest.approx(2 * math.sin(5 * step / 2), abs=1e-6)
    assert row["vidd_raw_stride5"] == pytest.approx(RADIUS * 2 * math.sin(5 * step / 2), abs=1e-6)
    assert row["vidd_cosine_stride5"] == pytest.approx(1 - math.cos(5 * step), abs=1e-6)
    assert [at for at, value in enumerate(by_frame["vidd_stride5"]) if value is not None] == [5, 10]
    assert by_frame["vidd"][0] is None


def test_swapped_frames_cost_vidd_but_not_ids() -> None:
    levels = list(range(0, 30, 3))
    swapped = [levels[i] for i in (0, 2, 1, 3, 4, 5, 6, 8, 7, 9)]
    before = measure(Identity(Dial()), [Chunk(flat(levels), flat(levels), None, template(10))])[0]
    after = measure(Identity(Dial()), [Chunk(flat(swapped), flat(swapped), None, template(10))])[0]
    assert before["ids"] == after["ids"] == pytest.approx(1)
    step = 3 * TURN
    expected = (5 * math.sin(step / 2) + 4 * math.sin(step)) * 2 / 9  # 5 steps stay, 4 become two steps long
    assert after["vidd"] == pytest.approx(expected, abs=1e-6)
    assert after["vidd"] > before["vidd"] * 1.4


def test_a_still_video_has_no_identity_distance(recognizer: Any) -> None:
    chunk = video(1, 112, landmarks=True)
    still = chunk.restored.expand(11, -1, -1, -1)
    row = measure(Identity(recognizer), [Chunk(still, still, None, template(11))])[0]
    assert row["ids"] == pytest.approx(1, abs=1e-12)
    assert [row[c] for c in row if c != "ids"] == pytest.approx([0] * 7, abs=1e-6)


def test_against_plain_loops(recognizer: Any) -> None:
    chunk = video(12, 64, landmarks=True)
    assert chunk.landmarks is not None
    embeddings = []
    for frames in (chunk.restored, chunk.truth):
        images = frames.permute(0, 2, 3, 1).contiguous().numpy()
        matrices = [similarity_transform(points.numpy(), ARCFACE_TEMPLATE) for points in chunk.landmarks.double()]
        faces = [cv2.warpAffine(i, matrix, (ID_SIZE, ID_SIZE)) for i, matrix in zip(images, matrices, strict=True)]
        embeddings.append([recognizer(face[None])[0].astype(float) for face in faces])
    ours, theirs = embeddings
    row = measure(Identity(recognizer), [chunk])[0]
    cosines = [float(a @ b / math.sqrt((a @ a) * (b @ b))) for a, b in zip(ours, theirs, strict=True)]
    assert row["ids"] == pytest.approx(np.mean(cosines), abs=1e-6)
    units = [a / math.sqrt(a @ a) for a in ours]
    assert row["vidd"] == pytest.approx(
        np.mean([math.dist(a, b) for a, b in zip(units[1:], units[:-1], strict=True)]), abs=1e-6
    )
    fifth = [ours[0], ours[5], ours[10]]
    assert row["vidd_raw_stride5"] == pytest.approx(
        (math.dist(fifth[0], fifth[1]) + math.dist(fifth[1], fifth[2])) / 2, rel=1e-6
    )


def test_cutting_the_video_does_not_matter(recognizer: Any) -> None:
    chunk = video(21, 64, landmarks=True)
    assert chunk.landmarks is not None
    chunk.landmarks[7] = torch.nan
    row = check_streaming(Identity(recognizer), chunk)
    assert None not in row.values()


def test_frames_without_a_face_do_not_count(recognizer: Any) -> None:
    chunk = video(6, 64, landmarks=True)
    assert chunk.landmarks is not None
    whole = measure(Identity(recognizer), [chunk])[1]
    chunk.landmarks[2, 3] = torch.nan
    by_frame = measure(Identity(recognizer), [Chunk(chunk.restored, chunk.truth, None, chunk.landmarks)])[1]
    assert [at for at, value in enumerate(by_frame["ids"]) if value is None] == [2]
    assert [at for at, value in enumerate(by_frame["vidd"]) if value is None] == [0, 2, 3]
    assert by_frame["vidd"][4] == pytest.approx(whole["vidd"][4], rel=1e-6)
    nothing = measure(Identity(recognizer), [Chunk(chunk.restored, chunk.truth)])[0]
    assert set(nothing.values()) == {None}
    single = measure(Identity(recognizer), [video(1, 64, landmarks=True)])[0]
    assert [column for column, value in single.items() if value is not None] == ["ids"]


def test_our_own_network(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = IResNet(18, (4, 8, 8, 8), 16).eval()
    torch.save(network.state_dict(), tmp_path / "small.pth")
    network.save_pretrained(tmp_path / "id_encoder")
    faces = np.random.default_rng(0).integers(0, 256, (2, 112, 112, 3), dtype=np.uint8)
    with torch.no_grad():
        expected = network(torch.from_numpy(faces).permute(0, 3, 1, 2) / 127.5 - 1).embedding.numpy()
    for path in (tmp_path / "small.pth", tmp_path / "id_encoder"):
        recognize = load_face_network(str(path))
        np.testing.assert_allclose(recognize(faces), expected, rtol=1e-5, atol=1e-6)
        assert recognize.source == str(path)
    assert load_face_network(str(tmp_path / "small.pth")).sha256 == sha256_of(tmp_path / "small.pth")
    torch.save({"fc.weight": torch.zeros(1, 1)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=r"other.pth: no ArcFace IResNet"):
        load_face_network(str(tmp_path / "other.pth"))


@assets.needs_assets
def test_published_distances_of_insightfaces_embeddings() -> None:
    """Measured for these embeddings: 0.156 (here 0.159), 0.29 at stride 5, 3.3 not normalized, 0.014 for 1 - cos."""
    embeddings = np.load(assets.ASSETS / "arcface_reference" / "hdtf_RD_Radio10.npz")["embedding"].astype(float)
    near, far = vidd(embeddings[:-1], embeddings[1:]), vidd(embeddings[:-5:5], embeddings[5::5])
    assert near[""].mean() == pytest.approx(0.156, abs=0.004)
    assert near["_raw"].mean() == pytest.approx(3.3, abs=0.05)
    assert near["_cosine"].mean() == pytest.approx(0.014, abs=0.0005)
    assert far[""].mean() == pytest.approx(0.29, abs=0.005)
    assert ids(embeddings, embeddings) == pytest.approx(np.ones(61))


def real(clip: str, num_frames: int) -> tuple[Tensor, Tensor]:
    """Frames (n, 3, h, w) of a real clip and their landmarks."""
    detect = load_detector("yunet", assets.NETWORKS)
    frames = assets.frames(assets.ASSETS / "clips_hq" / clip, range(num_frames))
    points = torch.stack([torch.from_numpy(detect(frame)[0].landmarks) for frame in frames])
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).contiguous(), points


@assets.needs_assets
@pytest.mark.slow
def test_real_faces_with_edgeface() -> None:
    metric = Identity(load_face_network("edgeface", assets.NETWORKS))
    truth, points = real("hdtf_RD_Radio10.mp4", 31)
    other, _ = real("vrt_5.mp4", 31)
    other = torch.nn.functional.interpolate(other.float(), size=(512, 512)).round().to(torch.uint8)
    own = measure(metric, [Chunk(truth, truth, None, points)])
    assert own[0]["ids"] == pytest.approx(1, abs=1e-6)
    reference = np.load(assets.ASSETS / "arcface_reference" / "hdtf_RD_Radio10.npz")["embedding"].astype(float)
    theirs = vidd(reference[:30], reference[1:31])[""]
    assert np.corrcoef(own[1]["vidd"][1:], theirs)[0, 1] > 0.8  # published over many clips: 0.92
    assert 0.13 < own[0]["vidd"] < 0.32  # the range measured on real clips
    assert 0.24 < own[0]["vidd_stride5"] < 0.61
    swapped = truth.clone()
    swapped[16:] = other[16:]
    mixed = measure(metric, [Chunk(swapped, truth, None, points)])[0]
    assert mixed["ids"] < 0.65, "half of the frames show another person"
    blurred = torch.nn.functional.avg_pool2d(truth.float(), 17, 1, 8).round().to(torch.uint8)
    assert mixed["ids"] < measure(metric, [Chunk(blurred, truth, None, points)])[0]["ids"] < 0.99
    shuffled = torch.randperm(31, generator=torch.Generator().manual_seed(0))
    again = measure(metric, [Chunk(truth[shuffled], truth[shuffled], None, points[shuffled])])[0]
    assert again["ids"] == pytest.approx(1, abs=1e-6)
    assert again["vidd"] > 1.3 * own[0]["vidd"]
