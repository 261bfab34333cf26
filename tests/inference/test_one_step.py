"""Weights that say `one_step_sigma`, and weights that say `context_frames`: how the chain restores with them."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from svfr.inference.chain import Chain, joined
from svfr.inference.pipeline import SVFRPipeline
from svfr.inference.settings import Sampling
from svfr.models.components import Components, ModelSettings
from svfr.models.sources import load_folder
from svfr.models.weights import WeightsError
from tests import tiny
from tests.inference.test_chain import GAMMA, Spy, chained, reference, video

SIGMA = 20.0
ONE_STEP = replace(tiny.SETTINGS, one_step_sigma=SIGMA, num_inference_steps=1, guidance_scale=1.0)


@pytest.fixture
def one_step() -> Components:
    return tiny.pipeline(settings=ONE_STEP).parts


# One step


def test_one_step_is_one_run_from_zero_without_noise_or_guidance(
    one_step: Components, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = torch.stack(list(video(4)))
    run = Spy(monkeypatch, one_step.model, "forward")
    work: list[float] = []
    chain = Chain(one_step, Sampling().resolve(one_step), GAMMA, reference=reference(one_step))
    restored = chain(clip, work.append)
    ((x, lq, _, _, sigma, _),) = run.calls
    assert not x.any()
    assert sigma.tolist() == [SIGMA]
    assert work == [4]
    with torch.no_grad():
        condition = one_step.condition(reference(one_step), (4, 4))
        again = one_step.model(x, lq, condition.ref_latents, condition.context, sigma, GAMMA[None])
    assert torch.equal(restored, one_step.decode(again.denoised[0], 4))
    one_step.settings = replace(tiny.SETTINGS, one_step_sigma=SIGMA)  # whose steps and guidance say nothing
    other = Chain(one_step, Sampling(seed=5).resolve(one_step), GAMMA, reference=reference(one_step))(clip)
    assert torch.equal(other, restored)


@pytest.mark.parametrize(
    "setting",
    [
        {"num_inference_steps": 2},
        {"guidance_scale": 2.0},
        {"sampler": "euler"},
        {"strategy": "released"},
        {"schedule": "karras"},
        {"strength": 0.5},
    ],
)
def test_one_step_weights_refuse_what_they_do_not_take(setting: dict[str, Any]) -> None:
    pipe = SVFRPipeline.from_components(tiny.pipeline(settings=ONE_STEP).parts)
    with pytest.raises(ValueError, match=next(iter(setting))) as caught:
        pipe(tiny.clip(2), **setting)
    assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(ValueError, match="initial_noise: these weights restore without noise"):
        pipe(tiny.clip(2), initial_noise=torch.zeros(2, *tiny.LATENT))
    assert pipe(tiny.clip(2), num_inference_steps=1, guidance_scale=1.0).shape == (2, tiny.SIZE, tiny.SIZE, 3)


# Context frames


def weights_with_context(frames: int, **more: Any) -> Components:
    return tiny.pipeline(settings=replace(tiny.SETTINGS, context_frames=frames, **more)).parts


@pytest.mark.parametrize(("frames", "overlap"), [(1, 1), (1, 2), (2, 2), (2, 3)])
@pytest.mark.parametrize("sigma", [None, SIGMA])
def test_context_is_the_lq_and_the_reference_of_the_shared_frames_in_both_branches(
    monkeypatch: pytest.MonkeyPatch, frames: int, overlap: int, sigma: float | None
) -> None:
    more = {} if sigma is None else {"one_step_sigma": sigma, "num_inference_steps": 1, "guidance_scale": 1.0}
    components = weights_with_context(frames, **more)
    photo = reference(components)
    decoded, run = Spy(monkeypatch, components, "decode"), Spy(monkeypatch, components.model, "forward")
    given = Sampling(overlap=overlap).resolve(components)
    restored = torch.cat(list(chained(components, video(8 - overlap), given, photo)))
    assert restored.shape == (8 - overlap, 3, 16, 16)
    first, second = (args[0] for args in decoded.calls)
    known = first[-overlap:][:frames] / components.vae.config.scaling_factor
    assert torch.equal(second[:overlap], first[-overlap:])  # as they were
    assert [args[2] for args in decoded.calls] == [frames, frames]  # of each chunk
    branches = run.calls[len(run.calls) // 2 :]
    assert len(branches) == (1 if sigma else 2 * tiny.STEPS)
    fresh = components.encode(torch.stack(list(video(8 - overlap)))[4 - overlap + frames :])
    for _, lq, ref, *_ in branches:
        torch.testing.assert_close(lq[0, :frames], known)
        torch.testing.assert_close(lq[0, frames:], fresh)
        torch.testing.assert_close(ref[0, :frames], known)
    assert {bool(ref[0, frames:].any()) for _, _, ref, *_ in branches} == ({True} if sigma else {False, True})
    assert all(ref.shape[1] in (1, 4) for _, _, ref, *_ in run.calls[: len(run.calls) // 2] if ref.ndim == 5)


def test_overlap_has_room_for_the_context_and_for_a_frame_to_join_in() -> None:
    components = weights_with_context(1)
    with pytest.raises(ValueError, match=r"overlap=0: .*context_frames \(1\)"):
        Sampling(overlap=0).resolve(components)
    assert Sampling().resolve(components).overlap == 2
    assert Sampling(overlap=1).resolve(components).overlap == 1
    assert Sampling(clip_length=2).resolve(components).overlap == 1
    assert Sampling(clip_length=1).resolve(components).overlap == 0
    assert Sampling(strategy="released").resolve(components).overlap == 3


def test_what_clips_differ_by_where_they_join_fades_out() -> None:
    before, latents = torch.full((2, 1, 1, 1), 7.0), torch.tensor([5.0, 4.0, 1.0, 1.0, 1.0, 1.0])[:, None, None, None]
    together = joined(before, latents).flatten()
    torch.testing.assert_close(together, torch.tensor([7.0, 7.0, 1 + 3 * 2 / 3, 1 + 3 / 3, 1.0, 1.0]))
    assert torch.equal(joined(before, latents[:3]).flatten(), together[:3])
    equal = latents.clone()
    equal[:2] = before
    assert torch.equal(joined(before, equal), equal)


def test_a_reference_for_each_frame_is_taken_as_it_is() -> None:
    model, given = tiny.model(heads=False).requires_grad_(False), tiny.inputs()
    ref = given["ref_latents"]
    repeated = model(**given | {"ref_latents": ref[:, None].expand(-1, 3, -1, -1, -1)})
    assert torch.equal(repeated.denoised, model(**given).denoised)
    seen: list[Tensor] = []
    model.unet.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    others = torch.stack([ref, -ref, 2 * ref], dim=1)
    model(**given | {"ref_latents": others})
    assert torch.equal(seen[0][:, :, 8:], others)


# What weights say of themselves


def test_the_settings_travel_with_the_weights(tmp_path: Path) -> None:
    settings = replace(ONE_STEP, context_frames=2)
    tiny.pipeline(settings=settings).save_pretrained(tmp_path)
    assert load_folder(tmp_path).settings == settings


def test_an_old_folder_gives_what_it_gave(tmp_path: Path, pipe: SVFRPipeline, clip: np.ndarray) -> None:
    pipe.save_pretrained(tmp_path)
    index = tmp_path / "model_index.json"
    content = json.loads(index.read_text())
    assert content["settings"].pop("context_frames") == 0
    assert content["settings"].pop("one_step_sigma") is None
    index.write_text(json.dumps(content))
    np.testing.assert_array_equal(SVFRPipeline.from_pretrained(tmp_path, device="cpu")(clip), pipe(clip))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("context_frames", -1),
        ("context_frames", 4),
        ("context_frames", 1.5),
        ("one_step_sigma", 0),
        ("one_step_sigma", "a"),
    ],
)
def test_settings_that_cannot_be_are_one_line(tmp_path: Path, key: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{key} {re.escape(str(value))}"):
        ModelSettings(**{"clip_length": 4, key: value})
    tiny.pipeline().save_pretrained(tmp_path)
    index = tmp_path / "model_index.json"
    content = json.loads(index.read_text())
    content["settings"][key] = value
    index.write_text(json.dumps(content))
    with pytest.raises(WeightsError, match=key):
        load_folder(tmp_path)
