"""What the guides print runs as printed."""

import json
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
def test_the_command_of_table_3(tmp_path: Path) -> None:
    guide = (ROOT / "configs/README.md").read_text()
    [command] = re.findall(r"^python scripts/eval.py .*? --run .*?[^\\]$", guide, re.MULTILINE | re.DOTALL)[:1]
    for folder in ("scripts", "configs"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    for row in ("single_bfr", "single_colorization", "single_inpainting", "multi_ulr_fpl"):
        tiny.pipeline().save_pretrained(tmp_path / "runs/table3" / row / "weights/step_020000")
    tasks = ("bfr", "colorization", "inpainting")
    for kind in ("ground_truth", *(f"degraded/{task}" for task in tasks)):
        write_clip(tmp_path / "TESTSET" / kind / "one", tiny.clip(3, 32, 32))
    write_clip(tmp_path / "TESTSET/masks/one", tiny.clip(1)[..., 0])
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    smaller = "num_videos=1 metrics=[psnr] restore.size=32 picture_size=32"  # without networks
    done = subprocess.run(
        [shutil.which("bash") or "sh", "-ec", f"{command} {smaller}"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "REPORT" / "results.json").read_text())
    rows = {(row["method"], row["task"]) for row in results["videos"]}
    assert {(method, task) for method in ("single", "multi_ulr_fpl") for task in tasks} < rows
    weights = {task: about["weights"] for task, about in results["protocol"]["restored"]["single"].items()}
    assert weights == {task: f"runs/table3/single_{task}/weights/step_020000" for task in tasks}
