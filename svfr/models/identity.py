"""E_id: the ArcFace IResNet whose last feature map describes who is in the reference (SVFR, Sec. 4.3)."""

from typing import NamedTuple

from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

# Blocks of each of the four stages, by the network's usual name (insightface, arcface_torch).
IRESNET_LAYERS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 14, 3), 100: (3, 13, 30, 3)}
INPUT_SIZE = 112  # [px], the aligned crop that ArcFace networks take
NORM_EPS = 1e-5


class IDFeatures(NamedTuple):
    """What the ID network sees in a face."""

    embedding: Tensor  # (b, 512), not normalized
    feature_map: Tensor  # (b, c, 7, 7), before the last fully connected layer


class IResBlock(nn.Module):
    """A block of the improved residual network: BN - conv - BN - PReLU - conv - BN, plus the (projected) input."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels, eps=NORM_EPS)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels, eps=NORM_EPS)
        self.prelu = nn.PReLU(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels, eps=NORM_EPS)
        self.downsample = (
            nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False),
                nn.BatchNorm2d(out_channels, eps=NORM_EPS),
            )
            if stride != 1 or in_channels != out_channels
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, c', h / stride, w / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.prelu(self.bn2(self.conv1(self.bn1(x))))
        return self.bn3(self.conv2(x)) + shortcut


class IResNet(ModelMixin, ConfigMixin):
    """ArcFace's IResNet-18/34/50/100 with the key names of the published checkpoints.

    Args:
        depth: 18, 34, 50 or 100.
        block_out_channels: channels of the four stages; the published networks have the default.
        embedding_dim: length of the embedding.
    """

    @register_to_config
    def __init__(
        self,
        depth: int = 100,
        block_out_channels: tuple[int, ...] = (64, 128, 256, 512),
        embedding_dim: int = 512,
    ) -> None:
        super().__init__()
        if depth not in IRESNET_LAYERS:
            raise ValueError(f"no IResNet of depth {depth}: choose from {', '.join(map(str, IRESNET_LAYERS))}")
        width = block_out_channels[0]
        self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width, eps=NORM_EPS)
        self.prelu = nn.PReLU(width)
        for stage, (num_blocks, out_channels) in enumerate(
            zip(IRESNET_LAYERS[depth], block_out_channels, strict=True), start=1
        ):
            blocks = [IResBlock(width, out_channels, stride=2)]
            blocks += [IResBlock(out_channels, out_channels, stride=1) for _ in range(num_blocks - 1)]
            self.add_module(f"layer{stage}", nn.Sequential(*blocks))
            width = out_channels
        self.bn2 = nn.BatchNorm2d(width, eps=NORM_EPS)
        self.dropout = nn.Dropout(p=0.0, inplace=True)
        self.fc = nn.Linear(width * (INPUT_SIZE // 16) ** 2, embedding_dim)
        self.features = nn.BatchNorm1d(embedding_dim, eps=NORM_EPS)

    def forward(self, face: Tensor) -> IDFeatures:
        """Embed aligned faces.

        Args:
            face: (b, 3, 112, 112) RGB in [-1, 1], aligned to the five-point template.
        """
        x = self.prelu(self.bn1(self.conv1(face)))  # (b, 64, 112, 112)
        x = self.layer2(self.layer1(x))  # (b, 128, 28, 28)
        feature_map = self.layer4(self.layer3(x))  # (b, 512, 7, 7)
        x = self.dropout(self.bn2(feature_map).flatten(1))
        return IDFeatures(embedding=self.features(self.fc(x)), feature_map=feature_map)
