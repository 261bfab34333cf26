"""The released code's own algorithm, waste included, to compare with it."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from svfr.diffusion import euler_step
from svfr.inference.chain import ChooseReference, OnStep, frame_noise, make_denoiser, noise_levels, run_to_end
from svfr.inference.settings import Sampling
from svfr.models.components import Components, Condition, Reference

RELEASED_OVERLAP_STEPS = 3  # only these first steps of the released pipeline overlap


@torch.no_grad()
def restore_released(
    components: Components,
    sampling: Sampling,
    gamma: Tensor,
    lq: Tensor,
    choose_reference: ChooseReference | None = None,
    reference: Reference | None = None,
    initial_noise: tuple[Tensor, Tensor] | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Restore all frames of a video, (f, 3, H, W), as the released code does; arguments and result as of `Chain`.

    Pass 1 denoises the first clip with two identical branches; its last frame becomes the reference of pass 2, which
    denoises all frames. A given reference replaces pass 1. `initial_noise` is one for each pass. Memory grows with the
    length.
    """
    length, overlap, scale = sampling.clip_length, sampling.overlap, sampling.guidance_scale
    chunk_size, steps = sampling.decode_chunk_size, sampling.num_inference_steps
    assert length and overlap is not None and scale is not None and chunk_size  # resolved
    steps = (steps, steps) if isinstance(steps, int) else steps
    lq_latents = torch.cat([components.encode(frame[None]) for frame in lq])  # (f, c, h, w)
    num_frames, latent_size = len(lq_latents), lq_latents.shape[-2:]
    unreferred = components.condition(None, latent_size)
    share = 0.5 if reference is None else 1.0  # of the work, per pass

    def run(num: int, referred: Condition, which: int) -> Tensor:
        lq = lq_latents[:num]
        sigmas = noise_levels(steps[which], components.sigma_range, sampling.strength).to(lq)
        if initial_noise is None:
            noise = frame_noise(sampling.seed, 1 + which, range(num), tuple(lq.shape[1:]))
        else:
            noise = initial_noise[which][:num]
        start = components.vae.config.scaling_factor * lq + sigmas[0] * noise.to(lq)

        def denoise_window(x: Tensor, sigma: Tensor, indices: list[int]) -> Tensor:
            return make_denoiser(components, lq[indices], gamma, [unreferred, referred], scale)(x, sigma)

        steps_done = sample_windows(denoise_window, start, sigmas, length, overlap)
        return run_to_end(steps_done, on_step, share * num_frames / (len(sigmas) - 1))

    if reference is None:
        latents = run(min(num_frames, length), unreferred, 0)
        if choose_reference is not None:
            reference = choose_reference(components.decode(latents, chunk_size))
    referred = unreferred if reference is None else components.condition(reference, latent_size)
    return components.decode(run(num_frames, referred, 1), chunk_size)


def released_windows(num_frames: int, window: int, overlap: int, num_steps: int) -> list[list[list[int]]]:
    """Frame indices of each window of each step, as the released code lays them.

    Windows overlap in the first three steps only; after each step all are shifted by `overlap`; they wrap around the
    end of the video.
    """
    steps = []
    for step in range(num_steps):
        stride = window - overlap * (step < RELEASED_OVERLAP_STEPS)
        shift = step * overlap % window
        starts = range(-shift, num_frames - shift, stride)
        steps.append([[(start + i) % num_frames for i in range(window)] for start in starts])
    return steps


@torch.no_grad()
def sample_windows(
    denoise_window: Callable[[Tensor, Tensor, list[int]], Tensor],
    x: Tensor,
    sigmas: Tensor,
    window: int,
    overlap: int,
) -> Iterator[Tensor]:
    """The released code's sampler: each window takes its Euler step, then windows are averaged with tent weights.

    `denoise_window` estimates x0 of one window from (x of the window, sigma, its frame indices); windows are laid as
    by `released_windows`.

    Yields:
        The latents (f, c, h, w) after each step.
    """
    tent = torch.tensor([min(i + 1, window - i) for i in range(window)], dtype=x.dtype, device=x.device)
    tent = tent.view(-1, 1, 1, 1)
    plan = released_windows(len(x), window, overlap, len(sigmas) - 1)
    for windows, sigma, sigma_next in zip(plan, sigmas[:-1], sigmas[1:], strict=True):
        total, weight = torch.zeros_like(x), torch.zeros_like(x[:, :1, :1, :1])
        for indices in windows:
            part = x[indices]
            part = euler_step(part, denoise_window(part, sigma, indices), sigma, sigma_next)
            where = torch.tensor(indices, device=x.device)
            total.index_add_(0, where, part * tent)
            weight.index_add_(0, where, tent)
        x = total / weight
        yield x
