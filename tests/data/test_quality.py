from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from svfr import networks
from svfr.data.quality import Arniqa
from svfr.files import sha256_of
from svfr.networks import NetworkMissing


class Regressor(torch.nn.Module):
    """As published: TorchScript with `weights` and `biases`."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = torch.nn.Parameter(torch.full((1, 4096), 0.3))
        self.biases = torch.nn.Parameter(torch.tensor(41.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weights.T + self.biases


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of the published layout."""
    from torchvision.models import resnet50

    folder = tmp_path_factory.mktemp("networks")
    torch.manual_seed(0)
    encoder = torch.nn.Sequential(*list(resnet50().children())[:-1])
    state = {f"model.{key}": value for key, value in encoder.state_dict().items()}
    torch.save({**state, "projector.0.weight": torch.zeros(2, 2)}, folder / "ARNIQA.pth")
    torch.jit.script(Regressor()).save(str(folder / "regressor_koniq10k.pth"))
    return folder


@pytest.fixture
def arniqa(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Arniqa:
    trust(monkeypatch, folder)
    return Arniqa(folder, download=False)


def trust(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Take the files of a folder for the table's."""
    for name in ("arniqa", "arniqa-regressor"):
        row = networks.NETWORKS[name]
        monkeypatch.setitem(networks.NETWORKS, name, replace(row, sha256=sha256_of(folder / row.file)))


def test_it_computes_the_papers_formula(arniqa: Arniqa, folder: Path) -> None:
    """Features of the image and of its half, each of unit length, through a linear layer; then 1..100 to 0..1."""
    from torchvision.models import resnet50
    from torchvision.transforms.functional import normalize, resize

    image = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    network = resnet50()
    network.fc = torch.nn.Identity()
    names = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")
    state = torch.load(folder / "ARNIQA.pth", weights_only=True)
    state = {key.removeprefix("model."): value for key, value in state.items() if "projector" not in key}
    network.load_state_dict({names[int(k.split(".")[0])] + k[1:]: value for k, value in state.items()})
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        scales = (pixels, resize(pixels, [48, 64]))
        features = [
            functional.normalize(network.eval()(normalize(x, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])))
            for x in scales
        ]
    expected = (0.3 * torch.cat(features, dim=1).sum() + 41 - 1) / 99
    assert 0.1 < expected < 0.9
    assert arniqa(image) == pytest.approx(float(expected), abs=1e-5)


def test_what_it_cannot_do(arniqa: Arniqa) -> None:
    with pytest.raises(ValueError, match="too small"):
        arniqa(np.zeros((32, 200, 3), np.uint8))


def test_files_that_are_missing_or_others(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("SVFR_NETWORKS", raising=False)
    monkeypatch.delenv("TORCH_HOME", raising=False)
    with pytest.raises(NetworkMissing, match=r"arniqa.*ARNIQA\.pth"):
        Arniqa(tmp_path, download=False)
    for text in (b"nonsense", (folder / "regressor_koniq10k.pth").read_bytes()):
        (tmp_path / "ARNIQA.pth").write_bytes(text)
        (tmp_path / "regressor_koniq10k.pth").write_bytes((folder / "regressor_koniq10k.pth").read_bytes())
        trust(monkeypatch, tmp_path)
        with pytest.raises(ValueError, match=r"ARNIQA\.pth: n(either|ot)"):
            Arniqa(tmp_path, download=False)
