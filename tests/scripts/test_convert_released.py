"""Small files in the layout of the released SVFR: converted, they restore as they did before."""

import importlib.util
import os
import shutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from svfr.inference.pipeline import SVFRPipeline
from tests import tiny

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "convert_released.py"
NAMES = ("unet", "id-linear", "arcface")


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("convert_released", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not to be changed by a test."""
    folder = tmp_path_factory.mktemp("released") / "models"
    tiny.write_released(folder, tiny.pipeline(heads=False).parts)
    return folder


def arguments(released: Path, output: Path) -> dict[str, Path]:
    own = released / "face_restoration"
    return {
        "svd": released / "stable-video-diffusion-img2vid-xt",
        "unet": own / "unet.pth",
        "id-linear": own / "id_linear.pth",
        "arcface": own / "insightface_glint360k.pth",
        "output": output,
    }


def convert(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch, *more: str) -> int:
    words = [word for name, path in files.items() for word in (f"--{name}", str(path))]
    monkeypatch.setattr(sys, "argv", [SCRIPT.name, *words, *more])
    return load_script().main()


def restore(pipe: SVFRPipeline) -> np.ndarray:
    result = pipe(tiny.clip(6), num_inference_steps=1, size=tiny.SIZE, clip_length=tiny.CLIP)
    assert isinstance(result, np.ndarray)
    return result


def test_converted_restores_the_same(released: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = arguments(released, tmp_path / "converted")
    assert convert(files, monkeypatch) == 0
    before = SVFRPipeline.from_released(files["svd"], files["unet"], files["id-linear"], files["arcface"], device="cpu")
    after = SVFRPipeline.from_pretrained(tmp_path / "converted", device="cpu")
    assert (restore(before) == restore(after)).all()
    assert after.settings == before.settings


def test_the_released_layout_is_weights_too(released: Path) -> None:
    files = arguments(released, released)
    named = SVFRPipeline.from_released(files["svd"], files["unet"], files["id-linear"], files["arcface"], device="cpu")
    assert (restore(named) == restore(SVFRPipeline.from_pretrained(released, device="cpu"))).all()


def test_dtype_of_the_written_weights(released: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert convert(arguments(released, tmp_path / "half"), monkeypatch, "--dtype", "bfloat16") == 0
    state = load_file(tmp_path / "half" / "unet" / "diffusion_pytorch_model.safetensors")
    assert {value.dtype for value in state.values()} == {torch.bfloat16}


class Dangerous:
    """What a malicious .pth would hold."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("fault", ["missing", "empty", "text", "folder", "list", "object", "other", "cut"])
def test_a_wrong_file_is_one_line(
    released: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    fault: str,
) -> None:
    files = arguments(released, tmp_path / "converted")
    wrong = tmp_path / f"{fault}.pth"
    if fault == "empty":
        wrong.touch()
    elif fault == "text":
        wrong.write_text("no weights\n")
    elif fault == "folder":
        wrong.mkdir()
    elif fault == "list":
        torch.save([torch.zeros(1)], wrong)
    elif fault == "object":
        torch.save({"weight": torch.zeros(1), "extra": Dangerous(tmp_path / "ran")}, wrong)
    elif fault == "other":
        torch.save({"conv.weight": torch.zeros(1)}, wrong)
    elif fault == "cut":
        data = files[name].read_bytes()
        wrong.write_bytes(data[: len(data) // 2])
    assert convert({**files, name: wrong}, monkeypatch) == 2
    error = capsys.readouterr().err
    assert error.startswith("convert_released.py: ")
    assert error.count("\n") == 1
    assert wrong.name in error
    assert not (tmp_path / "converted").exists()
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("part", ["unet/config.json", "vae/config.json", "vae", "scheduler/scheduler_config.json"])
def test_a_missing_part_of_svd_is_one_line(
    released: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], part: str
) -> None:
    files = arguments(released, tmp_path / "converted")
    files["svd"] = shutil.copytree(files["svd"], tmp_path / "svd")
    (files["svd"] / part).rename(tmp_path / "away")
    assert convert(files, monkeypatch) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert str(files["svd"]) in error


@pytest.mark.parametrize("place", ["full", "below a file", "a file"])
def test_an_output_that_cannot_be(
    released: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    output = {"full": released, "below a file": file / "out", "a file": file}[place]
    assert convert(arguments(released, output), monkeypatch) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert file.read_text() == "mine"
