import pytest
from accelerate.state import AcceleratorState


@pytest.fixture(autouse=True)
def fresh_accelerator() -> None:
    """accelerate keeps its precision as long as the process lives; each test may have its own."""
    AcceleratorState._reset_state(reset_partial_state=True)
