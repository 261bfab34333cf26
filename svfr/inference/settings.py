"""What a user can set of a restoration: the command line's keys, Python's keywords, and what records say."""

import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from svfr.config import ConfigError, check_choices, check_least
from svfr.data.errors import MAX_PIXELS
from svfr.diffusion import SAMPLERS, SCHEDULES
from svfr.models.components import Components

# The released code's constants (its inference script and pipeline).
RELEASED_STEPS = (50, 30)
RELEASED_OVERLAP = 3
# What weights that restore in one step can be told of sampling: these values, or nothing.
ONE_STEP: dict[str, Any] = dict.fromkeys(("speed", "sampler", "schedule", "guidance_interval"))
ONE_STEP |= {"strategy": "chained", "num_inference_steps": 1, "guidance_scale": 1, "strength": 1}
# The same of the strategy released.
RELEASED: dict[str, Any] = {"speed": None, "sampler": "euler", "schedule": "karras", "guidance_interval": None}
# Assumption: guidance to the reference matters at the levels where the shape of a face is decided, and little below.
GUIDED = (0.3, 10.0)
# Settings that `speed` stands for; others that are given win over these, and these over the weights' own.
SPEEDS: dict[str, dict[str, Any]] = {
    "paper": {"num_inference_steps": RELEASED_STEPS[1], "sampler": "euler", "schedule": "karras"},
    "balanced": {"num_inference_steps": 10, "sampler": "dpmpp_2m", "schedule": "ays", "guidance_interval": GUIDED},
    "fast": {"num_inference_steps": 5, "sampler": "dpmpp_2m", "schedule": "ays", "guidance_interval": GUIDED},
}

Settings = TypeVar("Settings", bound="Sampling")


@dataclass(frozen=True)
class Sampling:
    """How an aligned face clip is restored. None leaves a value to the weights, which know what they were trained for.

    Its fields are keywords of `SVFRPipeline`: `pipe(frames, speed="fast")`.

    Examples:
        >>> from svfr import Sampling
        >>> Sampling(speed="fast").num_inference_steps
        5
        >>> Sampling(strength=2.0)
        Traceback (most recent call last):
        svfr.config.ConfigError: strength=2.0: has to be at most 1

    Raises:
        ConfigError: a value that cannot be.
    """

    strategy: Literal["chained", "released"] = "chained"
    """chained (the paper's self-referred refinement, clip by clip, streaming) | released (the released code)."""
    num_inference_steps: Any = None
    """Denoising steps of each clip; 1 alone with weights that restore in one step. For `released`, a pair sets its two
    passes; its default is 50 and 30."""
    guidance_scale: float | None = None
    """Classifier-free guidance between no reference and the reference; 1 switches it off and halves the work."""
    sampler: str | None = None
    """One of svfr.diffusion.SAMPLERS: euler | dpmpp_2m (second order: fewer steps for the same result). `released`
    is Euler's."""
    schedule: str | None = None
    """One of svfr.diffusion.SCHEDULES, the noise levels of the steps: karras (the default) | ays ("Align Your Steps":
    better with 10 steps and fewer)."""
    guidance_interval: Any = None
    """Guide between these two noise levels alone, such as [0.3,10]; other steps take half the work."""
    batch_guidance: bool | None = None
    """Run both guidance branches at once: quicker on accelerators, in twice the memory. Default: as memory allows."""
    speed: str | None = None
    """A combination of the settings above: paper (30 steps) | balanced (10 steps, dpmpp_2m, ays, guidance inside an
    interval) | fast (the same in 5 steps). None: what the weights say. Settings that are given win."""
    strength: float = 1.0
    """How much is made anew, 0 to 1: below 1, sampling starts from the noised input, in that share of the steps. Not
    with inpainting, whose holes would shine through."""
    seed: int = 0
    """Seeds all noise. The noise of a frame depends on this and on the frame's index alone."""
    size: int | None = None
    """Side of the square that the network restores [px]."""
    clip_length: int | None = None
    """Frames that are denoised together."""
    overlap: int | None = None
    """Frames that neighbouring clips (`released`: windows) share. Weights that were trained with context know the first
    of them; one more (the default) is restored by both clips, which join there."""
    decode_chunk_size: int | None = None
    """Frames that the VAE decodes together; fewer take less memory."""
    reference_frame: Literal["best", "last", "none"] = "best"
    """Frame of the first clip that later clips refer to: best (sharpest well-detected frontal face) | last | none."""
    keep_known: bool | None = None
    """Copy the pixels outside the mask from the input, when inpainting is the only task. Default: in `chained`."""
    keep_luminance: bool | None = None
    """Keep the input's luma outside the mask, when colorizing without bfr. Default: in `chained`."""
    keep_tone: bool | None = None
    """Keep slow changes of light and colour (of light alone when colorizing), with bfr. Default: in `chained`."""

    def __post_init__(self) -> None:
        check_choices(self)
        for name, value in SPEEDS.get(self.speed or "", {}).items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        steps, interval = self.num_inference_steps, self.guidance_interval
        if isinstance(steps, list | tuple):
            object.__setattr__(self, "num_inference_steps", tuple(steps))
            if self.strategy != "released" or len(steps) != 2:
                raise ConfigError(f"num_inference_steps={steps}: only the strategy released takes a pair")
        for count in steps if isinstance(steps, list | tuple) else (steps,):
            if count is not None and (type(count) is not int or count < 1):
                raise ConfigError(f"num_inference_steps={steps}: has to be a whole number of at least 1")
        for name, choices in (("sampler", SAMPLERS), ("schedule", SCHEDULES), ("speed", SPEEDS)):
            if (value := getattr(self, name)) not in (None, *choices):
                raise ConfigError(f"{name}={value}: choose from {', '.join(choices)}")
        if self.strategy == "released":
            _refuse_others(self, RELEASED, "the strategy released samples in its own way")
        if interval is not None:
            kinds = [type(number) for number in interval] if isinstance(interval, list | tuple) else []
            if len(kinds) != 2 or not {*kinds} <= {int, float} or not 0 <= interval[0] < interval[1]:
                raise ConfigError(f"guidance_interval={interval}: give two rising noise levels, such as [0.3,10]")
            object.__setattr__(self, "guidance_interval", tuple(interval))
        check_least(self, size=1, clip_length=1, decode_chunk_size=1)
        check_least(self, overlap=0, guidance_scale=0, seed=0, strength=(0, 1))
        if self.overlap and self.clip_length and self.overlap >= self.clip_length:
            raise ConfigError(f"overlap={self.overlap}: has to be less than clip_length ({self.clip_length})")

    def resolve(self: Settings, components: Components) -> Settings:
        """The same with every None replaced, by what the weights want or the released code's constants.

        Raises:
            ConfigError: values that don't fit together, or that the networks cannot take.
        """
        settings, plan = components.settings, components.plan
        size = components.check_size(self.size or settings.size)
        chunk_limit, clip_limit = (sys.maxsize, sys.maxsize) if plan is None else plan.fit(size)
        length = self.clip_length or min(settings.clip_length, clip_limit)
        if settings.one_step_sigma is not None:
            _refuse_others(self, ONE_STEP, "these weights restore in one step")
            settings = replace(settings, num_inference_steps=1, guidance_scale=1.0)
        context = min(settings.context_frames, length - 1)
        wanted: dict[str, Any] = {
            "num_inference_steps": settings.num_inference_steps,
            "guidance_scale": settings.guidance_scale,
            "sampler": settings.sampler,
            "schedule": "karras",
            "batch_guidance": plan is not None and plan.batch_guidance,
            "size": size,
            "clip_length": length,
            "overlap": default_overlap(settings.context_frames, length),
            "decode_chunk_size": min(length, chunk_limit),
            **dict.fromkeys(("keep_known", "keep_luminance", "keep_tone"), self.strategy == "chained"),
        }
        if self.strategy == "released":
            wanted |= {"num_inference_steps": RELEASED_STEPS, "sampler": "euler", "batch_guidance": False}
            wanted["overlap"] = min(RELEASED_OVERLAP, length - 1)
        elif self.overlap is not None and self.overlap < context:
            raise ConfigError(f"overlap={self.overlap}: has to be at least the weights' context_frames ({context})")
        return replace(self, **{name: value for name, value in wanted.items() if getattr(self, name) is None})


def default_overlap(context_frames: int, clip_length: int) -> int:
    """Frames that neighbouring clips share where nobody says it: those that are known, and one that both restore."""
    return min(context_frames + 1, clip_length - 1)


def _refuse_others(sampling: Sampling, only: Mapping[str, Any], reason: str) -> None:
    """Raises ConfigError where a setting is neither left out nor the one value that it may have."""
    for name, one in only.items():
        if (value := getattr(sampling, name)) not in (None, one):
            advice = "leave it out" if one is None else f"{name}={one} alone"
            raise ConfigError(f"{name}={value}: {reason}; {advice}")


@dataclass(frozen=True)
class VideoSettings(Sampling):
    """How a whole video is restored."""

    face: Literal["auto", "aligned"] = "auto"
    """auto (find faces, restore their crops, paste them back) | aligned (the whole frame is the face crop)."""
    faces: str = "all"
    """Whose: all | largest | numbers of the plan (`--dry-run`) such as 1,3 | a photo file of the person."""
    face_box: Any = None
    """x0,y0,x1,y1 [px], forehead to chin, of a face that no detector sees; it is there in all frames."""
    format: Literal["mp4", "png"] = "mp4"
    """mp4 (H.264, audio kept) | png (a folder of frames)."""
    blend: float = 1.0
    """Share of the restored face where it is pasted, 0 to 1; holes are filled in any case."""
    crf: int = 18
    """H.264 quality, 0 (lossless) to 51."""
    segment: float = 10.0
    """[s] Longer MP4s are written in parts of so many seconds; after an interruption, the same command goes on from the
    last one. 0: in one."""
    fps: float | None = None
    """Frames a second of folders of images; 25 if None."""
    deinterlace: Literal["auto", "yes", "no"] = "auto"
    """Make whole pictures of the fields of interlaced video, at its rate: auto (where it is flagged so or looks so)."""
    salvage: bool = False
    """Restore the readable part of a truncated file, with a note, instead of refusing it."""
    max_pixels: int = MAX_PIXELS
    """Of a picture or a frame; larger ones are refused before they fill the memory."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.faces not in ("all", "largest") and not self.people and not Path(self.faces).is_file():
            raise ConfigError(f"faces={self.faces}: all, largest, numbers of the plan such as 1,3, or a photo file")
        if self.face_box is not None:
            x0 = y0 = x1 = y1 = 0.0  # no box
            with suppress(TypeError, ValueError):
                numbers = self.face_box.split(",") if isinstance(self.face_box, str) else self.face_box
                x0, y0, x1, y1 = map(float, numbers)
            if not (0 <= x0 < x1 < float("inf") and 0 <= y0 < y1 < float("inf")):
                raise ConfigError(f"face_box={self.face_box}: has to be x0,y0,x1,y1 with x0 < x1 and y0 < y1, in px")
            object.__setattr__(self, "face_box", (x0, y0, x1, y1))
        check_least(self, blend=(0, 1), max_pixels=1, fps=0.001, crf=(0, 51), segment=0)

    @property
    def people(self) -> list[int]:
        """The numbers that `faces` names, if it does."""
        return [int(number) for number in self.faces.split(",")] if re.fullmatch(r"\d+(,\d+)*", self.faces) else []

    @property
    def photo(self) -> Path | None:
        """The photo file that `faces` names, if it does."""
        return None if self.people or self.faces in ("all", "largest") else Path(self.faces)


@dataclass(frozen=True)
class InferConfig(VideoSettings):
    """All settings of `scripts/infer.py`."""

    detector: Literal["auto", "insightface", "yunet"] = "auto"
    """Finds faces; auto takes an InsightFace pack that is already there, else YuNet."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """auto is bfloat16 on an accelerator (MPS: float16), float32 on the CPU."""
    device: str = "auto"
    """auto, or a torch device."""
    memory: Literal["auto", 8, 12, 16, 24] = "auto"
    """Of the device [GB]: sets how much the VAE decodes at once, the longest clip, what waits on the CPU, and whether
    guidance is batched. auto reads what is free. Where it runs out, the next smaller one is taken, once."""
    vae: str = "full"
    """What decodes: full (the VAE) | tiny (TAESD from the Hub, for previews and speed) | a folder or Hub id of such."""
    compile: bool = False
    """Compile UNet and decoder (torch.compile): quicker after a minute or more; of use for long videos or many."""
