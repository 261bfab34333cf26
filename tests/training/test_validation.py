"""What validation restores, measures, draws and hands to the trackers."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from svfr.data.clip_sources import RenderedClips
from svfr.data.dataset import Sample
from svfr.data.frames import to_uint8, to_unit
from svfr.files import sha256_of
from svfr.inference.chain import Chain
from svfr.inference.settings import Sampling
from svfr.models.components import Components, Reference
from svfr.networks import NETWORKS
from svfr.training.loop import make_held_out, train
from svfr.training.objective import Objective, TrainedModel
from svfr.training.settings import TrainConfig
from svfr.training.validation import validate
from tests import tiny
from tests.metrics.test_image import lpips_backbone
from tests.runs import config

FRAMES = 3  # of a training clip, as in tests.runs
FLOAT32 = torch.autocast("cpu", enabled=False)


def start(folder: Path, **changes: object) -> tuple[TrainConfig, Components, list[Sample]]:
    """One view of each clip, one step of sampling."""
    settings = config(folder, **{"data__task_weights": "{bfr: 1}", **changes})
    components = tiny.pipeline().parts
    components.settings = replace(components.settings, clip_length=settings.data.num_frames, num_inference_steps=1)
    return settings, components, make_held_out(settings, components)


def run(
    objective: Objective, samples: Sequence[Sample], folder: Path, autocast: Callable[[Any], Any] = FLOAT32
) -> dict[str, float]:
    return validate(objective, objective.components, samples, autocast, folder)


@pytest.mark.parametrize(
    ("changes", "length"),
    [
        ({}, 2 * FRAMES - 1),  # they share a frame
        ({"context_frames": 1}, 2 * FRAMES - 2),  # or two
        ({"context_frames": 1, "clip_length": 5}, 8),
        ({"clip_length": 1}, FRAMES),  # whose loss is measured
    ],
)
def test_held_out_samples_are_two_chained_clips_with_a_reference(
    tmp_path: Path, changes: dict[str, Any], length: int
) -> None:
    *_, (sample,) = start(tmp_path, **changes)
    assert len(sample.gt) == sample.lq.shape[1] == length
    assert sample.has_reference
    assert sample.reference.any()
    assert sample.id_face.any()


@pytest.mark.parametrize(("wanted", "expected"), [(3, [0, 2, 4]), (9, [0, 1, 2, 3, 4, 5])])
def test_held_out_samples_are_of_videos_that_lie_far_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: int, expected: list[int]
) -> None:
    class FourClipsOfEachVideo(RenderedClips):
        def __init__(self, num_clips: int, first_seed: int) -> None:
            super().__init__(24, first_seed)
            self.video_ids = [clip // 4 for clip in range(24)]  # type: ignore[assignment]

    monkeypatch.setattr("svfr.training.loop.RenderedClips", FourClipsOfEachVideo)
    *_, samples = start(tmp_path, data__val_clips=wanted)
    assert [int(sample.video_id) for sample in samples] == expected


def test_clips_that_are_too_short_to_chain_are_restored_alone(tmp_path: Path) -> None:
    for number in range(10):
        Image.fromarray(tiny.clip(1, tiny.SIZE, tiny.SIZE, seed=number)[0]).save(tmp_path / f"{number}.png")
    settings, components, samples = start(tmp_path, data__images=tmp_path, data__rendered_clips=0, data__num_frames=1)
    assert [(len(sample.gt), bool(sample.has_reference)) for sample in samples] == [(1, False)]
    assert run(Objective(settings, components), samples, tmp_path / "pictures")["val_psnr/bfr"] > 0


def test_what_is_measured_is_the_chain_with_the_reference(tmp_path: Path) -> None:
    settings, components, (sample,) = start(tmp_path)
    objective = Objective(settings, components)
    found = run(objective, [sample], tmp_path / "pictures")
    floats = sample.to_float()
    reference = Reference(components.encode(floats.reference[None]), components.id_tokens(floats.id_face[None]))
    sampling = Sampling(seed=settings.seed).resolve(components)
    chain = Chain(components, sampling, sample.task_prompts[0], reference=reference)
    restored = torch.cat([chain(floats.lq[0, :FRAMES]), chain(floats.lq[0, FRAMES:])])
    error = to_uint8(to_unit(restored)).astype(float) - to_uint8(to_unit(floats.gt))
    psnr = 10 * np.log10(255**2 / np.square(error).mean(axis=(1, 2, 3))).mean()
    assert found["val_psnr/bfr"] == pytest.approx(psnr, abs=1e-3)
    assert 0 < found["val_ssim/bfr"] < 1
    assert found["val_psnr_degraded/bfr"] != found["val_psnr/bfr"]
    alone = run(objective, [sample._replace(has_reference=torch.tensor(False))], tmp_path / "pictures")
    assert alone["val_psnr/bfr"] != pytest.approx(found["val_psnr/bfr"], abs=1e-3)


def test_loss_by_noise_level_is_that_of_the_middles_of_8_equally_likely_bins(tmp_path: Path) -> None:
    settings, components, (sample,) = start(tmp_path)
    objective = Objective(settings, components)
    found = {
        float(name.removeprefix("val_loss/sigma_")): value
        for name, value in run(objective, [sample], tmp_path / "pictures").items()
        if name.startswith("val_loss/")
    }
    drawn = torch.cat([objective.draw_noise(torch.tensor([seed]), ())[0] for seed in range(4000)])
    shares = [float((drawn < level).float().mean()) for level in sorted(found)]
    assert shares == pytest.approx([1 / 16 + bin / 8 for bin in range(8)], abs=0.03)

    # As in training, where the clip's own level is this one.
    class AtLevel(Objective):
        def draw_noise(self, seeds: Tensor, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
            sigma, noise = super().draw_noise(seeds, shape)
            return torch.full_like(sigma, level), noise

    level = sorted(found)[3]
    clip = sample._replace(
        **{name: getattr(sample, name)[:FRAMES] for name in ("gt", "landmarks", "landmarks_valid")},
        lq=sample.lq[:, :FRAMES],
    )
    _, parts = AtLevel(settings, components)(TrainedModel(components.model), Sample(*(part[None] for part in clip)))
    assert found[level] == pytest.approx(float(parts["loss_noise"]), rel=0.01)  # its name has three digits


def test_the_model_alone_runs_in_low_precision(tmp_path: Path) -> None:
    settings, components, samples = start(tmp_path)
    components.to("cpu", torch.float16, model_dtype=torch.float32)  # as in training
    assert components.vae.dtype == torch.float32  # it overflows in float16
    seen: dict[str, set[bool]] = {"unet": set(), "encoder": set(), "decoder": set()}

    def watch(name: str, part: torch.nn.Module) -> None:
        part.register_forward_hook(lambda *_: seen[name].add(torch.is_autocast_enabled("cpu")))

    watch("unet", components.model.unet)
    watch("encoder", components.vae.encoder)
    watch("decoder", components.vae.decoder)
    run(Objective(settings, components), samples, tmp_path / "pictures", torch.autocast("cpu", torch.float16))
    assert seen == {"unet": {True}, "encoder": {False}, "decoder": {False}}


def test_lpips_is_measured_where_its_network_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SVFR_NETWORKS", "TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    settings, components, samples = start(tmp_path)
    objective = Objective(settings, components)
    assert not any("lpips" in name for name in run(objective, samples, tmp_path / "pictures"))
    network, (file, _) = NETWORKS["vgg16"], lpips_backbone("vgg", tmp_path)
    monkeypatch.setitem(NETWORKS, "vgg16", replace(network, sha256=sha256_of(file)))
    file.rename(tmp_path / network.file)
    found = run(objective, samples, tmp_path / "pictures")
    assert found["val_lpips/bfr"] > 0
    assert "val_lpips_mask/bfr" not in found


def test_pictures_and_a_film_are_drawn_and_shown_in_tensorboard(tmp_path: Path) -> None:
    changes = {
        "max_steps": 1,
        "validate_every": 1,
        "data__val_clips": 2,
        "data__task_weights": "{bfr: 1, inpainting: 1}",
    }
    train(config(tmp_path, tracker="tensorboard", **changes))
    drawn = tmp_path / "run" / "samples" / "step_000001"
    assert sorted(file.name for file in drawn.iterdir()) == ["0.png", "1.png", "film.gif"]
    with Image.open(drawn / "film.gif") as film:
        assert film.size == (3 * tiny.SIZE, 2 * tiny.SIZE)  # degraded, restored, true; two views
        assert film.n_frames == 2 * FRAMES - 1  # type: ignore[attr-defined]
    events = EventAccumulator(str(tmp_path / "run" / "svfr")).Reload()
    shown = {tag: events.Images(tag)[0] for tag in events.Tags()["images"]}
    for name in ("0.png", "1.png", "film.gif"):
        event = shown[f"validation/{name.split('.')[0]}"]
        assert (event.step, event.encoded_image_string) == (1, (drawn / name).read_bytes())


@pytest.mark.slow
def test_pictures_and_a_film_are_logged_to_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path), "WANDB_SILENT": "true"}.items():
        monkeypatch.setenv(name, value)
    train(
        config(tmp_path, max_steps=1, validate_every=1, data__task_weights="{bfr: 1, inpainting: 1}", tracker="wandb")
    )
    media = {file.suffix: file for file in tmp_path.glob("wandb/offline-run-*/files/media/**/*.*")}
    drawn = tmp_path / "run" / "samples" / "step_000001"
    assert media[".png"].read_bytes() == (drawn / "0.png").read_bytes()
    assert media[".gif"].read_bytes() == (drawn / "film.gif").read_bytes()
    assert (media[".png"].parts[-3], media[".gif"].parts[-3]) == ("images", "videos")  # that plays
