"""I3D (Carreira & Zisserman 2017): the Inception-v1 network inflated to 3-D, whose Kinetics-400 logits FVD compares.

Key names are those of the PyTorch port that VideoGPT's i3d_pretrained_400.pt has (the TF-hub network's weights): 344
tensors, 12,697,264 parameters.
"""

import math
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from svfr.files import sha256_of
from svfr.models.weights import WeightsError, load_strict, read_state
from svfr.networks import NETWORKS, NetworkMissing, find

NUM_CLASSES = 400  # Kinetics-400
SIDE = 224  # [px]
FEWEST_FRAMES = 9  # below, nothing is left to pool over time
BATCH_NORM_EPS = 1e-3  # of the TensorFlow network
# Channels of the Inception blocks: 1x1 | 1x1, 3x3 | 1x1, 3x3 | pooled, 1x1.
BLOCKS = {
    "Mixed_3b": (192, (64, 96, 128, 16, 32, 32)),
    "Mixed_3c": (256, (128, 128, 192, 32, 96, 64)),
    "Mixed_4b": (480, (192, 96, 208, 16, 48, 64)),
    "Mixed_4c": (512, (160, 112, 224, 24, 64, 64)),
    "Mixed_4d": (512, (128, 128, 256, 24, 64, 64)),
    "Mixed_4e": (512, (112, 144, 288, 32, 64, 64)),
    "Mixed_4f": (528, (256, 160, 320, 32, 128, 128)),
    "Mixed_5b": (832, (256, 160, 320, 32, 128, 128)),
    "Mixed_5c": (832, (384, 192, 384, 48, 128, 128)),
}


def pad_same(x: Tensor, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> Tensor:
    """TensorFlow's SAME: zeros around (b, c, f, h, w) so that axes get ceil(n / stride) outputs, the odd one behind."""
    padding: list[int] = []
    for size, k, s in zip(reversed(x.shape[2:]), reversed(kernel), reversed(stride), strict=True):
        total = max((math.ceil(size / s) - 1) * s + k - size, 0)
        padding += [total // 2, total - total // 2]
    return functional.pad(x, padding)


class Unit(nn.Module):
    """3-D convolution; with batch normalization and ReLU, or with a bias (the logits)."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int = 1, stride: int = 1, logits: bool = False
    ) -> None:
        super().__init__()
        self.kernel, self.stride = (kernel,) * 3, (stride,) * 3
        self.conv3d = nn.Conv3d(in_channels, out_channels, self.kernel, self.stride, bias=logits)
        self.bn = None if logits else nn.BatchNorm3d(out_channels, eps=BATCH_NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, f, h, w) -> (b, c', f / stride, h / stride, w / stride)."""
        x = self.conv3d(pad_same(x, self.kernel, self.stride))
        return x if self.bn is None else functional.relu(self.bn(x))


class Block(nn.Module):
    """An Inception block: four branches side by side."""

    def __init__(self, in_channels: int, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.b0 = Unit(in_channels, channels[0])
        self.b1a, self.b1b = Unit(in_channels, channels[1]), Unit(channels[1], channels[2], 3)
        self.b2a, self.b2b = Unit(in_channels, channels[3]), Unit(channels[3], channels[4], 3)
        self.b3b = Unit(in_channels, channels[5])

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, f, h, w) -> (b, c', f, h, w)."""
        pooled = max_pool(x, (3, 3, 3), (1, 1, 1))
        return torch.cat([self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(pooled)], dim=1)


def max_pool(x: Tensor, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> Tensor:
    """TensorFlow's SAME max pooling; zeros as padding do, since what is pooled was rectified."""
    return functional.max_pool3d(pad_same(x, kernel, stride), kernel, stride)


class I3D(nn.Module):
    """The RGB network, without dropout, as it is evaluated."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv3d_1a_7x7 = Unit(3, 64, 7, 2)
        self.Conv3d_2b_1x1 = Unit(64, 64)
        self.Conv3d_2c_3x3 = Unit(64, 192, 3)
        for name, (in_channels, channels) in BLOCKS.items():
            self.add_module(name, Block(in_channels, channels))
        self.logits = Unit(1024, NUM_CLASSES, logits=True)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of clips.

        Args:
            x: (b, 3, f, 224, 224) in [-1, 1], f >= 9.

        Returns:
            (b, 400), the mean over time.
        """
        space, time = (1, 3, 3), (1, 2, 2)
        x = max_pool(self.Conv3d_1a_7x7(x), space, time)  # (b, 64, f / 2, 56, 56)
        x = max_pool(self.Conv3d_2c_3x3(self.Conv3d_2b_1x1(x)), space, time)  # (b, 192, f / 2, 28, 28)
        for name in BLOCKS:
            if name == "Mixed_4b":
                x = max_pool(x, (3, 3, 3), (2, 2, 2))  # (b, 480, f / 4, 14, 14)
            elif name == "Mixed_5b":
                x = max_pool(x, (2, 2, 2), (2, 2, 2))  # (b, 832, f / 8, 7, 7)
            x = self.get_submodule(name)(x)
        x = functional.avg_pool3d(x, (2, 7, 7), stride=1)  # (b, 1024, f / 8 - 1, 1, 1)
        return self.logits(x)[..., 0, 0].mean(dim=2)


class I3DFeatures:
    """FVD's features: clips resized to 224 px, bilinear without antialiasing, [-1, 1] -> logits.

    Args:
        network: I3D, or its TorchScript copy.
        source: file that it was loaded from.
        device: torch device.
    """

    def __init__(self, network: nn.Module, source: Path, device: str = "cpu") -> None:
        self._network = network.to(device).eval()
        self._scripted = isinstance(network, torch.jit.ScriptModule)
        self._device = device
        self.protocol = {
            "features": "I3D, Kinetics-400 logits, before the softmax",
            "input": f"{SIDE} x {SIDE} px, bilinear, [-1, 1]",
            "network": {"file": source.name, "sha256": sha256_of(source)},
        }

    @torch.inference_mode()
    def __call__(self, clips: Tensor) -> Tensor:
        """(b, f, 3, h, w) uint8 -> (b, 400) float32 on the CPU; f >= 9."""
        b, f = clips.shape[:2]
        x = clips.to(self._device).flatten(0, 1).float()
        x = functional.interpolate(x, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
        x = (x / 127.5 - 1).unflatten(0, (b, f)).transpose(1, 2)  # (b, 3, f, 224, 224)
        if self._scripted:  # its own resizing and scaling stay off: they are done, and the same for both networks
            return self._network(x, rescale=False, resize=False, return_features=True).float().cpu()
        return self._network(x).float().cpu()


def load_i3d(path: Path) -> I3D:
    """I3D from a plain state dict (i3d_pretrained_400.pt's layout), every key and shape checked.

    Raises:
        WeightsError: another layout, or no state dict.
    """
    with torch.device("meta"):
        network = I3D()
    load_strict(network, read_state(path), path)
    return network.eval()


def load_i3d_features(networks: Path | None = None, device: str = "cpu", download: bool = True) -> I3DFeatures:
    """FVD's network: a plain state dict that is already there, else the TorchScript file that the field uses.

    TorchScript is code, so it is run only if its sha256 is the one of the table.

    Raises:
        NetworkMissing: neither is there, and the latter cannot be downloaded.
        ValueError: a file that is something else.
    """
    try:
        path = find("i3d-weights", networks, download=False)
    except NetworkMissing:
        path = find("i3d", networks, download)
        if sha256_of(path) != NETWORKS["i3d"].sha256:  # `find` checks it, too; here it guards what is run
            raise WeightsError(f"{path}: its sha256 is not the known one, and TorchScript is code") from None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # new PyTorch prefers other formats; the field's is this
            network = torch.jit.load(path, map_location="cpu")
        return I3DFeatures(network, path, device)
    return I3DFeatures(load_i3d(path), path, device)
