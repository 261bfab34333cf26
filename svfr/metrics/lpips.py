"""LPIPS v0.1 (Zhang et al. 2018) by the `lpips` package, with backbones that are read from files."""

import warnings
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from svfr.metrics.base import Chunk, Column, NetworkOptions, Row, VideoMetric
from svfr.models.weights import read_state
from svfr.networks import describe, find


class LPIPS(VideoMetric):
    """LPIPS with VGG, of whole frames and of their holes.

    The number of the holes is the mean over their pixels of the layers' maps, resized to the frame as the package
    does for its spatial output. The backbone is torchvision's file of the network's weights. ValueError if it is not,
    or if lpips or torchvision is not installed.
    """

    net: ClassVar = "vgg"  # lpips' name
    network: ClassVar = "vgg16"  # torchvision's name, and that of `svfr.networks`
    smallest: ClassVar = 16  # [px] below, nothing is left after the last pooling
    columns = (
        Column("lpips", "LPIPS, VGG", "lower"),
        Column("lpips_mask", "LPIPS, VGG, holes", "lower", needs_holes=True),
    )

    @classmethod
    def build(cls, options: NetworkOptions) -> "LPIPS":
        """Make it with its network."""
        return cls(find(cls.network, options.folder, options.download), options.device)

    def __init__(self, backbone: Path, device: str = "cpu") -> None:
        self.module, self._device = _load(self.net, self.network, backbone).to(device), device
        self.module.to(memory_format=torch.channels_last)  # a third faster on CPUs
        self.protocol = {
            "input": "RGB in [-1, 1], own size",
            "version": "0.1",
            "net": self.net,
            "backbone": describe(backbone),
            "video": "mean over frames",
        }

    @torch.inference_mode()
    def _measure(self, chunk: Chunk, at: int) -> Row:
        whole, holes = (column.name for column in self.columns)
        if min(chunk.truth.shape[2:]) < self.smallest:
            return {}
        layers = zip(self.module.lins, *chunk.both(f"lpips {self.net}", at, self._features), strict=True)
        maps = [weigh((a - b).square_()) for weigh, a, b in layers]  # (1, 1, h', w') each
        row: Row = {whole: sum(m.mean() for m in maps).item()}
        if chunk.mask is not None and (mask := chunk.mask[at].to(self._device)).any():
            large = [functional.interpolate(m, size=mask.shape, mode="bilinear") for m in maps]
            row[holes] = torch.stack(large).sum(dim=0)[0, 0, mask].mean().item()
        return row

    def _features(self, frame: Tensor) -> list[Tensor]:
        """(1, 3, h, w) uint8 -> the features of the backbone's layers, (1, c, h', w'), of unit length in each pixel."""
        x = self.module.scaling_layer(frame.to(self._device).float() / 127.5 - 1)
        features = self.module.net(x.contiguous(memory_format=torch.channels_last))
        # With the epsilon of the lpips package.
        return [layer.div_(torch.linalg.vector_norm(layer, dim=1, keepdim=True) + 1e-10) for layer in features]


class LPIPSAlex(LPIPS):
    """LPIPS with AlexNet."""

    net, network, smallest = "alex", "alexnet", 31
    columns = (
        Column("lpips_alex", "LPIPS, Alex", "lower"),
        Column("lpips_alex_mask", "LPIPS, Alex, holes", "lower", needs_holes=True),
    )


def _load(net: str, network: str, backbone: Path) -> Any:
    """The `lpips` package's network with its own linear layers and the backbone's weights from a file."""
    try:
        import lpips
        import torchvision  # noqa: F401
    except ImportError as error:
        raise ValueError("lpips or torchvision is not installed: pip install 'svfr[eval]'") from error
    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore", UserWarning)  # torchvision's, of an argument that lpips passes
        # Random, thus without a download, and without memory for the backbone's classifier.
        module = lpips.LPIPS(net=net, version="0.1", pretrained=False, pnet_rand=True, verbose=False)
    published = read_state(backbone)
    state = read_state(Path(lpips.__file__).with_name("weights") / "v0.1" / f"{net}.pth")  # the linear layers
    for name, value in module.net.state_dict().items():  # sliceK.I.weight for torchvision's features.I.weight
        key = "features." + name.split(".", 1)[1]
        if key not in published or published[key].shape != value.shape:
            raise ValueError(f"{backbone}: not torchvision's {network}; key: {key}")
        state[f"net.{name}"] = published[key]
    module.load_state_dict(state, strict=False, assign=True)
    module.scaling_layer = lpips.ScalingLayer()
    assert not any(parameter.is_meta for parameter in module.parameters())
    return module.eval().requires_grad_(False)
