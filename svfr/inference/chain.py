"""The default strategy: clip by clip, each joined to the one before it (SVFR, Sec. 4.3)."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from svfr.diffusion import SAMPLERS, SCHEDULES
from svfr.inference.denoising import ChooseReference, OnStep, frame_noise, make_denoiser, noise_levels, run_to_end
from svfr.inference.settings import Sampling
from svfr.models.components import Components, Condition, Reference
from svfr.models.devices import MemoryPlan


@dataclass
class Tail:
    """The last `overlap` frames of a clip, which the next one begins with; (n, c, h, w) latents."""

    lq: Tensor  # of the input, not scaled; with weights that know context frames, of the result, which takes its place
    restored: Tensor  # of the result, scaled


class Chain:
    """Restores a video clip by clip with a self-referred reference, in memory that the length doesn't change.

        chain = Chain(components, sampling, gamma, choose_reference)
        restored = chain(lq)  # the first clip; then the next `chain.frames_wanted` frames, and so on

    The first clip has no reference, unless one is given; then one of its frames is chosen, and each later clip is
    denoised with it. Neighbouring clips share `overlap` frames: at each step those are set to the previous clip's
    result at that noise level, and they are decoded again before the new ones. Weights with `context_frames` see the
    result in them from the start, as LQ and as reference latents. Weights with `one_step_sigma` run once, from zero.

    Sampling starts from noise alone. The released code puts the input's latents under it; where the noise ends at 20
    instead of SVD's 700, white holes shine through (an earlier bundled model: 1 dB less in holes, elsewhere the same).

    Args:
        components: the networks.
        sampling: resolved.
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
        assert sampling.clip_length and sampling.overlap is not None and sampling.decode_chunk_size  # resolved
        assert sampling.guidance_scale is not None and sampling.sampler is not None
        self.components = components
        self.gamma = gamma
        self.choose_reference = None if reference is not None else choose_reference
        self.reference = reference
        self.position = first_frame  # index of the next frame in its video
        self.tail: Tail | None = None
        self._clip_length, self._overlap = sampling.clip_length, sampling.overlap
        self._scale, self._chunk_size, self._seed = sampling.guidance_scale, sampling.decode_chunk_size, sampling.seed
        self._sample, self._num_steps = SAMPLERS[sampling.sampler], sampling.num_inference_steps
        self._schedule = SCHEDULES[sampling.schedule or "karras"]
        self._strength = sampling.strength
        self._guidance = {"interval": sampling.guidance_interval, "batched": bool(sampling.batch_guidance)}
        self._first_frame, self._initial_noise = first_frame, initial_noise
        self._conditions: list[Condition] = []

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
        self._conditions = []

    @property
    def frames_wanted(self) -> int:
        """How many new frames fill the next clip."""
        return self._clip_length - (0 if self.tail is None else len(self.tail.lq))

    @torch.no_grad()
    def __call__(self, lq: Tensor, on_step: OnStep | None = None) -> Tensor:
        """Restore the next frames (f, 3, H, W) in [-1, 1], at most `frames_wanted`; the result is not clamped."""
        new_latents, settings = self.components.encode(lq), self.components.settings  # (f, c, h, w)
        tail = self.tail
        lq_latents = new_latents if tail is None else torch.cat([tail.lq, new_latents])
        num_shared = len(lq_latents) - len(lq)
        noise = self._noise(num_shared, lq_latents)

        def set_shared(x: Tensor, sigma: Tensor) -> Tensor:
            return x if tail is None else torch.cat([tail.restored + sigma * noise[:num_shared], x[num_shared:]])

        conditions = self._find_conditions((lq_latents.shape[2], lq_latents.shape[3]))
        num_known = num_shared if settings.context_frames else 0
        how = (self.gamma, conditions, self._scale, num_known)
        denoise = make_denoiser(self.components, lq_latents, *how, **self._guidance)
        if settings.one_step_sigma is None:
            levels = self._num_steps, self.components.sigma_range, self._strength, self._schedule
            sigmas = noise_levels(*levels).to(self.components.device)
            start = sigmas[0] * noise
            if self._strength < 1:
                start = start + self.components.vae.config.scaling_factor * lq_latents
            steps = self._sample(denoise, start, sigmas, set_shared)
        else:
            sigmas = torch.tensor([settings.one_step_sigma, 0.0], device=self.components.device)
            steps = iter([denoise(torch.zeros_like(lq_latents), sigmas[0])])
        latents = set_shared(run_to_end(steps, on_step, len(lq) / self._num_steps), sigmas[-1])
        restored = self.components.decode(latents, self._chunk_size, context=self._overlap)[num_shared:]

        if self.choose_reference is not None:
            self.reference, self.choose_reference = self.choose_reference(restored), None
            self._conditions = []
        self.position += len(lq)
        if self._overlap:
            seen = latents / self.components.vae.config.scaling_factor if settings.context_frames else lq_latents
            self.tail = Tail(seen[-self._overlap :], latents[-self._overlap :])
        return restored

    def take_less(self, plan: MemoryPlan, size: int) -> None:
        """Run within a smaller memory plan from the next clip on, whose length stays; `size` of its frames [px]."""
        self._chunk_size = min(self._chunk_size, plan.fit(size)[0])
        self._guidance["batched"] &= plan.batch_guidance

    def _noise(self, num_shared: int, latents: Tensor) -> Tensor:
        """The noise of the shared and the new frames, like `latents`."""
        start = self.position - num_shared
        frames = range(start, start + len(latents))
        if self._initial_noise is None:
            return frame_noise(self._seed, 0, frames, tuple(latents.shape[1:])).to(latents)
        return self._initial_noise[frames.start - self._first_frame : frames.stop - self._first_frame].to(latents)

    def _find_conditions(self, latent_size: tuple[int, int]) -> list[Condition]:
        """The guidance branches that have an effect: without a reference one, with one at scale 1 one, else two."""
        if not self._conditions:
            wanted = [self.reference] if self.reference is None or self._scale == 1 else [None, self.reference]
            self._conditions = [self.components.condition(reference, latent_size) for reference in wanted]
        return self._conditions
