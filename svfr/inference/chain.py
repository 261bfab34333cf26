"""The two ways to restore a face video of any length: clip by clip (`chained`), or as the released code does.

Frames are (3, H, W) float tensors in [-1, 1]; latents (f, c, h, w) carry no batch axis here.
"""

from collections.abc import Callable, Iterator
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from svfr.diffusion import SAMPLERS, Denoiser, euler_step, guide, karras_sigmas
from svfr.inference.options import SamplingOptions
from svfr.models.components import Components, Condition, Reference

RELEASED_OVERLAP_STEPS = 3  # only these first steps of the released pipeline overlap

OnStep = Callable[[float], None]  # told the number of output frames that a step's work amounts to
ChooseReference = Callable[[Tensor], Reference | None]  # from (f, 3, H, W), decoded and not clamped


def frame_noise(seed: int, stream: int, frames: range, shape: tuple[int, ...]) -> Tensor:
    """Standard normal noise (len(frames), *shape), from the CPU; a frame's depends on (seed, stream, index) alone."""
    noise = []
    for frame in frames:
        state = np.random.SeedSequence([seed, stream, frame]).generate_state(1, np.uint64)[0]
        generator = torch.Generator().manual_seed(int(state >> np.uint64(1)))
        noise.append(torch.randn(shape, generator=generator))
    return torch.stack(noise)


def make_denoiser(
    components: Components, lq_latents: Tensor, gamma: Tensor, conditions: list[Condition], scale: float
) -> Denoiser:
    """The denoiser of one clip, guided from the first condition to the last.

    Args:
        components: the networks.
        lq_latents: (f, c, h, w), not scaled.
        gamma: (3,) task prompt.
        conditions: one, or two to guide between; each is one run of the UNet.
        scale: guidance scale.
    """
    gamma = gamma[None].to(lq_latents)

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        estimates = [
            components.model(
                x[None], lq_latents[None], condition.ref_latents, condition.context, sigma[None], gamma
            ).denoised[0]
            for condition in conditions
        ]
        return estimates[0] if len(estimates) == 1 else guide(estimates[0], estimates[1], scale)

    return denoise


def needed_conditions(unreferred: Condition, referred: Condition | None, scale: float) -> list[Condition]:
    """The branches that have an effect: one without a reference, or with one at guidance scale 1, else two."""
    if referred is None:
        return [unreferred]
    return [referred] if scale == 1 else [unreferred, referred]


def run_to_end(steps: Iterator[Tensor], on_step: OnStep | None, work: float) -> Tensor:
    """The latents after a sampler's last step; each step is reported as `work`."""
    latest: Tensor | None = None
    for latents in steps:
        latest = latents
        if on_step:
            on_step(work)
    assert latest is not None  # there is at least one step
    return latest


@torch.no_grad()
def restore_chained(
    components: Components,
    frames: Iterator[Tensor],
    gamma: Tensor,
    options: SamplingOptions,
    reference: Reference | None = None,
    choose_reference: ChooseReference | None = None,
    first_frame: int = 0,
    initial_noise: Tensor | None = None,
    on_step: OnStep | None = None,
) -> Iterator[Tensor]:
    """Restore clip by clip with a self-referred reference (SVFR, Sec. 4.3), in memory that the length doesn't change.

    The first clip has no reference, unless one is given; then one of its frames is chosen, and each later clip is
    denoised with it. Neighbouring clips share `overlap` frames: at each step those are set to the previous clip's
    result at that noise level, and they are decoded again before the new ones.

    Sampling starts from noise alone. The released code puts the input's latents under it; where the noise ends at 20
    instead of SVD's 700, white holes shine through (an earlier bundled model: 1 dB less in holes, elsewhere the same).

    Args:
        components: the networks.
        frames: degraded frames, read as they are needed.
        gamma: (3,) task prompt.
        options: numbers of steps, lengths, seed.
        reference: a photo's, for the first clip on.
        choose_reference: picks a reference from the first clip's frames; None for none.
        first_frame: index of the first frame in its video, for its noise.
        initial_noise: (f, c, h, w) standard normal, instead of the seed's.
        on_step: progress.

    Yields:
        (n, 3, H, W) restored frames, about [-1, 1], not clamped: each frame once, in order.
    """
    unreferred = referred = None
    lq_tail = latents_tail = None
    position = 0  # of the next clip's first frame
    while fresh := list(islice(frames, options.clip_length - (0 if lq_tail is None else len(lq_tail)))):
        lq_latents = components.encode(torch.stack(fresh))
        if lq_tail is not None:
            lq_latents = torch.cat([lq_tail, lq_latents])
        num_shared = len(lq_latents) - len(fresh)
        indices = range(position, position + len(lq_latents))
        if initial_noise is None:
            shifted = range(first_frame + indices.start, first_frame + indices.stop)
            noise = frame_noise(options.seed, 0, shifted, tuple(lq_latents.shape[1:]))
        else:
            noise = initial_noise[indices.start : indices.stop]
        noise = noise.to(lq_latents)

        latent_size = (lq_latents.shape[2], lq_latents.shape[3])
        unreferred = unreferred or components.condition(None, latent_size)
        if referred is None and reference is not None:
            referred = components.condition(reference, latent_size)
        conditions = needed_conditions(unreferred, referred, options.guidance_scale)
        denoise = make_denoiser(components, lq_latents, gamma, conditions, options.guidance_scale)

        def set_shared(x: Tensor, sigma: Tensor, tail: Tensor | None = latents_tail, noise: Tensor = noise) -> Tensor:
            return x if tail is None else torch.cat([tail + sigma * noise[: len(tail)], x[len(tail) :]])

        num_steps = options.num_inference_steps[1]
        sigmas = karras_sigmas(num_steps, *components.sigma_range).to(components.device)
        steps = SAMPLERS[options.sampler](denoise, sigmas[0] * noise, sigmas, set_shared)
        latents = set_shared(run_to_end(steps, on_step, len(fresh) / num_steps), sigmas[-1])

        restored = components.decode(latents, options.decode_chunk_size, context=options.overlap)[num_shared:]
        if position == 0 and reference is None and choose_reference is not None:
            reference = choose_reference(restored)
        yield restored

        if options.overlap:
            lq_tail, latents_tail = lq_latents[-options.overlap :], latents[-options.overlap :]
        position = indices.stop - (0 if lq_tail is None else len(lq_tail))


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

    Args:
        denoise_window: estimate of x0 for one window from (x of the window, sigma, its frame indices).
        x: (f, c, h, w) start.
        sigmas: (n + 1,) noise levels.
        window: frames of a window.
        overlap: frames that windows overlap by in the first steps.

    Yields:
        The latents after each step.
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


@torch.no_grad()
def restore_released(
    components: Components,
    frames: Iterator[Tensor],
    gamma: Tensor,
    options: SamplingOptions,
    reference: Reference | None = None,
    choose_reference: ChooseReference | None = None,
    initial_noise: tuple[Tensor, Tensor] | None = None,
    on_step: OnStep | None = None,
) -> Iterator[Tensor]:
    """Restore as the released code does, waste included, to compare with it; arguments as `restore_chained`.

    Pass 1 denoises the first clip with two identical branches; its last frame becomes the reference of pass 2, which
    denoises all frames. A given reference replaces pass 1. Memory grows with the length.

    Yields:
        (n, 3, H, W) restored frames, about [-1, 1], once all are done, a decoder's chunk at a time.
    """
    all_frames = list(frames)
    if not all_frames:
        return
    lq_latents = torch.cat([components.encode(torch.stack(all_frames[i : i + 1])) for i in range(len(all_frames))])
    num_frames = len(lq_latents)
    latent_size = (lq_latents.shape[2], lq_latents.shape[3])
    unreferred = components.condition(None, latent_size)
    share = 0.5 if reference is None else 1.0  # of the work, per pass

    def run(num: int, first: Condition, second: Condition, which: int) -> Tensor:
        lq = lq_latents[:num]
        sigmas = karras_sigmas(options.num_inference_steps[which], *components.sigma_range).to(lq)
        if initial_noise is None:
            noise = frame_noise(options.seed, 1 + which, range(num), tuple(lq.shape[1:]))
        else:
            noise = initial_noise[which][:num]
        start = components.vae.config.scaling_factor * lq + sigmas[0] * noise.to(lq)

        def denoise_window(x: Tensor, sigma: Tensor, indices: list[int]) -> Tensor:
            return make_denoiser(components, lq[indices], gamma, [first, second], options.guidance_scale)(x, sigma)

        steps = sample_windows(denoise_window, start, sigmas, options.clip_length, options.overlap)
        return run_to_end(steps, on_step, share * num_frames / (len(sigmas) - 1))

    if reference is None:
        latents = run(min(num_frames, options.clip_length), unreferred, unreferred, 0)
        if choose_reference is not None:
            reference = choose_reference(components.decode(latents, options.decode_chunk_size))
    referred = unreferred if reference is None else components.condition(reference, latent_size)
    latents = run(num_frames, unreferred, referred, 1)
    for chunk in latents.split(options.decode_chunk_size):
        yield components.decode(chunk, options.decode_chunk_size)
