from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from svfr.data.detectors import load_detector
from svfr.data.recognition import load_recognizer
from svfr.files import sha256_of
from svfr.models.identity import id_crop
from svfr.networks import NetworkMissing
from tests import assets
from tests.onnx_files import linear

FACES = np.random.default_rng(0).integers(0, 256, (3, 112, 112, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("SVFR_NETWORKS", "XDG_CACHE_HOME", "TORCH_HOME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.mark.parametrize("batch", ["n", 1])
def test_any_onnx_file_of_insightfaces_interface(batch: int | str, tmp_path: Path) -> None:
    path = tmp_path / "mine.onnx"
    matrix = linear(path, 112, 5, batch)
    recognizer = load_recognizer(str(path))
    planes = (FACES.astype(np.float64) / 127.5 - 1).transpose(0, 3, 1, 2).reshape(3, -1)
    np.testing.assert_allclose(recognizer(FACES), planes @ matrix, rtol=1e-4, atol=1e-4)
    assert (recognizer.name, recognizer.source, recognizer.sha256) == ("mine", str(path), sha256_of(path))
    assert len(recognizer(FACES[:0])) == 0


def test_a_pack_comes_first_and_its_other_networks_do_not_matter(tmp_path: Path) -> None:
    pack = tmp_path / "models" / "buffalo_l"
    linear(pack / "genderage.onnx", 96, 3)
    with pytest.raises(ValueError, match=r"buffalo_l: none of its 1 ONNX files is a face recognition network"):
        load_recognizer("insightface", tmp_path)
    linear(pack / "w600k_r50.onnx", 112, 4)
    linear(tmp_path / "models" / "antelopev2" / "glintr100.onnx", 112, 4)
    assert load_recognizer("insightface/antelopev2", tmp_path).name == "insightface/antelopev2"
    for name in ("insightface", "auto", "insightface/buffalo_l"):
        recognizer = load_recognizer(name, tmp_path)
        assert recognizer.name == "insightface/buffalo_l"
        assert recognizer.source.endswith("w600k_r50.onnx")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("arcface", "unknown recognizer 'arcface': choose from auto"),
        ("nothing.onnx", "nothing.onnx: no such recognition network"),
        ("edgeface", "network 'edgeface' .* is missing .* put edgeface_xs_fp32.onnx into"),
    ],
)
def test_what_cannot_be_loaded(name: str, message: str) -> None:
    with pytest.raises((ValueError, NetworkMissing), match=message):
        load_recognizer(name, download=False)


def test_broken_and_other_files(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"broken.onnx: not a readable ONNX file") as error:
        load_recognizer(str(broken))
    assert "\n" not in str(error.value)
    linear(tmp_path / "small.onnx", 96, 3)
    with pytest.raises(ValueError, match=r"small.onnx: maps \['n', 3, 96, 96\] to \['n', 3\] instead of"):
        load_recognizer(str(tmp_path / "small.onnx"))


def aligned(clip: str, indices: range) -> np.ndarray:
    """Faces of a clip, aligned by YuNet's landmarks."""
    detect = load_detector("yunet", assets.NETWORKS)
    frames = assets.frames(assets.ASSETS / clip, indices)
    crops = [id_crop(frame, detect(frame)[0].landmarks, "arcface") for frame in frames]
    return np.stack([np.rint((crop.numpy() + 1) * 127.5).astype(np.uint8).transpose(1, 2, 0) for crop in crops])


@assets.needs_assets
@pytest.mark.slow
def test_edgeface_tells_people_apart() -> None:
    """Published for these clips: 0.81 within one, 0.02 between people (95th percentile 0.15)."""
    recognize = load_recognizer("edgeface", assets.NETWORKS)
    clips = ["hdtf_KatieHill", "hdtf_RD_Radio10", "lp_d0", "lp_d3", "lp_d6", "vrt_2", "vrt_4", "vrt_5"]
    people = []
    for clip in clips:
        embeddings = recognize(aligned(f"clips_hq/{clip}.mp4", range(0, 60, 12)))
        people.append(embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True))
    within = [float(p[a] @ p[b]) for p in people for a, b in combinations(range(len(p)), 2)]
    between = [float((p @ q.T).mean()) for p, q in combinations(people, 2)]
    assert np.mean(within) == pytest.approx(0.81, abs=0.08)
    assert np.mean(between) == pytest.approx(0.02, abs=0.05)


@assets.needs_assets
def test_edgeface_does_not_depend_on_the_batch() -> None:
    recognize = load_recognizer("auto", assets.NETWORKS)
    assert recognize.name == "edgeface"
    many = np.repeat(FACES, 13, axis=0)  # more than one batch
    apart = np.concatenate([recognize(face[None]) for face in many[:5]])
    together = recognize(many)
    assert together.shape == (39, 512)
    np.testing.assert_allclose(together[:5], apart, atol=2e-6 * np.abs(apart).max())
