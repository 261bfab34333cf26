from collections.abc import Iterator

import pytest
import torch
from accelerate.state import AcceleratorState


@pytest.fixture(autouse=True)
def fresh_accelerator() -> Iterator[None]:
    """accelerate keeps its precision as long as the process lives, and bf16 may do without oneDNN; each test may have
    its own."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    torch.backends.mkldnn.enabled = True  # type: ignore[assignment]  # a property, which its type does not say
