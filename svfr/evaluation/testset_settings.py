"""Settings of `scripts/make_testset.py`, and part of the protocol that `scripts/eval.py` writes down."""

from dataclasses import dataclass, field

from svfr.config import ConfigError, check_at_least, check_choice

ALIGNMENTS = ("none", "ffhq", "ffhq_frames")
LAYOUTS = ("videos", "dicface")


@dataclass
class TestsetConfig:
    """How ground truth becomes a fixed test set: aligned, degraded, recorded."""

    layout: str = "videos"
    """videos: a folder of videos or frame folders | dicface: DicFace's public set, its degraded frames included."""
    tasks: list[str] = field(default_factory=lambda: ["bfr", "colorization", "inpainting"])
    """Task sets to make inputs for; several tasks in one as bfr+colorization."""
    preset: str = "vfhq"
    """Degradation of tasks with bfr, one of `svfr.data.degradations.PRESETS`."""
    seed: int = 0
    """Of all that is drawn. A clip's numbers depend on this and on its name alone."""
    moving_masks: bool = False
    """Whether the holes follow the face; otherwise one mask serves all frames of a clip."""
    alignment: str = "none"
    """none | ffhq (one similarity transform a clip, from the median of its five landmarks to FFHQ's template) |
    ffhq_frames (one a frame, as DicFace's set is meant)."""
    size: int | None = None
    """Side of the aligned square [px]; 512 with ffhq if None. Without alignment frames keep their size."""
    detector: str = "auto"
    """auto | insightface | yunet, for the alignment."""
    landmarks: str | None = None
    """Folder of NAME.txt files, a line of ten numbers a frame (x y of five points [px]), instead of the detector."""
    num_videos: int | None = None
    """How many clips there have to be; VFHQ-test has 50."""
    max_frames: int | None = None
    """Frames of a clip that are used, from its start."""

    def __post_init__(self) -> None:
        check_choice("layout", self.layout, LAYOUTS)
        check_choice("alignment", self.alignment, ALIGNMENTS)
        check_at_least("seed", self.seed, 0)
        for key in ("size", "num_videos", "max_frames"):
            check_at_least(key, getattr(self, key), 1)
        if not self.tasks:
            raise ConfigError("tasks: name at least one task")
