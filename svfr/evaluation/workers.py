"""Several processes of this machine that measure: `workers=N` of `scripts/eval.py`."""

import multiprocessing
import shutil
import signal
import sys
from collections import deque
from collections.abc import Callable, Generator, Sequence
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess

import cv2
import torch

from svfr.evaluation.measure import Evaluator
from svfr.evaluation.pairs import Pair
from svfr.evaluation.records import Record, read_record, record_folder, write_record

Make = Callable[[], tuple[Evaluator, object]]  # makes the evaluator of a worker; importable
ROUNDS = 8  # Assumption: as many processes for each worker; more load networks more often, fewer end less evenly
POLL = 0.5  # [s] between looks at what workers have written
GRACE = 5.0  # [s] for a worker to leave its files whole


def measure_in_workers(
    evaluator: Evaluator, make: Make, count: int, groups: Sequence[list[Pair]]
) -> Generator[Record, None, None]:
    """Measure by `count` processes. A pair that ends its process has failed; another process goes on with the rest.

    Args:
        evaluator: of this process, which knows the keys of records.
        make: as `Make`.
        count: of processes.
        groups: pairs of a ground truth each.

    Yields:
        The record of each pair, soon after it is done or has failed. Closing it ends the processes.
    """
    keys = {pair: evaluator.cache_key(pair) for group in groups for pair in group}

    def read(pair: Pair) -> Record | None:
        return read_record(evaluator.output, pair, keys[pair])

    done = {pair: record for pair in keys if (record := read(pair)) and record.status == "done"}
    yield from done.values()
    for pair in keys.keys() - done:  # what failed before would count as this call's
        shutil.rmtree(record_folder(evaluator.output, pair), ignore_errors=True)
    todo = [pairs for group in groups if (pairs := [pair for pair in group if pair not in done])]
    share = max(1, len(todo) // (ROUNDS * count))
    waiting = deque(todo[at : at + share] for at in range(0, len(todo), share))
    running: dict[BaseProcess, list[list[Pair]]] = {}
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "svfr.evaluation.restoring"])  # slow imports of the script, once for all
    try:
        while waiting or running:
            while waiting and len(running) < count:
                process: BaseProcess = context.Process(target=_measure, args=(make, waiting[0], count), daemon=True)
                process.start()
                running[process] = waiting.popleft()
            wait([process.sentinel for process in running], POLL)
            for process, given in list(running.items()):
                code = process.exitcode  # before the records are read
                found = {pair: record for group in given for pair in group if (record := read(pair))}
                yield from found.values()
                left = [pairs for group in given if (pairs := [pair for pair in group if pair not in found])]
                running[process] = left
                if code is None:
                    continue
                del running[process]
                if left and len(left[0]) > 1:  # each alone, to know which one ended it
                    waiting.extend([[pair]] for pair in left.pop(0))
                elif left:
                    (pair,) = left.pop(0)
                    why = "killed, most likely for want of memory" if code == -signal.SIGKILL else f"exit code {code}"
                    reason = f"ended its process ({why}): lower workers or chunk_size"
                    failed = Record(pair.method, pair.task, pair.name, "failed", keys[pair], reason=reason)
                    write_record(evaluator.output, pair, failed)
                    yield failed
                waiting.extend([left] if left else [])
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.join(GRACE)
            process.kill()
            process.join()


def _measure(make: Make, groups: list[list[Pair]], count: int) -> None:
    """The life of a worker; whatever ends it but SIGKILL leaves its files whole."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, too, which ends this process
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    threads = max(1, torch.get_num_threads() // count)
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    parent = multiprocessing.parent_process()
    evaluator, _ = make()
    for pairs in groups:
        evaluator.evaluate(pairs, lambda _: None if parent and parent.is_alive() else sys.exit(1))
