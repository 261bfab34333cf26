"""The strategies `chained` and `released` behind one generator, degraded frames in, restored clips out; their time."""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice, repeat

import numpy as np
import torch
from torch import Tensor

from svfr.data.frames import resize, resize_mask
from svfr.inference.chain import Chain, ChooseReference, OnStep
from svfr.inference.reference import ReferenceFinder
from svfr.inference.released import restore_released
from svfr.inference.settings import Sampling
from svfr.models.components import Components, Reference
from svfr.models.devices import is_out_of_memory
from svfr.tasks import check_mask_needed, task_prompt

logger = logging.getLogger(__name__)


def aligned_frames(
    frames: np.ndarray, mask: np.ndarray | None, tasks: tuple[str, ...], size: int
) -> tuple[list[np.ndarray], list[np.ndarray | None]]:
    """The frames (s, s, 3) and holes (s, s) of an aligned clip at a side [px], of what `SVFRPipeline` takes.

    Raises:
        ValueError: frames or mask of another kind, or a mask that the tasks need or don't.
    """
    frames = np.asarray(frames)
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not len(frames):
        raise ValueError(f"frames are {frames.dtype} {frames.shape}: they have to be uint8 (f, h, w, 3), f >= 1")
    check_mask_needed(tasks, mask is not None)
    images, holes = [resize(frame, size, size) for frame in frames], list[np.ndarray | None]([None] * len(frames))
    if mask is not None:
        mask = np.asarray(mask)
        if mask.ndim not in (2, 3) or mask.dtype != np.uint8:
            raise ValueError(f"the mask is {mask.dtype} {mask.shape}: it has to be uint8 (h, w) or (f, h, w)")
        if mask.ndim == 3 and len(mask) != len(frames):
            raise ValueError(f"the mask has {len(mask)} frames, the video {len(frames)}")
        masks = mask if mask.ndim == 3 else repeat(mask, len(frames))
        holes = [resize_mask(each, size, size) for each in masks]
    return images, holes


def restore_clips(
    components: Components,
    sampling: Sampling,
    tasks: tuple[str, ...],
    frames: Iterator[Tensor],
    choose_reference: ChooseReference | None,
    reference: Reference | None = None,
    *,
    first_frame: int = 0,
    initial_noise: Tensor | tuple[Tensor, Tensor] | None = None,
    on_step: OnStep | None = None,
    on_chain: Callable[[Chain], None] | None = None,
) -> Iterator[Tensor]:
    """Restore frames that arrive one by one; `chained` reads a clip at a time, `released` everything first.

    Args:
        components, sampling, reference, first_frame: as of `Chain`.
        tasks: asked for.
        frames: (3, s, s) in [-1, 1], degraded; of one face, consecutive.
        choose_reference: picks a reference from the first clip's frames; see `ReferenceFinder.chooser`.
        initial_noise: as of `Chain`; for `released` one for each pass.
        on_step: called after each denoising step with its share of the work, in frames.
        on_chain: called with the chain before its first clip; may load a state into it.

    Yields:
        (n, 3, s, s) results of the next frames, about [-1, 1], not clamped.

    Raises:
        ValueError: an initial noise that does not go with the strategy, or a strength with inpainting.
    """
    if sampling.strength < 1 and "inpainting" in tasks:
        raise ValueError(f"strength={sampling.strength}: holes are filled from noise alone; leave it out")
    how = components, sampling, task_prompt(tasks).to(components.device)
    if sampling.strategy == "released":
        if isinstance(initial_noise, Tensor):
            raise ValueError("initial_noise has to be a pair for the strategy 'released': one for each pass")
        if clip := list(frames):
            yield restore_released(*how, torch.stack(clip), choose_reference, reference, initial_noise, on_step)
        return
    if isinstance(initial_noise, tuple):
        raise ValueError("initial_noise has to be one tensor for the strategy 'chained'")
    if initial_noise is not None and components.settings.one_step_sigma is not None:
        raise ValueError("initial_noise: these weights restore without noise; leave it out")
    chain = Chain(*how, choose_reference, reference, first_frame, initial_noise)
    if on_chain is not None:
        on_chain(chain)
    while clip := list(islice(frames, chain.frames_wanted)):
        yield _restore_within_memory(chain, torch.stack(clip), on_step)


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


def clip_seconds(components: Components, sampling: Sampling, tasks: tuple[str, ...]) -> float:
    """How long a clip takes here [s], measured with one and two steps of a gray clip; `sampling` is resolved."""
    length, size, steps = sampling.clip_length, sampling.size, sampling.num_inference_steps
    assert length and size  # resolved
    num_steps = steps if isinstance(steps, int) else sum(steps)
    gray = np.full((size, size, 3), 128, dtype=np.uint8)
    reference = ReferenceFinder(components, None).from_aligned(gray)
    lq, gamma = torch.zeros(length, 3, size, size), task_prompt(tasks).to(components.device)
    seconds = []
    for count in (1, 1, min(num_steps, 2)):  # the first warms up
        few = replace(sampling, strategy="chained", num_inference_steps=count)
        started = time.perf_counter()
        Chain(components, few, gamma, reference=reference)(lq).cpu()
        seconds.append(time.perf_counter() - started)
    return seconds[1] + (num_steps - 1) * max(0.0, seconds[2] - seconds[1])
