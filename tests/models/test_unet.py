import pytest
import torch
from diffusers import UNetSpatioTemporalConditionModel
from torch import Tensor

from svfr.models.unet import FixedContext, widen_conv_in
from tests import tiny


@pytest.fixture(scope="module")
def unet() -> UNetSpatioTemporalConditionModel:
    return tiny.unet().requires_grad_(False)


def cross_attentions(unet: UNetSpatioTemporalConditionModel, kind: str = "") -> list:
    """The cross-attention layers; kind "temporal_" or "spatial" picks."""
    layers = {name: module for name, module in unet.named_modules() if name.endswith("attn2")}
    return [m for name, m in layers.items() if not kind or ("temporal_" in name) == (kind == "temporal")]


@torch.no_grad()
def run(unet: UNetSpatioTemporalConditionModel, sample: Tensor, tokens: Tensor) -> Tensor:
    gamma = torch.tensor([[1.0, 0, 1]]).expand(len(sample), -1)
    return unet(sample, torch.tensor(0.7), tokens, gamma, return_dict=False)[0]


def test_widened_unet_computes_what_svd_computes_for_any_reference() -> None:
    stock, widened = tiny.unet(in_channels=8), tiny.unet(in_channels=8)
    widen_conv_in(widened)
    sample, tokens = torch.randn(2, 3, 8, 8, 8), torch.randn(2, tiny.TOKENS, tiny.TOKEN_DIM)
    expected = run(stock, sample, tokens)
    for reference in (torch.zeros(2, 3, 4, 8, 8), 50 * torch.randn(2, 3, 4, 8, 8)):
        torch.testing.assert_close(run(widened, torch.cat([sample, reference], 2), tokens), expected)

    with torch.no_grad():
        widened.conv_in.weight[:, 8:] += 0.01
    changed = run(widened, torch.cat([sample, reference], 2), tokens)
    assert (changed - expected).abs().max() > 0.01


def test_widening_is_told_to_the_config_and_done_once() -> None:
    unet = tiny.unet(in_channels=8)
    old = unet.conv_in.weight.clone()
    widen_conv_in(unet)
    assert unet.config.in_channels == unet.conv_in.in_channels == 12
    torch.testing.assert_close(unet.conv_in.weight[:, :8], old)
    assert not unet.conv_in.weight[:, 8:].any()
    layer = unet.conv_in
    widen_conv_in(unet)
    assert unet.conv_in is layer


def test_widening_keeps_the_dtype() -> None:
    unet = tiny.unet(in_channels=8).to(torch.bfloat16)
    widen_conv_in(unet)
    assert {parameter.dtype for parameter in unet.parameters()} == {torch.bfloat16}


def test_other_number_of_channels() -> None:
    with pytest.raises(ValueError, match=r"9 input channels: SVD has 8, SVFR 12"):
        widen_conv_in(tiny.unet(in_channels=9))


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("which", ["random", "zero", "one row zero"])
def test_fixed_context_equals_the_stock_unet(unet: UNetSpatioTemporalConditionModel, batch: int, which: str) -> None:
    sample, tokens = torch.randn(batch, 3, 12, 8, 8), torch.randn(batch, tiny.TOKENS, tiny.TOKEN_DIM)
    if which != "random":
        tokens[: None if which == "zero" else 1] = 0
    expected = run(unet, sample, tokens)
    context = FixedContext(unet, tokens)
    with context.installed():
        given = run(unet, sample, context.placeholder())
    torch.testing.assert_close(given, expected, rtol=1e-5, atol=1e-5)


def test_tokens_have_an_effect(unet: UNetSpatioTemporalConditionModel) -> None:
    sample, tokens = torch.randn(1, 3, 12, 8, 8), torch.randn(2, tiny.TOKENS, tiny.TOKEN_DIM)
    one, other = (run(unet, sample, t[None]) for t in tokens)
    assert (one - other).abs().max() > 0.01


@pytest.mark.parametrize("kind", ["spatial", "temporal"])
@pytest.mark.parametrize("batch", [1, 2])
def test_fixed_context_of_each_layer(unet: UNetSpatioTemporalConditionModel, kind: str, batch: int) -> None:
    tokens = torch.randn(batch, tiny.TOKENS, tiny.TOKEN_DIM)
    context = FixedContext(unet, tokens)
    layers = cross_attentions(unet, kind)
    assert len(layers) >= 4
    for layer in layers:  # 5 frames or positions of each video are folded into the batch, each with 6 queries
        hidden = torch.randn(batch * 5, 6, layer.to_q.in_features)
        expected = layer(hidden, tokens.repeat_interleave(5, dim=0))
        with context.installed():
            torch.testing.assert_close(layer(hidden, None), expected, rtol=1e-5, atol=1e-5)


def test_processors_are_put_back(unet: UNetSpatioTemporalConditionModel) -> None:
    stock = [layer.processor for layer in cross_attentions(unet)]
    for tokens in (torch.randn(1, 3, tiny.TOKEN_DIM), torch.zeros(1, 3, tiny.TOKEN_DIM)):
        context = FixedContext(unet, tokens)
        with context.installed():
            inside = [layer.processor for layer in cross_attentions(unet)]
        after = [layer.processor for layer in cross_attentions(unet)]
        assert all(new is old for new, old in zip(after, stock, strict=True))
        with pytest.raises(RuntimeError, match="inside"), context.installed():
            raise RuntimeError("inside")
        assert not any(new is old for new, old in zip(inside, stock, strict=True))
        assert all(layer.processor is old for layer, old in zip(cross_attentions(unet), stock, strict=True))


def test_tokens_are_projected_once_per_layer(unet: UNetSpatioTemporalConditionModel) -> None:
    calls: list[str] = []
    hooks = [
        getattr(layer, name).register_forward_hook(lambda *_, name=name: calls.append(name))
        for layer in cross_attentions(unet)
        for name in ("to_k", "to_v")
    ]
    try:
        context = FixedContext(unet, torch.randn(1, tiny.TOKENS, tiny.TOKEN_DIM))
        assert calls.count("to_k") == calls.count("to_v") == len(cross_attentions(unet)) == 8
        with context.installed():
            run(unet, torch.randn(1, 3, 12, 8, 8), context.placeholder())
            run(unet, torch.randn(1, 3, 12, 8, 8), context.placeholder())
        assert len(calls) == 16
        FixedContext(unet, torch.zeros(1, 1, tiny.TOKEN_DIM))
        assert len(calls) == 16
    finally:
        for hook in hooks:
            hook.remove()
