"""Compiled blocks: the same result, one graph a kind of block, whatever the number of frames."""

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from svfr.models.unet import FixedContext, compile_blocks, convolve_over_time
from tests import tiny


@pytest.mark.slow
@torch.no_grad()
def test_blocks_compile_once_and_once_more_for_zero_tokens() -> None:
    torch._dynamo.reset()
    stock, compiled, counter = tiny.unet(), tiny.unet(), CompileCounterWithBackend("eager")
    compile_blocks(compiled, backend=counter)  # fullgraph: a break of the graph is an error

    def compare(num_frames: int, tokens: Tensor) -> int:
        sample = torch.randn(1, num_frames, 12, *tiny.LATENT[1:])
        results = []
        for unet in (stock, compiled):
            context = FixedContext(unet, tokens)
            with context.installed():
                rest = (context.placeholder(), torch.zeros(1, 3))
                results.append(unet(sample, torch.tensor(0.7), *rest, return_dict=False)[0])
        torch.testing.assert_close(*results, atol=1e-3, rtol=0)
        return counter.frame_count

    tokens = torch.randn(1, tiny.TOKENS, tiny.TOKEN_DIM)
    first = compare(5, tokens)
    names = [type(module).__name__ for module in stock.modules()]
    transformers = names.count("TransformerSpatioTemporalModel")
    assert 0 < first <= names.count("SpatioTemporalResBlock") + transformers
    assert compare(3, tokens) == first
    zero = compare(5, torch.zeros_like(tokens))
    assert zero <= first + transformers
    assert compare(3, torch.zeros_like(tokens)) == compare(5, torch.randn_like(tokens)) == zero


@torch.no_grad()
def test_convolution_over_time_in_two_dimensions() -> None:
    network = torch.nn.Sequential(torch.nn.Conv3d(6, 5, (3, 1, 1), padding=(1, 0, 0)))
    x = torch.randn(2, 6, 7, 4, 3)
    expected = network(x)
    convolve_over_time(network)
    assert type(network[0]) is not torch.nn.Conv3d
    torch.testing.assert_close(network(x), expected)
    assert network.state_dict()["0.weight"].shape == (5, 6, 3, 1, 1)
