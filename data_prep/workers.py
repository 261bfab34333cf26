"""The workers of a step, of this machine or of a Ray cluster, and what becomes of an input."""

import logging
import os
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from data_prep.records import PrepareError, Record, is_no_inputs_fault
from data_prep.settings import DataPrepConfig
from svfr.inference.batch import describe_failure
from svfr.inference.workers import Process, Task, Worker, Workers, call_in_time
from svfr.networks import NetworkMissing
from svfr.progress import one_line

# (input, settings) -> records; raises ValueError or OSError if the input is bad.
Function = Callable[[Any, DataPrepConfig], list[Record]]


@dataclass(frozen=True)
class Outcome:
    """What became of an input."""

    records: list[Record] | None  # None if it failed
    reason: str | None = None  # why it failed, one line
    stops: bool = False  # whether all other inputs would fail, too
    trace: str | None = None  # of an error of this code, not of the input


def attempt(function: Function, settings: DataPrepConfig, value: Any) -> Outcome:
    """Call `function(value, settings)`; whatever goes wrong becomes one line."""
    try:
        return Outcome(function(value, settings))
    except (PrepareError, NetworkMissing) as error:
        return Outcome(None, one_line(error), stops=True)
    except (ValueError, OSError) as error:
        return Outcome(None, one_line(error), stops=is_no_inputs_fault(error, settings.output))
    except Exception as error:  # must not stop the other inputs either
        reason, trace = describe_failure(error, "use fewer processes")
        return Outcome(None, reason, trace=trace)


class _RayActor(Worker):
    """A process of a Ray cluster."""

    def __init__(self) -> None:
        import ray

        remote_process: Any = ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)(_RemoteProcess)
        self._actor = remote_process.remote()
        ray.get(self._actor.__ray_ready__.remote())  # or its start would count as a task's time

    def submit(self, task: Task) -> "Future[Any]":
        return self._actor.do.remote(task).future()

    def end(self) -> None:
        del self._actor  # Ray ends what nobody refers to


class _RemoteProcess:
    def do(self, task: Task) -> Any:
        return call_in_time(task)


def start_workers(settings: DataPrepConfig) -> Workers:
    """The workers that the settings ask for.

    Raises:
        PrepareError: Ray is not installed or does not start.
    """
    processes, address = settings.processes, settings.ray_address
    if settings.engine == "local" and processes == 0:
        return Workers(Worker, 1)
    if settings.engine == "local":
        return Workers(partial(Process, "svfr.data.faces", "svfr.inference.batch"), processes or os.cpu_count() or 1)
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
