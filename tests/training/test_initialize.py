import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNetSpatioTemporalConditionModel

from svfr.models.components import Components
from svfr.models.weights import WeightsError
from svfr.training.initialize import initialize
from svfr.training.settings import DataConfig, TrainConfig
from tests import tiny


def start(source: Path, arcface: Path | None = None, **settings: Any) -> Components:
    return initialize(TrainConfig(init_from=str(source), arcface=None if arcface is None else str(arcface), **settings))


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    tiny.pipeline().save_pretrained(tmp_path / "ours")
    return tmp_path / "ours"


@pytest.fixture
def svd(tmp_path: Path) -> Path:
    tiny.write_svd(folder := tmp_path / "svd")
    return folder


@pytest.fixture
def arcface(tmp_path: Path) -> Path:
    torch.save(tiny.id_encoder().state_dict(), tmp_path / "arcface.pth")
    return tmp_path / "arcface.pth"


def test_from_weights_of_ours(ours: Path) -> None:
    components = start(ours)
    for name, value in tiny.model().state_dict().items():
        assert torch.equal(components.model.state_dict()[name], value), name


def test_heads_that_are_not_asked_for_are_left_out_and_missing_ones_are_made(ours: Path) -> None:
    components = start(ours, lambda_ulr=0, lambda_prior=0)
    assert components.model.latent_transformer is None
    assert components.model.landmark_predictor is None
    bare = ours.parent / "bare"
    tiny.pipeline(heads=False).save_pretrained(bare)
    components = start(bare)
    assert components.model.latent_transformer is not None
    assert components.model.landmark_predictor is not None


def test_a_part_without_weights_is_made_from_the_seed(ours: Path) -> None:
    (ours / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    states = [start(ours, seed=seed).model.state_dict() for seed in (3, 3, 4)]
    same = [all(torch.equal(states[0][key], state[key]) for key in state) for state in states]
    assert same == [True, True, False]
    key = "id_projector.project1024.weight"
    assert torch.equal(states[0][key], tiny.model().state_dict()[key])


def test_the_global_generator_is_left_alone(ours: Path) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    start(ours)
    assert torch.equal(torch.get_rng_state(), before)


def test_from_svd_computes_what_svd_computes(svd: Path, arcface: Path) -> None:
    components = start(svd, arcface)
    assert components.settings.id_crop == "arcface"
    arguments = tiny.inputs()
    scale = 1 / (arguments["sigma"] ** 2 + 1).sqrt()
    stock: UNetSpatioTemporalConditionModel = tiny.unet(in_channels=8, salt=9)
    with torch.no_grad():
        ours = components.model(**arguments).prediction
        sample = torch.cat([arguments["noisy_latents"] * scale, arguments["lq_latents"]], dim=2)
        theirs = stock(
            sample, arguments["sigma"].log() / 4, arguments["id_tokens"], arguments["task_prompt"], return_dict=False
        )[0]
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_from_an_svd_folder_without_an_index(svd: Path, arcface: Path) -> None:
    expected = start(svd, arcface).model.state_dict()
    (svd / "model_index.json").unlink()
    found = start(svd, arcface).model.state_dict()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_a_folder_of_ours_without_its_index_is_not_taken_for_svd(ours: Path, arcface: Path) -> None:
    (ours / "model_index.json").unlink()
    with pytest.raises(WeightsError, match=r"model_index\.json is missing"):
        start(ours)


def test_settings_say_what_the_weights_are_trained_for(ours: Path) -> None:
    settings = start(ours, data=DataConfig(size=64, num_frames=6)).settings
    assert (settings.size, settings.clip_length) == (64, 6)


def test_wrong_starts_are_one_line(svd: Path, ours: Path, arcface: Path) -> None:
    with pytest.raises(WeightsError, match="give arcface="):
        start(svd)
    with pytest.raises(WeightsError, match="leave arcface out"):
        start(ours, arcface)
    shutil.rmtree(svd / "unet")
    tiny.unet().save_pretrained(svd / "unet")
    with pytest.raises(WeightsError, match="SVFR's input channels"):
        start(svd, arcface)
    with pytest.raises(WeightsError, match="no model folder"):
        start(ours.parent)
