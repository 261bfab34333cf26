"""Counting what a training step at SVD-XT's size needs, on tensors without data: no GPU, no memory.

Tensors of `FakeTensorMode` have shapes, dtypes and lifetimes, so forward, backward and optimizer run as usual and
every allocation is seen. They pretend to be on the CPU, since the backward pass of pretended GPU tensors needs a GPU.
Two things a GPU does otherwise are put right: under autocast it normalizes in float32 (`cuda_norms`), and attention
is fused (flash) on both, so no (positions x positions) matrix is ever there.
"""

import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import product
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from svfr.models.heads import LandmarkPredictor, LatentTransformer
from svfr.models.svfr import SVFR
from svfr.models.unet import checkpoint_blocks
from svfr.training.objective import Outputs, Targets, TrainedModel

from .svd_xt import random_networks

FLOAT_BYTES, BF16_BYTES = 4, 2
LATENT_CHANNELS, DOWNSCALE = 4, 8  # of SVD's VAE
ID_CHANNELS, ID_SIZE = 512, 7  # of ArcFace's feature map
PROCESSES = (1, 2, 8)
PRECISIONS = ("fp32", "bf16")
aten = torch.ops.aten


@dataclass(frozen=True)
class Activations:
    """What one forward and backward pass needs beside parameters and their gradients."""

    checkpointing: bool
    precision: str
    """fp32 | bf16 (autocast)."""
    peak: int
    """[bytes]"""


@dataclass(frozen=True)
class Counted:
    """A training step at a size, in bytes and FLOPs."""

    size: int
    """Side of the frames [px]."""
    num_frames: int
    num_views: int
    trained: int
    """Trained parameters."""
    frozen: int
    """Parameters of the frozen VAE and ID network."""
    optimizer_peak: int
    """What AdamW allocates during a step and frees again [bytes]."""
    activations: list[Activations]
    flops: int
    """Of forward and backward pass of the trained networks: three times the forward pass; a multiply-add is two."""
    frozen_flops: int
    """Of the VAE and the ID network, that encode the batch."""


@dataclass(frozen=True)
class Row:
    """A setting and its memory per process [bytes]."""

    checkpointing: bool
    precision: str
    num_processes: int
    parameters: int
    gradients: int
    optimizer: int
    average: int
    """The moving average of the parameters."""
    frozen: int
    working: int
    """Activations, or what the optimizer needs for a moment, if that is more."""

    @property
    def total(self) -> int:
        """All of it."""
        return self.parameters + self.gradients + self.optimizer + self.average + self.frozen + self.working


def rows(counted: Counted) -> Iterator[Row]:
    """Memory per setting: FSDP splits parameters, gradients, optimizer and moving average over the processes."""
    for activations, n in product(counted.activations, PROCESSES):
        parameters = counted.trained * FLOAT_BYTES // n
        yield Row(
            checkpointing=activations.checkpointing,
            precision=activations.precision,
            num_processes=n,
            parameters=parameters,
            gradients=parameters,
            optimizer=2 * parameters,
            average=parameters,
            frozen=counted.frozen * (BF16_BYTES if activations.precision == "bf16" else FLOAT_BYTES),
            working=max(activations.peak, counted.optimizer_peak // n),
        )


def count(size: int, num_frames: int, num_views: int) -> Counted:
    """Count a step of one clip at SVD-XT's size."""
    with FakeTensorMode():
        unet, vae, id_encoder, id_projector = random_networks(torch.device("cpu"), torch.float32)
        width = unet.config.block_out_channels[-1]
        model = TrainedModel(SVFR(unet, id_projector, LatentTransformer(width), LandmarkPredictor(width)))
        targets = random_targets(num_views, num_frames, size)
        with torch.no_grad(), count_flops() as forward:
            model(targets)
        with torch.no_grad(), count_flops() as encoding:
            vae.eval().encode(torch.empty(num_frames * (1 + num_views) + 1, 3, size, size))
            id_encoder.eval()(torch.empty(1, 3, 112, 112))
        return Counted(
            size=size,
            num_frames=num_frames,
            num_views=num_views,
            trained=sum(p.numel() for p in model.parameters()),
            frozen=sum(p.numel() for network in (vae, id_encoder) for p in network.parameters()),
            optimizer_peak=optimizer_peak(model),
            activations=activations(model, targets),
            flops=3 * forward.get_total_flops(),
            frozen_flops=encoding.get_total_flops(),
        )


def random_targets(num_samples: int, num_frames: int, size: int) -> Targets:
    """What SVFR's own VAE and ID network would give."""
    side = size // DOWNSCALE
    video = (num_samples, num_frames, LATENT_CHANNELS, side, side)
    return Targets(
        clean=torch.randn(video),
        noisy=torch.randn(video),
        lq=torch.randn(video),
        ref=torch.randn(num_samples, LATENT_CHANNELS, side, side),
        id_features=torch.randn(num_samples, ID_CHANNELS, ID_SIZE, ID_SIZE),
        has_reference=torch.ones(num_samples),
        sigma=torch.ones(num_samples),
        task_prompt=torch.ones(num_samples, 3),
    )


def activations(model: TrainedModel, targets: Targets) -> list[Activations]:
    """Per precision, without and with checkpointing, which the model is left with."""
    table = [Activations(False, precision, activation_peak(model, targets, precision)) for precision in PRECISIONS]
    checkpoint_blocks(model.model.unet)
    return table + [
        Activations(True, precision, activation_peak(model, targets, precision)) for precision in PRECISIONS
    ]


def activation_peak(model: TrainedModel, targets: Targets, precision: str) -> int:
    """Peak of a forward and backward pass [bytes], without parameters and gradients, which are there before.

    That is how it is from the second of accumulated passes on. `targets` count, as they stay to the end.
    """
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    with LiveBytes() as live:
        forward_backward(model, targets, precision)
    return live.peak + sum(tensor.nbytes for tensor in targets)


def forward_backward(model: TrainedModel, targets: Targets, precision: str) -> None:
    """A forward and a backward pass, with a plain loss on all outputs."""
    model.train().requires_grad_(True)
    with cuda_norms(precision):  # also of what checkpointing computes again
        with autocast(precision):
            outputs: Outputs = model(targets)
            loss = sum(output.float().square().mean() for output in outputs if output is not None)
        assert isinstance(loss, Tensor)
        loss.backward()


def autocast(precision: str) -> torch.autocast:
    """Of the forward pass."""
    return torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")


def optimizer_peak(model: nn.Module) -> int:
    """What AdamW, as it works on GPUs, allocates in a step after its first and frees again [bytes]."""
    optimizer = torch.optim.AdamW(model.parameters(), foreach=True)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    with LiveBytes() as live:
        optimizer.step()
    return live.peak


class LiveBytes(TorchDispatchMode):
    """Inside, sums up the storages that are made and not yet freed.

    Attributes:
        now: [bytes] alive.
        peak: [bytes] the most there was.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.peak = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        before = {
            tensor.untyped_storage()._cdata for tensor in tree_leaves((args, kwargs)) if isinstance(tensor, Tensor)
        }
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in before and storage._cdata not in self._seen:  # views and in-place are not new
                    self._add(storage)
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        self._seen.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size


@contextmanager
def cuda_norms(precision: str) -> Iterator[None]:
    """Inside, layers normalize in float32 under bf16, as autocast has it on GPUs and not on CPUs."""

    def in_float32(function: Any) -> Any:
        return lambda x, *arguments, **named: function(x.float(), *arguments, **named)

    with ExitStack() as stack:
        for name in ("group_norm", "layer_norm") if precision == "bf16" else ():
            stack.enter_context(patch.object(functional, name, in_float32(getattr(functional, name))))
        yield


def count_flops() -> FlopCounterMode:
    """Counts the FLOPs inside; a multiply-add is two."""
    return FlopCounterMode(
        display=False, custom_mapping={aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops}
    )


def _attention_flops(query: Any, key: Any, value: Any, *unused: Any, out_shape: Any = None, **named: Any) -> int:
    return sdpa_flop_count(query, key, value)
