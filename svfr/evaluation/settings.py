"""Settings of `scripts/eval.py`: the whole protocol of an evaluation."""

from dataclasses import dataclass, field

from svfr.config import check_at_least, check_choice
from svfr.evaluation.testset_settings import TestsetConfig
from svfr.inference.settings import InferConfig
from svfr.metrics import METRICS

BASELINES = ("ground_truth", "degraded", "bicubic")


@dataclass
class EvalConfig:
    """What `scripts/eval.py` measures and how."""

    name: str = ""
    """Of the protocol, for the report's title."""
    metrics: list[str] = field(default_factory=lambda: list(METRICS))
    """Names of `svfr.metrics.METRICS`; each gives one or more columns."""
    baselines: list[str] = field(default_factory=lambda: list(BASELINES))
    """Rows beside the methods: the ground truth itself, the degraded input, and bicubic down- and upsampling."""
    bicubic_factor: int = 4
    """By which the `bicubic` row shrinks and enlarges the ground truth."""
    task: str = "bfr"
    """Of restored folders that have no task subfolders."""
    ignore_fps: bool = False
    """Compare frame by frame even where two videos say different frame rates."""
    detector: str = "auto"
    """auto | insightface | yunet; finds the faces of the ground truth, which align both videos."""
    recognizer: str = "auto"
    """Face recognition network of IDS and VIDD: auto | insightface | edgeface | path of an ONNX file."""
    landmarker: str = "auto"
    """Network of the landmark error: auto | face_alignment | onnx."""
    download: bool = True
    """Download missing networks of metrics; else they are reported as not computed."""
    chunk_size: int = 16
    """Frames that are held at once; results do not depend on it."""
    device: str = "auto"
    """auto, or a torch device, for metrics that are networks."""
    num_videos: int | None = None
    """How many ground-truth videos there have to be, if the protocol says so."""
    report_videos: int = 12
    """Videos of each task that the report shows in pictures, worst first."""
    strip_frames: int = 6
    """Frames of a video in its strip of pictures."""
    picture_size: int = 160
    """Height of the report's pictures and clips [px]."""
    testset: TestsetConfig = field(default_factory=TestsetConfig)
    """How the test set is made (`scripts/make_testset.py`)."""
    restore: InferConfig = field(default_factory=lambda: InferConfig(face="aligned", format="png"))
    """How `--run` restores it."""

    def __post_init__(self) -> None:
        for baseline in self.baselines:
            check_choice("baselines", baseline, BASELINES)
        for key, least in (("bicubic_factor", 2), ("chunk_size", 1), ("num_videos", 1), ("report_videos", 0)):
            check_at_least(key, getattr(self, key), least)
        check_at_least("strip_frames", self.strip_frames, 1)
        check_at_least("picture_size", self.picture_size, 16)
