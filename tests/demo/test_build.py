from dataclasses import replace
from pathlib import Path

import pytest
import torch

from svfr.config import ConfigError, load
from svfr.demo.autoencoder import fit_patches
from svfr.demo.build import ship, unet_config, write_init
from svfr.demo.settings import DemoConfig
from svfr.demo.steps import new_kl_vae
from svfr.inference.pipeline import SVFRPipeline
from svfr.models.components import load_folder
from svfr.models.identity import IResNet
from tests import tiny

ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    "train.data.size=32",
    "train.data.num_frames=4",
    "train.data.rendered_clips=8",
    "vae.latent_channels=6",
    "vae.block_out_channels=[32,32,32]",
    "unet.block_out_channels=[32,64]",
    "unet.attention=[false,true]",
    "unet.cross_attention_dim=32",
    "identity.block_out_channels=[4,4,8,8]",
    "identity.embedding_dim=16",
]


def settings(*overrides: str) -> DemoConfig:
    return load(DemoConfig, overrides=[*SMALL, *overrides])


def identity_network() -> IResNet:
    return IResNet(18, (4, 4, 8, 8), embedding_dim=16).eval()


@pytest.mark.parametrize("kind", ["patch", "kl"])
def test_from_init_folder_to_shipped_model(tmp_path: Path, kind: str) -> None:
    config = settings(f"vae.kind={kind}")
    vae = fit_patches(range(6), 32, 4, 6) if kind == "patch" else new_kl_vae(config).eval()
    write_init(tmp_path / "init", config, vae, identity_network())
    assert not list((tmp_path / "init/unet").glob("*.safetensors"))
    one, again, other = (load_folder(tmp_path / "init", seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one.model.unet.conv_out.weight, again.model.unet.conv_out.weight)
    assert not torch.equal(one.model.unet.conv_out.weight, other.model.unet.conv_out.weight)
    assert one.sigma_range == (0.02, 20.0)
    assert one.settings.id_crop == "arcface"
    assert not one.settings.untrained

    one.save(tmp_path / "weights")
    size = ship(tmp_path / "weights", tmp_path / "model")
    full = sum(file.stat().st_size for file in (tmp_path / "weights").rglob("*.safetensors"))
    assert size == pytest.approx(full / 2, rel=0.1)
    pipe = SVFRPipeline.from_pretrained(tmp_path / "model", device="cpu", dtype="float32")
    assert pipe.parts.latent_channels == 6
    assert pipe(tiny.clip(6)).shape == (6, 32, 32, 3)


def test_unet_of_the_bundled_size() -> None:
    config = unet_config(load(DemoConfig, ROOT / "configs/demo_64.yaml"))
    assert config["in_channels"] == 48
    assert config["sample_size"] == 16
    assert config["down_block_types"] == (
        "DownBlockSpatioTemporal",
        "CrossAttnDownBlockSpatioTemporal",
        "DownBlockSpatioTemporal",
    )
    assert config["up_block_types"] == (
        "UpBlockSpatioTemporal",
        "CrossAttnUpBlockSpatioTemporal",
        "UpBlockSpatioTemporal",
    )


@pytest.mark.parametrize("name", ["demo_64", "demo_128"])
def test_shipped_configs_can_be_read(name: str) -> None:
    config = load(DemoConfig, ROOT / f"configs/{name}.yaml")
    assert config.train.data.size == int(name.removeprefix("demo_"))
    assert config.train.data.rendered_clips <= 1_000_000


@pytest.mark.parametrize(
    ("override", "word"),
    [
        ("vae.kind=vq", "vae.kind=vq: choose from patch, kl"),
        ("vae.latent_channels=49", "a patch has 48 values"),
        ("vae.block_out_channels=[20]", "multiples of 32"),
        ("unet.attention=[true]", "one entry for each"),
        ("unet.sigma_min=30", "below unet.sigma_max"),
        ("train.data.size=36", "has to be a multiple of 8"),
        ("train.data.rendered_clips=0", "rendered clips"),
        ("identity.unseen_people=3", "at least 4"),
        ("identity.people=0", "at least 1"),
    ],
)
def test_settings_that_cannot_be(override: str, word: str) -> None:
    with pytest.raises(ConfigError, match=word.replace("[", r"\[")):
        settings(override)


def test_settings_are_not_shared() -> None:
    assert replace(settings(), seed=3).vae == settings().vae
