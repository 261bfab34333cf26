"""Diffusion as Stable Video Diffusion does it: noise levels, preconditioning, samplers (pure functions).

A noisy latent is x = x0 + sigma * noise, with data of unit scale. Shapes: `x` (b, f, c, h, w), `sigma` (b,) or ().
"""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

Denoiser = Callable[[Tensor, Tensor], Tensor]  # (x, sigma) -> estimate of x0

# "Align Your Steps" (Sabour et al. 2024): SVD's levels for ten steps, and the lowest one, which becomes 0 in the end.
AYS_SIGMAS = (700.0, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034, 0.002)


class Scalings(NamedTuple):
    """Factors of the preconditioned denoiser D(x) = skip * x + out * F(inp * x, noise)."""

    skip: Tensor
    out: Tensor
    inp: Tensor
    noise: Tensor


def get_scalings(sigma: Tensor) -> Scalings:
    """Preconditioning of SVD: v-prediction with data scale 1 (EDM, Table 1, has 0.5 for images).

    Noise levels > 0 of any shape give scalings of it; `noise` = ln(sigma) / 4 is what the UNet calls its timestep.
    """
    variance = sigma**2 + 1
    return Scalings(skip=1 / variance, out=-sigma / variance.sqrt(), inp=1 / variance.sqrt(), noise=sigma.log() / 4)


def karras_sigmas(num_steps: int, sigma_min: float, sigma_max: float, rho: float = 7.0) -> Tensor:
    """Noise levels of a sampling run of at least one step (Karras et al. 2022, Eq. 5), then 0.

    (num_steps + 1,) float32, falling from sigma_max to sigma_min and, last, 0; one step runs at sigma_max.
    """
    ramp = torch.linspace(0, 1, num_steps, dtype=torch.float64)
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    sigmas = (high + ramp * (low - high)) ** rho
    return torch.cat([sigmas, sigmas.new_zeros(1)]).float()


def ays_sigmas(num_steps: int, sigma_min: float, sigma_max: float) -> Tensor:
    """The noise levels of "Align Your Steps" for SVD, then 0; arguments and result as `karras_sigmas`.

    Other numbers of steps interpolate the logarithm between its levels, as its authors say; other ranges of noise
    stretch the logarithm (Assumption: where noise ends at 20, the steps are as far apart, relative to the range).
    """
    levels = torch.tensor(AYS_SIGMAS, dtype=torch.float64).log()
    low, high = torch.tensor([sigma_min, sigma_max], dtype=torch.float64).log()
    levels = torch.lerp(low, high, (levels - levels[-1]) / (levels[0] - levels[-1]))
    place = torch.linspace(0, len(levels) - 1, num_steps + 1, dtype=torch.float64)
    left = place.long().clamp(max=len(levels) - 2)
    sigmas = torch.lerp(levels[left], levels[left + 1], place - left).exp()
    return torch.cat([sigmas[:-1], sigmas.new_zeros(1)]).float()


SCHEDULES = {"karras": karras_sigmas, "ays": ays_sigmas}


def euler_step(x: Tensor, denoised: Tensor, sigma: Tensor, sigma_next: Tensor) -> Tensor:
    """One step of Euler's method along dx/dsigma = (x - x0) / sigma (Karras et al. 2022, Alg. 1)."""
    return x + (x - denoised) / sigma * (sigma_next - sigma)


def guide(unconditional: Tensor, conditional: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance; scale 1 gives `conditional`."""
    return unconditional + scale * (conditional - unconditional)


def sample_euler(denoise: Denoiser, x: Tensor, sigmas: Tensor, known: Denoiser | None = None) -> Iterator[Tensor]:
    """Euler sampling from x at sigmas[0] over falling levels (n + 1,), last 0; yields the latents after each step.

    `known` puts frames that are known already into x at a noise level: (x, sigma) -> x.
    """
    for sigma, sigma_next in pairwise(sigmas):
        if known is not None:
            x = known(x, sigma)
        x = euler_step(x, denoise(x, sigma), sigma, sigma_next)
        yield x


def sample_dpmpp_2m(denoise: Denoiser, x: Tensor, sigmas: Tensor, known: Denoiser | None = None) -> Iterator[Tensor]:
    """DPM-Solver++(2M) (Lu et al. 2022, Alg. 2) for x = x0 + sigma * noise; arguments as `sample_euler`.

    Second order from one denoiser call a step: the estimate of the step before gives the slope. Its first and its last
    step, which ends at sigma 0, are of first order.
    """
    previous: tuple[Tensor, Tensor] | None = None  # estimate of x0 and length of the step before
    for sigma, sigma_next in pairwise(sigmas):
        if known is not None:
            x = known(x, sigma)
        denoised = denoise(x, sigma)
        length = (sigma / sigma_next).log()  # h, in log-SNR / 2; infinite at sigma_next = 0
        target = denoised
        if previous is not None and sigma_next > 0:
            before, length_before = previous
            target = denoised + (denoised - before) * length / (2 * length_before)
        x = sigma_next / sigma * x - torch.expm1(-length) * target
        previous = denoised, length
        yield x


SAMPLERS = {"euler": sample_euler, "dpmpp_2m": sample_dpmpp_2m}
