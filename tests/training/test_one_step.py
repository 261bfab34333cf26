"""The method `one_step`: its latent loss (stage 1), and its losses of decoded crops (stage 2)."""

from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from svfr.config import ConfigError
from svfr.files import sha256_of
from svfr.inference.chain import Chain
from svfr.inference.pipeline import SVFRPipeline
from svfr.inference.settings import Sampling
from svfr.models.components import Components
from svfr.models.sources import load_folder
from svfr.networks import NETWORKS
from svfr.training.initialize import initialize
from svfr.training.loop import train
from svfr.training.objective import TrainedModel
from svfr.training.one_step import Discriminator, FrozenEncoder, OneStep, Perceptual, feature_head
from svfr.training.settings import DataConfig, LoRAConfig, TrainConfig
from svfr.training.validation import loss_by_noise, validate
from tests import tiny
from tests.metrics.test_image import lpips_backbone
from tests.runs import config, metrics, weights
from tests.training.test_distributed import made_batch
from tests.training.test_validation import start

BOTH = slice(0, 2)
STAGE_1: dict[str, Any] = {"method": "one_step"}
STAGE_2: dict[str, Any] = STAGE_1 | {
    "lambda_pixel": 1.0,
    "lambda_perceptual": 0.5,
    "lambda_squared": 3.0,
    "lambda_texture": 2.0,
    "lambda_temporal": 0.5,
    "lambda_adversarial": 0.1,
    "crop_frames": 2,
    "crop_size": 16,
}


def method(components: Components | None = None, **settings: Any) -> tuple[OneStep, nn.Module]:
    made = OneStep(TrainConfig(**settings), components or tiny.pipeline().parts)
    return made, made.module()


# Stage 1


def test_stage_1_is_the_error_of_what_the_chain_gives() -> None:
    batch, (made, module) = made_batch(slice(1, 2)), method(**STAGE_1)  # a clip without a reference
    components = made.components
    with torch.no_grad():
        loss, parts = made(module, batch)
    components.settings = replace(
        tiny.SETTINGS, clip_length=3, one_step_sigma=20.0, num_inference_steps=1, guidance_scale=1.0
    )
    errors = []
    for view, prompt in zip(batch.to_float().lq[0], batch.task_prompts[0], strict=True):
        chain = Chain(components, Sampling(overlap=1).resolve(components), prompt)
        chain(view)
        assert chain.tail is not None
        clean = components.encode(batch.to_float().gt[0]) * components.vae.config.scaling_factor
        errors.append((chain.tail.restored - clean[-1:]).square().mean())
    targets = made.prepare(batch)
    assert not targets.noisy.any()
    denoised = module(targets).denoised.detach()
    assert torch.allclose(
        (denoised[:, -1] - targets.clean[:, -1]).square().mean(), torch.stack(errors).mean(), rtol=1e-3
    )
    assert parts["loss_noise"] == pytest.approx(float((denoised - targets.clean).square().mean()), rel=1e-4)
    assert set(parts) == {"loss", "loss_noise", "loss_ulr", "loss_prior"}
    assert loss == parts["loss"]


def test_weights_say_that_they_restore_in_one_step_and_another_method_takes_it_back(tmp_path: Path) -> None:
    source = tmp_path / "start"
    tiny.pipeline(settings=replace(tiny.SETTINGS, sampler="dpmpp_2m")).save_pretrained(source)
    settings = TrainConfig(init_from=str(source), **STAGE_1, one_step_sigma=30.0)
    components = initialize(settings)
    found = components.settings
    assert (found.one_step_sigma, found.num_inference_steps, found.guidance_scale) == (30.0, 1, 1.0)
    assert found.sampler == "euler"
    components.save(tmp_path / "one_step")
    assert initialize(TrainConfig(init_from=str(tmp_path / "one_step"))).settings.one_step_sigma is None


def test_validation_measures_the_one_noise_level(tmp_path: Path) -> None:
    settings, components, (sample,) = start(tmp_path, **STAGE_1)
    made = OneStep(settings, components)
    (loss,) = loss_by_noise(made, components.model, sample).items()
    assert loss[0] == 20.0
    assert loss[1] > 0


# Stage 2


@pytest.mark.parametrize("discriminator", ["unet", "patch"])
def test_each_term_reaches_what_it_is_for(discriminator: str) -> None:
    made, module = method(**STAGE_2, discriminator=discriminator)
    batch, seen = made_batch(BOTH), {}
    loss, parts = made(module, batch)
    names = {"loss", "loss_noise", "loss_ulr", "loss_prior", "loss_pixel", "loss_temporal", "loss_id_features"}
    assert set(parts) == names | {"loss_fooling", "loss_telling", "loss_texture", "loss_squared"}
    assert all(float(part) for part in parts.values())
    outputs = module(made.look_back(module, made.prepare(batch), batch))
    for name, term in (("fooling", outputs.fooling), ("telling", outputs.telling), ("frames", outputs.frames.sum())):
        module.zero_grad()
        term.backward(retain_graph=True)
        reached = {n.split(".")[0] for n, p in module.named_parameters() if p.grad is not None and p.grad.any()}
        seen[name] = reached
    assert seen == {"fooling": {"model"}, "telling": {"discriminator"}, "frames": {"model"}}
    module.zero_grad()
    loss.backward()
    assert all(p.grad is not None for p in module.parameters())
    frozen = [*made.components.vae.parameters(), *made.components.id_encoder.parameters()]
    assert all(p.grad is None for p in frozen)
    expected = parts["loss_noise"] + 0.01 * parts["loss_ulr"] + 0.1 * parts["loss_prior"] + parts["loss_pixel"]
    expected = expected + 0.5 * parts["loss_id_features"] + 0.5 * parts["loss_temporal"] + 2 * parts["loss_texture"]
    expected = expected + 3 * parts["loss_squared"]
    torch.testing.assert_close(parts["loss"], expected)
    torch.testing.assert_close(loss, expected + 0.1 * parts["loss_fooling"] + parts["loss_telling"])
    assert [group["scale"] for group in made.groups(module)] == [1.0, 2.0]
    assert sum(len(group["params"]) for group in made.groups(module)) == len(list(module.parameters()))


def test_the_decoder_is_trained_where_it_has_a_rate(tmp_path: Path) -> None:
    made, module = method(**STAGE_2, decoder_rate=3.0)
    made(module, made_batch(BOTH))[0].backward()
    left = {n for n, p in made.components.vae.decoder.named_parameters() if p.grad is None}
    assert all(".attentions." in name for name in left)  # diffusers leaves them out of a decoder of one layer
    assert all(p.grad is None for p in made.components.vae.encoder.parameters())
    assert [group["scale"] for group in made.groups(module)] == [1.0, 3.0, 2.0]

    settings = STAGE_2 | {"decoder_rate": 3.0, "max_steps": 2, "warmup_steps": 0, "ema_decay": 0.5}
    train(config(tmp_path, **settings, keep_weights=2, checkpoint_every=1))
    steps, name = [weights(tmp_path, step) for step in (1, 2)], "vae/diffusion_pytorch_model.safetensors"
    assert steps[0][name] != steps[1][name]
    first, second, start = (
        load_file(folder / name)
        for folder in (tmp_path / "run/weights/step_000001", tmp_path / "run/weights/step_000002", tmp_path / "start")
    )
    moved = {key.split(".")[0] for key in start if not torch.equal(second[key], start[key].float())}
    assert moved == {"decoder"}
    trained = torch.load(tmp_path / "run/checkpoints/step_000002/training.pt", weights_only=True)["trained"]
    for key in (key for key in start if key.startswith("decoder.")):  # what is written is the moving average
        torch.testing.assert_close(second[key], first[key].lerp(trained[key], 1 - 2 / 11))


def test_the_decoder_alone(tmp_path: Path) -> None:
    made, module = method(**STAGE_2, decoder_rate=3.0, decoder_alone=True)
    made(module, made_batch(BOTH))[0].backward()
    assert all(p.grad is None for p in made.components.model.parameters())
    assert [group["scale"] for group in made.groups(module)] == [3.0, 2.0]
    settings = STAGE_2 | {"decoder_rate": 3.0, "decoder_alone": True, "warmup_steps": 0}
    train(config(tmp_path, **settings, max_steps=2, output_dir=tmp_path / "whole"))
    for steps in (1, 2):
        train(config(tmp_path, **settings, max_steps=steps))
    assert weights(tmp_path, 2) == weights(tmp_path, 2, "whole")
    start = {name: sha256_of(tmp_path / "start" / name) for name in weights(tmp_path, 2)}
    end = {name: sha256_of(tmp_path / "run/weights/step_000002" / name) for name in start}
    assert {name for name in start if start[name] != end[name]} == {"vae/diffusion_pytorch_model.safetensors"}


def test_a_decoder_begins_unrounded_whatever_the_precision(tmp_path: Path) -> None:
    settings = STAGE_2 | {"decoder_rate": 1.0, "max_steps": 1, "warmup_steps": 1}  # whose first step is at rate 0
    train(config(tmp_path, **settings, precision="bf16"))
    name = "vae/diffusion_pytorch_model.safetensors"
    start, end = (load_file(tmp_path / folder / name) for folder in ("start", "run/weights/step_000001"))
    assert all(torch.equal(start[key].float(), end[key]) for key in start)


def test_validation_decodes_by_the_averaged_decoder(tmp_path: Path) -> None:
    settings, components, samples = start(tmp_path, **STAGE_2, decoder_rate=1.0)
    made, averaged, found = OneStep(settings, components), deepcopy(components), []
    made.module()
    for part in (None, components.vae, averaged.vae):
        if part is not None:
            nn.init.zeros_(part.decoder.conv_out.weight)
        values = validate(made, averaged, samples, torch.autocast("cpu", enabled=False), tmp_path / "pictures")
        found.append(values["val_psnr/bfr"])
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize("part", ["decoder", "discriminator"])
def test_gradients_that_are_not_finite_are_seen_in_each_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    original, calls = OneStep.module, [0]

    def module(self: OneStep) -> TrainedModel:
        made = original(self)

        def spoil(gradient: Tensor) -> Tensor:
            calls[0] += 1
            return gradient * float("nan") if calls[0] == 2 else gradient

        next(getattr(made, part).parameters()).register_hook(spoil)
        return made

    monkeypatch.setattr(OneStep, "module", module)
    settings = STAGE_2 | {"discriminator": "patch", "decoder_rate": 1.0, "warmup_steps": 0, "checkpoint_every": 9}
    train(config(tmp_path, **settings, max_steps=3))
    assert [line["skipped"] for line in metrics(tmp_path)] == [0, 1, 1]
    state = torch.load(tmp_path / "run/checkpoints/step_000003/training.pt", weights_only=True)["trained"]
    assert all(value.isfinite().all() for value in state.values())


def test_hinge_by_hand() -> None:
    torch.manual_seed(0)
    judge = Discriminator([feature_head(2)])
    fake, real = torch.randn(1, 2, 3, 4, 4), torch.randn(1, 2, 3, 4, 4)
    fooling, telling = judge.hinge([fake], [real])
    one, other = judge.heads[0](fake), judge.heads[0](real)
    torch.testing.assert_close(fooling, -one.mean())
    torch.testing.assert_close(telling, (1 + one).clamp(min=0).mean() + (1 - other).clamp(min=0).mean())


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_the_patch_network_sees_the_truth_as_the_decoder_can_give_it(rate: float) -> None:
    made, module = method(**STAGE_2, discriminator="patch", decoder_rate=rate)
    batch = made_batch(BOTH)
    targets = made.look_back(module, made.prepare(batch), batch)
    assert targets.places is not None
    assert targets.truth is not None
    with torch.no_grad():
        outputs = module(targets)
        clean = torch.stack([each[place] for each, place in zip(targets.clean, targets.places, strict=True)])
        hinge, found = cast(Any, module).discriminator.hinge, []
        for real in (made.decode(clean), targets.truth):
            one, other = (frames.transpose(1, 2) for frames in (outputs.frames, real))
            found.append(bool(torch.isclose(hinge([one], [other])[1], outputs.telling)))
    assert found == [rate == 0, rate > 0]


def test_crops_are_decoded_as_the_whole_is_and_lie_where_the_truth_does_from_the_last_known_frame_on() -> None:
    settings = STAGE_2 | {"context_frames": 1, "context_share": 1.0, "max_context": 1}
    made, module = method(tiny.patch_pipeline().parts, **settings, data=DataConfig(num_frames=3), lambda_ulr=0)
    batch = made_batch(BOTH)._replace(seed=torch.tensor([3, 8]))
    targets = made.look_back(module, made.prepare(batch), batch)
    assert targets.places is not None
    assert targets.truth is not None
    assert targets.places[0] == targets.places[1] != targets.places[2]
    with torch.no_grad():
        outputs = module(targets)
        for view, (frames, _, rows, columns) in enumerate(targets.places):
            assert frames == slice(0, 2)  # the first one is known, and the second has to fit to it
            assert rows.stop - rows.start == columns.stop - columns.start == 4
            area = (..., slice(4 * rows.start, 4 * rows.stop), slice(4 * columns.start, 4 * columns.stop))
            given = made.components.vae.config.scaling_factor * targets.lq[view, :1]
            assert not torch.equal(given, outputs.denoised[view, :1])
            whole = made.components.decode(torch.cat([given, outputs.denoised[view, 1:]]), 3)[frames]
            torch.testing.assert_close(outputs.frames[view], whole[area])
            assert torch.equal(targets.truth[view], batch.to_float().gt[view // 2, frames][area])


def test_the_frozen_encoder_sees_what_the_unets_own_blocks_give_and_stays_as_it_was() -> None:
    model, given = tiny.model(), tiny.inputs(batch=2)
    seen: list[Tensor] = []
    encoder = FrozenEncoder(model.unet, torch.float32)
    for block in model.unet.down_blocks:
        block.register_forward_hook(lambda _, args, output: seen.append(output[0]))
    latents, lq, prompt = given["noisy_latents"], given["lq_latents"], given["task_prompt"]
    zeros, tokens = torch.zeros_like(lq), torch.zeros(2, 1, tiny.TOKEN_DIM)
    with torch.no_grad():
        out = model(latents, lq, zeros, tokens, torch.full((2,), 0.2), prompt)
        found = encoder(latents, lq, prompt)
        for parameter in model.unet.parameters():
            parameter.add_(1)
        again = encoder(latents, lq, prompt)
    seen.append(out.mid_features.flatten(0, 1))
    assert len(found) == len(seen) == len(encoder.channels)
    for feature, one, other, channels in zip(found, seen, again, encoder.channels, strict=True):
        expected = nn.functional.group_norm(one, 1).unflatten(0, (2, 3)).transpose(1, 2)
        torch.testing.assert_close(feature, expected, rtol=1e-3, atol=1e-3)
        assert torch.equal(feature, other)
        assert feature.shape[1] == channels


def test_perceptual_is_lpips_where_its_network_is_else_id_features(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SVFR_NETWORKS", "TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(2, 3, 32, 32, generator=generator) * 2 - 1
    blurred = nn.functional.avg_pool2d(truth, 3, 1, 1).requires_grad_()
    of_features = Perceptual(tiny.id_encoder().eval(), torch.device("cpu"))
    assert of_features.name == "id_features"
    network, (file, _) = NETWORKS["vgg16"], lpips_backbone("vgg", tmp_path)
    monkeypatch.setitem(NETWORKS, "vgg16", replace(network, sha256=sha256_of(file)))
    file.rename(tmp_path / network.file)
    of_lpips = Perceptual(tiny.id_encoder().eval(), torch.device("cpu"))
    assert of_lpips.name == "lpips"
    for distance in (of_features, of_lpips):
        assert distance(truth, truth) == 0
        value = distance(blurred, truth)
        value.backward()
        assert value > 0
        assert blurred.grad is not None
        assert blurred.grad.any()
        blurred.grad = None


# Runs


@pytest.mark.parametrize("stage", [STAGE_1, STAGE_2, STAGE_2 | {"discriminator": "patch", "decoder_rate": 2.0}])
def test_resumed_is_uninterrupted_bit_for_bit(tmp_path: Path, stage: dict[str, Any]) -> None:
    settings = stage | {"context_frames": 1, "max_steps": 2, "warmup_steps": 0}
    train(config(tmp_path, output_dir=tmp_path / "whole", **settings))
    for steps in (1, 2):
        train(config(tmp_path, **settings | {"max_steps": steps}))
    assert metrics(tmp_path) == metrics(tmp_path, "whole")
    assert weights(tmp_path, 2) == weights(tmp_path, 2, "whole")
    assert not any("discriminator" in name for name in weights(tmp_path, 2))
    one, other = (
        torch.load(tmp_path / name / "checkpoints/step_000002/training.pt", weights_only=True)["trained"]
        for name in ("run", "whole")
    )
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert any(name.startswith("discriminator.") for name in one) == (stage is not STAGE_1)
    folder = tmp_path / "run/weights/step_000002"
    assert load_folder(folder).settings.one_step_sigma == 20.0
    assert SVFRPipeline.from_pretrained(folder, device="cpu")(tiny.clip(4)).shape == (4, tiny.SIZE, tiny.SIZE, 3)


def test_the_discriminator_has_a_rate_and_a_clipped_gradient_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[nn.Module] = []

    def keep(model: nn.Module, *_: Any) -> nn.Module:  # SGD has no moments
        seen.append(model)
        return nn.Module()

    monkeypatch.setattr("torch.optim.AdamW", partial(torch.optim.SGD, lr=1.0, momentum=0.0))
    monkeypatch.setattr("svfr.training.loop.ModelAndOptimizer", keep)
    monkeypatch.setattr("svfr.training.loop.save", lambda *_, **__: None)
    settings = config(tmp_path, **STAGE_2, max_steps=1, warmup_steps=0, weight_decay=0, max_grad_norm=0.01)
    before = OneStep(settings, initialize(settings)).module().state_dict()
    train(settings)
    moved: dict[str, float] = {"model": 0, "discriminator": 0}
    for name, value in seen[0].state_dict().items():
        moved[name.split(".")[0]] += float((value - before[name]).square().sum())
    found = {part: square**0.5 for part, square in moved.items()}
    assert found == pytest.approx({"model": 1e-3 * 0.01, "discriminator": 2e-3 * 0.01}, rel=0.02)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lambda_pixel": 1.0}, "lambda_pixel=1.0: goes with method=one_step alone"),
        ({"lambda_temporal": -1.0, **STAGE_1}, "lambda_temporal=-1.0"),
        ({"crop_frames": 0}, "crop_frames=0"),
        ({"crop_size": 7, **STAGE_1, "lambda_texture": 1.0}, "crop_size=7: lambda_texture wants at least 8"),
        ({"decoder_alone": True, **STAGE_2}, "decoder_alone=true: wants a decoder_rate above 0"),
        ({"decoder_rate": 1.0}, "decoder_rate=1.0: goes with method=one_step alone"),
        ({"decoder_rate": 1.0, **STAGE_1}, "decoder_rate=1.0: trains the whole model"),
        ({"decoder_rate": 1.0, **STAGE_2, "lora": LoRAConfig(rank=2)}, "decoder_rate=1.0: trains the whole model"),
        ({"one_step_sigma": 0.0}, "one_step_sigma=0.0"),
    ],
)
def test_settings_that_cannot_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainConfig(**changes)
