"""ONNX files as functions from images to vectors."""

from pathlib import Path

import numpy as np
import torch

from svfr.files import sha256_of
from svfr.networks import first_line


def onnx_providers() -> list[str]:
    """What onnxruntime can run networks on here, best first."""
    import onnxruntime

    usable = onnxruntime.get_available_providers()
    return [provider for provider in ("CUDAExecutionProvider", "CPUExecutionProvider") if provider in usable]


class OnnxNetwork:
    """A network of an ONNX file, from batches of square images of `size` px to one vector each.

    Raises:
        ValueError: onnxruntime is not installed, or the file isn't a network of (n, 3, size, size) -> (n, d).
    """

    def __init__(self, path: Path, size: int, name: str) -> None:
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
        if len(inputs) != 1 or len(outputs) != 1 or shapes[0][1:] != [3, size, size] or len(shapes[1]) != 2:
            raise ValueError(f"{path}: maps {shapes[0]} to {shapes[1]} instead of (n, 3, {size}, {size}) to (n, d)")
        self._input = inputs[0].name
        self._one_by_one = shapes[0][0] == 1
        self.name, self.source, self.sha256 = name, str(path), sha256_of(path)

    def run(self, images: np.ndarray) -> np.ndarray:
        """(n, size, size, 3) float32, n > 0 -> (n, d) float32."""
        batches = np.split(images, len(images)) if self._one_by_one else [images]
        planes = (np.ascontiguousarray(batch.transpose(0, 3, 1, 2)) for batch in batches)
        return np.concatenate([self._session.run(None, {self._input: batch})[0] for batch in planes])
