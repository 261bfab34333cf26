import hashlib
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from svfr.metrics.i3d import I3D, I3DFeatures, load_i3d, load_i3d_features, pad_same
from svfr.models.weights import WeightsError
from svfr.networks import NETWORKS, NetworkMissing
from tests.metrics.made import frames

WEIGHTS, SCRIPT = NETWORKS["i3d-weights"].file, NETWORKS["i3d"].file


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("SVFR_NETWORKS", "XDG_CACHE_HOME", "TORCH_HOME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with random weights in the published layout, key names written out here."""
    rng = torch.Generator().manual_seed(0)
    state: dict[str, Tensor] = {}

    def unit(name: str, inside: int, outside: int, kernel: int) -> None:
        shape = (outside, inside, kernel, kernel, kernel)
        state[f"{name}.conv3d.weight"] = torch.randn(shape, generator=rng) * (2 / (inside * kernel**3)) ** 0.5
        for part in ("weight", "running_var"):
            state[f"{name}.bn.{part}"] = torch.rand(outside, generator=rng) + 0.5
        for part in ("bias", "running_mean"):
            state[f"{name}.bn.{part}"] = torch.randn(outside, generator=rng) * 0.1
        state[f"{name}.bn.num_batches_tracked"] = torch.tensor(1)

    unit("Conv3d_1a_7x7", 3, 64, 7)
    unit("Conv3d_2b_1x1", 64, 64, 1)
    unit("Conv3d_2c_3x3", 64, 192, 3)
    inside = 192
    for name, widths in {
        "3b": (64, 96, 128, 16, 32, 32),
        "3c": (128, 128, 192, 32, 96, 64),
        "4b": (192, 96, 208, 16, 48, 64),
        "4c": (160, 112, 224, 24, 64, 64),
        "4d": (128, 128, 256, 24, 64, 64),
        "4e": (112, 144, 288, 32, 64, 64),
        "4f": (256, 160, 320, 32, 128, 128),
        "5b": (256, 160, 320, 32, 128, 128),
        "5c": (384, 192, 384, 48, 128, 128),
    }.items():
        for branch, (source, width, kernel) in {
            "b0": (inside, widths[0], 1),
            "b1a": (inside, widths[1], 1),
            "b1b": (widths[1], widths[2], 3),
            "b2a": (inside, widths[3], 1),
            "b2b": (widths[3], widths[4], 3),
            "b3b": (inside, widths[5], 1),
        }.items():
            unit(f"Mixed_{name}.{branch}", source, width, kernel)
        inside = widths[0] + widths[2] + widths[4] + widths[5]
    state["logits.conv3d.weight"] = torch.randn((400, 1024, 1, 1, 1), generator=rng) / 32
    state["logits.conv3d.bias"] = torch.randn(400, generator=rng)
    folder = tmp_path_factory.mktemp("networks")
    torch.save(state, folder / WEIGHTS)
    return folder


def test_layout() -> None:
    with torch.device("meta"):
        network = I3D()
    assert len(network.state_dict()) == 344
    assert sum(parameter.numel() for parameter in network.parameters()) == 12_697_264


def test_weights_of_the_published_layout_load_and_run(folder: Path) -> None:
    features = load_i3d_features(folder, download=False)
    clips = torch.stack([frames(seed, 9, 20, 30) for seed in (0, 1)])
    both = features(clips)
    assert both.shape == (2, 400)
    assert both.dtype == torch.float32
    assert both.std() > 0.01
    torch.testing.assert_close(both[1:], features(clips[1:]), rtol=1e-5, atol=1e-5)
    shuffled = features(clips[:1].flip(1))
    assert (shuffled - both[:1]).abs().max() > 1e-3 * both.abs().max(), "the order of frames matters"


@pytest.mark.parametrize(("size", "kernel", "stride"), [(224, 7, 2), (112, 3, 2), (7, 3, 1), (5, 2, 2), (9, 3, 2)])
def test_padding_is_tensorflows_same(size: int, kernel: int, stride: int) -> None:
    x = torch.ones(1, 1, size, size, size)
    padded = pad_same(x, (kernel,) * 3, (stride,) * 3)
    outputs = (padded.shape[2] - kernel) // stride + 1
    assert outputs == -(-size // stride)
    line = padded[0, 0, :, padded.shape[3] // 2, padded.shape[4] // 2]
    before, behind = int((line.cumsum(0) == 0).sum()), int((line.flip(0).cumsum(0) == 0).sum())
    assert 0 <= behind - before <= 1
    assert before + behind == max((outputs - 1) * stride + kernel - size, 0)


def test_another_layout_is_refused(folder: Path, tmp_path: Path) -> None:
    state = torch.load(folder / WEIGHTS, weights_only=True)
    del state["Mixed_4e.b2a.bn.running_mean"]
    torch.save(state, tmp_path / WEIGHTS)
    with pytest.raises(WeightsError, match=r"i3d_pretrained_400.pt: .* 1 missing \(Mixed_4e.b2a.bn.running_mean\)"):
        load_i3d(tmp_path / WEIGHTS)
    torch.save(nn.Linear(1, 1), tmp_path / WEIGHTS)
    with pytest.raises(WeightsError, match="not a state dict of plain tensors"):
        load_i3d_features(tmp_path, download=False)


class Scripted(nn.Module):
    """The interface of the TorchScript file."""

    def forward(self, x: Tensor, rescale: bool = True, resize: bool = True, return_features: bool = False) -> Tensor:
        assert not rescale
        assert not resize
        assert return_features
        return x.mean(dim=(2, 3, 4)) * 100


def test_torchscript_runs_only_with_the_known_sha256(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.jit.script(Scripted()).save(tmp_path / SCRIPT)
    monkeypatch.setattr(torch.jit, "load", load := Counted(torch.jit.load))
    with pytest.raises(ValueError, match="its sha256 differs"):
        load_i3d_features(tmp_path, download=False)
    assert load.calls == 0, "nothing of it was run"
    digest = hashlib.sha256((tmp_path / SCRIPT).read_bytes()).hexdigest()
    monkeypatch.setitem(NETWORKS, "i3d", replace(NETWORKS["i3d"], sha256=digest))
    features = load_i3d_features(tmp_path, download=False)
    assert load.calls == 1
    clip = torch.full((1, 16, 3, 8, 8), 255, dtype=torch.uint8)
    clip[:, :, 1] = 0
    np.testing.assert_allclose(features(clip), [[100, -100, 100]], atol=1e-4)
    assert features.protocol["network"] == {"file": SCRIPT, "sha256": digest}


class Counted:
    def __init__(self, function: Any) -> None:
        self.function, self.calls = function, 0

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        self.calls += 1
        return self.function(*arguments, **named)


def test_input_is_resized_and_scaled(tmp_path: Path) -> None:
    class Seen(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            self.x = x
            return x.flatten(1)

    (tmp_path / "file").touch()
    seen = Seen()
    clips = frames(0, 9, 30, 40)[None]
    I3DFeatures(seen, tmp_path / "file")(clips)
    assert seen.x.shape == (1, 3, 9, 224, 224)
    assert -1 <= seen.x.min() < seen.x.max() < 1 + 1e-6
    expected = nn.functional.interpolate(clips[0].double(), size=(224, 224), mode="bilinear") / 127.5 - 1
    torch.testing.assert_close(seen.x[0].double(), expected.transpose(0, 1), rtol=0, atol=1e-5)


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(NetworkMissing, match=r"network 'i3d' \(FVD, 51.2 MB"):
        load_i3d_features(tmp_path, download=False)
