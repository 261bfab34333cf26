"""Settings of `data_prep/prepare.py`."""

from dataclasses import dataclass, field
from typing import Literal, get_args

from svfr.config import ConfigError, check_at_least, check_least
from svfr.data.errors import MAX_PIXELS

Collection = Literal["videos", "images", "voxceleb2", "celebv", "vfhq"]


@dataclass
class SourceConfig:
    """The raw footage."""

    path: str = "???"
    """Folder of the footage; nothing in it is changed."""
    collection: Collection = "videos"
    """videos (any folder of video files and folders of frames) | images (each picture is a clip of one frame) |
    voxceleb2 | celebv (CelebV-HQ, CelebV-Text) | vfhq."""
    annotations: str | None = None
    """VoxCeleb2's folder of txt tracks, CelebV's JSON file, VFHQ's folder of meta-info. Default: searched in `path`."""
    licence: str = "unstated"
    """What the data card says of the footage's licence."""


@dataclass
class CutConfig:
    """Shots, and clips from them."""

    threshold: float = 10.0
    """Content difference [0..255] from which a frame may start a new shot; see `svfr.data.shots`. Measured: at most 7.4
    inside of 21 real clips, at least 15.9 where any two of them meet."""
    min_frames: int = 16
    """Shorter clips are left out (pictures aren't)."""
    clip_frames: int | None = None
    """Cut shots into clips of exactly this many frames. Default: a clip is as long as its shot."""
    stride: int | None = None
    """Frames from one clip's start to the next's. Default: `clip_frames`."""

    def __post_init__(self) -> None:
        check_least(self, "cut.", threshold=0, min_frames=1, clip_frames=1, stride=1)
        if self.stride is not None and self.clip_frames is None:
            raise ConfigError(f"cut.stride={self.stride}: needs cut.clip_frames")
        if self.clip_frames is not None and self.clip_frames < self.min_frames:
            raise ConfigError(f"cut.clip_frames={self.clip_frames}: less than cut.min_frames={self.min_frames}")


@dataclass
class TrackConfig:
    """Which faces become clips. The defaults are lenient."""

    min_face: float = 32.0
    """Larger side of the face's box [px], median over the clip."""
    max_enlarge: dict[str, float] = field(default_factory=dict)
    """For each collection, how many times a clip's crop, 1.4 times as large as its face, may be enlarged to
    `write.size`. Default: any. Enlarged truth is soft; each run says how many clips are enlarged."""
    min_detected: float = 0.5
    """Share of the clip's frames in which the face was detected."""
    min_inside: float = 0.0
    """Share of the crop that lies inside of the frame, mean over the clip; outside, the frame's edge is repeated."""
    min_frontality: float = 0.0
    """Median of `svfr.data.faces.frontality`, 0 (profile) to 1 (frontal)."""
    min_sharpness: float = 0.0
    """Median of `svfr.data.faces.sharpness` of the face at 128 px."""

    def __post_init__(self) -> None:
        for collection, limit in self.max_enlarge.items():
            if collection not in get_args(Collection):
                known = ", ".join(get_args(Collection))
                raise ConfigError(f"track.max_enlarge={collection}: choose from {known}")
            check_at_least(f"track.max_enlarge.{collection}", limit, 0)
        check_least(self, "track.", min_face=0, min_detected=0, min_inside=0, min_frontality=0, min_sharpness=0)


@dataclass
class QualityConfig:
    """What is kept by its score. Without a score (`score=none`) nothing is left out."""

    frames: int = 4
    """Frames of a clip that are scored, evenly spread; the clip's score is their mean."""
    min: float | None = None
    """Least score [0..1]."""
    keep: int | None = None
    """Keep this many clips, the best ones."""

    def __post_init__(self) -> None:
        check_least(self, "quality.", frames=1, min=0, keep=1)


@dataclass
class IdentityConfig:
    """Who is who, and the splits that share no person."""

    threshold: float = 0.4
    """Cosine of two clips' embeddings from which they show the same person. Assumption; measured with EdgeFace on
    real clips: within one clip 0.81 on average (5th percentile 0.62), between people 0.02 (95th percentile 0.15)."""
    val: float = 0.05
    """Share of the clips for the split val."""
    test: float = 0.05
    """Share of the clips for the split test."""

    def __post_init__(self) -> None:
        check_least(self, "identity.", threshold=0, val=0, test=0)
        if self.val + self.test > 1:
            raise ConfigError(f"identity.val={self.val} and identity.test={self.test}: more than 1 together")


@dataclass
class WriteConfig:
    """What is written."""

    mode: Literal["clips", "references"] = "clips"
    """clips (square crops that follow the face, as files of their own) | references (places in the originals, with
    one crop that stays still)."""
    size: int = 512
    """Side of the written clips [px]."""
    crf: int = 10
    """H.264 quality of the written clips, 0 (lossless but for the 4:2:0 colours) to 51."""

    def __post_init__(self) -> None:
        check_least(self, "write.", size=16, crf=0)
        if self.crf > 51 or self.size % 2:
            raise ConfigError(f"write.crf={self.crf} write.size={self.size}: at most 51, and an even number")


@dataclass
class DataPrepConfig:
    """How raw footage becomes a training manifest."""

    source: SourceConfig = field(default_factory=SourceConfig)
    output: str = "???"
    """Folder of the result and of all that is needed to go on after an interruption."""
    networks: str | None = None
    """Folder of third-party networks. Default: $SVFR_NETWORKS."""
    detector: Literal["auto", "insightface", "yunet"] = "auto"
    """Finds the faces."""
    recognizer: str = "auto"
    """auto | insightface | edgeface | an ONNX file of InsightFace's interface | none (then every source file counts
    as a person of its own, unless its annotations name one)."""
    score: Literal["arniqa", "none"] = "arniqa"
    """Scores the quality of a clip."""
    landmarks: Literal["auto", "face_alignment", "onnx", "none"] = "auto"
    """Finds the 68 landmarks of a face."""
    deinterlace: Literal["auto", "yes", "no"] = "auto"
    """Make whole pictures of the fields of interlaced video, at its rate: auto (where it is flagged so or looks so)."""
    max_pixels: int = MAX_PIXELS
    """Of a picture or a frame; larger ones are refused before they fill the memory."""
    seed: int = 0
    """Seeds the splits."""
    engine: Literal["local", "ray"] = "local"
    """local (processes of this machine) | ray."""
    processes: int | None = None
    """Workers. Default: one for each core (of the Ray cluster). 0: none, all in this process, for debugging."""
    ray_address: str | None = None
    """Address of a running Ray cluster, or auto. Default: a Ray of its own on this machine."""
    time_limit: float = 300.0
    """[s] that a file may take in a step, and one more a frame, before its worker is ended and it counts as bad."""
    cut: CutConfig = field(default_factory=CutConfig)
    track: TrackConfig = field(default_factory=TrackConfig)
    quality: QualityConfig = field(default_factory=QualityConfig)
    identity: IdentityConfig = field(default_factory=IdentityConfig)
    write: WriteConfig = field(default_factory=WriteConfig)

    def __post_init__(self) -> None:
        check_least(self, processes=0, max_pixels=1, seed=0, time_limit=0.1)
        if self.engine == "ray" and self.processes == 0:
            raise ConfigError("processes=0: Ray needs at least one worker")
        if self.score == "none" and (self.quality.min is not None or self.quality.keep is not None):
            raise ConfigError("quality.min and quality.keep need a score: leave score=none out")
