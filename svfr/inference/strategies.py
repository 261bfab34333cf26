"""The strategies `chained` and `released` behind one generator: degraded frames in, restored clips out."""

import logging
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from svfr.inference.chain import Chain
from svfr.inference.denoising import ChooseReference, OnStep
from svfr.inference.released import restore_released
from svfr.inference.settings import Sampling
from svfr.models.components import Components, Reference
from svfr.models.devices import is_out_of_memory
from svfr.tasks import task_prompt

logger = logging.getLogger(__name__)


class Crop(Protocol):
    """A frame to be restored, and whatever its caller wants back with the result."""

    @property
    def lq(self) -> Tensor:
        """(3, s, s) in [-1, 1], degraded."""
        ...


AnyCrop = TypeVar("AnyCrop", bound=Crop)


def restore_clips(
    components: Components,
    sampling: Sampling,
    tasks: tuple[str, ...],
    crops: Iterator[AnyCrop],
    choose_reference: ChooseReference | None,
    reference: Reference | None = None,
    *,
    first_frame: int = 0,
    initial_noise: Tensor | tuple[Tensor, Tensor] | None = None,
    on_step: OnStep | None = None,
    on_chain: Callable[[Chain], None] | None = None,
) -> Iterator[tuple[list[AnyCrop], Tensor]]:
    """Restore crops that arrive one by one; `chained` reads a clip at a time, `released` everything first.

    Args:
        components: the networks.
        sampling: resolved.
        tasks: asked for.
        crops: of one face, consecutive frames.
        choose_reference: picks a reference from the first clip's frames; see `ReferenceFinder.chooser`.
        reference: a photo's, instead.
        first_frame: index of the first crop in its video.
        initial_noise: (f, c, h, w) standard normal, instead of the seed's; for `released` one for each pass.
        on_step: called after each denoising step with its share of the work, in frames.
        on_chain: called with the chain before its first clip; may load a state into it.

    Yields:
        Some crops and their results (n, 3, s, s), about [-1, 1], not clamped; each crop once, in order.

    Raises:
        ValueError: an initial noise that does not go with the strategy, or a strength with inpainting.
    """
    if sampling.strength < 1 and "inpainting" in tasks:
        raise ValueError(f"strength={sampling.strength}: holes are filled from noise alone; leave it out")
    how = components, sampling, task_prompt(tasks).to(components.device)
    if sampling.strategy == "released":
        if isinstance(initial_noise, Tensor):
            raise ValueError("initial_noise has to be a pair for the strategy 'released': one for each pass")
        if clip := list(crops):
            lq = torch.stack([crop.lq for crop in clip])
            yield clip, restore_released(*how, lq, choose_reference, reference, initial_noise, on_step)
        return
    if isinstance(initial_noise, tuple):
        raise ValueError("initial_noise has to be one tensor for the strategy 'chained'")
    if initial_noise is not None and components.settings.one_step_sigma is not None:
        raise ValueError("initial_noise: these weights restore without noise; leave it out")
    chain = Chain(*how, choose_reference, reference, first_frame, initial_noise)
    if on_chain is not None:
        on_chain(chain)
    while clip := list(islice(crops, chain.frames_wanted)):
        yield clip, _restore_within_memory(chain, torch.stack([crop.lq for crop in clip]), on_step)


def _restore_within_memory(chain: Chain, lq: Tensor, on_step: OnStep | None) -> Tensor:
    """`chain(lq, on_step)`; where memory runs out, the same clip again with the next smaller memory plan, once."""
    try:
        return chain(lq, on_step)
    except Exception as error:
        if not is_out_of_memory(error) or not chain.components.step_down():
            raise
    # Not in the handler, where the error's trace holds tensors.
    if free := getattr(torch.get_device_module(chain.components.device), "empty_cache", None):
        free()
    logger.warning(chain.components.notes[-1])
    assert chain.components.plan is not None
    chain.take_less(chain.components.plan, lq.shape[-1])
    return chain(lq, on_step)
