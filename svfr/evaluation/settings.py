"""Settings of `scripts/make_testset.py` and `scripts/eval.py`: together the whole protocol of an evaluation."""

import re
from dataclasses import dataclass, field
from typing import Literal, get_args

from svfr.config import ConfigError, check_least
from svfr.data.degradations import PRESETS
from svfr.inference.settings import InferConfig
from svfr.metrics import DEFAULT_METRICS, METRICS, NO_REFERENCE
from svfr.networks import PACKS
from svfr.tasks import parse_tasks

Baseline = Literal["ground_truth", "degraded", "bicubic"]
BASELINES: tuple[str, ...] = get_args(Baseline)
TASK_SEPARATORS = re.compile(r"[+,&]")
DETECTORS = ("auto", "insightface", *PACKS, "yunet")


@dataclass
class TestsetConfig:
    """How ground truth becomes a fixed test set: aligned, degraded, recorded."""

    layout: Literal["videos", "dicface"] = "videos"
    """videos: a folder of videos or frame folders | dicface: DicFace's public set, its degraded frames included."""
    tasks: list[str] = field(default_factory=lambda: ["bfr", "colorization", "inpainting"])
    """Task sets to make inputs for; several tasks in one as bfr+colorization."""
    preset: str = "vfhq"
    """Degradation of tasks with bfr, one of `svfr.data.degradations.PRESETS`."""
    seed: int = 0
    """Seeds all that is drawn. A clip's numbers depend on this and on its name alone."""
    alignment: Literal["none", "ffhq", "ffhq_frames"] = "none"
    """none | ffhq (one similarity transform a clip, from the median of its five landmarks to FFHQ's template) |
    ffhq_frames (one a frame, as DicFace's set is meant)."""
    size: int | None = None
    """Side of the aligned square [px]; 512 with ffhq if None. Without alignment frames keep their size."""
    detector: str = "auto"
    """Finds the faces for the alignment, but in DicFace's set: one of `DETECTORS`."""
    num_videos: int | None = None
    """How many clips there have to be; VFHQ-test has 50."""
    max_frames: int | None = None
    """Frames of a clip that are used, from its start."""

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise ConfigError(f"preset={self.preset}: choose from {', '.join(PRESETS)}")
        if self.detector not in DETECTORS:
            raise ConfigError(f"testset.detector={self.detector}: choose from {', '.join(DETECTORS)}")
        check_least(self, seed=0, size=1, num_videos=1, max_frames=1)
        if not self.tasks:
            raise ConfigError("tasks: name at least one task")


@dataclass
class EvalConfig:
    """What `scripts/eval.py` measures and how."""

    name: str = ""
    """Name of the protocol, the title of the report."""
    metrics: list[str] = field(default_factory=lambda: list(DEFAULT_METRICS))
    """Names of `svfr.metrics.METRICS`; each gives one or more columns."""
    no_reference: bool = False
    """Each video by itself, without ground truth (`--no-reference`)."""
    photo: str | None = None
    """Photo of the person, with which the metric `photo` is computed too."""
    baselines: list[Baseline] = field(default_factory=lambda: list(get_args(Baseline)))
    """Rows beside the methods: the ground truth, the degraded input, the truth reduced to 1/4 and enlarged again."""
    task: str = "bfr"
    """Task of restored folders that have no task subfolders."""
    ignore_fps: bool = False
    """Compare frame by frame even where two videos say different frame rates."""
    detector: str = "auto"
    """Finds the faces of the ground truth, which align both videos: one of `DETECTORS`."""
    recognizer: str = "auto"
    """Face recognition network of IDS and VIDD: auto | insightface | insightface/PACK | edgeface | an ONNX file."""
    landmarker: str = "auto"
    """Network of the landmark error: auto | face_alignment | onnx."""
    download: bool = True
    """Download missing networks of metrics."""
    missing: Literal["note", "fail"] = "note"
    """What of a metric whose network is not to be had: note (its columns are "not computed") | fail (stop at once)."""
    workers: int = 1
    """Processes that measure, of each that a launcher started; no number depends on it."""
    chunk_size: int = 4
    """Frames that are held at once; results do not depend on it."""
    device: str = "auto"
    """auto, or a torch device, for metrics that are networks."""
    num_videos: int | None = None
    """How many ground-truth videos there have to be, if the protocol says so."""
    picture_size: int = 160
    """Height of the report's pictures and clips [px]."""
    slice_column: float = 0.5
    """Where the temporal slices are cut, as a share of the width."""
    testset: TestsetConfig = field(default_factory=TestsetConfig)
    """How the test set is made (`scripts/make_testset.py`)."""
    restore: InferConfig = field(default_factory=lambda: InferConfig(face="aligned", format="png"))
    """How `--run` restores it."""

    def __post_init__(self) -> None:
        if self.detector not in DETECTORS:
            raise ConfigError(f"detector={self.detector}: choose from {', '.join(DETECTORS)}")
        for metric in self.metrics:
            if metric not in METRICS:
                raise ConfigError(f"metrics: unknown metric '{metric}', choose from {', '.join(METRICS)}")
        if self.no_reference and self.metrics == list(DEFAULT_METRICS):
            self.metrics = [name for name in NO_REFERENCE if name != "photo"]
        if self.photo and "photo" not in self.metrics:
            self.metrics = [*self.metrics, "photo"]
        if not self.metrics:
            raise ConfigError(f"metrics: name at least one of {', '.join(METRICS)}")
        try:
            self.task = "+".join(parse_tasks(TASK_SEPARATORS.sub(",", self.task.lower())))
        except ValueError as error:
            raise ConfigError(f"task={self.task}: {error}") from error
        check_least(self, slice_column=(0, 1), picture_size=16, chunk_size=1, num_videos=1, workers=1)
