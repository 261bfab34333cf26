import numpy as np
import pytest
import torch

from svfr.inference.pipeline import SVFRPipeline
from svfr.models.components import Components
from tests import tiny


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)  # faster on networks this small, and leaves cores to other tests


@pytest.fixture(scope="session")
def pipe() -> SVFRPipeline:
    """Tiny networks; a test that changes them puts them back or makes its own."""
    return tiny.pipeline()


@pytest.fixture(scope="session")
def components(pipe: SVFRPipeline) -> Components:
    return pipe.parts


@pytest.fixture(scope="session")
def clip() -> np.ndarray:
    """12 frames, (12, 40, 48, 3) uint8."""
    frames = tiny.clip(12)
    frames.setflags(write=False)
    return frames
