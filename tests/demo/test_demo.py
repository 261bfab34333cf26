from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from svfr.data.video import probe
from tests import tiny
from tests.demo.test_ladder import load_script

demo = load_script("demo")


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
    for name in ("strip", "slices"):
        assert np.asarray(Image.open(tmp_path / f"out/{name}.png")).std() > 10
    table = (tmp_path / "out/table.md").read_text()
    assert table in printed
    assert "| bfr | degraded |" in table
    assert "Not reached" in table  # made weights restore nothing, and the table says so
    assert "bfr: margin in psnr [dB], aim +3" in table


def test_untrained_model_is_called_so() -> None:
    pipe = tiny.patch_pipeline()
    pipe.parts.settings = tiny.ModelSettings(untrained=True)
    assert "UNTRAINED" in demo.introduce(pipe, "demo")


def test_wrong_call(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.main(["--weights", str(tmp_path / "none"), "--output", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("demo.py: ")
