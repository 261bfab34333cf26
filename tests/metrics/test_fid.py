import hashlib
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from svfr.metrics import build_metrics
from svfr.metrics.base import Chunk, SetFeatures
from svfr.metrics.frechet import FID, InceptionFeatures
from svfr.networks import NETWORKS, NetworkMissing
from tests.metrics.made import frames, noisy, split
from tests.metrics.test_frechet import by_sqrtm

torch_fidelity = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")


class SmallNetwork:
    """Ten random features of a frame."""

    def __init__(self) -> None:
        self.protocol = {"features": "made"}
        torch.manual_seed(0)
        self.look = nn.Conv2d(3, 10, 5, 2)

    @torch.inference_mode()
    def __call__(self, frames: Tensor) -> Tensor:
        assert frames.dtype == torch.uint8
        return self.look(frames / 127.5 - 1).relu().mean(dim=(2, 3))


def collect(metric: FID, chunks: list[Chunk], lengths: list[int] | None = None) -> list[SetFeatures]:
    found = []
    for at, chunk in enumerate(chunks):
        metric.reset()
        for part in split(chunk, lengths or [len(chunk)]):
            assert metric.update(part) == {}
        found.append(metric.features(f"v{at}"))
    return found


def test_is_the_distance_over_all_frames_of_all_videos() -> None:
    network = SmallNetwork()
    truths = [frames(seed, 9, 24, 24) for seed in range(4)]
    chunks = [Chunk(noisy(truth, 20), truth) for truth in truths]
    metric = FID(network)
    found = collect(metric, chunks)
    row = metric.compute(found)
    sides = ([network(getattr(chunk, side)) for chunk in chunks] for side in ("restored", "truth"))
    ours, theirs = (torch.cat(side).double().numpy() for side in sides)
    assert row["fid"] == pytest.approx(by_sqrtm(ours, theirs), rel=1e-5)
    assert row["fid_frames"] == 36
    assert [video.restored.dtype for video in found] == [np.float32] * 4, "half of the disk"
    again = metric.compute(collect(metric, chunks, [1, 3, 5]))
    assert again == row
    perfect = metric.compute(collect(metric, [Chunk(truth, truth) for truth in truths]))
    assert perfect["fid"] == pytest.approx(0, abs=1e-9)
    assert metric.compute([]) == {"fid": None, "fid_frames": 0}


def test_grows_with_noise() -> None:
    metric, truths = FID(SmallNetwork()), [frames(seed, 9, 24, 24) for seed in range(3)]
    values = [metric.compute(collect(metric, [Chunk(noisy(t, s), t) for t in truths]))["fid"] for s in (2, 10, 40)]
    known = [value for value in values if value is not None]
    assert known == sorted(known)
    assert len(set(known)) == 3


@pytest.fixture(scope="module")
def inception(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, nn.Module]:
    """A file of random weights in the layout of the published one, and the package's network that has them."""

    class Unloaded(torch_fidelity.FeatureExtractorInceptionV3):  # type: ignore[name-defined]  # it comes without types
        def load_state_dict(self, *_: object) -> None: ...

    path = tmp_path_factory.mktemp("inception") / NETWORKS["inception"].file
    torch.save({}, path)
    torch.manual_seed(0)
    network = Unloaded("fid", ["2048"], path)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=(2 / module.weight[0].numel()) ** 0.5)
    torch.save(network.state_dict(), path)
    return path, network


def test_features_are_those_of_the_package(inception: tuple[Path, nn.Module]) -> None:
    path, network = inception
    features = InceptionFeatures(path)
    images = frames(0, 2, 40, 48)
    found = features(images)
    assert found.shape == (2, 2048)
    torch.testing.assert_close(found, network(images)[0], rtol=1e-5, atol=1e-6)
    assert found.std() > 0
    assert features.protocol["network"] == {
        "file": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "size": path.stat().st_size,
    }


def test_other_files_are_refused_and_none_is_unpickled(inception: tuple[Path, nn.Module], tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (tmp_path / "ran",)

    harmful = tmp_path / "harmful.pth"
    torch.save({"weight": Harmful()}, harmful)
    with pytest.raises(ValueError, match=r"harmful.pth: not a state dict of plain tensors"):
        InceptionFeatures(harmful)
    assert not (tmp_path / "ran").exists()
    other = tmp_path / "other.pth"
    torch.save({"fc.weight": torch.zeros(2, 2)}, other)
    with pytest.raises(ValueError, match=r"other.pth: not the Inception network of FID"):
        InceptionFeatures(other)


def test_without_the_package_it_is_not_computed(
    inception: tuple[Path, nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = inception
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setitem(NETWORKS, "inception", replace(NETWORKS["inception"], sha256=digest))
    for name in [name for name in sys.modules if name.split(".")[0] == "torch_fidelity"]:
        monkeypatch.setitem(sys.modules, name, None)
    built = build_metrics(["fid", "psnr"], path.parent, download=False)
    assert built.missing == {"fid": "torch-fidelity is not installed: pip install 'svfr[eval]'"}
    assert len(built.video) == 1


def test_is_built_of_the_known_file_alone(
    inception: tuple[Path, nn.Module], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path, _ = inception
    assert "sha256 differs" in build_metrics(["fid"], path.parent, download=False).missing["fid"]
    entry = NETWORKS["inception"]
    assert entry.sha256.startswith(path.stem.rpartition("-")[2]), "its name begins its hash"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setitem(NETWORKS, "inception", replace(entry, sha256=digest))
    built = build_metrics(["fid"], path.parent, download=False)
    assert [type(metric) for metric in built.sets] == [FID]
    for name in ("HOME", "XDG_CACHE_HOME", "TORCH_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.delenv("SVFR_NETWORKS", raising=False)
    with pytest.raises(NetworkMissing, match=r"network 'inception' \(FID, 95.6 MB, licence: Apache-2.0"):
        FID.build(type("", (), {"folder": None, "download": False, "device": "cpu"})())
