import pytest
from benchmarks.data_path import STAGES, measure_data_path

from tests.data.test_dataset import dataset


def test_shares_are_of_the_stages_and_add_up() -> None:
    result = measure_data_path(dataset(num_views=4), 4)
    assert result["samples_per_second"] > 0
    shares = result["shares"]
    assert set(shares) == {*STAGES, "the rest"}
    assert sum(shares.values()) == pytest.approx(1, abs=1e-6)
    # All four tasks are there: nothing that degrades is free.
    assert {stage for stage in STAGES if shares[stage] == 0} <= {"read"}, shares  # the made source costs nothing
