"""What a user can set of a restoration: the command line's keys, Python's keywords, and what records say."""

from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

from svfr.config import ConfigError, check_at_least, check_choices
from svfr.data.errors import MAX_PIXELS
from svfr.diffusion import SAMPLERS
from svfr.models.components import Components

# The released code's constants (its inference script and pipeline).
RELEASED_STEPS = (50, 30)
RELEASED_OVERLAP = 3
# What weights that restore in one step can be told of sampling: these values, or nothing.
ONE_STEP = dict[str, Any](strategy="chained", num_inference_steps=1, guidance_scale=1, sampler=None, strength=1)

Settings = TypeVar("Settings", bound="Sampling")


@dataclass(frozen=True)
class Sampling:
    """How an aligned face clip is restored. None leaves a value to the weights, which know what they were trained for.

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
    """One of svfr.diffusion.SAMPLERS: euler | dpmpp_2m (second order: fewer steps for the same result) | antithetic
    (Euler's, its first estimate the mean over a noise and its opposite: less flicker where steps are few). `released`
    is Euler's."""
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
    """Frames that neighbouring clips (`released`: windows) share; weights that were trained with context say it."""
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
        is_released = self.strategy == "released"
        steps = self.num_inference_steps
        if isinstance(steps, list | tuple):
            object.__setattr__(self, "num_inference_steps", tuple(steps))
            if not is_released or len(steps) != 2:
                raise ConfigError(f"num_inference_steps={steps}: only the strategy released takes a pair")
        for count in steps if isinstance(steps, list | tuple) else (steps,):
            if count is not None and (type(count) is not int or count < 1):
                raise ConfigError(f"num_inference_steps={steps}: has to be a whole number of at least 1")
        if self.sampler not in (None, *SAMPLERS):
            raise ConfigError(f"sampler={self.sampler}: choose from {', '.join(SAMPLERS)}")
        if is_released and self.sampler not in (None, "euler"):
            raise ConfigError(f"sampler={self.sampler}: the strategy released samples by Euler's method alone")
        for name in ("size", "clip_length", "decode_chunk_size"):
            check_at_least(name, getattr(self, name), 1)
        for name in ("overlap", "guidance_scale", "seed"):
            check_at_least(name, getattr(self, name), 0)
        check_at_least("strength", self.strength, 0, 1)
        if self.overlap and self.clip_length and self.overlap >= self.clip_length:
            raise ConfigError(f"overlap={self.overlap}: has to be less than clip_length ({self.clip_length})")

    def resolve(self: Settings, components: Components) -> Settings:
        """The same with every None replaced, by what the weights want or the released code's constants.

        Raises:
            ConfigError: values that don't fit together, or that the networks cannot take.
        """
        settings, is_released = components.settings, self.strategy == "released"
        length = self.clip_length or settings.clip_length
        if settings.one_step_sigma is not None:
            for name, only in ONE_STEP.items():
                if (value := getattr(self, name)) not in (None, only):
                    advice = "leave it out" if only is None else f"{name}={only} alone"
                    raise ConfigError(f"{name}={value}: these weights restore in one step; {advice}")
            settings = replace(settings, num_inference_steps=1, guidance_scale=1.0)
        context = min(settings.context_frames, length - 1)
        if settings.context_frames and not is_released and self.overlap not in (None, context):
            raise ConfigError(f"overlap={self.overlap}: these weights say context_frames={context}; leave it out")

        def default(value: Any, chained: Any, released: Any) -> Any:
            return value if value is not None else released if is_released else chained

        return replace(
            self,
            num_inference_steps=default(self.num_inference_steps, settings.num_inference_steps, RELEASED_STEPS),
            guidance_scale=default(self.guidance_scale, settings.guidance_scale, settings.guidance_scale),
            sampler=default(self.sampler, settings.sampler, "euler"),
            size=components.check_size(self.size or settings.size),
            clip_length=length,
            overlap=default(self.overlap, context or min(1, length - 1), min(RELEASED_OVERLAP, length - 1)),
            decode_chunk_size=self.decode_chunk_size or length,
            keep_known=default(self.keep_known, True, False),
            keep_luminance=default(self.keep_luminance, True, False),
            keep_tone=default(self.keep_tone, True, False),
        )


@dataclass(frozen=True)
class VideoSettings(Sampling):
    """How a whole video is restored."""

    face: Literal["auto", "aligned"] = "auto"
    """auto (find the largest face, restore its crop, paste it back) | aligned (the whole frame is the face crop)."""
    format: Literal["mp4", "png"] = "mp4"
    """mp4 (H.264, audio kept) | png (a folder of frames)."""
    blend: float = 1.0
    """Share of the restored face where it is pasted, 0 to 1; holes are filled in any case."""
    crf: int = 18
    """H.264 quality, 0 (lossless) to 51."""
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
        check_at_least("blend", self.blend, 0, 1)
        check_at_least("max_pixels", self.max_pixels, 1)
        check_at_least("fps", self.fps, 0.001)
        check_at_least("crf", self.crf, 0, 51)


@dataclass(frozen=True)
class InferConfig(VideoSettings):
    """All settings of `scripts/infer.py`."""

    detector: Literal["auto", "insightface", "yunet"] = "auto"
    """Finds faces; auto takes an InsightFace pack that is already there, else YuNet."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """auto is bfloat16 on an accelerator, float32 on the CPU."""
    device: str = "auto"
    """auto, or a torch device."""
