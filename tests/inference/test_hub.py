"""What users of diffusers expect of a pipeline beside restoring, and the folder that would go to the Hub."""

import io
import json
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image

from svfr.inference import pipeline as module
from svfr.inference.pipeline import SVFRPipeline
from svfr.models.components import ModelSettings
from svfr.models.lora import add_lora
from svfr.models.sources import DEMO_FOLDER
from tests import tiny
from tests.clips import MarkDetector, scene, video

FRAMES = tiny.clip(10, tiny.SIZE, tiny.SIZE)  # three clips of 4 frames, each sharing one with the next


@pytest.fixture(scope="module")
def pipe() -> SVFRPipeline:
    return tiny.pipeline(heads=False)


@pytest.fixture
def saved(pipe: SVFRPipeline, tmp_path: Path) -> Path:
    """Weights as training leaves them: without a card, beside the run's settings."""
    folder = tmp_path / "run" / "weights" / "step_000020"
    pipe.parts.save(folder)
    (folder / "config.yaml").write_text("init_from: released\narcface: null\nmax_steps: 20\n")
    (folder / "provenance.json").write_text(json.dumps({"git_revision": "0123abc", "seed": 7}))
    lines = [{"step": 10, "loss": 0.5}, {"step": 20, "loss": 0.25, "psnr": 31.5}]
    (tmp_path / "run" / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_loading_takes_diffusers_names(saved: Path) -> None:
    for how in ({"torch_dtype": torch.float16}, {"dtype": torch.float16}, {"dtype": "float16"}):
        assert SVFRPipeline.from_pretrained(saved, device="cpu", **how).unet.dtype == torch.float16
    with pytest.raises(ValueError, match=r"unknown 'use_flash': only source, device, dtype") as error:
        SVFRPipeline.from_pretrained(saved, use_flash=True)
    assert "\n" not in str(error.value)


def test_it_moves_as_diffusers_pipelines_do(pipe: SVFRPipeline) -> None:
    assert pipe.to(device="cpu", dtype=torch.float64, silence_dtype_warnings=True) is pipe
    assert pipe.to(torch.device("cpu"), torch.float32).unet.dtype == torch.float32
    assert pipe.to(None, torch.float32).device.type == "cpu"


def test_networks_take_turns_when_offloaded(pipe: SVFRPipeline) -> None:
    expected = pipe(FRAMES)
    other = SVFRPipeline.from_components(pipe.parts)
    other.enable_model_cpu_offload(device="cpu")  # accelerate's hooks, without an accelerator to go to
    try:
        np.testing.assert_array_equal(other(FRAMES), expected)
        assert hasattr(other.unet, "_hf_hook")
    finally:
        other.remove_all_hooks()


def test_progress_bar(pipe: SVFRPipeline, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(pipe, "_progress_bar_config", {"file": shown, "desc": "faces", "mininterval": 0}, raising=False)
    pipe(FRAMES)
    last = shown.getvalue().rstrip().split("\r")[-1]
    assert last.startswith("faces: 100%")
    assert "10/10" in last
    pipe.set_progress_bar_config(disable=True)
    pipe(FRAMES)
    assert capsys.readouterr().err == ""


def test_a_video_shows_its_stages(pipe: SVFRPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in").mkdir()
    for number, frame in enumerate(FRAMES):
        Image.fromarray(frame).save(tmp_path / "in" / f"{number}.png")
    shown = io.StringIO()
    monkeypatch.setattr(pipe, "_progress_bar_config", {"file": shown, "mininterval": 0}, raising=False)
    pipe.restore_video(tmp_path / "in", tmp_path / "out", face="aligned", format="png")
    last = shown.getvalue().rstrip().split("\r")[-1]
    assert last.startswith("restore: 100%")
    assert "10/10" in last


def test_faces_are_found_without_a_detector_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load = Mock(return_value=MarkDetector())
    monkeypatch.setattr(module, "load_detector", load)
    source, told = video(tmp_path / "in.mp4", scene(5, [(30, 20, 40)])), list[tuple[float, str]]()
    pipe = tiny.pipeline(heads=False)
    pipe.set_progress_bar_config(disable=True)
    pipe.restore_video(source, tmp_path / "aligned.mp4", face="aligned")
    load.assert_not_called()
    plan = pipe.plan_video(source, lambda work, stage: told.append((work, stage)))
    assert len(plan.tracks) == 1
    assert told == [(1, "faces")] * 5
    assert pipe.restore_video(source, tmp_path / "out.mp4").num_tracks == 1
    load.assert_called_once_with("auto")


def test_callback_after_each_step(pipe: SVFRPipeline) -> None:
    calls: list[tuple[int, float]] = []

    def callback(given: SVFRPipeline, step: int, timestep: torch.Tensor, tensors: dict[str, Any]) -> dict[str, Any]:
        assert given is pipe
        assert tensors == {}
        calls.append((step, float(timestep)))
        return tensors

    pipe(FRAMES, callback_on_step_end=callback)
    assert [step for step, _ in calls] == list(range(3 * tiny.STEPS))
    first, second = np.exp(4 * np.array([timestep for _, timestep in calls[:2]]))
    assert first == pytest.approx(700, rel=1e-3)
    assert second == pytest.approx(0.002, rel=1e-3)
    assert not pipe.unet._forward_pre_hooks


@pytest.mark.parametrize("kind", ["np", "pt", "pil"])
def test_a_callback_stops_the_work(pipe: SVFRPipeline, kind: Any) -> None:
    whole = pipe(FRAMES, output_type=kind)
    for last_step, finished in ((tiny.STEPS, 4), (0, 0)):

        def callback(given: SVFRPipeline, step: int, *_: object, last: int = last_step) -> None:
            assert step <= last
            given._interrupt = step == last

        part = pipe(FRAMES, output_type=kind, callback_on_step_end=callback)
        assert len(part) == finished
        for one, other in zip(part, whole, strict=False):
            np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
        assert kind == "pil" or part.shape[1:] == whole.shape[1:]
    assert len(pipe(FRAMES)) == len(FRAMES), "the next call is not stopped"


def test_the_card_says_licences_training_and_figures(saved: Path, tmp_path: Path) -> None:
    (saved / "table.md").write_text("| method | PSNR |\n|---|---|\n| ours | 31.5 |\n")
    loaded = SVFRPipeline.from_pretrained(saved, device="cpu")
    loaded.save_pretrained(tmp_path / "mine")
    card = ModelCard.load(tmp_path / "mine" / "README.md")
    assert card.data.license == "other"
    assert "video-face-restoration" in card.data.tags
    rows = {line.split(" | ")[0].strip("| "): line for line in card.text.splitlines() if line.startswith("| ")}
    assert rows.keys() >= loaded.parts.networks.keys()
    assert "Stable Video Diffusion's community licence" in rows["vae"]
    assert "non-commercial research only" in rows["id_encoder"]
    for words in ("revision 0123abc with seed 7", "psnr 31.5", "max_steps: 20", "| ours | 31.5 |", "clip_length 4"):
        assert words in card.text
    # It goes on with the weights, also where more is trained from them; one that somebody wrote is left alone.
    again = SVFRPipeline.from_pretrained(tmp_path / "mine", device="cpu")
    again.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / "README.md").read_text() == (tmp_path / "mine" / "README.md").read_text()
    (saved / "config.yaml").write_text(f"init_from: {tmp_path / 'mine'}\narcface: null\n")
    SVFRPipeline.from_pretrained(saved, device="cpu").save_pretrained(tmp_path / "more")
    assert "Stable Video Diffusion's" in (tmp_path / "more" / "README.md").read_text()
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "README.md").write_text("mine\n")
    loaded.save_pretrained(tmp_path / "own")
    assert (tmp_path / "own" / "README.md").read_text() == "mine\n"


def test_cards_of_other_origins(pipe: SVFRPipeline, tmp_path: Path) -> None:
    tiny.pipeline(heads=False, settings=ModelSettings()).save_pretrained(tmp_path / "random")
    text = (tmp_path / "random" / "README.md").read_text()
    assert text.count("not known here") == 4
    demo = SVFRPipeline.from_components(pipe.parts)
    demo.register_to_config(_name_or_path=str(DEMO_FOLDER))
    demo.save_pretrained(tmp_path / "demo")
    card = ModelCard.load(tmp_path / "demo" / "README.md")
    assert card.data.license == "apache-2.0"
    assert "rendered faces" in card.text


def test_a_merged_lora_is_on_the_card(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    parts = tiny.pipeline(heads=False).parts
    parts.lora = add_lora(parts.model, "base", 2)
    parts.save(tmp_path / "lora")
    pipe = tiny.pipeline(heads=False)
    pipe.load_lora_weights(tmp_path / "lora")
    pipe.fuse_lora()
    pipe.save_pretrained(tmp_path / "merged")
    text = (tmp_path / "merged" / "README.md").read_text()
    assert f"with a LoRA merged in, {tmp_path / 'lora'}" in text


def test_what_is_pushed(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The upload alone is the library's: in its place the folder is kept."""
    made, sent = [], []

    def create_repo(repo_id: str, **how: Any) -> Any:
        made.append((repo_id, how))
        return type("Url", (), {"repo_id": repo_id})

    def upload(folder: Path, repo_id: str, **how: Any) -> str:
        sent.append((sorted(str(file.relative_to(folder)) for file in Path(folder).rglob("*") if file.is_file()), how))
        cards.append((Path(folder) / "README.md").read_text())
        loaded.append(SVFRPipeline.from_pretrained(folder, device="cpu"))
        return "address"

    cards: list[str] = []
    loaded: list[SVFRPipeline] = []
    pipe = SVFRPipeline.from_pretrained(saved, device="cpu")
    monkeypatch.setattr(module, "create_repo", create_repo)
    monkeypatch.setattr(pipe, "_upload_folder", upload, raising=False)
    assert pipe.push_to_hub("me/faces", private=True, commit_message="first") == "address"
    assert made == [("me/faces", {"private": True, "token": None, "exist_ok": True})]
    (files, how), weights = sent[0], "diffusion_pytorch_model.safetensors"
    assert how == {"commit_message": "first"}
    parts = [f"{part}/{name}" for part in pipe.parts.networks for name in ("config.json", weights)]
    assert files == sorted(["README.md", "model_index.json", "scheduler/scheduler_config.json", *parts])
    np.testing.assert_array_equal(loaded[0](FRAMES), pipe(FRAMES))
    assert 'from_pretrained("me/faces")' in cards[0]
