"""I3D (Carreira & Zisserman 2017), whose Kinetics-400 logits FVD compares; the TorchScript file that the field uses."""

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from svfr.files import sha256_of
from svfr.models.weights import WeightsError
from svfr.networks import NETWORKS, find

SIDE = 224  # [px]


class I3DFeatures:
    """FVD's features: clips resized to 224 px, bilinear without antialiasing, [-1, 1] -> logits.

    Args:
        network: the TorchScript module.
        source: file that it was loaded from.
        device: torch device.
    """

    def __init__(self, network: nn.Module, source: Path, device: str = "cpu") -> None:
        self._network, self._device = network.to(device).eval(), device
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
        # Its own resizing and scaling stay off: they are done.
        return self._network(x, rescale=False, resize=False, return_features=True).float().cpu()


def load_i3d_features(networks: Path | None = None, device: str = "cpu", download: bool = True) -> I3DFeatures:
    """FVD's network. TorchScript is code, so it is run only if its sha256 is the one of the table.

    Raises:
        NetworkMissing: it is not there, and cannot be downloaded.
        ValueError: the file is something else.
    """
    path = find("i3d", networks, download)
    if sha256_of(path) != NETWORKS["i3d"].sha256:  # `find` checks it, too; here it guards what is run
        raise WeightsError(f"{path}: its sha256 is not the known one, and TorchScript is code")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # new PyTorch prefers other formats; the field's is this
        network = torch.jit.load(path, map_location="cpu")
    return I3DFeatures(network, path, device)
