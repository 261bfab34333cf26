from itertools import islice

import pytest

from svfr.data.loader import ClipBatchSampler


def batches(count: int, *arguments: int, **more: int) -> list[list[tuple[int, int]]]:
    return list(islice(ClipBatchSampler(*arguments, **more), count))


def test_each_epoch_is_a_permutation_of_all_samples() -> None:
    flat = [place for batch in batches(10, 7, 3, 0, 1, seed=0) for place in batch][:28]
    epochs = [flat[7 * e : 7 * e + 7] for e in range(4)]
    assert [[epoch for epoch, _ in part] for part in epochs] == [[e] * 7 for e in range(4)]
    assert all(sorted(index for _, index in part) == list(range(7)) for part in epochs)
    assert len({tuple(index for _, index in part) for part in epochs}) > 1
    assert flat != [place for batch in batches(10, 7, 3, 0, 1, seed=1) for place in batch][:28]


@pytest.mark.parametrize("num_processes", [2, 3, 6])
def test_global_batches_do_not_depend_on_the_number_of_processes(num_processes: int) -> None:
    alone = batches(8, 11, 6, 0, 1, seed=3)
    parts = [batches(8, 11, 6 // num_processes, rank, num_processes, seed=3) for rank in range(num_processes)]
    assert [[place for part in parts for place in part[b]] for b in range(8)] == alone


def test_a_later_start_goes_on_where_the_earlier_one_was() -> None:
    for rank in range(2):
        assert batches(5, 11, 3, rank, 2, seed=3, start=4) == batches(9, 11, 3, rank, 2, seed=3)[4:]


def test_a_batch_may_be_larger_than_an_epoch() -> None:
    (batch,) = batches(1, 2, 5, 0, 1, seed=0)
    assert [epoch for epoch, _ in batch] == [0, 0, 1, 1, 2]
