"""Made ONNX files."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def linear(path: Path, size: int, dimensions: int, batch: int | str = "n", seed: int = 0) -> np.ndarray:
    """Write a network (batch, 3, size, size) -> (batch, dimensions) that is one matrix, and return the matrix."""
    matrix = np.random.default_rng(seed).normal(size=(3 * size * size, dimensions)).astype(np.float32) / size
    nodes = [
        helper.make_node("Flatten", ["input"], ["flat"]),
        helper.make_node("MatMul", ["flat", "matrix"], ["output"]),
    ]
    graph = helper.make_graph(
        nodes,
        "made",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [batch, 3, size, size])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [batch, dimensions])],
        [numpy_helper.from_array(matrix, "matrix")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(path))
    return matrix


def parser(path: Path) -> None:
    """Write a network of the face parser's interface: hair where ImageNet's red is above its mean, else background."""
    weight, bias = np.zeros((19, 3, 1, 1), np.float32), np.full(19, -100, np.float32)
    weight[17, 0], bias[[0, 17]] = 1, 0
    size: list[int | str] = ["n", 3, 512, 512]
    graph = helper.make_graph(
        [helper.make_node("Conv", ["input", "weight", "bias"], ["output"])],
        "made",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, size)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", 19, "height", "width"])],  # as exporters do
        [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(bias, "bias")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
