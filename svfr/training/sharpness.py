"""What makes the results of one step sharp: a perceptual distance, and a discriminator on frozen features."""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from diffusers import UNetSpatioTemporalConditionModel
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import group_norm, l1_loss, relu

from svfr.diffusion import get_scalings
from svfr.metrics import build_metrics
from svfr.models.identity import IResNet

FEATURE_SIGMA = 0.2  # noise level that the frozen encoder is told. Assumption: one at which it looks at detail
HEAD_WIDTH = 64


class Perceptual:
    """How different pictures look: LPIPS (VGG), where its network is; else the L1 distances of their gradients and of
    the ID network's features. `name` says which, for the records."""

    def __init__(self, id_encoder: IResNet, device: torch.device) -> None:
        self._lpips: Any = next(iter(build_metrics(["lpips"], device=str(device), download=False).video), None)
        self._id_encoder, self.name = id_encoder, "id_features" if self._lpips is None else "lpips"

    def __call__(self, frames: Tensor, truth: Tensor) -> Tensor:
        """(m, 3, s, s) and (m, 3, s, s) in [-1, 1] -> scalar."""
        if self._lpips is not None:
            return self._lpips.module(frames, truth).mean()
        network, pair = self._id_encoder, torch.cat([frames, truth])
        x = network.prelu(network.bn1(network.conv1(pair.to(network.dtype))))
        distances = [l1_loss(frames.diff(dim=dim), truth.diff(dim=dim)) for dim in (-2, -1)]
        for stage in (network.layer1, network.layer2, network.layer3, network.layer4):
            x = stage(x)
            one, other = x.float().flatten(1).chunk(2)
            # Relative to each frame's own features: a batch split over processes has the same mean.
            distances.append(((one - other).abs().mean(dim=1) / (other.abs().mean(dim=1) + 1e-6)).mean() / 4)
        return torch.stack(distances).sum()


class FrozenEncoder:
    """The features of a UNet's down and mid blocks as it is now, `channels` of each; SF-V's discriminator has SVD's."""

    def __init__(self, unet: UNetSpatioTemporalConditionModel, dtype: torch.dtype) -> None:
        self._unet = unet = nn.Module.to(deepcopy(unet), dtype).eval().requires_grad_(False)
        unet.up_blocks = nn.ModuleList()
        unet.conv_norm_out = unet.conv_act = unet.conv_out = nn.Identity()
        self._seen: list[Tensor] = []
        for block in unet.down_blocks:
            block.register_forward_hook(lambda module, inputs, output: self._seen.append(output[0]))
        self.channels = [*unet.config.block_out_channels, unet.config.block_out_channels[-1]]

    def __call__(self, latents: Tensor, lq: Tensor, task_prompt: Tensor) -> list[Tensor]:
        """Latents (n, f, c, h, w), scaled, and LQ latents, not scaled -> features (n, c', f, h', w') of each block."""
        unet, count = self._unet, len(latents)
        scalings = get_scalings(latents.new_full((count,), FEATURE_SIGMA))
        sample = torch.cat([scalings.inp[0] * latents, lq, torch.zeros_like(lq)], dim=2).to(unet.dtype)
        tokens = sample.new_zeros(count, 1, unet.config.cross_attention_dim)
        mid = unet(sample, scalings.noise, tokens, added_time_ids=task_prompt, return_dict=False)[0].flatten(0, 1)
        features, self._seen, unet.mid_block.last_output = [*self._seen, mid], [], None
        # Assumption: of unit size in each frame, or the deepest ones would drown the others.
        return [group_norm(x.float(), 1).unflatten(0, (count, -1)).transpose(1, 2) for x in features]


class Discriminator(nn.Module):
    """A light head on each of some features, that tells results from the truth in space and time."""

    rate = 2.0  # of the model's. Assumption: heads from nothing have to follow a model that is there

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.heads = nn.ModuleList()
        for each in channels:
            convolutions = [nn.Conv3d(count, HEAD_WIDTH, 3, padding=1) for count in (each, HEAD_WIDTH)]
            judge = nn.Conv3d(HEAD_WIDTH, 1, 1)
            self.heads.append(nn.Sequential(convolutions[0], nn.SiLU(), convolutions[1], nn.SiLU(), judge))

    def hinge(self, fake: Sequence[Tensor], real: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """The hinge loss (Lim & Ye 2017) of features (n, c, f, h, w) of results and of the truth: the generator's term,
        which leaves the heads alone, and the heads', which leaves the generator alone."""
        fooling, telling = [], []
        for head, one, other in zip(self.heads, fake, real, strict=True):
            frozen = {name: parameter.detach() for name, parameter in head.named_parameters()}
            fooling.append(-functional_call(head, frozen, (one,)).mean())
            telling.append(relu(1 + head(one.detach())).mean() + relu(1 - head(other.detach())).mean())
        return torch.stack(fooling).mean(), torch.stack(telling).mean()
