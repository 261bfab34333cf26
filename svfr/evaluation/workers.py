"""Several processes of this machine that measure: `workers=N` of `scripts/eval.py`."""

import multiprocessing
import shutil
import signal
import sys
from collections import deque
from collections.abc import Callable, Generator, Sequence
from itertools import chain
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
        groups: pairs, those of a ground truth together.

    Yields:
        The record of each pair, soon after it is done or has failed. Closing it ends the processes.
    """
    share = max(1, len(groups) // (ROUNDS * count))
    waiting = deque(list(chain.from_iterable(groups[at : at + share])) for at in range(0, len(groups), share))
    running: dict[BaseProcess, deque[Pair]] = {}
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])  # slow imports, once for all
    try:
        while waiting or running:
            while waiting and len(running) < count:
                pairs = waiting.popleft()
                for pair in pairs:
                    if (record := _read(evaluator, pair)) and record.status != "done":  # an earlier call's
                        shutil.rmtree(record_folder(evaluator.output, pair), ignore_errors=True)
                started: BaseProcess = context.Process(target=_measure, args=(make, pairs, count), daemon=True)
                started.start()
                running[started] = deque(pairs)
            wait([process.sentinel for process in running], POLL)
            for process, left in list(running.items()):
                code = process.exitcode  # before the records are read
                while left and (record := _read(evaluator, left[0])):
                    left.popleft()
                    yield record
                if code is not None:
                    del running[process]
                if code is not None and left:
                    pair = left.popleft()
                    why = "killed, most likely for want of memory" if code == -signal.SIGKILL else f"exit code {code}"
                    reason = f"ended its process ({why}): lower workers or chunk_size"
                    key = evaluator.cache_key(pair)
                    record = Record(pair.method, pair.task, pair.name, "failed", key, reason=reason)
                    write_record(evaluator.output, pair, record)
                    yield record
                    waiting.extendleft([list(left)] if left else [])
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.join(GRACE)
            process.kill()
            process.join()


def _read(evaluator: Evaluator, pair: Pair) -> Record | None:
    return read_record(evaluator.output, pair, evaluator.cache_key(pair))


def _measure(make: Make, pairs: list[Pair], count: int) -> None:
    """The life of a worker; whatever ends it but SIGKILL leaves its files whole."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, too, which ends this process
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    threads = max(1, torch.get_num_threads() // count)
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    parent = multiprocessing.parent_process()
    evaluator, _ = make()
    for pair in pairs:
        evaluator.evaluate(pair, lambda _: None if parent and parent.is_alive() else sys.exit(1))
