"""Workers that outlive their inputs: local processes, Ray actors, or this process itself.

A worker does one input at a time. If an input takes too long, hangs in a codec, or kills the process, that input counts
as bad, another worker takes the place, and the rest goes on.
"""

import faulthandler
import logging
import multiprocessing
import os
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Protocol

from data_prep.records import PrepareError, Record, machine_error
from svfr.networks import NetworkMissing

Function = Callable[[Any, Any], list[Record]]  # (input, settings) -> records


@dataclass(frozen=True)
class Task:
    """One input of a step.

    Attributes:
        key: of the input, unique in the step.
        input: what the step's function is given.
        limit: [s] after which it counts as hanging.
    """

    key: str
    input: Any
    limit: float


@dataclass(frozen=True)
class Outcome:
    """What became of it.

    Attributes:
        records: what the function returned; None if it failed.
        reason: why it failed, one line.
        stops: whether nothing else can go well either.
        trace: of an error that is ours, not the input's.
    """

    records: list[Record] | None
    reason: str | None = None
    stops: bool = False
    trace: str | None = None


class Workers(Protocol):
    """Do tasks, yielding each with its outcome in the order in which they end."""

    def run(self, function: Function, settings: Any, tasks: Sequence[Task]) -> Iterator[tuple[Task, Outcome]]:
        """Call `function(task.input, settings)` for all tasks."""
        ...

    def close(self) -> None:
        """End the workers."""
        ...


def start_workers(engine: str, processes: int | None, ray_address: str | None = None) -> Workers:
    """Workers by the name of their engine: local or ray. No process starts before it is needed."""
    if engine == "ray":
        return RayWorkers(processes, ray_address)
    return InProcess() if processes == 0 else LocalWorkers(processes or os.cpu_count() or 1)


def attempt(function: Function, settings: Any, task: Task) -> Outcome:
    """Call the function; whatever goes wrong becomes one line."""
    try:
        return Outcome(function(task.input, settings))
    except (PrepareError, NetworkMissing) as error:
        return Outcome(None, one_line(error), stops=True)
    except (ValueError, OSError) as error:
        return Outcome(None, one_line(error), stops=machine_error(error))
    except MemoryError:
        return Outcome(None, "out of memory")
    except Exception as error:  # a fault of ours must not stop the rest either
        return Outcome(
            None, f"internal error ({type(error).__name__}: {one_line(error)[:200]})", trace=traceback.format_exc()
        )


def one_line(error: BaseException) -> str:
    """The message of an error in one line."""
    return " ".join(str(error).split()) or type(error).__name__


class InProcess:
    """This process, one task after the other, without limits."""

    def run(self, function: Function, settings: Any, tasks: Sequence[Task]) -> Iterator[tuple[Task, Outcome]]:
        """See `Workers`."""
        for task in tasks:
            yield task, attempt(function, settings, task)

    def close(self) -> None:
        """See `Workers`."""


class LocalWorkers:
    """Processes of this machine."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._context = multiprocessing.get_context("forkserver" if os.name == "posix" else "spawn")
        if os.name == "posix":
            self._context.set_forkserver_preload(["svfr.data.faces", "svfr.data.video"])  # slow imports, once for all
        self._workers: list[_Worker] = []

    def run(self, function: Function, settings: Any, tasks: Sequence[Task]) -> Iterator[tuple[Task, Outcome]]:
        """See `Workers`."""
        waiting = list(reversed(tasks))
        while len(self._workers) < min(self._count, len(tasks)):
            self._workers.append(_Worker(self._context))
        idle = list(self._workers)
        busy: dict[Any, tuple[_Worker, Task]] = {}
        while waiting or busy:
            while waiting and idle:
                worker = idle.pop()
                task = waiting.pop()
                worker.send(function, settings, task)
                busy[worker.pipe] = (worker, task)
            for pipe in wait(list(busy)):
                worker, task = busy.pop(pipe)
                try:
                    outcome = worker.pipe.recv()
                except (EOFError, OSError):
                    outcome = Outcome(None, worker.cause_of_death(task))
                    self._workers.remove(worker)
                    worker = _Worker(self._context)
                    self._workers.append(worker)
                idle.append(worker)
                yield task, outcome

    def close(self) -> None:
        """See `Workers`."""
        for worker in self._workers:
            worker.end()
        self._workers = []


class _Worker:
    """A process and the pipe to it."""

    def __init__(self, context: Any) -> None:
        self.pipe, theirs = context.Pipe()
        alive, self._alive = context.Pipe(duplex=False)  # closes with this process, however it ends
        self._process = context.Process(target=_serve, args=(theirs, alive), daemon=True)
        self._process.start()
        theirs.close()
        alive.close()
        self._since = 0.0

    def send(self, function: Function, settings: Any, task: Task) -> None:
        """Give the process a task."""
        self._since = time.monotonic()
        with suppress(BrokenPipeError, ConnectionResetError):  # it died while idle; reading from the pipe tells
            self.pipe.send((function, settings, task))

    def cause_of_death(self, task: Task) -> str:
        """Why the process ended while it did the task."""
        self._process.join()
        return died(time.monotonic() - self._since, task, self._process.exitcode)

    def end(self) -> None:
        """End the process."""
        self.pipe.close()
        self._alive.close()
        self._process.kill()
        self._process.join()


def died(seconds: float, task: Task, exitcode: int | None = None) -> str:
    """What is said of an input that ended its worker."""
    if seconds >= task.limit:
        return f"took longer than {task.limit:.0f} s"
    killed = exitcode is not None and exitcode < 0
    return (
        f"ended its worker process{f' by signal {-exitcode}' if killed and exitcode else ''} (crash, or out of memory)"
    )


def _serve(pipe: Connection, alive: Connection) -> None:
    """The process of a worker."""

    def end_with_parent() -> None:
        try:
            alive.recv_bytes()
        except (EOFError, OSError):
            os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    set_up_process()
    while True:
        try:
            function, settings, task = pipe.recv()
        except (EOFError, OSError):
            return
        pipe.send(attempt_in_time(function, settings, task))


def set_up_process() -> None:
    """One thread for each worker: there are as many as cores, and results must not depend on the cores."""
    import cv2
    import torch

    cv2.setNumThreads(1)
    torch.set_num_threads(1)


def attempt_in_time(function: Function, settings: Any, task: Task) -> Outcome:
    """`attempt` with a watchdog that ends the process at the limit, whatever it hangs in."""
    with Path(os.devnull).open("w") as nowhere:
        faulthandler.dump_traceback_later(task.limit, exit=True, file=nowhere)  # a thread without Python
        try:
            return attempt(function, settings, task)
        finally:
            faulthandler.cancel_dump_traceback_later()


class RayWorkers:
    """Actors of a Ray cluster: the one at `address`, or one of this machine that ends with this process."""

    def __init__(self, count: int | None, address: str | None) -> None:
        try:
            import ray
        except ImportError as error:
            raise PrepareError("engine=ray: Ray is not installed: pip install 'svfr[data]'") from error
        self._ray = ray
        root = str(Path(__file__).resolve().parents[1])
        # The workers find this code where this process does; on a cluster the checkout has to be on a shared disk.
        environment = {"env_vars": {"PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}}
        try:
            if address is None:
                ray.init(
                    num_cpus=count,
                    include_dashboard=False,
                    log_to_driver=False,
                    runtime_env=environment,
                    logging_level=logging.ERROR,
                    configure_logging=True,
                )
            else:
                ray.init(address=address, log_to_driver=False, runtime_env=environment, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise PrepareError(f"engine=ray: Ray does not start ({one_line(error)[:200]})") from error
        self._count = count or max(1, int(ray.cluster_resources().get("CPU", 1)))
        self._actor: Any = ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)(_RayWorker)
        self._actors: list[Any] = []

    def run(self, function: Function, settings: Any, tasks: Sequence[Task]) -> Iterator[tuple[Task, Outcome]]:
        """See `Workers`."""
        waiting = list(reversed(tasks))
        while len(self._actors) < min(self._count, len(tasks)):
            self._actors.append(self._start())
        idle = list(self._actors)
        busy: dict[Any, tuple[Any, Task, float]] = {}
        while waiting or busy:
            while waiting and idle:
                actor, task = idle.pop(), waiting.pop()
                busy[actor.attempt.remote(function, settings, task)] = (actor, task, time.monotonic())
            for done in self._ray.wait(list(busy), num_returns=1)[0]:
                actor, task, since = busy.pop(done)
                try:
                    outcome = self._ray.get(done)
                except self._ray.exceptions.RayActorError:
                    outcome = Outcome(None, died(time.monotonic() - since, task))
                    self._actors.remove(actor)
                    actor = self._start()
                    self._actors.append(actor)
                idle.append(actor)
                yield task, outcome

    def _start(self) -> Any:
        actor = self._actor.remote()
        self._ray.get(actor.ready.remote())  # or its start would count as a task's time
        return actor

    def close(self) -> None:
        """See `Workers`."""
        self._actors = []
        self._ray.shutdown()


class _RayWorker:
    def ready(self) -> None:
        set_up_process()

    def attempt(self, function: Function, settings: Any, task: Task) -> Outcome:
        return attempt_in_time(function, settings, task)
