"""The small parts around the UNet: ID projector M_id, latent transformer T_l, landmark predictor P_lm."""

from itertools import pairwise

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

NUM_LANDMARKS = 68


class IDProjector(ModelMixin, ConfigMixin):
    """M_id: an ArcFace feature map becomes cross-attention tokens (SVFR, Sec. 4.3).

    Layers and key names are those of the released `id_linear.pth`.
    """

    @register_to_config
    def __init__(self, in_channels: int = 512, out_channels: int = 1024) -> None:
        super().__init__()
        self.project1024 = nn.Conv2d(in_channels, out_channels, kernel_size=1, bias=False)
        self.final_norm = nn.LayerNorm(out_channels)

    def forward(self, id_features: Tensor) -> Tensor:
        """(b, c, 7, 7) features before ArcFace's last fully connected layer -> (b, 49, d) ID tokens."""
        tokens = self.project1024(id_features)  # (b, d, 7, 7)
        tokens = tokens.flatten(2).transpose(1, 2)  # (b, 49, d)
        return self.final_norm(tokens)


class ResBlock(nn.Module):
    """x + MLP(LayerNorm(x)) on the last axis."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.linear1 = nn.Linear(dim, dim)
        self.linear2 = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(..., d) -> (..., d)."""
        return x + self.linear2(nn.functional.silu(self.linear1(self.norm(x))))


class LatentTransformer(ModelMixin, ConfigMixin):
    """T_l: "two resblock and a layernorm" on the mid-block features (SVFR, Sec. 4.1).

    Assumption: the residual blocks act on the channels of each position; the paper gives no more than the words.
    """

    @register_to_config
    def __init__(self, in_channels: int = 1280) -> None:
        super().__init__()
        self.blocks = nn.Sequential(ResBlock(in_channels), ResBlock(in_channels))
        self.norm = nn.LayerNorm(in_channels)

    def forward(self, mid_features: Tensor) -> Tensor:
        """Mid-block features x_d (b, f, d, h, w) -> one task feature a frame, x_hat (b, f, d): T_l's spatial mean."""
        x = mid_features.movedim(2, -1)  # (b, f, h, w, d)
        x = self.norm(self.blocks(x))
        return x.mean(dim=(2, 3))  # (b, f, d)


class LandmarkPredictor(ModelMixin, ConfigMixin):
    """P_lm: average pooling, then a five-layer MLP to 68 points (SVFR, Sec. 4.2).

    Assumption: pooling to a `pool_size` x `pool_size` grid; a single average would hide where in the frame the face is.
    """

    @register_to_config
    def __init__(self, in_channels: int = 1280, hidden_channels: int = 512, pool_size: int = 4) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(pool_size)
        widths = [in_channels * pool_size**2, *[hidden_channels] * 4]
        layers: list[nn.Module] = []
        for width_in, width_out in pairwise(widths):
            layers += [nn.Linear(width_in, width_out), nn.SiLU()]
        self.mlp = nn.Sequential(*layers, nn.Linear(hidden_channels, NUM_LANDMARKS * 2))

    def forward(self, mid_features: Tensor) -> Tensor:
        """Mid-block features x_d (b, f, d, h, w) -> landmarks (b, f, 68, 2), as fractions of the frame's sides."""
        batch, num_frames = mid_features.shape[:2]
        pooled = self.pool(mid_features.flatten(0, 1))  # (b f, d, p, p)
        points = torch.sigmoid(self.mlp(pooled.flatten(1)))  # (b f, 136)
        return points.unflatten(0, (batch, num_frames)).unflatten(-1, (NUM_LANDMARKS, 2))
