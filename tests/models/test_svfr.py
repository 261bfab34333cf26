import pytest
import torch
from torch import Tensor

from svfr.diffusion import get_scalings
from svfr.models.svfr import SVFR
from tests import tiny


@pytest.fixture(scope="module")
def model() -> SVFR:
    return tiny.model(heads=False).requires_grad_(False)


def test_denoised_follows_from_the_prediction(model: SVFR) -> None:
    given = tiny.inputs(batch=2)
    out = model(**given)
    scalings = get_scalings(given["sigma"])
    skip, factor = (value.view(2, 1, 1, 1, 1) for value in (scalings.skip, scalings.out))
    torch.testing.assert_close(out.denoised, skip * given["noisy_latents"] + factor * out.prediction)
    assert out.prediction.shape == given["noisy_latents"].shape
    assert out.mid_features.shape == (2, 3, 64, 4, 4)


def test_what_the_unet_is_shown(model: SVFR) -> None:
    given, seen = tiny.inputs(batch=2), []
    hook = model.unet.register_forward_pre_hook(lambda _, args, kwargs: seen.append((*args, kwargs)), with_kwargs=True)
    try:
        model(**given)
    finally:
        hook.remove()
    ((sample, timestep, tokens, kwargs),) = seen
    sigma = given["sigma"].view(2, 1, 1, 1, 1)
    noisy, lq, ref = sample.split(4, dim=2)
    torch.testing.assert_close(noisy, given["noisy_latents"] / (sigma**2 + 1).sqrt())
    torch.testing.assert_close(lq, given["lq_latents"])
    torch.testing.assert_close(ref, given["ref_latents"][:, None].expand_as(ref))
    torch.testing.assert_close(timestep, given["sigma"].log() / 4)
    assert tokens is given["id_tokens"]
    assert kwargs["added_time_ids"] is given["task_prompt"]


def test_videos_of_a_batch_do_not_mix(model: SVFR) -> None:
    given = tiny.inputs(batch=2)
    together = model(**given)
    for i in range(2):
        alone = model(**{name: value[i : i + 1] for name, value in given.items()})
        for one, other in zip(together, alone, strict=True):
            torch.testing.assert_close(one[i : i + 1], other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("scale", [1.0, 0.0])
def test_fixed_context_gives_the_same(model: SVFR, batch: int, scale: float) -> None:
    given = tiny.inputs(batch)
    given["id_tokens"] = given["id_tokens"] * scale
    expected = model(**given)
    fixed = model(**given | {"id_tokens": model.fix_context(given["id_tokens"])})
    for one, other in zip(fixed, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["noisy_latents", "lq_latents", "ref_latents", "id_tokens", "sigma", "task_prompt"])
def test_each_argument_changes_the_prediction(model: SVFR, name: str) -> None:
    given = tiny.inputs()
    changed = model(**given | {name: given[name] + 1})
    assert (changed.prediction - model(**given).prediction).abs().max() > 0.01


def test_half_precision_keeps_the_denoised_in_full() -> None:
    model = tiny.model(heads=False).to(torch.bfloat16).requires_grad_(False)
    out = model(**tiny.inputs())
    assert out.prediction.dtype == torch.bfloat16
    assert out.denoised.dtype == torch.float32
    assert out.denoised.isfinite().all()


def gradients(checkpointing: bool) -> tuple[dict[str, Tensor], int, SVFR]:
    """Gradients of a loss that reads prediction and mid-block features, and how often the mid block was seen."""
    model, given, seen = tiny.model(), tiny.inputs(), []
    model.train()
    if checkpointing:
        model.unet.enable_gradient_checkpointing()
    model.unet.mid_block.register_forward_hook(lambda *_: seen.append(1))
    features = torch.randn(1, 16, 7, 7, generator=torch.Generator().manual_seed(1))
    out = model(**given | {"id_tokens": model.id_projector(features)})
    assert model.latent_transformer is not None
    assert model.landmark_predictor is not None
    loss = out.denoised.square().mean()
    loss = loss + model.latent_transformer(out.mid_features)[..., 0].mean()
    loss = loss + model.landmark_predictor(out.mid_features).square().mean()
    loss.backward()
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}, len(seen), model


def test_every_trained_part_gets_a_gradient() -> None:
    grads, _, model = gradients(checkpointing=False)
    assert set(grads) == {name for name, _ in model.named_parameters()}
    for part in (
        "unet.conv_in",
        "unet.add_embedding",
        "id_projector.project1024",
        "latent_transformer.blocks.0",
        "landmark_predictor.mlp.0",
    ):
        found = [grad for name, grad in grads.items() if name.startswith(part)]
        assert found, part
        assert any(grad.any() for grad in found), part
    reference = grads["unet.conv_in.weight"][:, 8:]
    assert reference.any()


def test_heads_train_the_unet_through_the_mid_features() -> None:
    model = tiny.model(heads=False)
    model(**tiny.inputs()).mid_features.square().mean().backward()
    assert model.unet.conv_in.weight.grad.any()
    assert model.unet.mid_block.resnets[0].spatial_res_block.conv1.weight.grad.any()
    assert model.unet.conv_out.weight.grad is None


def test_mid_block_is_tapped_once_with_and_without_checkpointing() -> None:
    plain, seen, _ = gradients(checkpointing=False)
    checkpointed, seen_again, _ = gradients(checkpointing=True)
    assert (seen, seen_again) == (1, 1)
    assert plain.keys() == checkpointed.keys()
    assert all(torch.equal(plain[name], checkpointed[name]) for name in plain)


def test_mid_features_are_the_mid_blocks_output(model: SVFR) -> None:
    seen: list[Tensor] = []
    hook = model.unet.mid_block.register_forward_hook(lambda _, args, output: seen.append(output))
    try:
        out = model(**tiny.inputs(batch=2))
    finally:
        hook.remove()
    torch.testing.assert_close(out.mid_features, seen[0].view(2, 3, 64, 4, 4))
    assert model.unet.mid_block.last_output is None  # not kept alive after the pass


def test_svds_own_unet_is_widened() -> None:
    model = SVFR(tiny.unet(in_channels=8), tiny.id_projector())
    assert model.unet.config.in_channels == 12
    model(**tiny.inputs())
