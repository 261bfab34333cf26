"""No-reference image quality by ARNIQA (Agnolucci et al. 2024), through torchmetrics' network."""

from pathlib import Path
from typing import Literal

import numpy as np
import torch

from svfr.files import sha256_of
from svfr.networks import find, first_line

DATASET: Literal["koniq10k"] = "koniq10k"  # of the regressor: photos with authentic distortions, as footage has them
SMALLEST = 64  # [px] Assumption: smaller images say nothing to the encoder, which halves them six times


class Arniqa:
    """Scores images: 0 is worst, 1 best. Its two files are found as `load_detector` finds networks, with its errors."""

    def __init__(self, networks: Path | None = None, download: bool = True) -> None:
        encoder, regressor = find("arniqa", networks, download), find("arniqa-regressor", networks, download)
        try:
            from torchmetrics.functional.image.arniqa import _ARNIQA

            class Network(_ARNIQA):
                """torchmetrics' network, which would fetch its weights by itself, with ours."""

                def _load_weights(self) -> None:
                    _load(self.encoder, encoder)
                    _load(self.regressor, regressor)

            self._network = Network(DATASET).eval()
        except (ImportError, NameError) as error:
            raise ValueError("torchmetrics or torchvision is not installed: pip install 'svfr[data,eval]'") from error
        self.sha256 = sha256_of(encoder)

    @torch.inference_mode()
    def __call__(self, image: np.ndarray) -> float:
        """The score of a (h, w, 3) uint8 RGB image, in [0, 1]; ValueError if it is smaller than 64 px."""
        if min(image.shape[:2]) < SMALLEST:
            raise ValueError(f"an image of {image.shape[1]}x{image.shape[0]} px is too small for ARNIQA")
        pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float() / 255
        return float(self._network(pixels, normalize=True).clamp(0, 1))


def _load(module: torch.nn.Module, path: Path) -> None:
    """Load a published file under torchmetrics' names: the encoder, a ResNet-50 without its last layer (a projector for
    training only is left out), or the regressor, a linear layer as TorchScript, which runs no Python."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as first:  # torch.load raises a dozen types
        try:
            state = torch.jit.load(path, map_location="cpu").state_dict()
        except Exception:
            raise ValueError(f"{path}: neither a state dict nor TorchScript ({first_line(first)[:120]})") from first
    state = {key.removeprefix("model."): value for key, value in state.items() if "projector" not in key}
    if {"weights", "biases"} <= set(state):
        state = {"weight": state["weights"].reshape(1, -1), "bias": state["biases"].reshape(1)}
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"{path}: not ARNIQA's weights ({' '.join(str(error).split())[:120]})") from error
