"""Workers that outlive their tasks: processes of this machine, this process itself, or others of the same interface.

A worker does one task at a time. If a task takes too long, hangs in a codec, or kills the process, that task alone has
failed, another worker takes the place, and the rest goes on.
"""

import faulthandler
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import torch


@dataclass(frozen=True)
class Task:
    """Something to do."""

    key: Any  # what it is, for the caller
    call: Callable[[], Any]  # importable by other processes, as what it returns
    limit: float = 1e6  # [s] after which it counts as hanging
    threads: int = 1  # of its process; there are as many workers as cores, and no result may depend on these


def call_in_time(task: Task) -> Any:
    """Do a task under a watchdog that ends this process at its limit, whatever it hangs in."""
    cv2.setNumThreads(task.threads)
    torch.set_num_threads(task.threads)
    with Path(os.devnull).open("w") as nowhere:
        faulthandler.dump_traceback_later(task.limit, exit=True, file=nowhere)  # a thread that needs no Python lock
        try:
            return task.call()
        finally:
            faulthandler.cancel_dump_traceback_later()


class Worker:
    """Does one task at a time. This one does it at once, in this process, without a limit of time."""

    def submit(self, task: Task) -> "Future[Any]":
        """Begin a task. The future raises if the worker has died or the task does."""
        future: Future[Any] = Future()
        future.set_result(task.call())
        return future

    def end(self) -> None:
        """End the worker, whatever it does."""


class Process(Worker):
    """A process of this machine: a pool of one, since a process that dies breaks its whole pool.

    `preload` names modules of slow imports, which are loaded once for all processes.
    """

    def __init__(self, *preload: str) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(list(preload))
        self._begin()

    def _begin(self) -> None:
        self._pool = ProcessPoolExecutor(1, self._context, _begin_process)
        self._pid = self._pool.submit(os.getpid).result()  # or its start would count as a task's time

    def submit(self, task: Task) -> "Future[Any]":
        """Begin a task."""
        try:
            return self._pool.submit(call_in_time, task)
        except BrokenExecutor:  # it died while idle
            self._begin()
            return self._pool.submit(call_in_time, task)

    def end(self) -> None:
        """End the process, whatever it does."""
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)  # the pool itself would wait for the task
        self._pool.shutdown()


def _begin_process() -> None:
    def end_with_parent() -> None:
        parent = multiprocessing.parent_process()
        assert parent is not None
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, too, which ends this process


class Workers:
    """`count` workers, started by `start` when they are needed and replaced when they die; `close` comes after them."""

    def __init__(self, start: Callable[[], Worker], count: int, close: Callable[[], None] = lambda: None) -> None:
        self._start, self._count, self._close = start, count, close
        self._idle: list[Worker] = []
        self._busy: dict[Future[Any], tuple[Worker, Task, float]] = {}

    def run(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, Any, str | None]]:
        """Do all tasks, in the order in which they end: each with what it returned, and why it returned nothing.

        Raises:
            OSError: of a task.
        """
        waiting = list(reversed(tasks))
        missing = max(0, min(self._count, len(tasks)) - len(self._idle))
        with ThreadPoolExecutor(missing or 1) as threads:  # their starts take seconds each
            self._idle += threads.map(lambda _: self._start(), range(missing))
        while waiting or self._busy:
            while waiting and len(self._busy) < self._count:
                worker, task = self._idle.pop() if self._idle else self._start(), waiting.pop()
                self._busy[worker.submit(task)] = worker, task, time.monotonic()
            for future in wait(self._busy, return_when=FIRST_COMPLETED).done:
                worker, task, since = self._busy.pop(future)
                error = future.exception()
                if error is None:
                    self._idle.append(worker)
                    yield task, future.result(), None
                    continue
                worker.end()
                if isinstance(error, OSError):  # the machine's, such as a full disk
                    raise error
                hung = time.monotonic() - since >= task.limit
                died = "ended its worker process (crash, or out of memory)"
                yield task, None, f"took longer than {task.limit:.0f} s" if hung else died

    def close(self) -> None:
        """End the workers, whatever they do."""
        for worker in [*self._idle, *(worker for worker, _, _ in self._busy.values())]:
            worker.end()
        self._idle, self._busy = [], {}
        self._close()
