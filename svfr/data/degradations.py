"""Degradations of blind face restoration: blur, noise, downsampling, noise, H.264, upsampling.

One kernel and one set of parameters per clip; the noise differs from frame to frame. A `Preset` holds the ranges, a
`Degradation` the numbers drawn from them, which can be written down and applied again.

Quality after it, on ten sharp clips of 16 frames at 512 px, two draws each (PSNR / SSIM / cosine of EdgeFace):
keep_easy 25.5 dB / 0.73 / 0.68, dicface 26.2 / 0.73 / 0.76, keep_train 25.8 / 0.75 / 0.68, vfhq 26.3 / 0.75 / 0.72;
bicubic x4 33.2 / 0.91 / 0.99. The draws of one clip differ by 1.7 dB (standard deviation), so these are good to half
a dB. keep_train at 25 frames/s instead of its code's 1: 24.8 / 0.77 / 0.47.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import cv2
import numpy as np

from svfr.data.h264 import h264_round_trip
from svfr.data.media import MEDIA

REFERENCE_SIZE = 512  # [px] that the presets' kernels and factors are meant for
INTERPOLATIONS = {"area": cv2.INTER_AREA, "bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC}


@dataclass(frozen=True)
class Degradation:
    """The parameters of one clip's degradation."""

    preset: str  # that it was drawn from
    kernel_size: int  # [px] side of the blur kernel, odd; 1: no blur
    sigma_x: float  # [px] of the Gaussian kernel along its first axis
    sigma_y: float  # [px] along its second; the same if the blur is isotropic
    angle: float  # [rad] by which the axes are turned
    noise: tuple[float, float]  # [levels of 0..255] standard deviation of the noise before downsampling, and after it
    gray_noise: tuple[bool, bool]  # whether that noise is the same in all channels
    scale: float  # factor of the downsampling, at least 1
    downsample: str  # one of `INTERPOLATIONS`
    upsample: str  # one of `INTERPOLATIONS`, for the way back to the size that came in
    crf: int  # of H.264, at the low resolution
    rate: int  # [1/s] frame rate given to the encoder
    medium: str | None = None  # one of `media.MEDIA`, whose defects come after the blur; None: none


@dataclass(frozen=True)
class Preset:
    """Ranges that degradations are drawn from, uniformly between two bounds."""

    name: str  # key in `PRESETS`
    source: str  # where the parameters come from
    sigma: tuple[float, float]  # [px] bounds of the blur at 512 px
    noise_before: tuple[float, float]  # [levels of 0..255] bounds before downsampling
    noise_after: tuple[float, float]  # [levels of 0..255] bounds after downsampling
    scale: tuple[float, float]  # bounds of the factor at 512 px
    downsample: tuple[float, float, float]  # probabilities of area, bilinear and bicubic
    upsample: str | None  # one of `INTERPOLATIONS`; None: the one of the downsampling
    crf: tuple[int, int]  # the lowest, and the one after the highest
    rate: int  # [1/s] frame rate given to the encoder
    kernel_size: int = 21  # [px] at 512 px
    isotropic: float = 0.7  # probability of a round kernel
    gray_noise: float = 0.5  # probability that noise is the same in all channels
    medium: str | None = None  # one of `media.MEDIA`

    def sample(self, rng: np.random.Generator, size: int) -> Degradation:
        """Draw the parameters for a clip of frames whose shorter side is `size` px, by as many draws for each clip.

        Below 512 px, kernel and factor shrink (`shrinkage`).
        """
        shrink = shrinkage(size)
        sigma_x, sigma_y = rng.uniform(*self.sigma, size=2) * shrink
        angle = rng.uniform(-np.pi, np.pi)
        if rng.uniform() < self.isotropic:
            sigma_y, angle = sigma_x, 0.0
        noise = rng.uniform(*self.noise_before), rng.uniform(*self.noise_after)
        gray_noise = rng.uniform(size=2) < self.gray_noise
        scale = rng.uniform(*self.scale)
        downsample = str(rng.choice(list(INTERPOLATIONS), p=self.downsample))
        return Degradation(
            preset=self.name,
            kernel_size=2 * round(self.kernel_size // 2 * shrink) + 1,
            sigma_x=float(sigma_x),
            sigma_y=float(sigma_y),
            angle=float(angle),
            noise=noise,
            gray_noise=(bool(gray_noise[0]), bool(gray_noise[1])),
            scale=max(1.0, scale * shrink),
            downsample=downsample,
            upsample=self.upsample or downsample,
            crf=int(rng.integers(*self.crf)),
            rate=self.rate,
            medium=self.medium,
        )


# The released training code of KEEP and DicFace encodes at 1 frame/s, which is worth 11 of CRF (`h264_round_trip`).
CODE_RATE = 1
_VFHQ = Preset(
    name="vfhq",
    source="VFHQ (Xie et al. 2022), as KEEP's code orders it",
    sigma=(0.1, 10),
    noise_before=(0, 10),
    noise_after=(0, 10),
    scale=(4, 4),
    downsample=(0.2, 0.4, 0.4),
    upsample="bicubic",  # Assumption: left to the method there
    crf=(18, 25),
    rate=25,  # Assumption: that of the footage
)
_SVFR = replace(
    # Assumption: all of VFHQ's ranges, as the test set is VFHQ's; on top, what old film and small faces need:
    _VFHQ,
    name="svfr",
    source="SVFR, Sec. 5.1: 'random blurring, noise addition, resizing, and video compression (CRF)', no numbers",
    scale=(1, 8),  # Assumption: "resizing" is random, as in GFPGAN and CodeFormer
    upsample=None,  # Assumption: "upsample by random interpolation"
    crf=(18, 35),  # Assumption: up to the middle of KEEP's training range
)
_PRESETS = (
    _VFHQ,
    replace(
        _VFHQ,
        name="dicface",
        source="DicFace's training and test code, VFHQRealDegradationDatasetNew: no noise before downsampling",
        noise_before=(0, 0),
        upsample=None,
        rate=CODE_RATE,
    ),
    replace(
        _VFHQ,
        name="keep_train",
        source="KEEP's training code, VFHQRealDegradationDataset",
        sigma=(2, 10),
        downsample=(0.3, 0.3, 0.4),
        crf=(25, 45),
        rate=CODE_RATE,
    ),
    # Assumption: what is not stated is as vfhq, and a test set is made of whole videos at their rate.
    replace(_VFHQ, name="keep_easy", source="KEEP's easy test set, 128 px; CRF 18-25", sigma=(5, 10), crf=(18, 26)),
    _SVFR,
)
# Assumption: all numbers of these, set by eye beside old footage.
_MEDIUM = replace(_SVFR, sigma=(0.3, 3), noise_before=(0, 2), noise_after=(0, 4), scale=(1, 4))
PRESETS = {preset.name: preset for preset in _PRESETS}
PRESETS |= {name: replace(_MEDIUM, name=name, source=f"svfr.data.media.{name}", medium=name) for name in MEDIA}


def shrinkage(size: int) -> float:
    """Factor in (0, 1] of blur kernels and downsampling for frames of `size` px.

    Assumption: the power 3/4 of size / 512, so that about as much is lost at each size: on ten sharp clips `vfhq`
    leaves 26.8 dB of PSNR at 512 px, 26.2 at 128, 26.4 at 64; `svfr` 26.5, 25.5, 25.7.
    """
    return min(1.0, (size / REFERENCE_SIZE) ** 0.75)


def degrade(frames: np.ndarray, degradation: Degradation, rng: np.random.Generator) -> np.ndarray:
    """Degrade a clip (f, h, w, 3) uint8 RGB; what comes out has the size of what went in.

    The noise is drawn anew for every frame, as are the defects of the medium.
    """
    height, width = frames.shape[1:3]
    low_size = max(1, round(width / degradation.scale)), max(1, round(height / degradation.scale))
    kernel, low = blur_kernel(degradation), []
    blurred: Iterable[np.ndarray] = (cv2.filter2D(frame.astype(np.float32), -1, kernel) for frame in frames)
    if degradation.medium is not None:
        blurred = MEDIA[degradation.medium](np.stack(list(blurred)), rng)
    for image in blurred:
        image = _add_noise(image, degradation.noise[0], degradation.gray_noise[0], rng)
        image = cv2.resize(image, low_size, interpolation=INTERPOLATIONS[degradation.downsample])
        image = _add_noise(image, degradation.noise[1], degradation.gray_noise[1], rng)
        low.append(np.rint(image).clip(0, 255).astype(np.uint8))
    enlarging = INTERPOLATIONS[degradation.upsample]
    compressed = h264_round_trip(np.stack(low), degradation.crf, degradation.rate)
    return np.stack([cv2.resize(image, (width, height), interpolation=enlarging) for image in compressed])


def blur_kernel(degradation: Degradation) -> np.ndarray:
    """(k, k) float32 Gaussian with its axes turned by `angle`, sampled at pixel centres, of sum 1."""
    radius = degradation.kernel_size // 2
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1].astype(np.float64)
    cos, sin = np.cos(degradation.angle), np.sin(degradation.angle)
    along, across = cos * x + sin * y, cos * y - sin * x
    kernel = np.exp(-((along / degradation.sigma_x) ** 2 + (across / degradation.sigma_y) ** 2) / 2)
    return (kernel / kernel.sum()).astype(np.float32)


def _add_noise(image: np.ndarray, sigma: float, gray: bool, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise on (h, w, 3) float32 in [0, 255], clipped."""
    if sigma == 0:
        return image
    noise = rng.standard_normal((*image.shape[:2], 1 if gray else 3), dtype=np.float32)
    return np.clip(image + np.float32(sigma) * noise, 0, 255)
