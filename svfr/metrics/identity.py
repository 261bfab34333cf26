"""Identity: is it the same person as in the truth (IDS), and does the face stay the same from frame to frame (VIDD)?

Both videos are aligned with the ground truth's five landmarks to ArcFace's template, 112 px; nothing is detected on
the restored frames, since a detector would follow their errors.
"""

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from svfr.data.recognition import Recognizer, load_recognizer
from svfr.files import sha256_of
from svfr.metrics.base import Chunk, FrameMeans, FrameRows
from svfr.models.identity import IResNet, align_face
from svfr.models.weights import load_iresnet, load_part

STRIDES = (1, 5)  # frames; VFRxBenchmark takes every fifth frame of VFHQ
DISTANCES = ("", "_raw", "_cosine")
BATCH_SIZE = 32  # faces


def ids(restored: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Identity similarity: cosine of embeddings (n, d) of the same frames -> (n,) in [-1, 1]."""
    return (_normalize(restored) * _normalize(truth)).sum(axis=-1)


def vidd(first: np.ndarray, second: np.ndarray) -> dict[str, np.ndarray]:
    """Video identity distance (arXiv 2404.19500) of embeddings (n, d) of frames and of those after them.

    Its code and its description differ, so there is more than one.

    Returns:
        (n,) each; "": L2 of normalized embeddings, the default; "_raw": L2 of the network's own; "_cosine": 1 - cos.
    """
    cosine = ids(first, second)
    return {
        "": np.linalg.norm(_normalize(second) - _normalize(first), axis=-1),
        "_raw": np.linalg.norm(second - first, axis=-1),
        "_cosine": 1 - cosine,
    }


class Identity(FrameMeans):
    """IDS, the mean over frames, and VIDD in its variants, the means over pairs of frames of the restored video.

    `stride5` compares the frames 0, 5, 10, ... with one another, the others each frame with the next. Frames without a
    face in the truth don't count, nor do their pairs. A restored video that stands still while the truth moves is not
    at 0, since it is cropped as the truth moves.

    Args:
        recognizer: embeds aligned faces.
    """

    columns = (
        "ids",
        *(
            f"vidd{distance}{'' if stride == 1 else f'_stride{stride}'}"
            for distance, stride in product(DISTANCES, STRIDES)
        ),
    )

    def __init__(self, recognizer: Recognizer) -> None:
        self._recognizer = recognizer
        self.protocol: dict[str, Any] = {
            "network": {"name": recognizer.name, "file": Path(recognizer.source).name, "sha256": recognizer.sha256},
            "alignment": "both videos by the ground truth's five landmarks, ArcFace's template, 112 px, bilinear",
            "ids": "cosine, mean over frames",
            "vidd": "L2 of normalized embeddings of consecutive frames; raw: not normalized; cosine: 1 - cos; "
            "stride5: frames 0, 5, 10, ...; mean over pairs of the restored video",
        }
        self.reset()

    def reset(self) -> None:
        """Forget the last video."""
        super().reset()
        self._num_frames = 0
        self._last: dict[int, np.ndarray | None] = dict.fromkeys(STRIDES)

    def update(self, chunk: Chunk) -> FrameRows:
        """Take the next frames."""
        rows: FrameRows = {column: [None] * len(chunk) for column in self.columns}
        embeddings = self._embed(chunk)
        for at, pair in enumerate(embeddings):
            if pair is not None:
                rows["ids"][at] = float(ids(*pair))
            ours = None if pair is None else pair[0]
            for stride in STRIDES:
                if (self._num_frames + at) % stride:
                    continue
                before = self._last[stride]
                if before is not None and ours is not None:
                    suffix = "" if stride == 1 else f"_stride{stride}"
                    for distance, value in vidd(before, ours).items():
                        rows[f"vidd{distance}{suffix}"][at] = float(value)
                self._last[stride] = ours
        self._num_frames += len(chunk)
        return self.take(rows)

    def _embed(self, chunk: Chunk) -> list[tuple[np.ndarray, np.ndarray] | None]:
        """Embeddings (d,) float64 of the restored and the true face of each frame; None without a face."""
        found: list[tuple[np.ndarray, np.ndarray] | None] = [None] * len(chunk)
        if chunk.landmarks is None:
            return found
        points = chunk.landmarks.double().cpu().numpy()
        where = [at for at in range(len(chunk)) if np.isfinite(points[at]).all()]
        for start in range(0, len(where), BATCH_SIZE // 2):
            batch = where[start : start + BATCH_SIZE // 2]
            faces = [
                align_face(image, points[at])
                for frames in (chunk.restored, chunk.truth)
                for at, image in zip(batch, _images(frames[batch]), strict=True)
            ]
            ours, theirs = np.split(self._recognizer(np.stack(faces)).astype(np.float64), 2)
            for at, pair in zip(batch, zip(ours, theirs, strict=True), strict=True):
                found[at] = pair
        return found


class IResNetRecognizer:
    """Our own ArcFace network as a recognizer.

    Args:
        path: a state dict (.safetensors, .pth) with the published names, or a folder of ours.
        device: torch device.

    Raises:
        WeightsError: no such network there.
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

    Raises:
        NetworkMissing: see `load_recognizer`.
        ValueError: see `load_recognizer` and `IResNetRecognizer`.
    """
    path = Path(name)
    if path.is_dir() or path.suffix in (".safetensors", ".pth", ".pt"):
        return IResNetRecognizer(path, device)
    return load_recognizer(name, networks, download)


def _images(frames: Tensor) -> np.ndarray:
    """(n, 3, h, w) -> (n, h, w, 3)."""
    return frames.permute(0, 2, 3, 1).contiguous().cpu().numpy()


def _normalize(embeddings: np.ndarray) -> np.ndarray:
    return embeddings / np.linalg.norm(embeddings, axis=-1, keepdims=True)
