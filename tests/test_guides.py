"""What the guides print runs as printed."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from svfr.evaluation.testset import write_clip
from tests import tiny

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_the_loop_that_restores_the_test_set(tmp_path: Path) -> None:
    [loop] = re.findall(r"^for tasks in .*?^done$", (ROOT / "configs/README.md").read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / "scripts").symlink_to(ROOT / "scripts")
    tiny.pipeline().save_pretrained(tmp_path / "runs/table3/multi_ulr_fpl/weights/step_020000")
    for kind in ("degraded/bfr", "degraded/colorization", "degraded/inpainting"):
        write_clip(tmp_path / "TESTSET" / kind / "one", tiny.clip(3))
    write_clip(tmp_path / "TESTSET/masks/one", tiny.clip(1)[..., 0])
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    shell = shutil.which("bash") or "sh"
    done = subprocess.run(
        [shell, "-ec", loop], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for task in ("bfr", "colorization", "inpainting"):
        assert len(list((tmp_path / "RESTORED" / task / "one").glob("*.png"))) == 3
