"""Networks of ONNX files, and face recognition by one: an embedding for each aligned face."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from svfr.files import sha256_of
from svfr.networks import PACKS, find, first_line, installed_packs, load_by_name

BATCH_SIZE = 32  # faces
FACE_SIZE = 112  # [px], aligned to ArcFace's template


def onnx_providers() -> list[str]:
    """What onnxruntime can run networks on here, best first."""
    import onnxruntime

    usable = onnxruntime.get_available_providers()
    return [provider for provider in ("CUDAExecutionProvider", "CPUExecutionProvider") if provider in usable]


class OnnxNetwork:
    """A network of an ONNX file, from batches of square images of `size` px to one vector each.

    ValueError if onnxruntime is not installed, or the file isn't a network of (n, 3, size, size) -> (n, d). With a
    `shape`, its first output is (n, *shape) instead.
    """

    def __init__(self, path: Path, size: int, name: str, shape: tuple[int, ...] | None = None) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise ValueError(f"{path}: onnxruntime is not installed: pip install 'svfr[eval]'") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3  # errors alone
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=onnx_providers())
        except Exception as error:  # onnxruntime's errors have no common class
            raise ValueError(f"{path}: not a readable ONNX file ({first_line(error)})") from error
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        shapes = [list(inputs[0].shape), list(outputs[0].shape)]
        if shape is None:
            fits = len(outputs) == 1 and len(shapes[1]) == 2
        else:  # exporters give interpolated sizes a name, or none, and not a number
            pairs = zip(shapes[1][1:], shape, strict=False)
            fits = len(shapes[1]) == 1 + len(shape) and not any(isinstance(a, int) and a != b for a, b in pairs)
        if len(inputs) != 1 or shapes[0][1:] != [3, size, size] or not fits:
            wanted = f"(n, 3, {size}, {size}) to (n, {'d' if shape is None else ', '.join(map(str, shape))})"
            raise ValueError(f"{path}: maps {shapes[0]} to {shapes[1]} instead of {wanted}")
        self._input = inputs[0].name
        self._one_by_one = shapes[0][0] == 1
        self.name, self.source, self.sha256 = name, str(path), sha256_of(path)

    def run(self, images: np.ndarray) -> np.ndarray:
        """(n, size, size, 3) float32, n > 0 -> (n, d) float32, or (n, *shape)."""
        batches = np.split(images, len(images)) if self._one_by_one else [images]
        planes = (np.ascontiguousarray(batch.transpose(0, 3, 1, 2)) for batch in batches)
        return np.concatenate([self._session.run(None, {self._input: batch})[0] for batch in planes])


class Recognizer(Protocol):
    """Embeds faces."""

    name: str  # of the network, for reports
    source: str  # the file that it was loaded from
    sha256: str  # of that file

    def __call__(self, faces: np.ndarray) -> np.ndarray:
        """(n, 112, 112, 3) uint8 RGB, aligned to ArcFace's template -> (n, d) float32, not normalized."""


def load_recognizer(name: str = "auto", networks: Path | None = None, download: bool = True) -> Recognizer:
    """A face recognition network by name; raises as `load_detector`.

    Args:
        name: "insightface" (any pack), the name of one of the table's packs, "edgeface", the path of an ONNX file of
            InsightFace's interface (RGB in [-1, 1], 112 px), or "auto": an InsightFace pack that is already there,
            else EdgeFace.
        networks: searched before $SVFR_NETWORKS and the user's cache.
    """
    if name.endswith(".onnx"):
        if not Path(name).is_file():
            raise ValueError(f"{name}: no such recognition network")
        return OnnxRecognizer(Path(name), Path(name).stem)
    packs = installed_packs(networks)
    loaders: dict[str, Callable[[], Recognizer]] = {
        **{pack: partial(lambda pack: _from_pack(find(pack, networks, download)), pack) for pack in PACKS},
        "insightface": lambda: _from_pack(packs[0] if packs else find("insightface/buffalo_l", networks, download)),
        "edgeface": lambda: OnnxRecognizer(find("edgeface", networks, download), "edgeface"),
    }
    installed = [partial(_from_pack, pack) for pack in packs]
    return load_by_name("recognizer", name, loaders, installed, more=", or the path of a .onnx")


class OnnxRecognizer(OnnxNetwork):
    """A recognition network of InsightFace's interface: RGB, (x - 127.5) / 127.5, 112 px."""

    def __init__(self, path: Path, name: str) -> None:
        super().__init__(path, FACE_SIZE, name)

    def __call__(self, faces: np.ndarray) -> np.ndarray:
        """As of `Recognizer`."""
        batches = (faces[at : at + BATCH_SIZE] for at in range(0, len(faces), BATCH_SIZE))
        embeddings = [self.run((batch.astype(np.float32) - 127.5) / 127.5) for batch in batches]
        return np.concatenate(embeddings) if embeddings else np.zeros((0, 0), np.float32)


def _from_pack(pack: Path) -> OnnxRecognizer:
    """The recognition network of an InsightFace pack: the one of its files that maps faces of 112 px to vectors."""
    # Names of the published ones come first, so that no detector is loaded in vain.
    files = sorted(pack.glob("*.onnx"), key=lambda file: (not file.name.startswith(("w600k", "glintr")), file.name))
    for file in files:
        with suppress(ValueError):
            return OnnxRecognizer(file, f"insightface/{pack.name}")
    raise ValueError(f"{pack}: none of its {len(files)} ONNX files is a face recognition network")
