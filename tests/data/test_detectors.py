import builtins
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from svfr.data import detectors
from svfr.data.detectors import Face, InsightFace, YuNet, iou, load_detector
from svfr.networks import NETWORKS, NetworkMissing
from tests import assets
from tests.assets import NETWORKS as REAL_NETWORKS
from tests.assets import needs_assets

SIDE = 640
POINTS = np.array([[-20, -30], [20, -30], [0, 0], [-15, 30], [15, 30]], dtype=np.float32)  # around the anchor, px


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home and no network."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SVFR_NETWORKS", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    def refuse(_: object) -> None:
        raise OSError("no network in tests")

    monkeypatch.setattr("svfr.networks._download", refuse)
    return tmp_path


@pytest.fixture(scope="module")
def yunet() -> YuNet:
    return YuNet(REAL_NETWORKS / NETWORKS["yunet"].file)


def constant_detector(path: Path, faces: list[tuple[int, int, int, float]]) -> None:
    """An ONNX file of SCRFD's interface whose outputs fire at (stride, column, row) with a score.

    Each box reaches 40 px to the left and right of its anchor and 50 up and down.
    """
    groups: dict[str, list[np.ndarray]] = {"score": [], "bbox": [], "kps": []}
    for stride in (8, 16, 32):
        cells = (SIDE // stride) ** 2 * 2  # two anchors a cell
        score = np.zeros((cells, 1), np.float32)
        bbox, kps = np.zeros((cells, 4), np.float32), np.zeros((cells, 10), np.float32)
        for at, column, row, value in faces:
            if at == stride:
                cell = (row * (SIDE // stride) + column) * 2
                score[cell] = value
                bbox[cell] = np.array([40, 50, 40, 50]) / stride
                kps[cell] = POINTS.ravel() / stride
        for name, value_array in (("score", score), ("bbox", bbox), ("kps", kps)):
            groups[name].append(value_array)
    nodes, outputs = [], []
    for name, arrays in groups.items():
        for i, array in enumerate(arrays):
            nodes.append(helper.make_node("Constant", [], [f"{name}{i}"], value=numpy_helper.from_array(array)))
            outputs.append(helper.make_tensor_value_info(f"{name}{i}", TensorProto.FLOAT, list(array.shape)))
    save(path, nodes, outputs, ["n", 3, SIDE, SIDE])


def save(path: Path, nodes: list[Any], outputs: list[Any], shape: list[Any]) -> None:
    inputs = [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)]
    model = helper.make_model(
        helper.make_graph(nodes, "made", inputs, outputs), opset_imports=[helper.make_opsetid("", 17)], ir_version=9
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(path))


def recognizer(path: Path) -> None:
    array = np.zeros((1, 512), np.float32)
    node = helper.make_node("Constant", [], ["embedding"], value=numpy_helper.from_array(array))
    save(path, [node], [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [1, 512])], ["n", 3, 112, 112])


def test_iou() -> None:
    a = np.array([0, 0, 2, 2])
    assert iou(a, a) == 1
    assert iou(a, np.array([1, 0, 3, 2])) == pytest.approx(1 / 3)
    assert iou(a, np.array([5, 5, 6, 6])) == 0
    assert iou(np.zeros(4), np.zeros(4)) == 0


@needs_assets
@pytest.mark.parametrize("clip", assets.CLIPS, ids=lambda path: path.stem)
def test_yunet_finds_a_face_in_every_clip(yunet: YuNet, clip: Path) -> None:
    for frame in assets.frames(clip, range(0, 41, 20)):
        largest = yunet(frame)[0]
        height, width = frame.shape[:2]
        assert 0.6 < largest.score <= 1
        assert 0.1 * min(height, width) < largest.box[3] - largest.box[1] < height
        left, right, nose, mouth_left, mouth_right = largest.landmarks
        assert left[0] < right[0]
        assert mouth_left[0] < mouth_right[0]
        assert max(left[1], right[1]) < nose[1] < min(mouth_left[1], mouth_right[1])


@needs_assets
def test_yunet_agrees_with_insightfaces_landmarks(yunet: YuNet) -> None:
    with np.load(assets.ASSETS / "arcface_reference" / "hdtf_RD_Radio10.npz") as file:
        expected, boxes = file["keypoints5"], file["bbox"]
    indices = range(0, 61, 10)
    for index, frame in zip(indices, assets.frames(assets.CLIPS[1], indices), strict=True):
        face = yunet(frame)[0]
        eyes = np.linalg.norm(expected[index, 1] - expected[index, 0])
        distance = np.linalg.norm(face.landmarks - expected[index], axis=1) / eyes
        assert distance.mean() < 0.12
        assert distance.max() < 0.2
        assert iou(face.box, boxes[index]) > 0.8


@needs_assets
@pytest.mark.parametrize("size", [(1080, 1920), (1920, 1080)])
def test_yunet_scales_back_from_large_frames(yunet: YuNet, size: tuple[int, int]) -> None:
    [frame] = assets.frames(assets.CLIPS[1], range(1))
    small = yunet(frame)[0]
    canvas = np.full((*size, 3), 100, np.uint8)
    canvas[300:812, 400:912] = frame
    large = yunet(canvas)[0]
    assert iou(large.box - np.array([400, 300, 400, 300]), small.box) > 0.85
    eyes = np.linalg.norm(small.landmarks[1] - small.landmarks[0])
    assert np.linalg.norm(large.landmarks - (400, 300) - small.landmarks, axis=1).max() < 0.15 * eyes


@needs_assets
@pytest.mark.parametrize("share", [0.7, 0.6, 0.5])
def test_yunet_finds_a_face_that_fills_the_frame(yunet: YuNet, share: float) -> None:
    for path in assets.PHOTOS[:3]:
        photo = assets.photo(path)
        expected = yunet(photo)[0]
        left = round(1024 * (1 - share) / 2)
        cut = photo[left + 40 : 1024 - left + 40, left : 1024 - left]
        face = yunet(np.ascontiguousarray(cut))[0]
        eyes = np.linalg.norm(expected.landmarks[1] - expected.landmarks[0])
        moved = face.landmarks + np.array([left, left + 40]) - expected.landmarks
        assert face.score > 0.85
        assert np.linalg.norm(moved, axis=1).mean() < 0.12 * eyes


@needs_assets
@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (9, 9), (30000, 12), (64, 64)])
def test_frames_without_a_face(yunet: YuNet, shape: tuple[int, int]) -> None:
    assert yunet(np.full((*shape, 3), 128, np.uint8)) == []


@needs_assets
def test_yunet_sorts_by_size(yunet: YuNet) -> None:
    [frame] = assets.frames(assets.CLIPS[1], range(1))
    faces = yunet(np.concatenate([frame[::2, ::2].repeat(2, axis=0)[:256], frame[:256]], axis=1))
    assert [face.area for face in faces] == sorted((face.area for face in faces), reverse=True)
    both = np.zeros((512, 768, 3), np.uint8)
    both[:, 256:] = frame
    both[:256, :256] = frame[::2, ::2]
    large, small = yunet(both)[:2]
    assert large.box[0] > 256 > small.box[2]


@needs_assets
def test_yunet_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    detector = load_detector("yunet", REAL_NETWORKS)
    assert detector.name == "yunet"
    assert detector.source == str(REAL_NETWORKS / NETWORKS["yunet"].file)
    assert capfd.readouterr() == ("", "")


def test_yunet_of_a_broken_file(tmp_path: Path) -> None:
    file = tmp_path / "face.onnx"
    file.write_bytes(b"no network")
    with pytest.raises(ValueError, match="OpenCV cannot load this network") as error:
        YuNet(file)
    assert "\n" not in str(error.value)


def test_insightface_pack(tmp_path: Path) -> None:
    pack = tmp_path / "networks" / "models" / "buffalo_l"
    constant_detector(pack / "det_10g.onnx", [(16, 10, 12, 0.8), (32, 15, 5, 0.3)])
    (pack / "w600k_r50.onnx").write_bytes(b"not touched")
    detector = load_detector("insightface", tmp_path / "networks")
    assert detector.name == "insightface"
    assert detector.source == str(pack / "det_10g.onnx")
    for scale in (1, 2):  # a frame of 1280 px is searched at 640
        [face] = detector(np.zeros((SIDE * scale, SIDE * scale, 3), np.uint8))
        anchor = np.array([160, 192])
        np.testing.assert_allclose(face.box, np.array([120, 142, 200, 242]) * scale, atol=1e-3)
        np.testing.assert_allclose(face.landmarks, (anchor + POINTS) * scale, atol=1e-3)
        assert face.score == pytest.approx(0.8)
        assert face.box.dtype == face.landmarks.dtype == np.float32


def test_insightface_sorts_by_size_and_takes_tiny_frames(tmp_path: Path) -> None:
    constant_detector(tmp_path / "p" / "det.onnx", [(8, 70, 40, 0.9), (32, 5, 5, 0.8)])
    detector = InsightFace(tmp_path / "p")
    assert len(detector(np.zeros((SIDE, SIDE, 3), np.uint8))) == 2
    for shape in ((1, 1), (1, 2000), (2000, 1)):
        assert detector(np.zeros((*shape, 3), np.uint8)) == []


def test_a_pack_whose_detector_has_another_name(tmp_path: Path) -> None:
    recognizer(tmp_path / "a.onnx")
    constant_detector(tmp_path / "b.onnx", [])
    assert InsightFace(tmp_path).source == str(tmp_path / "b.onnx")


def test_a_pack_without_a_detector(tmp_path: Path) -> None:
    recognizer(tmp_path / "a.onnx")
    with pytest.raises(ValueError, match="none of its 1 ONNX files is a face detector"):
        InsightFace(tmp_path)


def test_a_pack_with_a_broken_file(tmp_path: Path) -> None:
    (tmp_path / "det.onnx").write_bytes(b"no network")
    with pytest.raises(ValueError, match="InsightFace cannot load this network") as error:
        InsightFace(tmp_path)
    assert "\n" not in str(error.value)


def test_auto_takes_a_pack_that_is_there(tmp_path: Path) -> None:
    constant_detector(tmp_path / "models" / "antelopev2" / "scrfd_10g_bnkps.onnx", [])
    assert load_detector("auto", tmp_path).name == "insightface"


@needs_assets
def test_auto_takes_yunet_without_a_pack_or_with_a_broken_one(tmp_path: Path) -> None:
    assert load_detector("auto", REAL_NETWORKS).name == "yunet"
    pack = tmp_path / ".insightface" / "models" / "buffalo_l"
    pack.mkdir(parents=True)
    (pack / "det_10g.onnx").write_bytes(b"no network")
    assert load_detector("auto", REAL_NETWORKS).name == "yunet"


def test_a_named_pack_is_no_other(tmp_path: Path) -> None:
    for pack in ("buffalo_l", "antelopev2"):
        constant_detector(tmp_path / "models" / pack / "scrfd_10g_bnkps.onnx", [])
    for pack in ("buffalo_l", "antelopev2"):
        assert Path(load_detector(f"insightface/{pack}", tmp_path).source).parent.name == pack
    shutil.rmtree(tmp_path / "models" / "antelopev2")
    with pytest.raises(NetworkMissing, match="'insightface/antelopev2'"):
        load_detector("insightface/antelopev2", tmp_path)


@pytest.mark.parametrize("name", ["auto", "yunet", "insightface"])
def test_nothing_to_be_had(name: str, tmp_path: Path) -> None:
    with pytest.raises(NetworkMissing, match="'insightface/buffalo_l'" if name == "insightface" else "'yunet'"):
        load_detector(name, tmp_path)


def test_insightface_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("insightface"):
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ValueError, match=r"pip install 'svfr\[faces\]'"):
        load_detector("insightface", tmp_path)


def test_unknown_detector() -> None:
    with pytest.raises(ValueError, match=r"unknown detector 'mtcnn': choose from auto, insightface/.*, yunet"):
        load_detector("mtcnn")


class Recorder:
    """In the place of a network: keeps what it is given and finds nothing."""

    def setInputSize(self, size: tuple[int, int]) -> None:
        self.size = size

    def setScoreThreshold(self, score: float) -> None:
        self.score = score

    def detect(self, image: np.ndarray) -> tuple[Any, Any]:
        self.image = image
        return (np.zeros((0, 5)), np.zeros((0, 5, 2))) if self.packed else (1, None)

    def __init__(self, packed: bool) -> None:
        self.packed = packed


@pytest.mark.parametrize("kind", [YuNet, InsightFace])
def test_networks_are_given_bgr(kind: type) -> None:
    detector: Any = object.__new__(kind)
    detector._network = Recorder(packed=kind is InsightFace)
    assert detector(np.full((64, 48, 3), (255, 128, 0), np.uint8)) == []
    assert detector._network.image[0, 0].tolist() == [0, 128, 255]


def test_useless_boxes_are_left_out() -> None:
    points = np.zeros((5, 2), np.float32)
    good = Face(np.array([0, 0, 2, 2], np.float32), points, 0.9)
    flat = Face(np.array([0, 0, 0, 2], np.float32), points, 0.9)
    lost = Face(np.array([0, 0, np.nan, 2], np.float32), points, 0.9)
    assert detectors._largest_first([flat, lost, good]) == [good]
