"""Several processes of this machine that measure: `workers=N` of `scripts/eval.py`."""

import shutil
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from functools import partial

import torch

from svfr.evaluation.measure import Evaluator
from svfr.evaluation.pairs import Pair
from svfr.evaluation.records import Record, read_record, record_folder, write_record
from svfr.files import sweep
from svfr.inference.workers import Process, Task, Workers

Make = Callable[[], tuple[Evaluator, object]]  # makes the evaluator of a worker; importable
_made: list[Evaluator] = []  # of this worker, once it is needed


def measure_in_workers(
    evaluator: Evaluator, make: Make, count: int, groups: Sequence[list[Pair]]
) -> Generator[Record, None, None]:
    """Measure by `count` processes. A pair that ends its process has failed; another process goes on with the rest.

    `groups` are pairs of a ground truth each; `evaluator` is this process's, which knows the keys of records.

    Yields:
        The record of each pair, once its group is done. Closing it ends the processes.
    """
    keys = {pair: evaluator.cache_key(pair) for group in groups for pair in group}

    def read(pair: Pair) -> Record | None:
        return read_record(evaluator.output, pair, keys[pair])

    done = {pair: record for pair in keys if (record := read(pair)) and record.status == "done"}
    yield from done.values()
    for pair in keys.keys() - done:  # what failed before would count as this call's
        shutil.rmtree(record_folder(evaluator.output, pair), ignore_errors=True)
    todo = [pairs for group in groups if (pairs := [pair for pair in group if pair not in done])]
    threads = max(1, torch.get_num_threads() // count)
    try:
        with closing(Workers(partial(Process, __name__, "svfr.evaluation.restoring"), count)) as workers:
            while todo:
                alone: list[list[Pair]] = []  # those of a group whose process ended, to know which one ended it
                tasks = [Task(pairs, partial(_measure, make, pairs), threads=threads) for pairs in todo]
                for task, _, why in workers.run(tasks):
                    found = {pair: record for pair in task.key if (record := read(pair))}
                    yield from found.values()
                    left = [pair for pair in task.key if pair not in found]
                    if len(left) == 1:
                        failed = Record(left[0].method, left[0].task, left[0].name, "failed", keys[left[0]])
                        failed.reason = f"{why}: lower workers or chunk_size" if why else "its files are gone"
                        write_record(evaluator.output, left[0], failed)
                        yield failed
                    else:
                        alone += [[pair] for pair in left]
                todo = alone
    finally:
        for pair in keys.keys() - done:  # whose processes were ended
            sweep(record_folder(evaluator.output, pair))


def _measure(make: Make, pairs: list[Pair]) -> None:
    if not _made:
        _made.append(make()[0])
    _made[0].evaluate(pairs, lambda _: None)
