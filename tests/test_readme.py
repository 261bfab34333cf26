"""The README's commands run as they are printed, on small things that have the names of its capital words."""

import os
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image

from svfr.models import sources
from svfr.models.components import ModelSettings
from tests import clips, tiny
from tests.assets import CLIPS, NETWORKS, frames, needs_assets

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
HERE = "--weights RELEASED"  # in the layout of the released files, at a tiny size
SMALL = "num_inference_steps=1 size=32 clip_length=4 overlap=1 device=cpu"
TRAIN = "device=cpu precision=fp32 max_steps=1 validate_every=0 tracker=none data.size=32 data.num_frames=4"
TRAIN += " data.num_workers=0 gradient_checkpointing=false"
PREPARE = "score=none detector=yunet recognizer=edgeface landmarks=onnx processes=0 cut.min_frames=8 write.size=128"
EVAL = "metrics=[psnr] restore.size=32 picture_size=32 num_videos=2 detector=yunet"
MORE = {  # in the order in which one needs what another makes
    "svfr.comfyui": "",
    "scripts/infer.py": f"{HERE} {SMALL} detector=yunet",
    "data_prep/prepare.py": PREPARE,
    "configs/train.yaml": TRAIN,
    "configs/smoke.yaml": TRAIN,
    "scripts/make_testset.py": "detector=yunet size=32 num_videos=2",
    "scripts/eval.py": f"{HERE} {EVAL} restore.num_inference_steps=1",
}


def printed() -> list[str]:
    """All that the README has for a shell, but what installs and what sets up (tested elsewhere)."""
    blocks = re.findall(r"^```\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    lines = [line.partition(" # ")[0].strip() for block in blocks for line in block.splitlines()]
    calls = [*lines, *re.findall(r"`([^`\n]+)`", README)]
    return [call for call in calls if call.startswith(("python ", "accelerate "))]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with all that the commands name."""
    for name in ("scripts", "configs", "data_prep"):
        (tmp_path / name).symlink_to(ROOT / name)
    parts = tiny.pipeline(heads=False).parts
    tiny.write_released(tmp_path / "RELEASED", parts)
    tiny.write_svd(tmp_path / "SVD")
    torch.save(parts.id_encoder.state_dict(), tmp_path / "FILE")
    (tmp_path / "COMFYUI_DIR" / "custom_nodes").mkdir(parents=True)
    (tmp_path / "VIDEOS").mkdir()
    for clip in CLIPS[:2]:
        clips.video(tmp_path / "VIDEOS" / f"{clip.stem}.mp4", frames(clip, range(8)))
    shutil.copy(tmp_path / "VIDEOS" / f"{CLIPS[0].stem}.mp4", tmp_path / "in.mp4")
    Image.fromarray(frames(CLIPS[0], range(1))[0]).save(tmp_path / "PHOTO.jpg")
    return tmp_path


@needs_assets
@pytest.mark.slow
def test_every_command(place: Path) -> None:
    calls = [(part, call) for part in MORE for call in printed() if part in call]
    assert sorted(call for _, call in calls) == sorted(printed())  # each is known here
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SVFR_NETWORKS": str(NETWORKS), "ACCELERATE_USE_CPU": "1"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    for part, call in calls:
        call = call.replace("accelerate launch", "accelerate launch --cpu --num_processes 2")
        done = subprocess.run(
            ["bash", "-ec", f"{call} {MORE[part]}"],
            cwd=place,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{call}\n{done.stdout}\n{done.stderr}"
    names = {f"{clip.stem}.mp4" for clip in CLIPS[:2]}
    assert names <= {file.name for file in (place / "RESTORED").iterdir()}
    assert (place / "COMFYUI_DIR/custom_nodes/svfr/nodes.py").is_file()
    assert (place / "runs/svfr/weights/step_000001").is_dir()
    assert (place / "REPORT/report.html").is_file()


@needs_assets
@pytest.mark.slow
def test_the_python_of_it(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [code] = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(place)
    monkeypatch.setenv("SVFR_NETWORKS", str(NETWORKS))
    monkeypatch.setattr(sources, "ModelSettings", partial(ModelSettings, num_inference_steps=1))  # of 30
    names = {"frames": tiny.clip(4)}
    exec(code.replace('"released"', '"RELEASED"'), names)
    assert names["frames"].shape == (4, 512, 512, 3)
    assert (place / "out.mp4").is_file()
