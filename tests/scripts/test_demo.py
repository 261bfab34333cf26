"""`scripts/demo.py` end to end, and the bundled model as it is shipped."""

from pathlib import Path

import cv2
import demo
import numpy as np
import pytest
import train_demo
from PIL import Image

from svfr.config import load
from svfr.data.video import probe
from svfr.models.sources import DEMO_FOLDER, load_folder
from tests import tiny

LARGEST = 30 * 2**20  # [bytes], all weights together


def test_demo_on_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "NUM_FRAMES", 7)
    tiny.patch_pipeline().save_pretrained(tmp_path / "model")
    assert demo.main(["--weights", str(tmp_path / "model"), "--output", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "knows rendered faces of 32 px alone" in printed.splitlines()[0]
    assert "scripts/infer.py --weights released" in printed.splitlines()[0]
    for name in ("bfr", "colorization", "inpainting", "bfr_colorization_inpainting"):
        video = probe(tmp_path / f"out/{name}.mp4")
        assert video.num_frames == demo.NUM_FRAMES
        assert (video.width, video.height) == (4 * 256, 256)
    assert np.asarray(Image.open(tmp_path / "out/strip.png")).std() > 10
    table = (tmp_path / "out/table.md").read_text()
    assert table in printed
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    rows = {tuple(cells[:2]): cells[2:] for cells in lines}
    assert len(rows) == 2 + 4 * 4
    assert rows["bfr", "true"] == ["100", "-", "1", rows["bfr", "true"][3]]
    assert float(rows["inpainting", "trivial"][1]) > float(rows["inpainting", "degraded"][1]) + 10


@pytest.mark.parametrize("weights", ["none", "a/b/c"])
def test_wrong_call(tmp_path: Path, capsys: pytest.CaptureFixture[str], weights: str) -> None:
    assert demo.main(["--weights", str(tmp_path / weights), "--output", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("demo.py: ")
    assert error.count("\n") == 1


def test_methods_without_learning() -> None:
    frames = np.full((4, 16, 16, 3), 100, np.uint8)
    frames[2, 3, 3] = 255
    assert (demo.restore_simply(frames, ("bfr",), None) == 100).all()
    hole = np.zeros((4, 16, 16), np.uint8)
    hole[2, 3, 3] = 255
    assert (demo.restore_simply(frames, ("inpainting",), hole) == 100).all()
    coloured = cv2.cvtColor(demo.restore_simply(frames, ("colorization",), None)[0], cv2.COLOR_RGB2YCrCb).astype(int)
    assert np.abs(coloured[..., 0] - 100).max() <= 1
    assert np.abs(coloured - coloured[0, 0]).max() <= 1
    assert coloured[0, 0, 1] > 128 > coloured[0, 0, 2]  # skin is more red than blue


def test_bundled_model_is_what_its_card_says() -> None:
    card = (DEMO_FOLDER / "README.md").read_text()
    kinds = {file.suffix for file in DEMO_FOLDER.rglob("*") if file.is_file()}
    assert kinds == {".json", ".safetensors", ".md", ".yaml"}  # no pickle
    size = sum(file.stat().st_size for file in DEMO_FOLDER.rglob("*.safetensors"))
    assert size < LARGEST
    assert f"{size / 2**20:.1f} MiB in half precision" in card
    components = load_folder(DEMO_FOLDER)
    settings = components.settings
    assert f"{settings.size} x {settings.size} px, clips of {settings.clip_length} frames" in card
    assert f"{components.latent_channels} principal components" in card
    assert "channels {}, {}, {}, noise from {} to {:.0f}".format(
        *components.model.unet.config.block_out_channels, *components.sigma_range
    ) in " ".join(card.split())
    assert (settings.num_inference_steps, settings.one_step_sigma, settings.context_frames) == (1, 20.0, 1)
    words = " ".join(card.split())
    assert "one run of the UNet from zero at noise level 20, without guidance; one context frame" in words


def test_bundled_model_has_the_settings_of_the_recipe() -> None:
    shipped = load(train_demo.DemoConfig, DEMO_FOLDER / "config.yaml")
    recipe = load(
        train_demo.DemoConfig,
        Path(__file__).resolve().parents[2] / "configs/demo_128.yaml",
        [f"output_dir={shipped.output_dir}"],
    )
    assert shipped == recipe
    components = load_folder(DEMO_FOLDER)
    untrained = train_demo.assemble_untrained(recipe, components.vae, components.id_encoder)
    for name, part in untrained.networks.items():
        shapes = {key: value.shape for key, value in part.state_dict().items()}
        assert shapes == {key: value.shape for key, value in components.networks[name].state_dict().items()}
