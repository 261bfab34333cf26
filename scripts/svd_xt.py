"""Networks of SVD-XT's size with random weights, and what they take of memory, counted without having it."""

import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any
from unittest.mock import patch

import torch
from diffusers import AutoencoderKLTemporalDecoder, EulerDiscreteScheduler, UNetSpatioTemporalConditionModel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from svfr.models.components import ENCODE_CHUNK, Components, ModelSettings
from svfr.models.devices import MEMORY_PLANS
from svfr.models.heads import IDProjector, LandmarkPredictor, LatentTransformer
from svfr.models.identity import IResNet
from svfr.models.svfr import SVFR


def random_svd_xt(device: torch.device, dtype: torch.dtype) -> Components:
    """Networks of SVD-XT's size with random weights and ArcFace's IResNet-100, made on the device."""
    torch.set_default_dtype(dtype)  # no float32 copy of 1.5 billion parameters
    with device:  # the numbers of img2vid-xt's configuration; the UNet's are diffusers' defaults
        unet, id_projector, id_encoder = UNetSpatioTemporalConditionModel(), IDProjector(), IResNet()
        model = SVFR(unet, id_projector, LatentTransformer(), LandmarkPredictor())
        vae = AutoencoderKLTemporalDecoder(
            down_block_types=("DownEncoderBlock2D",) * 4, block_out_channels=(128, 256, 512, 512), layers_per_block=2
        )
    torch.set_default_dtype(torch.float32)
    scheduler = EulerDiscreteScheduler(sigma_min=0.002, sigma_max=700.0)
    return Components(model, vae, id_encoder, scheduler, ModelSettings()).to(device, dtype)


class PeakMemory(TorchDispatchMode):
    """The peak [bytes] of the tensors that are made inside; they may lie on the meta device and so take nothing."""

    def __init__(self, known: Iterable[torch.Tensor]) -> None:
        """Leave the tensors `known` out."""
        super().__init__()
        self.peak = 0
        self.sizes = weakref.WeakKeyDictionary[Any, int]((tensor.untyped_storage(), 0) for tensor in known)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self.sizes.setdefault(tensor.untyped_storage(), tensor.untyped_storage().nbytes())
        self.peak = max(self.peak, sum(self.sizes.values()))
        return result


@torch.no_grad()
def count_memory(plans: Sequence[int], size: int) -> Iterator[dict[str, Any]]:
    """Peaks [GiB] in bfloat16 for frames of this size [px], of memory plans by their numbers: of the weights, and of
    the tensors on the way through each network."""
    parts = random_svd_xt(torch.device("meta"), torch.bfloat16)
    weights = {name: sum(p.nbytes for p in network.parameters()) for name, network in parts.networks.items()}

    def peak(run: Callable[..., Any], *shape: int) -> int:
        inputs = torch.zeros(shape, device="meta", dtype=torch.bfloat16)
        fused = patch("torch.nn.functional.scaled_dot_product_attention", lambda query, *_, **__: query.clone())
        known = (p for network in parts.networks.values() for p in network.parameters())
        with fused, PeakMemory(known) as memory:  # fused attention holds no matrix
            run(inputs)
        return memory.peak

    def run_unet(x: torch.Tensor) -> None:
        tokens, prompt = x.new_zeros(len(x), 1, parts.model.id_projector.config.out_channels), x.new_zeros(len(x), 3)
        parts.model(x, x, x, tokens, x.new_ones(len(x)), prompt)

    encoding = peak(parts.vae.encode, ENCODE_CHUNK, 3, size, size)
    for gib in plans:
        plan = MEMORY_PLANS[gib]
        (chunk, longest), side = plan.fit(size), size // parts.downscale
        length, latent = min(parts.settings.clip_length, longest), (parts.latent_channels, side, side)
        unet = peak(run_unet, 1 + plan.batch_guidance, length, *latent)
        decoding = peak(lambda z: parts.vae.decode(z, num_frames=len(z)), min(chunk, length), *latent)
        there = weights if plan.offload else dict.fromkeys(weights, sum(weights.values()))
        whole = max(there["unet"] + unet, there["vae"] + max(decoding, encoding))
        sizes = {"weights": sum(weights.values()), "UNet": unet, "decoding": decoding, "encoding": encoding}
        row = {f"{name} GiB": number / 2**30 for name, number in (sizes | {"peak, computed": whole}).items()}
        yield {"memory": gib} | row
