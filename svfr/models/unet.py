"""The stock SVD UNet, and what SVFR does around it: a wider input, fixed tokens, checkpointing of all its blocks.

Shapes: b videos, f frames, c channels, h x w latent pixels, n tokens of d channels.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import SpatioTemporalResBlock
from diffusers.models.transformers.transformer_temporal import TransformerSpatioTemporalModel
from diffusers.models.unets.unet_spatio_temporal_condition import UNetSpatioTemporalConditionModel
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

LATENTS_IN = 3  # noisy | LQ | reference
MOST_BLOCKS = 64  # of different sizes, which share their code, that are compiled


def widen_conv_in(unet: UNetSpatioTemporalConditionModel) -> None:
    """Give SVD's UNet, in place, input channels for the reference latents, with zero weights.

    SVD reads noisy | image latents; SVFR reads noisy | LQ | reference. Until it is trained, the widened network
    computes for any reference what SVD computes. A ValueError for any other number of input channels.
    """
    old, latent_channels = unet.conv_in, unet.config.out_channels
    if old.in_channels == LATENTS_IN * latent_channels:
        return
    if old.in_channels != 2 * latent_channels:
        raise ValueError(
            f"the UNet has {old.in_channels} input channels: SVD has {2 * latent_channels}, "
            f"SVFR {LATENTS_IN * latent_channels}"
        )
    new = nn.Conv2d(LATENTS_IN * latent_channels, old.out_channels, old.kernel_size, padding=old.padding)
    new = new.to(old.weight)
    with torch.no_grad():
        new.weight.zero_()
        new.weight[:, : old.in_channels] = old.weight
    new.bias = old.bias
    unet.conv_in = new
    unet.register_to_config(in_channels=new.in_channels)


def keep_mid_features(unet: UNetSpatioTemporalConditionModel) -> None:
    """Let the UNet's mid block, in place, keep its last output as `mid_block.last_output`; twice is once."""
    if _keep_output not in unet.mid_block._forward_hooks.values():
        unet.mid_block.register_forward_hook(_keep_output)


def _keep_output(module: nn.Module, inputs: object, output: Tensor) -> None:
    module.last_output = output


class _ConvOverTime(nn.Conv3d):
    """A 3x1x1 convolution; without gradients it is done in two dimensions, time and pixels, with channels last.

    The result is the same up to rounding; on a CPU it takes 5 to 40% less time.
    """

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return super().forward(x)
        flat = x.flatten(3).contiguous(memory_format=torch.channels_last)  # (b, c, f, h w)
        out = nn.functional.conv2d(flat, self.weight[..., 0], self.bias, padding=(1, 0))
        return out.unflatten(3, x.shape[3:])


def convolve_over_time(network: nn.Module) -> None:
    """Let the temporal convolutions of a network, in place, run in two dimensions; twice is once."""
    for module in network.modules():
        if type(module) is nn.Conv3d and module.kernel_size == (3, 1, 1) and module.padding == (1, 0, 0):
            module.__class__ = _ConvOverTime


def compile_blocks(network: nn.Module, **how: object) -> None:
    """Compile, in place, each residual and each transformer block of the UNet or of SVD's decoder, for any length.

    SVD's UNet names no repeated blocks. Convolutions get channels last, and those over time two dimensions. `how` goes
    to torch.compile.
    """
    torch._dynamo.config.recompile_limit = MOST_BLOCKS
    convolve_over_time(network)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.to(memory_format=torch.channels_last)
        if isinstance(module, SpatioTemporalResBlock | TransformerSpatioTemporalModel):
            module.compile(fullgraph=True, dynamic=True, **how)


def checkpoint_blocks(unet: UNetSpatioTemporalConditionModel) -> None:
    """Let every residual and every transformer block, in place, keep its input alone and compute the rest again.

    `unet.enable_gradient_checkpointing()` leaves out the temporal transformer blocks, which then hold most of the
    memory.
    """
    for module in unet.modules():
        if isinstance(module, SpatioTemporalResBlock | TransformerSpatioTemporalModel):
            forward = module.forward
            if module._compiled_call_impl is not None:  # what is computed again is compiled, not that it is
                module._compiled_call_impl, forward = None, torch.compile(forward, fullgraph=True, dynamic=True)
            module.forward = partial(checkpoint, forward, use_reentrant=False)


class _FixedContextProcessor:
    """Attention to keys and values that are known before; the context it is called with is not looked at.

    Every frame and every position attends to the same tokens, so all queries of a video go through one attention.
    """

    def __init__(self, key: Tensor, value: Tensor, heads: int) -> None:
        self.key = key.unflatten(-1, (heads, -1)).transpose(1, 2)  # (b, heads, n, d)
        self.value = value.unflatten(-1, (heads, -1)).transpose(1, 2)  # (b, heads, n, d)

    def __call__(self, attn: Attention, hidden_states: Tensor, *context: Tensor, **unused: object) -> Tensor:
        batch, heads = self.key.shape[:2]
        query = attn.to_q(hidden_states)  # (b m, q, d): frames or positions are folded into the batch
        query = query.reshape(batch, -1, heads, self.key.shape[-1]).transpose(1, 2)  # (b, heads, m q, d)
        out = nn.functional.scaled_dot_product_attention(query, self.key, self.value)
        out = out.transpose(1, 2).reshape(hidden_states.shape)
        return attn.to_out[1](attn.to_out[0](out))


class _ZeroContextProcessor:
    """Attention to tokens that are all zero: keys and values are zero, so only the output bias is left."""

    def __call__(self, attn: Attention, hidden_states: Tensor, *context: Tensor, **unused: object) -> Tensor:
        return attn.to_out[0].bias.expand_as(hidden_states)


class FixedContext:
    """ID tokens that stay the same over a sampling run, as the keys and values of each cross-attention layer.

    The stock UNet projects them anew for each frame, each position and each step: 15% of the released code's UNet
    time. Here each layer projects them once. The output is the same.
    """

    def __init__(self, unet: UNetSpatioTemporalConditionModel, id_tokens: Tensor) -> None:
        """Project (b, n, d) tokens with every cross-attention layer of `unet`; gradients are not tracked."""
        self._unet, self.id_tokens = unet, id_tokens
        self._processors: list[tuple[Attention, object]] = []
        attentions = [module for name, module in unet.named_modules() if name.endswith("attn2")]
        if not id_tokens.any():
            self._processors = [(module, _ZeroContextProcessor()) for module in attentions]
            return
        for module in attentions:
            tokens = id_tokens.to(module.to_k.weight.device)  # the UNet may wait on the CPU
            with torch.no_grad():
                key, value = (layer(tokens).to(id_tokens.device) for layer in (module.to_k, module.to_v))
            self._processors.append((module, _FixedContextProcessor(key, value, module.heads)))

    @classmethod
    def joined(cls, contexts: Sequence["FixedContext"]) -> "FixedContext":
        """One context for a batch of all rows of several; tokens that are all zero take the length of the others."""
        tokens = [context.id_tokens for context in contexts]
        length = max(part.shape[1] for part in tokens)
        return cls(contexts[0]._unet, torch.cat([part.expand(-1, length, -1) for part in tokens]))

    @contextmanager
    def installed(self) -> Iterator[Tensor]:
        """Inside, the UNet's cross-attention layers use these keys and values; gives the `placeholder`."""
        stock = [attn.processor for attn, _ in self._processors]
        try:
            for attn, processor in self._processors:
                attn.processor = processor
            yield self.placeholder()
        finally:
            for (attn, _), processor in zip(self._processors, stock, strict=True):
                attn.processor = processor

    def placeholder(self) -> Tensor:
        """What the UNet is called with in place of the tokens: (b, 1, 1), free to repeat over frames and positions."""
        return self.id_tokens.new_zeros(len(self.id_tokens), 1, 1)
