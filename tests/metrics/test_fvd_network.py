import hashlib
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from svfr.metrics.frechet import I3DFeatures, load_i3d_features
from svfr.networks import NETWORKS, NetworkMissing
from tests.metrics.made import frames

SCRIPT = NETWORKS["i3d"].file


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("SVFR_NETWORKS", "XDG_CACHE_HOME", "TORCH_HOME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


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
        def forward(self, x: Tensor, **switches: bool) -> Tensor:
            self.x = x
            assert switches == {"rescale": False, "resize": False, "return_features": True}
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
