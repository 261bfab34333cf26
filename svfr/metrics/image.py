"""Metrics of single frames: PSNR, SSIM, LPIPS, CIEDE2000 and colourfulness; a video's number is its frames' mean."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from svfr.metrics.base import Chunk, FrameMeans, FrameRows, to_row
from svfr.models.weights import read_state
from svfr.networks import describe

PEAK = 255
# [dB] Assumption: what a frame counts that equals the truth, whose PSNR is infinite and would swallow the mean; other
# frames that are better (a few levels of difference in all of a frame) count as much.
PSNR_CEILING = 100.0
SSIM_WINDOW, SSIM_SIGMA = 11, 1.5  # [px], Wang et al. 2004
INNER = (slice(SSIM_WINDOW // 2, -(SSIM_WINDOW // 2)),) * 2  # the pixels whose window lies in the frame
LUMA = (0.299, 0.587, 0.114)  # ITU-R 601
LPIPS_BACKBONES = {"vgg": "vgg16", "alex": "alexnet"}  # lpips' name -> the network's name in svfr.networks
LPIPS_SMALLEST = {"vgg": 16, "alex": 31}  # [px] below, nothing is left after the last pooling
LPIPS_BATCH = 4  # frames


def psnr(restored: Tensor, truth: Tensor, mask: Tensor | None = None) -> Tensor:
    """Peak signal-to-noise ratio of each frame: the three channels pooled, no border cut off, not on Y.

    Args:
        restored: (n, 3, h, w) uint8 RGB.
        truth: (n, 3, h, w) uint8 RGB.
        mask: (n, h, w) bool; only its pixels count.

    Returns:
        (n,) float64 [dB], at most 100; NaN where the mask is empty.
    """
    squares = (restored.double() - truth.double()).square().mean(dim=1)  # (n, h, w)
    mse = squares.mean(dim=(1, 2)) if mask is None else (squares * mask).sum(dim=(1, 2)) / mask.sum(dim=(1, 2))
    return (10 * torch.log10(PEAK**2 / mse)).clamp(max=PSNR_CEILING)


def ssim_map(restored: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Structural similarity around each pixel whose window lies in the frame (Wang et al. 2004; scikit-image's).

    Gaussian window of 11 x 11 px, sigma 1.5, population covariance, data range 255.

    Args:
        restored: (h, w) or (h, w, 3), each channel on its own; h, w >= 11.
        truth: the same shape.

    Returns:
        (h - 10, w - 10) or (h - 10, w - 10, 3) float64; its mean is the SSIM.
    """
    structural_similarity = _skimage("metrics").structural_similarity
    _, values = structural_similarity(
        restored.astype(np.float64),
        truth.astype(np.float64),
        channel_axis=2 if restored.ndim == 3 else None,
        gaussian_weights=True,
        sigma=SSIM_SIGMA,
        use_sample_covariance=False,
        data_range=PEAK,
        full=True,
    )
    return values[INNER]


def luma(image: np.ndarray) -> np.ndarray:
    """(..., 3) RGB -> (...) luma of ITU-R 601, full range and rounded, as the SSIM authors' script takes it."""
    return np.rint(image @ np.array(LUMA))


def ciede2000(restored: Tensor, truth: Tensor) -> Tensor:
    """Mean colour difference of each frame (CIE 2001; scikit-image's; sRGB, D65): (n, 3, h, w) uint8 -> (n,)."""
    color = _skimage("color")
    pairs = zip(_images(restored), _images(truth), strict=True)
    return torch.tensor(
        [color.deltaE_ciede2000(color.rgb2lab(a), color.rgb2lab(b)).mean() for a, b in pairs], dtype=torch.float64
    )


def colourfulness(frames: Tensor) -> Tensor:
    """Colourfulness of each frame (Hasler & Suesstrunk 2003, their M3): (n, 3, h, w) uint8 -> (n,), 0 for gray."""
    red, green, blue = frames.double().unbind(dim=1)
    opponents = torch.stack([red - green, (red + green) / 2 - blue]).flatten(2)  # (2, n, h w)
    spread = opponents.var(dim=2, correction=0).sum(dim=0).sqrt()
    return spread + 0.3 * opponents.mean(dim=2).square().sum(dim=0).sqrt()


class PSNR(FrameMeans):
    """PSNR of whole frames and of their holes."""

    columns = ("psnr", "psnr_mask")

    def __init__(self) -> None:
        self.protocol = {
            "input": "uint8 RGB, channels pooled, no border cut off",
            "video": "mean over frames",
            "identical frames [dB]": PSNR_CEILING,
        }
        self.reset()

    def update(self, chunk: Chunk) -> FrameRows:
        """Take the next frames."""
        holes: list[float | None] = [None] * len(chunk)
        if chunk.mask is not None:
            holes = to_row(psnr(chunk.restored, chunk.truth, chunk.mask))
        return self.take({"psnr": to_row(psnr(chunk.restored, chunk.truth)), "psnr_mask": holes})


class SSIM(FrameMeans):
    """SSIM on RGB (each channel, then the mean), on luma, and around the pixels of holes on RGB."""

    columns = ("ssim", "ssim_y", "ssim_mask")

    def __init__(self) -> None:
        _skimage("metrics")
        self.protocol = {
            "window": f"Gaussian, {SSIM_WINDOW} x {SSIM_WINDOW} px, sigma {SSIM_SIGMA}, valid area",
            "data_range": PEAK,
            "rgb": "mean over channels",
            "y": "ITU-R 601, full range, rounded",
            "video": "mean over frames",
        }
        self.reset()

    def update(self, chunk: Chunk) -> FrameRows:
        """Take the next frames."""
        rows: FrameRows = {column: [] for column in self.columns}
        for index, (restored, truth) in enumerate(zip(_images(chunk.restored), _images(chunk.truth), strict=True)):
            if min(truth.shape[:2]) < SSIM_WINDOW:
                for values in rows.values():
                    values.append(None)
                continue
            rgb = ssim_map(restored, truth).mean(axis=2)
            rows["ssim"].append(float(rgb.mean()))
            rows["ssim_y"].append(float(ssim_map(luma(restored), luma(truth)).mean()))
            hole = None if chunk.mask is None else chunk.mask[index].cpu().numpy()[INNER]
            rows["ssim_mask"].append(float(rgb[hole].mean()) if hole is not None and hole.any() else None)
        return self.take(rows)


class LPIPS(FrameMeans):
    """LPIPS v0.1 (Zhang et al. 2018) by the `lpips` package, of whole frames and of their holes.

    The number of the holes is the mean over their pixels of the layers' maps, resized to the frame as the package
    does for its spatial output.

    Args:
        net: "vgg" or "alex".
        backbone: torchvision's file of that network's weights (vgg16-397923af.pth, alexnet-owt-7be5be79.pth).
        device: torch device.

    Raises:
        ValueError: lpips or torchvision is not installed, or the file holds another network.
    """

    def __init__(self, net: str, backbone: Path, device: str = "cpu") -> None:
        self._network = load_lpips(net, backbone).to(device)
        self._smallest, self._device = LPIPS_SMALLEST[net], device
        name = "lpips" if net == "vgg" else f"lpips_{net}"
        self.columns = (name, f"{name}_mask")
        self.protocol: dict[str, Any] = {
            "input": "RGB in [-1, 1], own size",
            "version": "0.1",
            "net": net,
            "backbone": describe(backbone),
            "video": "mean over frames",
        }
        self.reset()

    @torch.inference_mode()
    def update(self, chunk: Chunk) -> FrameRows:
        """Take the next frames."""
        whole, masked = self.columns
        rows: FrameRows = {whole: [], masked: []}
        for at in range(0, len(chunk), LPIPS_BATCH):
            restored, truth = (frames[at : at + LPIPS_BATCH] for frames in (chunk.restored, chunk.truth))
            if min(truth.shape[2:]) < self._smallest:
                nothing = torch.full((len(truth),), torch.nan)
                rows[whole] += to_row(nothing)
                rows[masked] += to_row(nothing)
                continue
            layers = self.layers(restored, truth)
            rows[whole] += to_row(torch.stack([layer.mean(dim=(1, 2, 3)) for layer in layers]).sum(dim=0))
            if chunk.mask is None:
                rows[masked] += [None] * len(truth)
                continue
            mask = chunk.mask[at : at + LPIPS_BATCH].to(self._device)
            large = [functional.interpolate(m, size=truth.shape[2:], mode="bilinear") for m in layers]
            spatial = torch.stack(large).sum(dim=0)[:, 0]  # (n, h, w)
            rows[masked] += to_row((spatial * mask).sum(dim=(1, 2)) / mask.sum(dim=(1, 2)))
        return self.take(rows)

    def layers(self, restored: Tensor, truth: Tensor) -> list[Tensor]:
        """Weighted squared distances of the features, one (n, 1, h', w') map a layer of the backbone."""
        lpips = self._network
        ours, theirs = (
            lpips.net(lpips.scaling_layer(frames.to(self._device).float() / 127.5 - 1)) for frames in (restored, truth)
        )
        return [
            weigh((_normalize(a) - _normalize(b)).square())
            for weigh, a, b in zip(lpips.lins, ours, theirs, strict=True)
        ]


class Colour(FrameMeans):
    """How far colours are from the truth's, and how colourful the restored frames are."""

    columns = ("ciede2000", "colourfulness")

    def __init__(self) -> None:
        _skimage("color")
        self.protocol = {
            "ciede2000": "sRGB, D65, mean over pixels and frames",
            "colourfulness": "Hasler & Suesstrunk 2003, restored frames alone, mean over frames",
        }
        self.reset()

    def update(self, chunk: Chunk) -> FrameRows:
        """Take the next frames."""
        return self.take(
            {
                "ciede2000": to_row(ciede2000(chunk.restored, chunk.truth)),
                "colourfulness": to_row(colourfulness(chunk.restored)),
            }
        )


def load_lpips(net: str, backbone: Path) -> Any:
    """The `lpips` package's network with its own linear layers and the backbone's weights from a file.

    Raises:
        ValueError: see `LPIPS`.
    """
    try:
        import lpips
        import torchvision  # noqa: F401
    except ImportError as error:
        raise ValueError("lpips or torchvision is not installed: pip install 'svfr[eval]'") from error
    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore", UserWarning)  # torchvision's, of an argument that lpips passes
        # Random, thus without a download, and without memory for the backbone's classifier.
        network = lpips.LPIPS(net=net, version="0.1", pretrained=False, pnet_rand=True, verbose=False)
    published = read_state(backbone)
    state = read_state(Path(lpips.__file__).with_name("weights") / "v0.1" / f"{net}.pth")  # the linear layers
    for name, value in network.net.state_dict().items():  # sliceK.I.weight for torchvision's features.I.weight
        key = "features." + name.split(".", 1)[1]
        if key not in published or published[key].shape != value.shape:
            raise ValueError(f"{backbone}: not torchvision's {LPIPS_BACKBONES[net]}; key: {key}")
        state[f"net.{name}"] = published[key]
    network.load_state_dict(state, strict=False, assign=True)
    network.scaling_layer = lpips.ScalingLayer()
    assert not any(parameter.is_meta for parameter in network.parameters())
    return network.eval().requires_grad_(False)


def _normalize(features: Tensor) -> Tensor:
    """Unit length along the channels, with the epsilon of the lpips package."""
    return features / (features.square().sum(dim=1, keepdim=True).sqrt() + 1e-10)


def _images(frames: Tensor) -> Iterator[np.ndarray]:
    """(n, 3, h, w) -> n arrays (h, w, 3)."""
    yield from frames.permute(0, 2, 3, 1).cpu().numpy()


def _skimage(module: str) -> Any:
    try:
        import skimage.color
        import skimage.metrics
    except ImportError as error:
        raise ValueError("scikit-image is not installed: pip install 'svfr[eval]'") from error
    return getattr(skimage, module)
