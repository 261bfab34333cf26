"""What both strategies denoise with. Latents (f, c, h, w) carry no batch axis here."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from svfr.diffusion import Denoiser, guide, karras_sigmas
from svfr.models.components import Components, Condition, Reference

OnStep = Callable[[float], None]  # called after each denoising step with its share of the work, in frames
ChooseReference = Callable[[Tensor], Reference | None]  # from (f, 3, H, W), decoded and not clamped


def frame_noise(seed: int, stream: int, frames: range, shape: tuple[int, ...]) -> Tensor:
    """Standard normal noise (len(frames), *shape), from the CPU; a frame's depends on (seed, stream, index) alone."""
    noise = []
    for frame in frames:
        state = np.random.SeedSequence([seed, stream, frame]).generate_state(1, np.uint64)[0]
        generator = torch.Generator().manual_seed(int(state >> np.uint64(1)))
        noise.append(torch.randn(shape, generator=generator))
    return torch.stack(noise)


def noise_levels(
    num_steps: int,
    sigma_range: tuple[float, float],
    strength: float,
    schedule: Callable[[int, float, float], Tensor] = karras_sigmas,
) -> Tensor:
    """A schedule's noise levels; with a strength below 1, from that share of the range on, in so many of the steps."""
    low, high = sigma_range
    if strength < 1:
        num_steps = max(1, round(strength * num_steps))
        high = (strength * high ** (1 / 7) + (1 - strength) * low ** (1 / 7)) ** 7
    return schedule(num_steps, low, high)


def make_denoiser(
    components: Components,
    lq_latents: Tensor,
    gamma: Tensor,
    conditions: list[Condition],
    scale: float,
    known: int = 0,
    *,
    interval: tuple[float, float] | None = None,
    batched: bool = False,
) -> Denoiser:
    """The denoiser of one clip, guided from the first condition to the last.

    Args:
        components: the networks.
        lq_latents: (f, c, h, w), not scaled; of known frames the clean ones.
        gamma: (3,) task prompt.
        conditions: one, or two to guide between.
        scale: guidance scale.
        known: first frames that are known, whose LQ latents are their reference, too.
        interval: noise levels, both included, between which the result is guided (Kynkaanniemi et al. 2024).
        batched: run the UNet once for both conditions, in twice the memory.
    """
    together = [Condition.joined(conditions)] if batched and len(conditions) > 1 else conditions

    def estimate(x: Tensor, sigma: Tensor, condition: Condition) -> Tensor:
        rows = len(condition.ref_latents)
        noisy, lq = (latents[None].expand(rows, *latents.shape) for latents in (x, lq_latents))  # (b, f, c, h, w)
        reference = condition.ref_latents
        if known:
            others = reference[:, None].to(lq).expand_as(lq)[:, known:]
            reference = torch.cat([lq[:, :known], others], dim=1)  # (b, f, c, h, w)
        prompt = gamma[None].to(lq).expand(rows, -1)
        return components.model(noisy, lq, reference, condition.context, sigma[None].expand(rows), prompt).denoised

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        is_guided = interval is None or interval[0] <= float(sigma) <= interval[1]
        wanted = together if is_guided else conditions[-1:]
        estimates = [row for condition in wanted for row in estimate(x, sigma, condition)]
        return estimates[0] if len(estimates) == 1 else guide(estimates[0], estimates[1], scale)

    return denoise


def run_to_end(steps: Iterator[Tensor], on_step: OnStep | None, work: float) -> Tensor:
    """The latents after a sampler's last step; each step is reported as `work` frames."""
    latest: Tensor | None = None
    for latents in steps:
        latest = latents
        if on_step:
            on_step(work)
    assert latest is not None  # there is at least one step
    return latest
