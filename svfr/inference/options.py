"""The numbers of one restoration: what the user says, else what the weights were trained for."""

from dataclasses import dataclass

from svfr.diffusion import SAMPLERS
from svfr.models.components import ModelSettings

STRATEGIES = ("chained", "released")
# The released code's constants (its inference script and pipeline).
RELEASED_STEPS = (50, 30)
RELEASED_OVERLAP = 3


@dataclass(frozen=True)
class SamplingOptions:
    """The numbers of one restoration, all resolved."""

    num_inference_steps: tuple[int, int]  # of the pass without and the pass with a reference
    guidance_scale: float
    clip_length: int
    overlap: int
    decode_chunk_size: int
    seed: int
    sampler: str = "euler"  # of svfr.diffusion.SAMPLERS; the released code's own algorithm is Euler's whatever is here

    def __post_init__(self) -> None:
        if self.sampler not in SAMPLERS:
            raise ValueError(f"sampler '{self.sampler}': choose from {', '.join(SAMPLERS)}")
        if not 0 <= self.overlap < self.clip_length:
            raise ValueError(f"overlap is {self.overlap}: it has to be less than clip_length ({self.clip_length})")
        if self.decode_chunk_size < 1:
            raise ValueError(f"decode_chunk_size is {self.decode_chunk_size}: it has to be at least 1")

    @classmethod
    def resolve(
        cls,
        settings: ModelSettings,
        strategy: str = "chained",
        num_inference_steps: int | tuple[int, int] | None = None,
        guidance_scale: float | None = None,
        clip_length: int | None = None,
        overlap: int | None = None,
        decode_chunk_size: int | None = None,
        seed: int = 0,
        sampler: str | None = None,
    ) -> "SamplingOptions":
        """Fill in what is None: from the weights' settings, or the released code's constants.

        Args:
            settings: of the weights.
            strategy: "chained" or "released".
            num_inference_steps: see `SVFRPipeline.__call__`, as all that follow.
            guidance_scale: see there.
            clip_length: see there.
            overlap: see there.
            decode_chunk_size: see there.
            seed: see there.
            sampler: see there.

        Raises:
            ValueError: values that cannot be.
        """
        if strategy not in STRATEGIES:
            raise ValueError(f"strategy '{strategy}': choose from {', '.join(STRATEGIES)}")
        if num_inference_steps is None:
            num_inference_steps = RELEASED_STEPS if strategy == "released" else settings.num_inference_steps
        if isinstance(num_inference_steps, int):
            num_inference_steps = (num_inference_steps, num_inference_steps)
        if min(num_inference_steps) < 1:
            raise ValueError(f"num_inference_steps is {num_inference_steps}: it has to be at least 1")
        if strategy == "released" and sampler not in (None, "euler"):
            raise ValueError(f"sampler '{sampler}': the strategy 'released' samples by Euler's method alone")
        if sampler is None:
            sampler = "euler" if strategy == "released" else settings.sampler
        length = settings.clip_length if clip_length is None else clip_length
        if length < 1:
            raise ValueError(f"clip_length is {length}: it has to be at least 1")
        if overlap is None:
            overlap = min(RELEASED_OVERLAP if strategy == "released" else 1, length - 1)
        return cls(
            num_inference_steps=num_inference_steps,
            guidance_scale=settings.guidance_scale if guidance_scale is None else guidance_scale,
            clip_length=length,
            overlap=overlap,
            decode_chunk_size=length if decode_chunk_size is None else decode_chunk_size,
            seed=seed,
            sampler=sampler,
        )
