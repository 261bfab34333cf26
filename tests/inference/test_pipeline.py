from dataclasses import FrozenInstanceError, replace
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from svfr.config import ConfigError
from svfr.data.detectors import Face
from svfr.data.frames import resize, resize_mask, to_gray, to_tensor
from svfr.diffusion import SAMPLERS
from svfr.inference.chain import frame_noise
from svfr.inference.pipeline import SVFRPipeline
from svfr.inference.settings import Sampling
from svfr.inference.strategies import restore_clips
from svfr.models.components import ModelSettings
from svfr.models.devices import resolve_device, resolve_dtype
from tests import tiny

SIZE = tiny.SIZE
LANDMARKS = np.array([[10.0, 12], [22, 12], [16, 18], [12, 24], [20, 24]])


@pytest.fixture
def hole() -> np.ndarray:
    """A mask (40, 48) uint8 whose left third is to be filled in."""
    mask = np.zeros((40, 48), dtype=np.uint8)
    mask[:, :16] = 255
    return mask


def levels(one: Any, other: Any) -> float:
    """Mean difference of two results in levels of 255."""
    return float(np.abs(one.astype(int) - other.astype(int)).mean())


def luma(frames: Any) -> np.ndarray:
    return np.stack([to_gray(frame)[..., 0] for frame in frames]).astype(int)


def resized(frames: np.ndarray) -> np.ndarray:
    return np.stack([resize(frame, SIZE, SIZE) for frame in frames])


# Each condition has an effect


def test_same_call_same_result(pipe: SVFRPipeline, clip: np.ndarray) -> None:
    one = pipe(clip[:6], output_type="pt")
    torch.manual_seed(7)
    other = pipe(clip[:6], output_type="pt")
    assert isinstance(one, Tensor)
    assert isinstance(other, Tensor)
    assert torch.equal(one, other)


@pytest.mark.parametrize("strategy", ["chained", "released"])
def test_seed(pipe: SVFRPipeline, clip: np.ndarray, strategy: str) -> None:
    assert (
        levels(
            pipe(clip[:4], strategy=strategy, num_inference_steps=2, overlap=1),
            pipe(clip[:4], strategy=strategy, num_inference_steps=2, overlap=1, seed=1),
        )
        > 1
    )


def test_sampler(pipe: SVFRPipeline, clip: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments: dict[str, Any] = {"num_inference_steps": 3, "overlap": 1}
    euler, dpmpp_2m = (pipe(clip[:6], sampler=name, **arguments) for name in SAMPLERS)
    assert levels(euler, dpmpp_2m) > 0
    np.testing.assert_array_equal(pipe(clip[:6], **arguments), euler)
    released = pipe(clip[:6], strategy="released", **arguments)
    monkeypatch.setattr(pipe, "settings", replace(tiny.SETTINGS, sampler="dpmpp_2m"))
    np.testing.assert_array_equal(pipe(clip[:6], **arguments), dpmpp_2m)
    np.testing.assert_array_equal(pipe(clip[:6], strategy="released", **arguments), released)


@pytest.mark.parametrize("strategy", ["chained", "released"])
def test_task_prompt(pipe: SVFRPipeline, clip: np.ndarray, strategy: str) -> None:
    """With a gray clip and an empty mask, the tasks differ in nothing but the prompt."""
    gray = np.stack([to_gray(frame) for frame in resized(clip[:4])])
    empty = np.zeros((SIZE, SIZE), dtype=np.uint8)
    off = {"keep_known": False, "keep_luminance": False, "strategy": strategy, "num_inference_steps": 2, "overlap": 1}
    results = [
        pipe(gray, tasks=tasks, mask=empty if "inpainting" in tasks else None, **off)  # type: ignore[arg-type]
        for tasks in ("bfr", "colorization", "inpainting", "bfr,colorization,inpainting")
    ]
    for i, one in enumerate(results):
        for other in results[:i]:
            assert levels(one, other) > 0.5


@pytest.mark.parametrize("strategy", ["chained", "released"])
def test_reference_photo_and_its_landmarks(pipe: SVFRPipeline, clip: np.ndarray, strategy: str) -> None:
    photos = tiny.clip(2, seed=5)[:, :, ::-1]
    arguments: dict[str, Any] = {
        "strategy": strategy,
        "num_inference_steps": 2,
        "overlap": 1,
        "reference_landmarks": LANDMARKS,
    }
    with_photo = pipe(clip[:4], reference=photos[0], **arguments)
    assert levels(with_photo, pipe(clip[:4], **arguments)) > 0.5
    assert levels(with_photo, pipe(clip[:4], reference=255 - photos[1], **arguments)) > 0.5
    moved = arguments | {"reference_landmarks": LANDMARKS[:, ::-1] * 0.7}  # the ID network alone sees these
    assert levels(with_photo, pipe(clip[:4], reference=photos[0], **moved)) > 0.05


def test_chosen_reference_has_an_effect_from_the_second_clip_on(pipe: SVFRPipeline, clip: np.ndarray) -> None:
    without, with_one = (pipe(clip[:7], reference_frame=how) for how in ("none", "last"))
    assert levels(without[:4], with_one[:4]) == 0
    assert levels(without[4:], with_one[4:]) > 0.5


def test_a_result_that_overflows_is_an_error(pipe: SVFRPipeline, clip: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"not finite.*guidance_scale"):
        pipe(clip[:7], guidance_scale=1e38)


def test_guidance_scale(pipe: SVFRPipeline, clip: np.ndarray) -> None:
    one, other = (pipe(clip[:7], guidance_scale=scale) for scale in (1.0, 3.0))
    assert levels(one[:4], other[:4]) == 0  # nothing to guide to yet
    assert levels(one[4:], other[4:]) > 0.5


def test_mask(pipe: SVFRPipeline, clip: np.ndarray, hole: np.ndarray) -> None:
    arguments: dict[str, Any] = {"tasks": "bfr,inpainting"}
    left, right = (pipe(clip[:4], mask=mask, **arguments) for mask in (hole, hole[:, ::-1]))
    assert levels(left, right) > 0.5
    one_each = np.stack([hole, hole, hole[:, ::-1], hole])
    assert levels(pipe(clip[:4], mask=one_each, **arguments), left) > 0.05


def test_what_a_hole_hides_has_no_effect(pipe: SVFRPipeline, clip: np.ndarray) -> None:
    frames, mask = resized(clip[:4]), np.zeros((SIZE, SIZE), dtype=np.uint8)
    mask[5:20, 8:20] = 200
    painted = np.where(mask[..., None] > 0, np.uint8(7), frames)
    one, other = (pipe(f, tasks="colorization,inpainting", mask=mask) for f in (frames, painted))
    np.testing.assert_array_equal(one, other)


def test_colours_have_no_effect_when_colorizing(pipe: SVFRPipeline, clip: np.ndarray) -> None:
    frames = resized(clip[:4])
    gray = np.stack([to_gray(frame) for frame in frames])
    one, other = (pipe(f, tasks="bfr,colorization") for f in (frames, gray))
    np.testing.assert_array_equal(one, other)


# Shapes and lengths


@pytest.mark.parametrize("strategy", ["chained", "released"])
@pytest.mark.parametrize("num_frames", [1, 3, 4, 5])
def test_as_many_frames_out_as_in(pipe: SVFRPipeline, strategy: str, num_frames: int) -> None:
    restored = pipe(tiny.clip(num_frames), strategy=strategy, num_inference_steps=2, overlap=1)
    assert restored.shape == (num_frames, SIZE, SIZE, 3)
    assert isinstance(restored, np.ndarray)
    assert restored.dtype == np.uint8


def test_many_frames(pipe: SVFRPipeline) -> None:
    one, other = (pipe(tiny.clip(40), decode_chunk_size=chunk) for chunk in (2, 4))
    assert one.shape == other.shape == (40, SIZE, SIZE, 3)
    assert levels(one, other) > 0  # the temporal decoder sees other neighbours


@pytest.mark.parametrize("overlap", [0, 1, 2, 3])
def test_overlap(pipe: SVFRPipeline, clip: np.ndarray, overlap: int) -> None:
    assert len(pipe(clip[:9], overlap=overlap)) == 9


def test_clip_of_one_frame(pipe: SVFRPipeline, clip: np.ndarray) -> None:
    assert len(pipe(clip[:3], clip_length=1)) == 3


def test_tensor_and_array_are_the_same_result(pipe: SVFRPipeline, clip: np.ndarray) -> None:
    for tasks in ("bfr", "colorization"):
        array, unit, images = (pipe(clip[:3], tasks=tasks, output_type=kind) for kind in ("np", "pt", "pil"))
        np.testing.assert_array_equal(np.stack([np.asarray(image) for image in images]), array)
        assert isinstance(unit, Tensor)
        assert unit.shape == (3, 3, SIZE, SIZE)
        assert unit.dtype == torch.float32
        assert 0 <= unit.min() <= unit.max() <= 1
        np.testing.assert_array_equal((unit * 255 + 0.5).floor().byte().permute(0, 2, 3, 1).numpy(), array)


def test_size(pipe: SVFRPipeline, clip: np.ndarray) -> None:
    assert pipe(clip[:2], size=40).shape == (2, 40, 40, 3)


def test_input_is_left_as_it_was(pipe: SVFRPipeline, clip: np.ndarray, hole: np.ndarray) -> None:
    frames, mask = clip[:2].copy(), hole.copy()
    pipe(frames, tasks="colorization,inpainting", mask=mask)
    np.testing.assert_array_equal(frames, clip[:2])
    np.testing.assert_array_equal(mask, hole)


def test_initial_noise(pipe: SVFRPipeline, clip: np.ndarray) -> None:
    own = frame_noise(0, 0, range(7), tiny.LATENT)
    np.testing.assert_array_equal(pipe(clip[:7], initial_noise=own), pipe(clip[:7]))
    assert levels(pipe(clip[:7], initial_noise=-own), pipe(clip[:7])) > 1
    pair = tuple(frame_noise(0, stream, range(7), tiny.LATENT) for stream in (1, 2))
    released: dict[str, Any] = {"strategy": "released", "num_inference_steps": (2, 3), "overlap": 1}
    np.testing.assert_array_equal(pipe(clip[:7], initial_noise=pair, **released), pipe(clip[:7], **released))  # type: ignore[arg-type]


def test_progress(pipe: SVFRPipeline, clip: np.ndarray) -> None:
    work: list[float] = []
    pipe(clip[:9], on_step=work.append)
    assert sum(work) == pytest.approx(9)


def test_no_frame_is_read_before_it_is_needed(pipe: SVFRPipeline, clip: np.ndarray) -> None:
    read = []

    def endless() -> Any:
        for index in count():
            read.append(index)
            yield to_tensor(resize(clip[index % 12], SIZE, SIZE))

    clips = restore_clips(pipe.parts, Sampling().resolve(pipe.parts), ("bfr",), endless(), None)
    assert not read
    assert [len(restored) for restored in islice(clips, 2)] == [4, 3]
    assert len(read) == 7


# What is kept of the input


def test_known_pixels_are_kept(pipe: SVFRPipeline, clip: np.ndarray, hole: np.ndarray) -> None:
    known = ~resize_mask(hole, SIZE, SIZE)
    arguments: dict[str, Any] = {"tasks": "inpainting", "mask": hole}
    kept, free = (pipe(clip[:4], keep_known=keep, **arguments) for keep in (None, False))
    np.testing.assert_array_equal(kept[:, known], resized(clip[:4])[:, known])
    assert levels(kept[:, known], free[:, known]) > 1
    with_bfr, asked = (pipe(clip[:4], tasks="bfr,inpainting", mask=hole, keep_known=k) for k in (False, True))
    np.testing.assert_array_equal(with_bfr, asked)  # bfr restores all


def test_luminance_is_kept(pipe: SVFRPipeline, clip: np.ndarray) -> None:
    kept, free = (pipe(clip[:4], tasks="colorization", keep_luminance=keep) for keep in (None, False))
    source = luma(resized(clip[:4]))
    assert np.abs(luma(kept) - source).max() <= 1
    assert np.abs(luma(free) - source).mean() > 2
    assert levels(kept, np.stack([to_gray(frame) for frame in kept])) > 1  # and it is coloured


def test_luminance_is_kept_outside_of_holes(pipe: SVFRPipeline, clip: np.ndarray, hole: np.ndarray) -> None:
    known = ~resize_mask(hole, SIZE, SIZE)
    kept = pipe(clip[:4], tasks="colorization,inpainting", mask=hole)
    assert np.abs(luma(kept) - luma(resized(clip[:4])))[:, known].max() <= 1


def test_tone_is_kept(pipe: SVFRPipeline, clip: np.ndarray) -> None:
    kept, free = (pipe(clip[:4], keep_tone=keep) for keep in (None, False))
    source = resized(clip[:4])
    mean_error = [
        np.abs(np.mean(np.asarray(result), axis=(1, 2)) - source.mean(axis=(1, 2))).max() for result in (kept, free)
    ]
    assert mean_error[0] < 2 < mean_error[1]


@pytest.mark.parametrize("tasks", ["bfr", "inpainting", "colorization"])
def test_released_keeps_nothing_unless_asked(
    pipe: SVFRPipeline, clip: np.ndarray, hole: np.ndarray, tasks: str
) -> None:
    arguments: dict[str, Any] = {"tasks": tasks, "mask": hole if tasks == "inpainting" else None}
    default, off, on = (
        pipe(
            clip[:4],
            strategy="released",
            num_inference_steps=2,
            overlap=1,
            keep_known=keep,
            keep_luminance=keep,
            keep_tone=keep,
            **arguments,
        )
        for keep in (None, False, True)
    )
    np.testing.assert_array_equal(default, off)
    assert levels(on, off) > 1


# The reference's face


class Detector:
    """Finds a face at fixed points; or none."""

    name = "made"
    source = "tests"

    def __init__(self, found: bool = True) -> None:
        self.found, self.seen = found, 0

    def __call__(self, image: np.ndarray, closer: bool = False) -> list[Face]:
        self.seen += 1
        return [Face(np.array([4.0, 4, 28, 28]), LANDMARKS, 0.9)] if self.found else []


@pytest.mark.parametrize("strategy", ["chained", "released"])
def test_landmarks_come_from_the_detector(pipe: SVFRPipeline, clip: np.ndarray, strategy: str) -> None:
    detecting = SVFRPipeline.from_components(pipe.parts, Detector())
    arguments: dict[str, Any] = {
        "strategy": strategy,
        "num_inference_steps": 2,
        "overlap": 1,
        "reference_frame": "last",
    }
    given = pipe(clip[:7], reference_landmarks=LANDMARKS, **arguments)
    np.testing.assert_array_equal(detecting(clip[:7], **arguments), given)
    assert levels(pipe(clip[:7], **arguments), given) > 0  # FFHQ's template


@pytest.mark.parametrize("strategy", ["chained", "released"])
def test_no_face_no_reference(pipe: SVFRPipeline, clip: np.ndarray, strategy: str) -> None:
    blind = SVFRPipeline.from_components(pipe.parts, Detector(found=False))
    one, other = (
        blind(clip[:7], strategy=strategy, num_inference_steps=2, overlap=1),
        pipe(clip[:7], strategy=strategy, num_inference_steps=2, overlap=1, reference_frame="none"),
    )
    np.testing.assert_array_equal(one, other)


def test_best_looks_at_every_frame_of_the_first_clip_and_last_at_one(pipe: SVFRPipeline, clip: np.ndarray) -> None:
    for how, frames in (("best", 4), ("last", 1)):
        detector = Detector()
        SVFRPipeline.from_components(pipe.parts, detector)(clip[:9], reference_frame=how)
        assert detector.seen == frames


# Wrong calls


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tasks": "bfr,deblur"}, "unknown task 'deblur'"),
        ({"tasks": ()}, "no task given"),
        ({"tasks": "inpainting"}, "needs a mask"),
        ({"mask": np.zeros((40, 48), np.uint8)}, "inpainting is not among the tasks"),
        ({"tasks": "inpainting", "mask": np.zeros((40, 48))}, "mask is float64"),
        ({"tasks": "inpainting", "mask": np.zeros((40, 48), bool)}, "mask is bool"),
        ({"tasks": "inpainting", "mask": np.zeros((4, 40, 48, 1), np.uint8)}, r"mask is uint8 \(4, 40, 48, 1\)"),
        ({"tasks": "inpainting", "mask": np.zeros((3, 40, 48), np.uint8)}, "mask has 3 frames, the video 4"),
        ({"frames": np.zeros((4, 40, 48, 3))}, "frames are float64"),
        ({"frames": np.zeros((40, 48, 3), np.uint8)}, r"frames are uint8 \(40, 48, 3\)"),
        ({"frames": np.zeros((4, 3, 40, 48), np.uint8)}, r"frames are uint8 \(4, 3, 40, 48\)"),
        ({"frames": np.zeros((0, 40, 48, 3), np.uint8)}, "f >= 1"),
        ({"reference": np.zeros((40, 48, 3))}, "reference"),
        ({"reference": np.zeros((40, 48), np.uint8)}, "reference"),
        ({"size": 36}, "size is 36: it has to be a multiple of 8"),
        ({"size": 4}, "size is 4"),
        ({"size": 0}, "size=0: has to be"),
        ({"sampler": "ddim"}, "sampler=ddim: choose from euler, dpmpp_2m"),
        ({"sampler": "dpmpp_2m", "strategy": "released"}, "released samples in its own way; sampler=euler alone"),
        ({"strategy": "windows"}, "strategy=windows: choose from chained, released"),
        ({"reference_frame": "first"}, "reference_frame=first: choose from best, last, none"),
        ({"overlap": 4}, "overlap=4: has to be less than clip_length"),
        ({"clip_length": 0}, "clip_length=0"),
        ({"num_inference_steps": 0}, "num_inference_steps"),
        ({"num_inference_steps": (2, 0), "strategy": "released"}, "num_inference_steps"),
        ({"decode_chunk_size": 0}, "decode_chunk_size=0"),
        ({"num_inference_steps": (2, 2)}, "only the strategy released takes a pair"),
        ({"num_inference_steps": 2.5}, "num_inference_steps=2.5: has to be a whole number"),
        ({"num_inference_steps": True}, "num_inference_steps=True: has to be a whole number"),
        ({"num_inference_step": 4}, "num_inference_step.*num_inference_steps"),
        ({"seed": "one"}, "seed"),
        ({"output_type": "jpg"}, "output_type 'jpg': choose from np, pt, pil"),
        ({"initial_noise": (torch.zeros(4, *tiny.LATENT),) * 2}, "initial_noise has to be one tensor"),
        ({"initial_noise": torch.zeros(4, *tiny.LATENT), "strategy": "released"}, "initial_noise has to be a pair"),
        ({"initial_noise": torch.zeros(3, *tiny.LATENT)}, "initial_noise has 3 frames, the video 4"),
        ({"initial_noise": torch.zeros(4, 4, 8, 9)}, r"each frame's has to be \(4, 8, 8\)"),
        ({"tasks": "inpainting", "mask": [[0, 1], [1, 0]]}, "mask is int64"),
        ({"reference_landmarks": np.zeros((5, 2)), "reference": tiny.clip(1)[0]}, "coincide"),
    ],
    ids=lambda value: None if isinstance(value, str) else "-".join(value),
)
def test_wrong_argument_is_named(pipe: SVFRPipeline, clip: np.ndarray, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pipe(**({"frames": clip[:4]} | arguments))


def test_numbers_of_numpy(pipe: SVFRPipeline, clip: np.ndarray) -> None:
    np.testing.assert_array_equal(pipe(clip[:2], seed=np.int64(3)), pipe(clip[:2], seed=3))


def test_list_of_frames(pipe: SVFRPipeline, clip: np.ndarray) -> None:
    np.testing.assert_array_equal(pipe(list(clip[:3])), pipe(clip[:3]))  # type: ignore[arg-type]


# Defaults


def test_sampling_comes_from_the_weights(pipe: SVFRPipeline) -> None:
    resolved = Sampling().resolve(pipe.parts)
    assert {key for key, value in vars(resolved).items() if value is None} == {"guidance_interval", "speed"}
    assert (resolved.num_inference_steps, resolved.guidance_scale, resolved.sampler) == (tiny.STEPS, 2.0, "euler")
    assert (resolved.clip_length, resolved.overlap, resolved.decode_chunk_size) == (tiny.CLIP, 1, tiny.CLIP)
    assert resolved.size == SIZE
    assert (resolved.keep_known, resolved.keep_luminance, resolved.keep_tone) == (True,) * 3
    assert Sampling(clip_length=1).resolve(pipe.parts).overlap == 0


def test_sampling_of_released_is_the_released_scripts() -> None:
    pipe = tiny.pipeline(heads=False, settings=ModelSettings())
    resolved = Sampling(strategy="released").resolve(pipe.parts)
    assert resolved.num_inference_steps == (50, 30)
    assert (resolved.clip_length, resolved.overlap, resolved.guidance_scale) == (16, 3, 2.0)
    assert resolved.size == 512
    assert (resolved.keep_known, resolved.keep_luminance, resolved.keep_tone) == (False,) * 3


def test_an_overlap_has_to_fit_into_the_clip_of_the_weights(pipe: SVFRPipeline) -> None:
    with pytest.raises(ValueError, match=r"overlap=4: has to be less than clip_length \(4\)"):
        Sampling(overlap=4).resolve(pipe.parts)


def test_settings_are_checked_wherever_they_are_made() -> None:
    for values, message in (
        ({"strategy": "windows"}, "strategy=windows: choose from"),
        ({"overlap": -1}, "overlap=-1"),
    ):
        with pytest.raises(ConfigError, match=message):
            Sampling(**values)
    with pytest.raises(FrozenInstanceError):
        Sampling().seed = 1  # type: ignore[misc]


# A pipeline of diffusers


def test_it_is_a_diffusers_pipeline(pipe: SVFRPipeline, tmp_path: Path) -> None:
    assert pipe.components.keys() == {*pipe.parts.networks, "scheduler", "settings"}
    assert pipe.components["unet"] is pipe.parts.model.unet
    assert pipe.to("cpu", torch.float64) is pipe
    assert pipe.dtype == pipe.parts.vae.dtype == torch.float64
    pipe.to(torch.float32)
    for again in (SVFRPipeline(**pipe.components), SVFRPipeline.from_pipe(pipe)):
        assert again.settings == tiny.SETTINGS
        np.testing.assert_array_equal(again(tiny.clip(2)), pipe(tiny.clip(2)))
    again.unet = tiny.unet(salt=9)
    assert levels(again(tiny.clip(2)), pipe(tiny.clip(2))) > 1
    with pytest.raises(ValueError, match="safetensors alone"):
        pipe.save_pretrained(tmp_path, safe_serialization=False)
    pipe.save_pretrained(tmp_path)
    again = SVFRPipeline.from_pretrained(tmp_path, device="cpu")
    np.testing.assert_array_equal(again(tiny.clip(2)), pipe(tiny.clip(2)))


def test_in_float16_the_vae_of_svd_stays_in_float32() -> None:
    pipe = tiny.pipeline(heads=False).to(torch.float16)
    assert (pipe.parts.model.unet.dtype, pipe.parts.vae.dtype) == (torch.float16, torch.float32)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.accelerator.is_available(), reason="needs an accelerator")
def test_networks_that_wait_on_the_cpu_restore_the_same(clip: np.ndarray) -> None:
    pipe = tiny.pipeline(heads=False)
    device = torch.accelerator.current_accelerator()
    expected = pipe.to(device)(clip[:7])
    pipe.to("cpu").enable_model_cpu_offload(device=device)
    assert levels(pipe(clip[:7]), expected) < 0.1
    assert pipe.parts.model.unet.device.type == "cpu"


def test_parts_serve_any_number_of_pipelines(pipe: SVFRPipeline, clip: np.ndarray) -> None:
    hooks = len(pipe.parts.model.unet.mid_block._forward_hooks)
    other = SVFRPipeline.from_components(pipe.parts)
    assert len(pipe.parts.model.unet.mid_block._forward_hooks) == hooks == 1
    np.testing.assert_array_equal(other(clip[:2]), pipe(clip[:2]))


def test_device_and_dtype() -> None:
    cpu = resolve_device("cpu")
    assert resolve_dtype("auto", cpu) == torch.float32
    assert resolve_dtype("auto", torch.device("meta")) == torch.bfloat16
    assert resolve_dtype("float16", cpu) == resolve_dtype(torch.float16, cpu) == torch.float16
    assert isinstance(resolve_device(), torch.device)
    with pytest.raises(ValueError, match="dtype 'float8': choose from auto, float32"):
        resolve_dtype("float8", cpu)
