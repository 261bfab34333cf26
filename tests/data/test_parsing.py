from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from svfr.data.parsing import FaceParser, load_parser
from svfr.files import sha256_of
from svfr.networks import NETWORKS
from tests import onnx_files


def test_face_and_hair_are_seen_and_the_background_is_not(tmp_path: Path) -> None:
    onnx_files.parser(tmp_path / "net.onnx")
    crop = np.zeros((96, 96, 3), np.uint8)
    crop[:, 32:64] = 130, 0, 0  # ImageNet's mean is 124
    crop[:, 64:] = 118, 255, 255
    seen = FaceParser(tmp_path / "net.onnx")(crop)
    assert seen.shape == (96, 96)
    assert (seen[:, 36:60] == 255).all()
    assert not seen[:, :28].any()
    assert not seen[:, 68:].any()


def test_it_is_used_where_it_lies_and_is_what_the_table_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SVFR_NETWORKS", "XDG_CACHE_HOME", "TORCH_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    assert load_parser(tmp_path) is None
    file = tmp_path / NETWORKS["face-parsing"].file
    onnx_files.parser(file)
    with pytest.raises(ValueError, match="is not the face-parsing network of the table"):
        load_parser(tmp_path)
    monkeypatch.setitem(NETWORKS, "face-parsing", replace(NETWORKS["face-parsing"], sha256=sha256_of(file)))
    found = load_parser(tmp_path)
    assert found is not None
    assert found.source == str(file)


def test_another_network(tmp_path: Path) -> None:
    onnx_files.linear(tmp_path / "net.onnx", 512, 2)
    with pytest.raises(ValueError, match=r"instead of \(n, 3, 512, 512\) to \(n, 19, 512, 512\)"):
        FaceParser(tmp_path / "net.onnx")
