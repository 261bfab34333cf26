from pathlib import Path

import numpy as np
import pytest
import torch

from svfr import networks
from svfr.data.detectors import load_detector
from svfr.data.landmarks import load_landmarker
from svfr.files import sha256_of
from svfr.networks import NETWORKS, NetworkMissing
from tests import assets
from tests.onnx_files import linear

# Outer and inner corner of the eye at image left, inner and outer of the other, corners of the mouth.
CORNERS_68 = (36, 39, 42, 45, 48, 54)
CORNERS_106 = (35, 39, 89, 93, 52, 61)  # InsightFace's numbering
IMAGE = np.random.default_rng(0).integers(0, 256, (120, 150, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, and a table that takes made files."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("SVFR_NETWORKS", "XDG_CACHE_HOME", "TORCH_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(networks, "sha256_of", lambda path: NETWORKS.get(path.stem, NETWORKS["fan"]).sha256)
    return tmp_path


def test_pfld_crops_and_places_its_points(tmp_path: Path) -> None:
    matrix = linear(tmp_path / "pfld.onnx", 112, 136)
    landmark = load_landmarker("auto", tmp_path, download=False)
    box = np.array([30.0, 20, 110, 90])  # 80 px wide: the crop has 112 px and is not resampled
    points = landmark(IMAGE, np.stack([box, box]))
    assert points.shape == (2, 68, 2)
    assert points.dtype == np.float32
    left, top = 70 - 56, 55 - 56
    face = np.pad(IMAGE, ((1, 0), (0, 0), (0, 0)), mode="edge")[top + 1 : top + 113, left : left + 112, ::-1] / 255
    expected = (face.transpose(2, 0, 1).reshape(-1) @ matrix).reshape(68, 2) * 112 + (left, top)
    np.testing.assert_allclose(points[0], expected, rtol=1e-4, atol=0.02)
    np.testing.assert_array_equal(points[0], points[1])
    assert landmark(IMAGE, np.zeros((0, 4))).shape == (0, 68, 2)
    assert landmark.name == "pfld"


@pytest.fixture(scope="module")
def fan_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a FAN of random weights in the published file's layout."""
    from face_alignment.models import FAN

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("networks")
    torch.save(FAN(4).state_dict(), folder / NETWORKS["fan"].file)
    return folder


@pytest.mark.slow
def test_fan_reads_the_file_that_it_is_given(fan_folder: Path, home: Path) -> None:
    landmark = load_landmarker("auto", fan_folder, download=False)
    assert landmark.name == "face_alignment"
    assert landmark.sha256 == sha256_of(fan_folder / NETWORKS["fan"].file)
    box = np.array([30.0, 20, 110, 90])
    points = landmark(IMAGE, np.stack([box, box]))
    assert points.shape == (2, 68, 2)
    assert np.isfinite(points).all()
    np.testing.assert_array_equal(points[0], points[1])
    assert landmark(IMAGE, np.zeros((0, 4))).shape == (0, 68, 2)
    assert not (home / ".cache" / "torch").exists(), "nothing is downloaded"


def test_a_fan_of_another_kind_is_refused_by_name_and_passed_over_otherwise(tmp_path: Path) -> None:
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / NETWORKS["fan"].file)
    with pytest.raises(ValueError, match="no state dict of FAN") as error:
        load_landmarker("face_alignment", tmp_path)
    assert "\n" not in str(error.value)
    linear(tmp_path / "pfld.onnx", 112, 136)
    assert load_landmarker("auto", tmp_path).name == "pfld"


def test_what_cannot_be_loaded(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown landmarks 'dlib': choose from auto"):
        load_landmarker("dlib")
    for name, network in (("auto", "pfld"), ("onnx", "pfld"), ("face_alignment", "fan")):
        with pytest.raises(NetworkMissing, match=f"network '{network}'"):
            load_landmarker(name, tmp_path, download=False)


@assets.needs_assets
@pytest.mark.slow
def test_pfld_agrees_with_insightface(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eye and mouth corners are 3.6% of the outer-eye distance from InsightFace's, as published with the networks."""
    monkeypatch.setattr(networks, "sha256_of", sha256_of)
    landmark, detect = load_landmarker("onnx", assets.NETWORKS), load_detector("yunet", assets.NETWORKS)
    reference = np.load(assets.ASSETS / "arcface_reference" / "hdtf_RD_Radio10.npz")["landmarks106"]
    indices = range(0, 61, 4)
    errors = []
    for index, frame in zip(
        indices, assets.frames(assets.ASSETS / "clips_hq" / "hdtf_RD_Radio10.mp4", indices), strict=True
    ):
        ours = landmark(frame, detect(frame)[0].box[None])[0][list(CORNERS_68)]
        theirs = reference[index][list(CORNERS_106)]
        distance = np.linalg.norm(theirs[0] - theirs[3])
        errors.append(np.linalg.norm(ours - theirs, axis=1).mean() / distance)
    assert np.mean(errors) == pytest.approx(0.036, abs=0.006)
