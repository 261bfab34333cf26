"""Identity: is it the same person as in the truth (IDS), and does the face stay the same from frame to frame (VIDD)?

Both videos are aligned with the ground truth's five landmarks to ArcFace's template, 112 px; nothing is detected on
the restored frames, since a detector would follow their errors.
"""

from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from svfr.data.recognition import Recognizer, load_recognizer
from svfr.files import sha256_of
from svfr.metrics.base import Chunk, Column, NetworkOptions, Row, VideoMetric, to_image
from svfr.models.identity import IResNet, align_face
from svfr.models.weights import load_iresnet, load_part

# Ends of VIDD's columns and of their titles.
STRIDES = {1: ("", ""), 5: ("_stride5", ", every 5th frame")}  # [frames], the latter VFRxBenchmark's
DISTANCES = {"": "", "_raw": ", not normalized", "_cosine": ", 1 - cos"}


def ids(restored: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Identity similarity: cosine of embeddings (n, d) of the same frames -> (n,) in [-1, 1]."""
    return (_normalize(restored) * _normalize(truth)).sum(axis=-1)


def vidd(first: np.ndarray, second: np.ndarray) -> dict[str, np.ndarray]:
    """Video identity distance (arXiv 2404.19500) of embeddings (n, d) of frames and of those after them.

    Its code and its description differ, so there is more than one, (n,) each: "" L2 of normalized embeddings, the
    default; "_raw" L2 of the network's own; "_cosine" 1 - cos.
    """
    return {
        "": np.linalg.norm(_normalize(second) - _normalize(first), axis=-1),
        "_raw": np.linalg.norm(second - first, axis=-1),
        "_cosine": 1 - ids(first, second),
    }


class Identity(VideoMetric):
    """IDS, the mean over frames, and VIDD in its variants, the means over pairs of frames of the restored video.

    `stride5` compares the frames 0, 5, 10, ... with one another, the others each frame with the next. Frames without a
    face in the truth don't count, nor do their pairs. A restored video that stands still while the truth moves is not
    at 0, since it is cropped as the truth moves.
    """

    columns = (
        Column("ids", "IDS", "higher", needs_faces=True),
        *(
            # Best is the truth's own: a black video has a distance of 0.
            Column(f"vidd{name}{end}", f"VIDD{title}{more}", "truth", needs_faces=True, no_reference=True)
            for (name, title), (end, more) in product(DISTANCES.items(), STRIDES.values())
        ),
        Column("id_drift", "Identity drift", "truth", needs_faces=True, no_reference=True),
    )

    @classmethod
    def build(cls, options: NetworkOptions) -> "Identity":
        """Make it with a recognition network."""
        return cls(load_face_network(options.recognizer, options.folder, options.device, options.download))

    def __init__(self, recognizer: Recognizer) -> None:
        self._recognizer = recognizer
        self.protocol = {
            "network": {"name": recognizer.name, "file": Path(recognizer.source).name, "sha256": recognizer.sha256},
            "alignment": "both videos by the ground truth's five landmarks, ArcFace's template, 112 px, bilinear",
            "ids": "cosine, mean over frames",
            "vidd": "L2 of normalized embeddings of consecutive frames; raw: not normalized; cosine: 1 - cos; "
            "stride5: frames 0, 5, 10, ...; mean over pairs of the restored video",
            "id_drift": "1 - cos of the embeddings of each frame and of the first with a face, restored video, mean",
        }

    def reset(self) -> None:
        """Start with the next video."""
        super().reset()
        self._last: dict[int, np.ndarray | None] = dict.fromkeys(STRIDES)
        self._first: np.ndarray | None = None

    def _measure(self, chunk: Chunk, at: int) -> Row:
        row, ours, points = Row(), None, chunk.face(at)
        if points is not None:
            pair = chunk.both("embedding", at, lambda frame: embed(self._recognizer, frame, points))
            ours, row["ids"] = pair[0], float(ids(*pair))
            if self._first is None:
                self._first = ours
            else:
                row["id_drift"] = 1 - float(ids(self._first, ours))
        for stride, (end, _) in STRIDES.items():
            if self._num_frames % stride == 0:
                before, self._last[stride] = self._last[stride], ours
                if before is not None and ours is not None:
                    row |= {f"vidd{distance}{end}": float(value) for distance, value in vidd(before, ours).items()}
        return row


def embed(recognizer: Recognizer, frame: Tensor, points: np.ndarray) -> np.ndarray:
    """The embedding (d,) float64 of the face in a frame (1, 3, h, w) uint8 that has its landmarks (5, 2) [px] there."""
    return recognizer(align_face(to_image(frame), points)[None])[0].astype(np.float64)


class IResNetRecognizer:
    """Our own ArcFace network, from a state dict (.safetensors, .pth) with the published names or a folder of ours.

    WeightsError if no such network is there.
    """

    name = "iresnet"

    def __init__(self, path: Path, device: str = "cpu") -> None:
        network = load_part(IResNet, path, torch.float32) if path.is_dir() else load_iresnet(path, torch.float32)
        self._network = network.to(device)
        self.source = str(path)
        self.sha256 = sha256_of(next(path.glob("*.safetensors")) if path.is_dir() else path)

    @torch.inference_mode()
    def __call__(self, faces: np.ndarray) -> np.ndarray:
        """(n, 112, 112, 3) uint8 RGB -> (n, d) float32, not normalized."""
        batch = torch.from_numpy(faces).permute(0, 3, 1, 2).float() / 127.5 - 1
        return self._network(batch.to(self._network.device)).embedding.cpu().numpy()


def load_face_network(
    name: str = "auto", networks: Path | None = None, device: str = "cpu", download: bool = True
) -> Recognizer:
    """A recognition network: a name or an ONNX file as `load_recognizer` takes it, or an `IResNetRecognizer`'s path.

    NetworkMissing if it cannot be had, ValueError if its name is unknown or the file is something else.
    """
    path = Path(name)
    if path.is_dir() or path.suffix in (".safetensors", ".pth", ".pt"):
        return IResNetRecognizer(path, device)
    return load_recognizer(name, networks, download)


def _normalize(embeddings: np.ndarray) -> np.ndarray:
    return embeddings / np.linalg.norm(embeddings, axis=-1, keepdims=True)
