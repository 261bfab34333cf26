"""The default strategy: clip by clip, each joined to the one before it (SVFR, Sec. 4.3); what all denoise with.

Latents (f, c, h, w) carry no batch axis here.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from svfr.diffusion import SAMPLERS, SCHEDULES, Denoiser, guide, karras_sigmas
from svfr.inference.settings import Sampling
from svfr.models.components import Components, Condition, Reference
from svfr.models.devices import MemoryPlan

# Assumption: new frames over which the difference of two clips in a frame that both made fades out.
FADE = 2

OnStep = Callable[[float], None]  # called after each denoising step with its share of the work, in frames
ChooseReference = Callable[[Tensor], Reference | None]  # from (f, 3, H, W), decoded and not clamped


@dataclass
class Tail:
    """The last `overlap` frames of a clip, which the next one begins with; (n, c, h, w) latents."""

    lq: Tensor  # of the input, not scaled; of known frames (see `ModelSettings.context_frames`) the result's
    restored: Tensor  # of the result, scaled


class Chain:
    """Restores a video clip by clip with a self-referred reference, in memory that the length doesn't change.

        chain = Chain(components, sampling, gamma, choose_reference)
        restored = chain(lq)  # the first clip; then the next `chain.frames_wanted` frames, and so on

    The first clip has no reference, unless one is given; then one of its frames is chosen, and each later clip is
    denoised with it. Neighbouring clips share `overlap` frames: at each step those are set to the previous clip's
    result at that noise level, and they are decoded again before the new ones. Weights with `context_frames` see the
    result in the first of them from the start, as LQ and as reference latents; the others are made anew, and what the
    two clips differ by in the last one fades out over the new frames. Those with `one_step_sigma` run once, from zero.

    Sampling starts from noise alone. The released code puts the input's latents under it; where the noise ends at 20
    instead of SVD's 700, white holes shine through (an earlier bundled model: 1 dB less in holes, elsewhere the same).

    Args:
        components, sampling: the networks, and how they sample, resolved.
        gamma: (3,) task prompt.
        choose_reference: picks a reference from the first clip's frames; None for none.
        reference: a photo's, instead.
        first_frame: index of the first frame in its video, on which its noise depends.
        initial_noise: (f, c, h, w) standard normal of all frames, instead of the seed's.
    """

    def __init__(
        self,
        components: Components,
        sampling: Sampling,
        gamma: Tensor,
        choose_reference: ChooseReference | None = None,
        reference: Reference | None = None,
        first_frame: int = 0,
        initial_noise: Tensor | None = None,
    ) -> None:
        self.components, self.gamma = components, gamma
        self._how: Any = sampling  # in which nothing is None
        self.choose_reference = None if reference is not None else choose_reference
        self.reference = reference
        self.position = first_frame  # index of the next frame in its video
        self.tail: Tail | None = None
        self._first_frame, self._initial_noise = first_frame, initial_noise

    def state_dict(self) -> dict[str, Any]:
        """All that the next clip depends on beside the arguments: tensors, numbers, and None."""
        return {
            "position": self.position,
            "chosen": self.choose_reference is None,
            "tail": self.tail and vars(self.tail),
            "reference": self.reference and vars(self.reference),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict` of a chain that was made with the same arguments; its tensors are on the device."""
        self.position = state["position"]
        self.tail = state["tail"] and Tail(**state["tail"])
        self.reference = state["reference"] and Reference(**state["reference"])
        self.choose_reference = None if state["chosen"] else self.choose_reference

    @property
    def frames_wanted(self) -> int:
        """How many new frames fill the next clip."""
        return self._how.clip_length - (0 if self.tail is None else len(self.tail.lq))

    @torch.no_grad()
    def __call__(self, lq: Tensor, on_step: OnStep | None = None) -> Tensor:
        """Restore the next frames (f, 3, H, W) in [-1, 1], at most `frames_wanted`; the result is not clamped."""
        components, how, tail = self.components, self._how, self.tail
        settings, scaling = components.settings, components.vae.config.scaling_factor
        lq_latents = components.encode(lq)  # (f, c, h, w)
        if tail is not None:
            lq_latents = torch.cat([tail.lq, lq_latents])
        num_shared = len(lq_latents) - len(lq)
        num_known = min(settings.context_frames, num_shared)
        num_set, noise = num_known or num_shared, self._noise(num_shared, lq_latents)

        def set_shared(x: Tensor, sigma: Tensor) -> Tensor:
            return x if tail is None else torch.cat([tail.restored[:num_set] + sigma * noise[:num_set], x[num_set:]])

        # The guidance branches that have an effect: without a reference one, with one at scale 1 one, else two.
        is_guided = self.reference is not None and how.guidance_scale != 1
        referred = [None, self.reference] if is_guided else [self.reference]
        conditions = [components.condition(reference, lq_latents.shape[-2:]) for reference in referred]
        given = lq_latents, self.gamma, conditions, how.guidance_scale, num_known
        guided = {"interval": how.guidance_interval, "batched": bool(how.batch_guidance)}
        denoise = make_denoiser(components, *given, **guided)
        if settings.one_step_sigma is None:
            levels = how.num_inference_steps, components.sigma_range, how.strength, SCHEDULES[how.schedule or "karras"]
            sigmas = noise_levels(*levels).to(components.device)
            start = sigmas[0] * noise
            if how.strength < 1:
                start = start + scaling * lq_latents
            steps = SAMPLERS[how.sampler](denoise, start, sigmas, set_shared)
        else:
            sigmas = torch.tensor([settings.one_step_sigma, 0.0], device=components.device)
            steps = iter([denoise(torch.zeros_like(lq_latents), sigmas[0])])
        latents = set_shared(run_to_end(steps, on_step, len(lq) / (len(sigmas) - 1)), sigmas[-1])
        if tail is not None:
            latents = joined(tail.restored, latents)
        context = settings.context_frames or how.overlap  # of each of the decoder's chunks: as much as joins clips
        restored = components.decode(latents, how.decode_chunk_size, context)[num_shared:]

        if self.choose_reference is not None:
            self.reference, self.choose_reference = self.choose_reference(restored), None
        self.position += len(lq)
        if how.overlap:
            last, seen = latents[-how.overlap :], lq_latents[-how.overlap :].clone()
            seen[: settings.context_frames] = last[: settings.context_frames] / scaling
            self.tail = Tail(seen, last)
        return restored

    def take_less(self, plan: MemoryPlan, size: int) -> None:
        """Run within a smaller memory plan from the next clip on, whose length stays; `size` of its frames [px]."""
        how = self._how
        chunk, batched = min(how.decode_chunk_size, plan.fit(size)[0]), how.batch_guidance and plan.batch_guidance
        self._how = replace(how, decode_chunk_size=chunk, batch_guidance=batched)

    def _noise(self, num_shared: int, latents: Tensor) -> Tensor:
        """The noise of the shared and the new frames, like `latents`."""
        frames = range(self.position - num_shared, self.position - num_shared + len(latents))
        if self._initial_noise is None:
            return frame_noise(self._how.seed, 0, frames, tuple(latents.shape[1:])).to(latents)
        return self._initial_noise[frames.start - self._first_frame : frames.stop - self._first_frame].to(latents)


def joined(before: Tensor, latents: Tensor) -> Tensor:
    """A clip's latents behind those of the clip before, which has the first of its frames, too, and gives them."""
    shared, new = latents.split([len(before), len(latents) - len(before)])
    share = (1 - torch.arange(1, len(new) + 1, device=new.device) / (FADE + 1)).clamp(min=0).to(new)
    return torch.cat([before, new + share[:, None, None, None] * (before[-1] - shared[-1])])


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
