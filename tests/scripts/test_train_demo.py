"""`scripts/train_demo.py` from nothing to a model folder, with networks and lengths as small as they go."""

import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
import train_demo
from PIL import Image

from svfr.config import ConfigError, load
from svfr.inference.pipeline import SVFRPipeline
from svfr.models.sources import load_folder
from svfr.synthetic import render_clip
from svfr.training.run_folder import find_steps
from svfr.training.settings import TrainConfig
from tests import tiny

SETTINGS = [
    "vae.latent_channels=6",
    "vae.fit_clips=6",
    "unet.block_out_channels=[32,64]",
    "unet.attention=[false,true]",
    "unet.cross_attention_dim=32",
    "identity.block_out_channels=[4,4,8,8]",
    "identity.embedding_dim=16",
    "identity.people=4",
    "identity.faces_per_person=2",
    "identity.max_steps=2",
    "identity.batch_size=4",
    "train.device=cpu",
    "train.precision=fp32",
    "train.max_steps=2",
    "train.batch_size=2",
    "train.validate_every=0",
    "train.tracker=none",
    "train.data.size=32",
    "train.data.rendered_clips=8",
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


def settings(*overrides: str) -> train_demo.DemoConfig:
    return load(train_demo.DemoConfig, overrides=[*SETTINGS, *overrides])


def test_from_nothing_to_a_model_and_again_at_once(
    empty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    assert call(empty, folder) == 0
    card = (folder / "model/README.md").read_text()
    assert "not real ones" in card
    assert "weights of step 2" in card
    for file in (folder / "model").rglob("*"):
        assert file.is_dir() or str(tmp_path).encode() not in file.read_bytes(), file
    trained = sum(file.stat().st_size for file in (folder / "svfr/weights").rglob("*.safetensors"))
    shipped = sum(file.stat().st_size for file in (folder / "model").rglob("*.safetensors"))
    assert shipped == pytest.approx(trained / 2, rel=0.1)
    pipe = SVFRPipeline.from_pretrained(folder / "model", device="cpu", dtype="float32")
    assert pipe(tiny.clip(3)).shape == (3, 32, 32, 3)
    assert pipe.settings.clip_length == 2
    assert pipe.parts.latent_channels == 6

    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*.safetensors") if "model" not in file.parts}
    monkeypatch.setattr(train_demo, "fit_vae", None)  # what is there is not made again
    monkeypatch.setattr(train_demo, "train_identity", None)
    assert call(empty, folder) == 0
    assert before == {file: file.stat().st_mtime_ns for file in before}

    again = tmp_path / "again"  # the training alone, on another machine: the same weights
    for name in ("vae", "id_encoder", "config.yaml"):
        (shutil.copytree if (folder / name).is_dir() else shutil.copy)(folder / name, again / name)
        again.mkdir(exist_ok=True)
    assert call(empty, again) == 0
    weights = "model/unet/diffusion_pytorch_model.safetensors"
    assert (again / weights).read_bytes() == (folder / weights).read_bytes()


def test_stages_from_an_earlier_models_networks_and_on_where_it_stopped(
    empty: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = tiny.patch_pipeline().parts
    old.save(tmp_path / "old")
    more = [
        f"warm_start={tmp_path / 'old'}",
        "vae.patch_size=8",
        "vae.latent_channels=10",
        "vae.decoder_channels=4",
        "train.context_frames=1",
        "train.max_steps=1",
        "train.checkpoint_every=1",
        "stages={svfr: {}, one_step: {method: one_step}, sharp: {method: one_step, lambda_pixel: 1}}",
        "stages.sharp.data={num_views: 3}",
        "stages.sharp.lambda_adversarial=0.1",
        "stages.sharp.discriminator=patch",
        "stages.sharp.decoder_rate=2.0",
        "stages.sharp.warmup_steps=0",
    ]
    folder = tmp_path / "run"
    assert call(empty, folder, *more, "--until", "sharpen") == 2
    assert "choose from vae, identity, svfr, one_step, sharp" in capsys.readouterr().err
    assert call(empty, folder, *more, "--until", "svfr") == 0
    assert not (folder / "id_encoder").exists()
    init = load_folder(folder / "init")
    assert (init.latent_channels, init.downscale, init.settings.size) == (10, 8, 32)
    kept = {
        name
        for name, value in init.model.state_dict().items()
        if not name.startswith(("unet.conv_in", "unet.conv_out"))
    }
    assert all(torch.equal(init.model.state_dict()[name], old.model.state_dict()[name]) for name in kept)
    assert all(
        torch.equal(*pair) for pair in zip(init.id_encoder.parameters(), old.id_encoder.parameters(), strict=True)
    )
    before = load_folder(folder / "model").settings
    assert (before.one_step_sigma, before.context_frames) == (None, 1)

    def files(stage: str) -> dict[Path, int]:
        return {file: file.stat().st_mtime_ns for file in (folder / stage / "weights").rglob("*.safetensors")}

    done = files("svfr")
    assert call(empty, folder, *more) == 0
    assert files("svfr") == done
    assert load_folder(folder / "model").settings.one_step_sigma == 20.0
    assert "step 1 of sharp" in (folder / "model/README.md").read_text()
    assert load(TrainConfig, folder / "sharp/config.yaml").data.num_views == 3
    start, end = (load_folder(folder / name).vae.decoder.refiner.fine[-1].weight for name in ("init", "model"))
    assert not start.any()
    assert end.any()  # the decoder is trained, too
    assert load(TrainConfig, folder / "sharp/config.yaml").init_from == str(folder / "one_step/weights/step_000001")
    with pytest.raises(ConfigError, match="lambda_pixel"):
        settings("stages={svfr: {lambda_pixel: 1}}")


def test_steps_one_by_one_and_other_settings(
    empty: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    assert call(empty, folder, "--until", "vae") == 0
    assert (folder / "vae/config.json").is_file()
    assert not (folder / "id_encoder").exists()
    for other in ("vae.latent_channels=7", "seed=1", "train.data.size=40"):
        assert call(empty, folder, "--until", "vae", other) == 2
        assert f"{other.split('=')[0].removesuffix('.latent_channels')}: other settings" in capsys.readouterr().err

    def interrupted(encoder: object, path: Path) -> None:
        path.mkdir()
        (path / "half").write_text("")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as context:
        context.setattr(train_demo.IResNet, "save_pretrained", interrupted)
        assert call(empty, folder, "--until", "identity") == 2
    assert "No space left on device" in capsys.readouterr().err
    assert not list(folder.glob("*id_encoder*"))  # nothing half-written
    assert call(empty, folder, "--until", "identity") == 0
    assert (folder / "id_encoder/config.json").is_file()
    assert not (folder / "init").exists()

    def ctrl_c(*arguments: object) -> float:
        signal.raise_signal(signal.SIGINT)
        return 0.0

    with monkeypatch.context() as context:
        context.setattr("svfr.training.loop.learning_rate", ctrl_c)
        assert call(empty, folder, "train.max_steps=9") == 130
    assert find_steps(folder / "svfr/weights") == [2]  # the step after Ctrl-C is the last one
    assert call(empty, folder) == 0


def test_testset_of_held_out_clips(empty: Path, tmp_path: Path) -> None:
    wanted = ["--render-testset", str(tmp_path / "clips"), "--clips", "2", "--frames", "3"]
    assert call(empty, tmp_path / "run", *wanted) == 0
    assert not (tmp_path / "run").exists()
    assert sorted(clip.name for clip in (tmp_path / "clips").iterdir()) == ["2000000", "2000001"]
    frames = [np.asarray(Image.open(file)) for file in sorted((tmp_path / "clips/2000001").iterdir())]
    np.testing.assert_array_equal(frames, render_clip(2_000_001, 3, 32).frames)
    assert call(empty, tmp_path / "run", *wanted[:2], "--frames", "0") == 2


def test_arcface_loss_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_demo, "ID_SCALE", 10.0)
    monkeypatch.setattr(train_demo, "ID_MARGIN", 0.5)
    loss = train_demo.ArcFaceLoss(3, 2)
    loss.centres.data = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-1.0, 0.0]])
    embedding = torch.tensor([[3.0, 4.0]])  # cosines 0.6, 0.8, -0.6
    own = np.cos(np.arccos(0.8) + 0.5)
    logits = 10 * np.array([0.6, own, -0.6])
    expected = np.log(np.exp(logits).sum()) - logits[1]
    assert loss(embedding, torch.tensor([1])).item() == pytest.approx(expected, rel=1e-5)
    monkeypatch.setattr(train_demo, "ID_MARGIN", 0.0)
    assert loss(embedding, torch.tensor([1])).item() < expected


def test_faces_are_aligned_and_the_same_each_time() -> None:
    faces = train_demo.render_faces(2, 2, 48)
    assert faces.shape == (2, 2, 112, 112, 3)
    np.testing.assert_array_equal(faces, train_demo.render_faces(2, 2, 48))
    assert (faces[0, 0] != faces[0, 1]).any()
    assert faces[:, :, 30:90, 30:80].std() > 10


def test_a_few_people_are_learned_by_heart(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    people = rng.integers(0, 256, (5, 1, 7, 7, 3)).repeat(16, axis=2).repeat(16, axis=3)
    faces = np.clip(people + rng.normal(0, 10, (5, 4, 112, 112, 3)), 0, 255).astype(np.uint8)
    monkeypatch.setattr(train_demo, "render_faces", lambda *arguments: faces)
    config = settings("identity.people=5", "identity.faces_per_person=4", "identity.max_steps=20")
    config.identity.batch_size, config.identity.learning_rate = 12, 1e-3
    network, again = (train_demo.train_identity(config, torch.device("cpu")) for _ in range(2))
    assert torch.equal(again.fc.weight, network.fc.weight)
    batch = torch.from_numpy(faces.reshape(-1, 112, 112, 3)).movedim(-1, 1).contiguous().float() / 127.5 - 1
    with torch.no_grad():
        embeddings = torch.nn.functional.normalize(network(batch).embedding).unflatten(0, (5, 4))
    same = torch.einsum("pid,pjd->pij", embeddings, embeddings).mean()
    other = torch.einsum("pid,qjd->pqij", embeddings, embeddings)[~torch.eye(5, dtype=torch.bool)].mean()
    assert 1 - other > 5 * (1 - same)


def test_learning_rate_rises_and_falls() -> None:
    values = [train_demo.learning_rate_at(step, 100) for step in range(100)]
    assert values[0] == pytest.approx(0.2)
    assert max(values) == values[5] == 1.0
    assert values[-1] < 0.01
    assert values[:5] == sorted(values[:5])
    assert values[5:] == sorted(values[5:], reverse=True)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("vae.kind=kl", "vae.kind"),
        ("vae.latent_channels=49", "a patch has 48 values"),
        ("vae.patch_size=0", "at least 1"),
        ("vae.decoder_channels=3", "has to be even"),
        ("unet.block_out_channels=[20,32]", "multiples of 32"),
        ("unet.attention=[true]", "one for each"),
        ("unet.sigma_min=30", "below unet.sigma_max"),
        ("train.data.size=36", "has to be a multiple of 8"),
        ("train.data.rendered_clips=0", "rendered clips"),
        ("identity.people=0", "at least 1"),
        ("identity.block_out_channels=[8]", "four stages"),
    ],
)
def test_settings_that_cannot_be(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        settings(override)
    assert override.split("=")[0] in str(caught.value)


def test_wrong_calls(empty: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(empty, tmp_path / "run", "seed=-1") == 2
    assert train_demo.main(["--config", str(tmp_path / "none.yaml")]) == 2
    assert "seed=-1" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
