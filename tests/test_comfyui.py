"""ComfyUI's contract, the nodes outside of it, and, where SVFR_COMFYUI names its folder, a graph inside it."""

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from svfr import SVFRPipeline
from svfr.comfyui.__main__ import EXAMPLE, main
from svfr.comfyui.nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS, LoadModel, RestoreFrames, RestoreVideo
from svfr.data.video import probe, read_frames
from svfr.synthetic import render_clip
from tests.assets import NETWORKS, needs_assets

ALL_WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN")


@pytest.fixture(scope="module")
def model() -> Any:
    return LoadModel().load("demo", "auto")[0]


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return render_clip(2_000_003, 3, SVFRPipeline.from_pretrained("demo", device="cpu").settings.size).frames


@pytest.mark.parametrize("node", NODE_CLASS_MAPPINGS.values())
def test_what_comfyui_calls_is_there(node: Any) -> None:
    kinds = node.INPUT_TYPES()
    names = {name for group in kinds.values() for name in group}
    parameters = inspect.signature(getattr(node, node.FUNCTION)).parameters
    takes_more = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    assert set(kinds) <= {"required", "optional", "hidden"}
    assert set(kinds["required"])
    assert takes_more or names <= set(parameters)
    needed = {name for name, p in parameters.items() if p.default is p.empty and p.kind is not p.VAR_KEYWORD} - {"self"}
    assert needed <= set(kinds["required"])
    assert isinstance(node.RETURN_TYPES, tuple)
    assert len(node.RETURN_TYPES) == len(node.RETURN_NAMES)
    for kind, *options in (kind for group in kinds.values() for kind in group.values()):
        assert isinstance(kind, list) or kind in (*ALL_WIDGETS, "SVFR", "IMAGE", "MASK")
        assert all("default" in option for option in options)


def test_example_fits_the_nodes() -> None:
    workflow = json.loads(EXAMPLE.read_text())
    assert set(NODE_DISPLAY_NAME_MAPPINGS) == set(NODE_CLASS_MAPPINGS)
    for node in workflow["nodes"]:
        kinds = {k: v for group in NODE_CLASS_MAPPINGS[node["type"]].INPUT_TYPES().values() for k, v in group.items()}
        widgets = [name for name, (kind, *_) in kinds.items() if isinstance(kind, list) or kind in ALL_WIDGETS]
        # ComfyUI's page adds to a seed what becomes of it after a run.
        assert len(node["widgets_values"]) == len(widgets) + ("seed" in widgets)
        assert {socket["name"] for socket in node["inputs"]} <= set(kinds)


def test_aligned_frames_are_the_pipelines_own(model: Any, frames: np.ndarray) -> None:
    hole = np.zeros(frames.shape[1:3], np.uint8)
    hole[20:40, 20:40] = 255
    images, mask = torch.from_numpy(frames).float() / 255, torch.from_numpy(hole)[None].float() / 255
    tasks = {"bfr": True, "colorization": False, "inpainting": True}
    (restored,) = RestoreFrames().restore(model, images, "aligned", 0, mask, images[:1], **tasks)
    expected = model.pipeline(frames, ("bfr", "inpainting"), hole, frames[0])
    assert restored.dtype == torch.float32
    np.testing.assert_array_equal((restored * 255).round().numpy(), expected)


@needs_assets
def test_pictures_and_videos_keep_what_is_no_face(model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SVFR_NETWORKS", str(NETWORKS))
    source = sorted(NETWORKS.parent.glob("clips_lq/*.mp4"))[0]
    frames = np.stack([frame.image for frame, _ in zip(read_frames(source), range(3), strict=False)])
    frames = np.pad(frames, ((0, 0), (150, 150), (150, 150), (0, 0)), mode="edge")
    (restored,) = RestoreFrames().restore(model, torch.from_numpy(frames).float() / 255, "auto", 0, bfr=True)
    result = (restored * 255).round().numpy()
    assert result.shape == frames.shape
    assert (result[:, 0, 0] == frames[:, 0, 0]).all()
    assert (result != frames).any()

    answer = RestoreVideo().restore(model, str(source), str(tmp_path / "out.mp4"), 0, bfr=True)
    assert probe(Path(answer["result"][0])).num_frames == probe(source).num_frames
    assert isinstance(answer["ui"]["text"], list)


@pytest.mark.parametrize(("tasks", "says"), [({}, "at least one"), ({"inpainting": True}, "needs a mask")])
def test_what_is_missing_is_said(model: Any, frames: np.ndarray, tasks: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        RestoreFrames().restore(model, torch.from_numpy(frames).float() / 255, "aligned", 0, **tasks)


def test_nodes_are_linked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert "no ComfyUI" in capsys.readouterr().err
    (tmp_path / "custom_nodes").mkdir()
    assert main([str(tmp_path)]) == 0
    assert main([str(tmp_path)]) == 0  # again, after an update
    names = "import importlib.util as u, sys; s = u.spec_from_file_location('custom', sys.argv[1]); "
    names += "m = u.module_from_spec(s); s.loader.exec_module(m); print(*sorted(m.NODE_CLASS_MAPPINGS))"
    init = tmp_path / "custom_nodes/svfr/__init__.py"  # as ComfyUI imports it: by its path
    found = subprocess.run([sys.executable, "-c", names, init], capture_output=True, text=True, check=True)
    assert found.stdout.split() == sorted(NODE_CLASS_MAPPINGS)


@pytest.mark.skipif("SVFR_COMFYUI" not in os.environ, reason="SVFR_COMFYUI names no ComfyUI to run a graph in")
def test_graph_runs_in_comfyui(tmp_path: Path) -> None:
    script = Path(__file__).with_name("comfyui_graph.py")
    subprocess.run([sys.executable, script, os.environ["SVFR_COMFYUI"], tmp_path / "restored.mp4"], check=True)
    assert probe(tmp_path / "restored.mp4").num_frames > 0
