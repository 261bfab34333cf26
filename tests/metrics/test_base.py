import pytest
import torch

from svfr.metrics import METRICS, Chunk, build_metrics
from svfr.metrics.base import Mean

FRAMES = torch.zeros(2, 3, 8, 9, dtype=torch.uint8)


def test_chunk_has_its_length() -> None:
    assert len(Chunk(FRAMES, FRAMES, torch.zeros(2, 8, 9, dtype=torch.bool), torch.zeros(2, 5, 2))) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((FRAMES.float(), FRAMES), r"restored frames have to be \(n, 3, h, w\) uint8, not \(2, 3, 8, 9\) float32"),
        ((FRAMES, FRAMES[:1]), r"\(2, 3, 8, 9\) and ground truth \(1, 3, 8, 9\) differ"),
        ((FRAMES, FRAMES, torch.zeros(2, 8, 9)), r"mask has to be \(2, 8, 9\) bool"),
        ((FRAMES, FRAMES, None, torch.zeros(2, 68, 2)), r"landmarks have to be \(2, 5, 2\)"),
    ],
)
def test_a_chunk_of_other_shapes_is_refused(arguments: tuple[torch.Tensor, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Chunk(*arguments)


def test_mean_leaves_out_what_is_not_defined() -> None:
    mean = Mean()
    assert mean.value is None
    mean.add([1.0, None])
    mean.add([3.0])
    assert mean.value == 2


def test_unknown_metric() -> None:
    with pytest.raises(ValueError, match=f"unknown metric 'niqe': choose from {METRICS[0]}"):
        build_metrics(["niqe"])
