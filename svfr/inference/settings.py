"""Settings of `scripts/infer.py`."""

from dataclasses import dataclass

from svfr.config import ConfigError, check_at_least, check_choice


@dataclass
class InferConfig:
    """How `scripts/infer.py` restores. None leaves a value to the weights, which know what they were trained for."""

    num_inference_steps: int | None = None
    """Denoising steps of each clip (`released`: of each of its passes; its default is 50 and 30)."""
    guidance_scale: float | None = None
    """Classifier-free guidance between no reference and the reference; 1 switches it off and halves the work."""
    sampler: str | None = None
    """euler | dpmpp_2m (second order: fewer steps for the same result) | antithetic (Euler's, its first estimate the
    mean over a noise and its opposite: less flicker where steps are few). `released` is Euler's."""
    strategy: str = "chained"
    """chained (the paper's self-referred refinement, streaming) | released (the released code, for comparison)."""
    seed: int = 0
    """Of all noise. The noise of a frame depends on this and on the frame's index alone."""
    size: int | None = None
    """Side of the square that the network restores [px]."""
    clip_length: int | None = None
    """Frames that are denoised together."""
    overlap: int | None = None
    """Frames that neighbouring clips share."""
    dtype: str = "auto"
    """auto | float32 | bfloat16 | float16. auto is bfloat16 on an accelerator, float32 on the CPU."""
    device: str = "auto"
    """auto, or a torch device."""
    decode_chunk_size: int | None = None
    """Frames that the VAE decodes together; fewer take less memory."""
    reference_frame: str = "best"
    """best (sharpest well-detected frontal face of the first clip) | last | none."""
    face: str = "auto"
    """auto (find the largest face, restore its crop, paste it back) | aligned (the whole frame is the face crop)."""
    detector: str = "auto"
    """auto | insightface | yunet."""
    keep_known: bool | None = None
    """Copy the pixels outside the mask from the input, when inpainting is the only task. Default: in `chained`."""
    keep_luminance: bool | None = None
    """Keep the input's luminance, when colorizing without bfr. Default: in `chained`."""
    keep_tone: bool | None = None
    """Keep slow changes of light and colour (of light alone when colorizing), with bfr. Default: in `chained`."""
    format: str = "mp4"
    """mp4 (H.264, audio kept) | png (a folder of frames)."""
    crf: int = 18
    """H.264 quality, 0 (lossless) to 51."""

    def __post_init__(self) -> None:
        check_choice("strategy", self.strategy, ("chained", "released"))
        if self.sampler is not None:
            check_choice("sampler", self.sampler, ("euler", "dpmpp_2m", "antithetic"))
        check_choice("dtype", self.dtype, ("auto", "float32", "bfloat16", "float16"))
        check_choice("reference_frame", self.reference_frame, ("best", "last", "none"))
        check_choice("face", self.face, ("auto", "aligned"))
        check_choice("detector", self.detector, ("auto", "insightface", "yunet"))
        check_choice("format", self.format, ("mp4", "png"))
        for name in ("num_inference_steps", "size", "clip_length", "decode_chunk_size"):
            check_at_least(name, getattr(self, name), 1)
        for name in ("overlap", "guidance_scale", "crf", "seed"):
            check_at_least(name, getattr(self, name), 0)
        if self.crf > 51:
            raise ConfigError(f"crf={self.crf}: has to be at most 51")
