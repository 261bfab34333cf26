"""`scripts/train_demo.py` from nothing to a model folder, with networks and lengths as small as they go."""

import json
import shutil
from pathlib import Path

import pytest

from svfr.inference.pipeline import SVFRPipeline
from tests import tiny
from tests.demo.test_build import SMALL
from tests.demo.test_ladder import load_script

train_demo = load_script("train_demo")
SETTINGS = [
    *SMALL,
    "vae.fit_clips=6",
    "vae.least_margin=-5",
    "identity.people=4",
    "identity.faces_per_person=2",
    "identity.max_steps=2",
    "identity.batch_size=4",
    "identity.unseen_people=4",
    "identity.least_accuracy=0",
    "train.device=cpu",
    "train.precision=fp32",
    "train.max_steps=2",
    "train.batch_size=2",
    "train.validate_every=0",
    "train.tracker=none",
    "train.data.num_frames=2",
    "train.data.num_workers=0",
    "device=cpu",
]


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    path = tmp_path / "empty.yaml"
    path.write_text("seed: 0\n")
    return path


def call(empty: Path, folder: Path, *more: str) -> int:
    return train_demo.main(["--config", str(empty), *SETTINGS, f"output_dir={folder}", *more])


def test_from_nothing_to_a_model_and_again_at_once(
    empty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    assert call(empty, folder) == 0
    for step in ("renderer", "vae", "id_encoder"):
        assert json.loads((folder / step / "gate.json").read_text())["measure"]
    card = (folder / "model/README.md").read_text()
    assert "rendered faces" in card
    assert "weights of step 2" in card
    assert "dB of the round trip" in card
    for file in (folder / "model").rglob("*"):
        assert file.is_dir() or str(tmp_path).encode() not in file.read_bytes(), file
    assert (folder / "model/curves.png").stat().st_size > 1000
    pipe = SVFRPipeline.from_pretrained(folder / "model", device="cpu", dtype="float32")
    assert pipe(tiny.clip(3)).shape == (3, 32, 32, 3)
    assert pipe.parts.settings.clip_length == 2

    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*.safetensors") if "model" not in file.parts}
    monkeypatch.setattr("svfr.demo.steps.fit_patches", None)  # what has passed its gate is not made again
    monkeypatch.setattr("svfr.demo.steps.train_identity", None)
    assert call(empty, folder) == 0
    assert before == {file: file.stat().st_mtime_ns for file in before}

    again = tmp_path / "again"  # the training alone, from the same start: the same weights
    for name in ("renderer", "vae", "id_encoder", "init"):
        shutil.copytree(folder / name, again / name)
    assert call(empty, again) == 0
    weights = "svfr/weights/step_000002/unet/diffusion_pytorch_model.safetensors"
    assert (again / weights).read_bytes() == (folder / weights).read_bytes()


def test_steps_one_by_one_and_other_settings(empty: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    assert call(empty, folder, "--until", "vae") == 0
    assert (folder / "vae/weights/config.json").is_file()
    assert not (folder / "id_encoder").exists()
    assert call(empty, folder, "--until", "vae", "vae.latent_channels=7") == 2
    assert "made with other settings" in capsys.readouterr().err


def test_a_gate_that_is_not_passed_stops(empty: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    assert call(empty, folder, "vae.least_margin=90") == 1
    assert "at least 90 is needed" in capsys.readouterr().err
    assert not (folder / "id_encoder").exists()
    assert call(empty, folder, "--until", "vae") == 0  # measured anew, against a gate that it passes


def test_wrong_calls(empty: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(empty, tmp_path / "run", "vae.kind=vq") == 2
    assert train_demo.main(["--config", str(tmp_path / "none.yaml")]) == 2
    assert "vae.kind=vq" in capsys.readouterr().err
