"""Workers that outlive their inputs: processes of this machine, Ray actors, or this process itself.

A worker does one input at a time. If an input takes too long, hangs in a codec, or kills the process, that input counts
as bad, another worker takes the place, and the rest goes on.
"""

import faulthandler
import logging
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.records import PrepareError, Record, is_no_inputs_fault
from data_prep.settings import DataPrepConfig
from svfr.networks import NetworkMissing

# (input, settings) -> records; raises ValueError or OSError if the input is bad.
Function = Callable[[Any, DataPrepConfig], list[Record]]


@dataclass(frozen=True)
class Task:
    """One input of a step."""

    key: str  # unique in the step
    input: Any  # what the step's function is given
    limit: float  # [s] after which it counts as hanging


@dataclass(frozen=True)
class Outcome:
    """What became of a task."""

    records: list[Record] | None  # None if it failed
    reason: str | None = None  # why it failed, one line
    stops: bool = False  # whether all other inputs would fail, too
    trace: str | None = None  # of an error of this code, not of the input


def attempt(function: Function, settings: DataPrepConfig, task: Task) -> Outcome:
    """Call `function(task.input, settings)`; whatever goes wrong becomes one line."""
    try:
        return Outcome(function(task.input, settings))
    except (PrepareError, NetworkMissing) as error:
        return Outcome(None, one_line(error), stops=True)
    except (ValueError, OSError) as error:
        return Outcome(None, one_line(error), stops=is_no_inputs_fault(error, settings.output))
    except MemoryError:
        return Outcome(None, "out of memory")
    except Exception as error:  # must not stop the other inputs either
        reason = f"internal error ({type(error).__name__}: {one_line(error)[:200]})"
        return Outcome(None, reason, trace=traceback.format_exc())


def attempt_in_time(function: Function, settings: DataPrepConfig, task: Task) -> Outcome:
    """`attempt` with a watchdog that ends this process at the task's limit, whatever it hangs in."""
    with Path(os.devnull).open("w") as nowhere:
        faulthandler.dump_traceback_later(task.limit, exit=True, file=nowhere)  # a thread that needs no Python lock
        try:
            return attempt(function, settings, task)
        finally:
            faulthandler.cancel_dump_traceback_later()


def one_line(error: BaseException) -> str:
    """The message of an error in one line."""
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


def use_one_thread() -> None:
    """One thread for each worker: there are as many workers as cores, and results must not depend on the cores."""
    import cv2
    import torch

    cv2.setNumThreads(1)
    torch.set_num_threads(1)


class Worker:
    """Does one task at a time. This one does it at once, in this process, without a limit of time."""

    def submit(self, function: Function, settings: DataPrepConfig, task: Task) -> "Future[Outcome]":
        """Begin a task. The future raises only if the worker has died."""
        future: Future[Outcome] = Future()
        future.set_result(attempt(function, settings, task))
        return future

    def end(self) -> None:
        """End the worker, whatever it does."""


class _Process(Worker):
    """A process of this machine: a pool of one, since a process that dies breaks its whole pool."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["svfr.data.faces", "svfr.data.video"])  # slow imports, once for all
        self._pool = ProcessPoolExecutor(1, mp_context=context, initializer=_set_up_process)
        self._pid = self._pool.submit(os.getpid).result()  # or its start would count as a task's time

    def submit(self, function: Function, settings: DataPrepConfig, task: Task) -> "Future[Outcome]":
        try:
            return self._pool.submit(attempt_in_time, function, settings, task)
        except BrokenExecutor:  # it died while idle
            self._begin()
            return self._pool.submit(attempt_in_time, function, settings, task)

    def end(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)  # the pool itself would wait for the task
        self._pool.shutdown()


def _set_up_process() -> None:
    def end_with_parent() -> None:
        parent = multiprocessing.parent_process()
        assert parent is not None
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, too, which ends this process
    use_one_thread()


class _RayActor(Worker):
    """A process of a Ray cluster."""

    def __init__(self) -> None:
        import ray

        remote_process: Any = ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)(_RemoteProcess)
        self._actor = remote_process.remote()
        ray.get(self._actor.ready.remote())  # or its start would count as a task's time

    def submit(self, function: Function, settings: DataPrepConfig, task: Task) -> "Future[Outcome]":
        return self._actor.attempt.remote(function, settings, task).future()

    def end(self) -> None:
        del self._actor  # Ray ends what nobody refers to


class _RemoteProcess:
    def ready(self) -> None:
        use_one_thread()

    def attempt(self, function: Function, settings: DataPrepConfig, task: Task) -> Outcome:
        return attempt_in_time(function, settings, task)


class Workers:
    """`count` workers, started by `start` when they are needed and replaced when they die; `close` comes after them."""

    def __init__(self, start: Callable[[], Worker], count: int, close: Callable[[], None] = lambda: None) -> None:
        self._start, self._count, self._close = start, count, close
        self._idle: list[Worker] = []
        self._busy: dict[Future[Outcome], tuple[Worker, Task, float]] = {}

    def run(
        self, function: Function, settings: DataPrepConfig, tasks: Sequence[Task]
    ) -> Iterator[tuple[Task, Outcome]]:
        """Do all tasks, yielding each with its outcome in the order in which they end."""
        waiting = list(reversed(tasks))
        missing = max(0, min(self._count, len(tasks)) - len(self._idle))
        with ThreadPoolExecutor(missing or 1) as threads:  # their starts take seconds each
            self._idle += threads.map(lambda _: self._start(), range(missing))
        while waiting or self._busy:
            while waiting and len(self._busy) < self._count:
                worker, task = self._idle.pop() if self._idle else self._start(), waiting.pop()
                self._busy[worker.submit(function, settings, task)] = worker, task, time.monotonic()
            for future in wait(self._busy, return_when=FIRST_COMPLETED).done:
                worker, task, since = self._busy.pop(future)
                if future.exception() is None:
                    self._idle.append(worker)
                    yield task, future.result()
                elif time.monotonic() - since >= task.limit:
                    yield task, Outcome(None, f"took longer than {task.limit:.0f} s")
                else:
                    yield task, Outcome(None, "ended its worker process (crash, or out of memory)")

    def close(self) -> None:
        """End the workers, whatever they do."""
        for worker in [*self._idle, *(worker for worker, _, _ in self._busy.values())]:
            worker.end()
        self._idle, self._busy = [], {}
        self._close()


def start_workers(settings: DataPrepConfig) -> Workers:
    """The workers that the settings ask for.

    Raises:
        PrepareError: Ray is not installed or does not start.
    """
    processes, address = settings.processes, settings.ray_address
    if settings.engine == "local":
        return Workers(Worker, 1) if processes == 0 else Workers(_Process, processes or os.cpu_count() or 1)
    try:
        import ray
    except ImportError as error:
        raise PrepareError("engine=ray: Ray is not installed: pip install 'svfr[data]'") from error
    # The workers find this code where this process does; on a cluster the checkout has to be on a shared disk.
    path = os.pathsep.join([str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = {"env_vars": {"PYTHONPATH": path}}
    options: dict[str, Any] = {"num_cpus": processes, "include_dashboard": False} if address is None else {}
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        ray.init(address=address, runtime_env=environment, **quiet, **options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise PrepareError(f"engine=ray: Ray does not start ({one_line(error)[:200]})") from error
    return Workers(_RayActor, processes or max(1, int(ray.cluster_resources().get("CPU", 1))), ray.shutdown)
