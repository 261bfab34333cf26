import gc
import weakref
from collections.abc import Callable, Iterator
from itertools import islice, pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from svfr.inference.chain import Chain, ChooseReference, OnStep, frame_noise
from svfr.inference.released import released_windows, restore_released, sample_windows
from svfr.inference.settings import Sampling
from svfr.models.components import Components, Reference
from tests import tiny

GAMMA = torch.tensor([1.0, 0.0, 0.0])


def chained(
    components: Components,
    frames: Iterator[Tensor],
    given: Sampling,
    photo: Reference | None = None,
    choose: ChooseReference | None = None,
    first_frame: int = 0,
    on_step: OnStep | None = None,
) -> Iterator[Tensor]:
    """Restored clips of a chain, as long as there are frames."""
    chain = Chain(components, given, GAMMA, choose, photo, first_frame)
    while clip := list(islice(frames, chain.frames_wanted)):
        yield chain(torch.stack(clip), on_step)


def released(
    components: Components,
    frames: Iterator[Tensor],
    given: Sampling,
    photo: Reference | None = None,
    choose: ChooseReference | None = None,
    on_step: OnStep | None = None,
) -> Iterator[Tensor]:
    yield restore_released(components, given, GAMMA, torch.stack(list(frames)), choose, photo, on_step=on_step)


STRATEGIES: list[Callable] = [chained, released]


def options(**changes: Any) -> Sampling:
    """Two steps, clips of 4 frames with 1 in common."""
    values: dict[str, Any] = {
        "num_inference_steps": 2,
        "guidance_scale": 2.0,
        "sampler": "euler",
        "clip_length": 4,
        "overlap": 1,
        "decode_chunk_size": 4,
    }
    return Sampling(**(values | changes))


def video(num_frames: int | None, size: int = 16) -> Iterator[Tensor]:
    """(3, size, size) frames in [-1, 1], each other than the rest; endless if None."""
    index = 0
    while num_frames is None or index < num_frames:
        yield torch.rand(3, size, size, generator=torch.Generator().manual_seed(index)) * 2 - 1
        index += 1


def reference(components: Components, size: int = 16) -> Reference:
    tokens = torch.randn(1, tiny.TOKENS, tiny.TOKEN_DIM, generator=torch.Generator().manual_seed(5))
    return Reference(components.encode(next(video(1, size))[None]), tokens)


class Spy:
    """Remembers the arguments of each call of a method, and does as it does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> None:
        method, self.calls = getattr(owner, name), []  # type: ignore[var-annotated]

        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.append(args)
            return method(*args, **kwargs)

        monkeypatch.setattr(owner, name, call)


# Options, noise, windows


def test_noise_of_a_frame_depends_on_seed_stream_and_index_alone() -> None:
    noise = frame_noise(3, 0, range(12), (4, 8, 8))
    torch.manual_seed(1)
    assert torch.equal(frame_noise(3, 0, range(5, 9), (4, 8, 8)), noise[5:9])
    assert len({tuple(frame.flatten()[:8].tolist()) for frame in noise}) == 12
    for other in (frame_noise(4, 0, range(12), (4, 8, 8)), frame_noise(3, 1, range(12), (4, 8, 8))):
        assert (other != noise).all(dim=(1, 2, 3)).any() or (other - noise).abs().mean() > 0.5
    assert abs(noise.mean()) < 0.05
    assert abs(noise.std() - 1) < 0.05


@pytest.mark.parametrize("num_frames", [1, 3, 8, 9, 30])
@pytest.mark.parametrize(("window", "overlap"), [(8, 3), (8, 0), (4, 3), (1, 0)])
def test_windows_cover_every_frame_in_every_step(num_frames: int, window: int, overlap: int) -> None:
    for windows in released_windows(num_frames, window, overlap, 7):
        assert {frame for frames in windows for frame in frames} == set(range(num_frames))
        assert all(len(frames) == window for frames in windows)


def test_windows_are_averaged_with_tent_weights() -> None:
    """Frames 0..5, windows of 4 from 0 and 3: frames 3, and 0 around the end, are in both."""
    (windows,) = released_windows(6, 4, 1, 1)
    assert windows == [[0, 1, 2, 3], [3, 4, 5, 0]]
    values = {0: 10.0, 3: 20.0}

    def denoise(x: Tensor, sigma: Tensor, indices: list[int]) -> Tensor:
        return torch.full_like(x, values[indices[0]])

    (x,) = sample_windows(denoise, torch.zeros(6, 1, 1, 1), torch.tensor([5.0, 0.0]), window=4, overlap=1)
    # weights 1 2 2 1: frame 0 is first in one and last in the other, frame 3 likewise
    assert x.flatten().tolist() == [15.0, 10.0, 10.0, 15.0, 20.0, 20.0]


def test_tent_weights_of_a_frame_deep_in_one_window() -> None:
    def denoise(x: Tensor, sigma: Tensor, indices: list[int]) -> Tensor:
        return torch.full_like(x, float(indices[0] == 0))

    (x,) = sample_windows(denoise, torch.zeros(4, 1, 1, 1), torch.tensor([5.0, 0.0]), window=4, overlap=2)
    # windows 0 1 2 3 and 2 3 0 1, weights 1 2 2 1
    torch.testing.assert_close(x.flatten(), torch.tensor([1, 2, 2, 1]) / torch.tensor([3, 3, 3, 3]))


# Frames in, frames out


@pytest.mark.parametrize("restore", STRATEGIES)
@pytest.mark.parametrize("num_frames", [1, 3, 4, 5, 14])
def test_as_many_frames_out_as_in(components: Components, restore: Callable, num_frames: int) -> None:
    restored = torch.cat(list(restore(components, video(num_frames), options())))
    assert restored.shape == (num_frames, 3, 16, 16)
    assert restored.isfinite().all()


@pytest.mark.parametrize("restore", STRATEGIES)
@pytest.mark.parametrize("overlap", [0, 1, 2, 3])
@pytest.mark.parametrize("chunk", [1, 3, 4])
def test_overlaps_and_decode_chunks(components: Components, restore: Callable, overlap: int, chunk: int) -> None:
    given = options(overlap=overlap, decode_chunk_size=chunk)
    assert len(torch.cat(list(restore(components, video(9), given)))) == 9


@pytest.mark.parametrize("restore", STRATEGIES)
@pytest.mark.parametrize(("given", "strength"), [(False, 1.0), (True, 1.0), (True, 0.5)])
def test_progress_adds_up_to_the_frames(
    components: Components, restore: Callable, given: bool, strength: float
) -> None:
    work: list[float] = []
    photo = reference(components) if given else None
    list(restore(components, video(11), options(strength=strength), photo, on_step=work.append))
    assert sum(work) == pytest.approx(11)


# The chained strategy


def test_neighbouring_clips_share_latents(components: Components, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = Spy(monkeypatch, components, "decode")
    list(chained(components, video(10), options(overlap=2), reference(components)))
    clips = [args[0] for args in decoded.calls]
    assert [len(latents) for latents in clips] == [4, 4, 4, 4]
    for one, other in pairwise(clips):
        assert torch.equal(other[:2], one[-2:])
        assert (other[2:] - one[:2]).abs().max() > 0.01


def test_shared_frames_are_noised_with_their_own_noise_at_each_step(
    components: Components, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded, denoised = Spy(monkeypatch, components, "decode"), Spy(monkeypatch, components.model, "forward")
    list(chained(components, video(7), options(guidance_scale=1.0)))
    noise = frame_noise(0, 0, range(7), (4, 4, 4))
    first = decoded.calls[0][0]
    second = denoised.calls[2:]  # the first two steps are the first clip's
    assert len(second) == 2
    for args in second:
        torch.testing.assert_close(args[0][0, 0], first[-1] + args[4] * noise[3])


@pytest.mark.parametrize("overlap", [0, 1, 3])
@pytest.mark.parametrize(
    ("scale", "referred", "branches"),
    [(2.0, "self", (1, 2)), (1.0, "self", (1, 1)), (2.0, None, (1, 1)), (2.0, "photo", (2, 2))],
)
def test_amount_of_work(
    components: Components,
    monkeypatch: pytest.MonkeyPatch,
    overlap: int,
    scale: float,
    referred: str | None,
    branches: tuple[int, int],
) -> None:
    """Frames through the UNet: one branch without a reference or without guidance, two with."""
    denoised = Spy(monkeypatch, components.model, "forward")
    encoded = Spy(monkeypatch, components.vae, "encode")
    list(
        chained(
            components,
            video(10),
            options(overlap=overlap, guidance_scale=scale, num_inference_steps=3),
            reference(components) if referred == "photo" else None,
            (lambda frames: reference(components)) if referred == "self" else None,
        )
    )
    lengths, done = [4], 4
    while done < 10:
        fresh = min(4 - overlap, 10 - done)
        lengths.append(overlap + fresh)
        done += fresh
    expected = 3 * (branches[0] * lengths[0] + branches[1] * sum(lengths[1:]))
    assert sum(args[0].shape[1] for args in denoised.calls) == expected
    # each frame is encoded once, and so is the reference
    assert sum(len(args[0]) for args in encoded.calls) == 10 + (referred is not None)


def test_reference_is_chosen_once_from_the_first_clip(components: Components) -> None:
    seen = []

    def choose(frames: Tensor) -> None:
        seen.append(frames)

    first, *_ = chained(components, video(12), options(), choose=choose)
    assert len(seen) == 1
    assert torch.equal(seen[0], first)


def test_clips_do_not_depend_on_their_place_in_the_run(components: Components) -> None:
    photo, given = reference(components), options(overlap=0)
    whole = torch.cat(list(chained(components, video(8), given, photo)))
    tail = islice(video(8), 4, None)
    alone = torch.cat(list(chained(components, tail, given, photo, first_frame=4)))
    torch.testing.assert_close(alone, whole[4:])
    (other,) = chained(components, islice(video(8), 4, None), given, photo, first_frame=5)
    assert (other - alone).abs().max() > 0.01


@pytest.mark.parametrize("overlap", [0, 2])
def test_an_endless_video_is_streamed(components: Components, overlap: int) -> None:
    read = 0

    def counted() -> Iterator[Tensor]:
        nonlocal read
        for frame in video(None):
            read += 1
            yield frame

    restored = chained(components, counted(), options(overlap=overlap))
    for number in range(3):
        assert len(next(restored)) == (4 if number == 0 else 4 - overlap)
        assert read == 4 + number * (4 - overlap)


def test_memory_does_not_grow_with_the_length(components: Components) -> None:
    alive: weakref.WeakSet[Tensor] = weakref.WeakSet()

    def watched() -> Iterator[Tensor]:
        for frame in video(None):
            alive.add(frame)
            yield frame

    def live_bytes() -> int:
        gc.collect()
        tensors = (thing for thing in gc.get_objects() if type(thing) is Tensor)
        return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())

    restored = chained(components, watched(), options(), choose=lambda frames: reference(components))
    used = []
    for clip in islice(restored, 8):
        del clip
        used.append(live_bytes())
        assert len(alive) <= 2 * 4
    assert used[7] == used[3]


# Conditions


def test_a_chain_goes_on_from_its_saved_state(components: Components) -> None:
    def new() -> Chain:
        return Chain(components, options(), GAMMA, lambda frames: reference(components))

    frames, whole = torch.stack(list(video(11))), new()
    expected = [whole(frames[:4]), whole(frames[4:7])]
    state = whole.state_dict()
    expected.append(whole(frames[7:10]))
    later = new()
    later.load_state_dict(state)
    assert later.frames_wanted == 3
    assert torch.equal(later(frames[7:10]), expected[-1])


@pytest.mark.parametrize("restore", STRATEGIES)
@pytest.mark.parametrize("what", ["latents", "id_tokens"])
def test_each_half_of_a_reference_has_an_effect(components: Components, restore: Callable, what: str) -> None:
    photo = reference(components)
    changed = Reference(**({"latents": photo.latents, "id_tokens": photo.id_tokens} | {what: -getattr(photo, what)}))
    one, other = (torch.cat(list(restore(components, video(4), options(), r))) for r in (photo, changed))
    assert (one - other).abs().mean() > 0.003


def test_released_passes(components: Components, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pass 1 on the first window with two branches, pass 2 on all windows with two; the reference from pass 1's end."""
    denoised = Spy(monkeypatch, components.model, "forward")
    seen = []

    def choose(frames: Tensor) -> Reference:
        seen.append(len(frames))
        return reference(components)

    given = options(strategy="released", num_inference_steps=(3, 2))
    list(released(components, video(9), given, choose=choose))
    assert seen == [4]
    windows = [sum(map(len, released_windows(n, 4, 1, steps))) for n, steps in ((4, 3), (9, 2))]
    assert len(denoised.calls) == 2 * sum(windows)
    assert all(args[0].shape[1] == 4 for args in denoised.calls)


def test_released_with_a_photo_has_no_first_pass(components: Components, monkeypatch: pytest.MonkeyPatch) -> None:
    denoised = Spy(monkeypatch, components.model, "forward")
    given = options(strategy="released", num_inference_steps=(5, 2))
    list(released(components, video(4), given, reference(components)))
    assert len(denoised.calls) == 2 * sum(map(len, released_windows(4, 4, 1, 2)))
