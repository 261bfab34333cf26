"""Settings of `scripts/study.py`."""

from dataclasses import dataclass, field

from svfr.config import check_at_least, check_choice


@dataclass
class StudyConfig:
    """A small-scale study of the paper's claims on rendered clips: how long, how often, on what."""

    base: str = "demo"
    """Model folder: its VAE and ID network are used as they are, all else starts at random."""
    max_steps: int = 300
    """Optimizer steps of every training. The default takes hours on 2 cores; 20 show that everything runs."""
    seeds: int = 3
    """Trainings of every kind, on seeds 0, 1, ..."""
    transfer: bool = True
    """Also ask Table 1's question: a task from scratch against one that starts from another task's weights."""
    batch_size: int = 2
    """Clips of a step."""
    num_frames: int = 8
    """Frames of a clip in training, and of the clips that restoration chains."""
    learning_rate: float = 5e-4
    """Of AdamW."""
    precision: str = "fp32"
    """fp32 | bf16 | fp16: of training."""
    num_workers: int = 0
    """Loader processes of training."""
    size: int = 64
    """Side of the frames [px]."""
    test_clips: int = 6
    """Held-out rendered clips."""
    test_frames: int = 24
    """Frames of each; more than one clip of `num_frames`, so that there is a reference to use."""
    preset: str = "svfr"
    """Degradation of the held-out clips."""
    num_inference_steps: int | None = None
    """Denoising steps; None: the weights' own."""
    metrics: list[str] = field(default_factory=lambda: ["psnr", "ssim", "lpips", "colour", "ids", "warping", "fvd"])
    """Of `svfr.metrics.METRICS`."""
    device: str = "auto"
    """auto | cpu."""

    def __post_init__(self) -> None:
        check_choice("device", self.device, ("auto", "cpu"))
        for key in ("max_steps", "seeds", "batch_size", "num_frames", "size", "test_clips", "test_frames"):
            check_at_least(key, getattr(self, key), 1)
        check_at_least("num_inference_steps", self.num_inference_steps, 1)
        check_at_least("num_workers", self.num_workers, 0)
