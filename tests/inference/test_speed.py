"""What makes restoring cheaper: batched guidance, its interval, speeds, memory plans, the tiny decoder, offloading."""

from dataclasses import replace
from itertools import count, islice
from pathlib import Path
from threading import current_thread
from typing import Any

import pytest
import torch
from diffusers import AutoencoderTiny
from torch import Tensor

from svfr.config import ConfigError
from svfr.inference.chain import Chain, make_denoiser
from svfr.inference.cost import measuring_cost
from svfr.inference.released import restore_released
from svfr.inference.settings import Sampling
from svfr.inference.strategies import _restore_within_memory
from svfr.inference.stream import ahead
from svfr.models.components import Components, Reference
from svfr.models.devices import MEMORY_PLANS, choose_plan, resolve_device, wait_on_cpu
from svfr.models.sources import DEMO_FOLDER, load_folder
from svfr.models.weights import WeightsError
from tests import tiny
from tests.inference.test_chain import GAMMA, Spy, chained, reference, video

GIB = 2**30


def restored(components: Components, frames: int = 7, **sampling: Any) -> Tensor:
    given = Sampling(**sampling).resolve(components)
    return torch.cat(list(chained(components, video(frames), given, reference(components))))


def test_batched_branches_are_the_same(components: Components, monkeypatch: pytest.MonkeyPatch) -> None:
    one_by_one = restored(components)
    run = Spy(monkeypatch, components.model, "forward")
    together = restored(components, batch_guidance=True)
    torch.testing.assert_close(together, one_by_one, atol=1e-4, rtol=0)
    assert {len(arguments[0]) for arguments in run.calls} == {2}
    assert len(run.calls) == tiny.STEPS * 2


@pytest.mark.parametrize("batched", [False, True])
def test_guidance_inside_an_interval(components: Components, monkeypatch: pytest.MonkeyPatch, batched: bool) -> None:
    run = Spy(monkeypatch, components.model, "forward")
    restored(components, 4, num_inference_steps=4, guidance_interval=[1, 100], batch_guidance=batched)
    guided = [float(arguments[4][0]) for arguments in run.calls for _ in arguments[0]]
    assert all(guided.count(sigma) == (2 if 1 <= sigma <= 100 else 1) for sigma in guided)
    assert {guided.count(sigma) for sigma in guided} == {1, 2}
    everywhere, plain = restored(components, 4), restored(components, 4, guidance_scale=1.0)
    assert torch.equal(restored(components, 4, guidance_interval=(0, 1e9)), everywhere)
    assert torch.equal(restored(components, 4, guidance_interval=(0, 1e-9)), plain)


def test_fast_takes_a_fifth_of_the_released_algorithm(components: Components) -> None:
    lq, spent, photo = torch.stack(list(video(64, 8))), {}, reference(components, 8)
    how: Any
    for name, how in (("released", {"strategy": "released"}), ("fast", {"speed": "fast"})):
        given = Sampling(clip_length=16, size=8, **how).resolve(components)
        with measuring_cost(components.model.unet, torch.device("cpu")) as cost:
            if name == "released":
                restore_released(components, given, GAMMA, lq, lambda _: photo)
            else:
                list(chained(components, iter(lq), given, choose=lambda _: photo))
        spent[name] = cost["unet_frames"]
    assert spent["released"] >= 5 * spent["fast"] > 0


def test_speed_is_of_less_weight_than_what_is_given(components: Components) -> None:
    fast = Sampling(speed="fast", num_inference_steps=3).resolve(components)
    assert (fast.num_inference_steps, fast.sampler, fast.schedule) == (3, "dpmpp_2m", "ays")
    assert fast.guidance_scale == tiny.SETTINGS.guidance_scale
    for setting in ({"speed": "fast"}, {"schedule": "ays"}, {"guidance_interval": (1, 2)}):
        with pytest.raises(ConfigError, match=f"{next(iter(setting))}=.*released"):
            Sampling(strategy="released", **setting)
    with pytest.raises(ConfigError, match="speed=faster: choose from paper, balanced, fast"):
        Sampling(speed="faster")


def test_batched_branches_of_the_bundled_model() -> None:
    parts = load_folder(DEMO_FOLDER)
    torch.manual_seed(0)
    x, lq = torch.randn(2, 3, parts.latent_channels, 8, 8)
    tokens = torch.randn(1, tiny.TOKENS, parts.model.id_projector.config.out_channels)
    pair = [parts.condition(given, (8, 8)) for given in (None, Reference(lq[:1], tokens))]
    one_by_one, together = (
        make_denoiser(parts, lq, GAMMA, pair, 2.0, batched=batched)(20 * x, torch.tensor(20.0))
        for batched in (False, True)
    )
    torch.testing.assert_close(together, one_by_one, atol=1e-4, rtol=0)


# Memory


def test_what_is_free_chooses_the_plan() -> None:
    chosen = [choose_plan(gib * GIB, 512) for gib in (2, 7.9, 11.5, 15.6, 23.5, 80)]
    assert chosen == [8, 8, 12, 16, 24, 24]
    assert choose_plan(7 * GIB, 256) == 24


def test_a_plan_sets_lengths_and_given_ones_win() -> None:
    parts = tiny.pipeline().parts
    parts.plan = replace(MEMORY_PLANS[8], decode_chunk_size=1, clip_length=2)
    parts.settings = replace(parts.settings, size=512, clip_length=3)
    small = Sampling().resolve(parts)
    assert (small.decode_chunk_size, small.clip_length, small.batch_guidance) == (1, 2, False)
    given = Sampling(decode_chunk_size=3, clip_length=3, batch_guidance=True).resolve(parts)
    assert (given.decode_chunk_size, given.clip_length, given.batch_guidance) == (3, 3, True)


def test_out_of_memory_steps_down_once_with_the_same_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = tiny.pipeline().parts
    parts.plan = MEMORY_PLANS[16]
    chain = Chain(parts, Sampling().resolve(parts), GAMMA, reference=reference(parts))
    lq, decode, failures = torch.stack(list(video(4))), parts.decode, 1

    def fail(*arguments: Any, **named: Any) -> Tensor:
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise torch.OutOfMemoryError
        return decode(*arguments, **named)

    monkeypatch.setattr(parts, "decode", fail)
    result = _restore_within_memory(chain, lq, None)
    assert parts.plan == MEMORY_PLANS[12]
    assert parts.notes == ["memory ran out: went on as with memory=12"]
    torch.testing.assert_close(result, restored(tiny.pipeline().parts, 4), atol=1e-4, rtol=0)
    failures = 1
    with pytest.raises(torch.OutOfMemoryError):
        _restore_within_memory(chain, lq, None)


def test_named_memory_without_an_accelerator_says_so() -> None:
    pipe = tiny.pipeline().prepare(8)
    assert "no accelerator here" in pipe.parts.notes[0]
    assert not hasattr(pipe.unet, "run_device")


def test_networks_that_wait_give_the_same(components: Components) -> None:
    device = resolve_device()  # on a CPU alone nothing moves, and the hooks run
    parts = tiny.pipeline().parts.to(device, torch.float32)
    wait_on_cpu([parts.model.unet, parts.vae.encoder, parts.vae.decoder], device)
    assert parts.device == device
    torch.testing.assert_close(restored(parts).cpu(), restored(components), atol=1e-4, rtol=0)
    places = {part.conv_in.weight.device.type for part in (parts.model.unet, parts.vae.encoder)}
    assert places == {"cpu"}  # the decoder ran last


# The tiny decoder


def tiny_decoder(**more: Any) -> AutoencoderTiny:
    channels = {f"{side}coder_block_out_channels": (8, 8, 8) for side in ("en", "de")}
    blocks = {f"num_{side}coder_blocks": (1, 1, 1) for side in ("en", "de")}
    return AutoencoderTiny(**channels, **blocks, **more)


def test_tiny_decoder_takes_scaled_latents(tmp_path: Path) -> None:
    made = tiny_decoder()
    made.save_pretrained(tmp_path)
    pipe = tiny.pipeline().prepare(vae=str(tmp_path))
    latents = torch.randn(5, *tiny.LATENT)
    with torch.no_grad():
        torch.testing.assert_close(pipe.parts.decode(latents, 2, context=1), made.decode(latents).sample)
    assert pipe(tiny.clip(6)).shape == (6, tiny.SIZE, tiny.SIZE, 3)


def test_tiny_decoders_that_cannot_be(tmp_path: Path) -> None:
    tiny_decoder(latent_channels=5).save_pretrained(tmp_path)
    with pytest.raises(WeightsError, match=r"vae=.* latents are \(5, 4\), the AutoencoderKLTemporalDecoder's \(4, 4\)"):
        tiny.pipeline().prepare(vae=str(tmp_path))
    with pytest.raises(WeightsError, match="vae=nowhere: no such folder; give full, tiny"):
        tiny.pipeline().prepare(vae="nowhere")


# Overlap


def test_ahead_takes_some_items_early_in_a_thread_and_passes_errors_on() -> None:
    taken: list[str] = []

    def items() -> Any:
        try:
            for number in count():
                taken.append(current_thread().name)
                if number == 5:
                    raise ValueError("the fifth")
                yield number
        finally:
            taken.append("closed")

    stream = ahead(items(), 2)
    assert list(islice(stream, 2)) == [0, 1]
    stream.close()
    assert 2 <= len(taken) <= 5
    assert taken[-1] == "closed"
    assert current_thread().name not in taken
    rest = ahead(items(), 2)
    assert [next(rest) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="the fifth"):
        next(rest)
    assert list(ahead(iter([]), 2)) == []
