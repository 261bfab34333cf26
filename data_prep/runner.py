"""Run one step over its inputs, on this machine or a Ray cluster: skip what is done, keep a journal, put in order."""

import json
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import svfr
from data_prep.records import FOLDER, VERSION, NothingLeft, PrepareError, Record, num_frames, write_lines, write_step
from data_prep.settings import DataPrepConfig
from svfr.config import one_line
from svfr.files import digest, is_machine_error
from svfr.inference.batch import describe_failure
from svfr.inference.workers import Process, Task, Worker, Workers, call_in_time
from svfr.networks import NetworkMissing

FRAME_LIMIT = 1.0  # [s] that a file's limit of time grows by with each of its frames
LONGEST = 86_400.0  # [s] whatever number of frames a broken file claims to have
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


def is_no_inputs_fault(error: BaseException | None, output: str) -> bool:
    """Whether an error is that of the machine, or comes from a file of the output."""
    if is_machine_error(error):
        return True
    folders = tuple(str(Path(output, name)) for name in (FOLDER, "clips", "landmarks"))
    while error is not None:
        if str(getattr(error, "filename", None) or error).startswith(folders):
            return True
        error = error.__cause__ or error.__context__
    return False


@dataclass
class Step:
    """One step of the preparation, and where it runs."""

    name: str
    settings: DataPrepConfig
    workers: Workers
    depends: dict[str, Any]  # what of the settings its results depend on; with another value all is done again

    @property
    def output(self) -> Path:
        """Folder of the result."""
        return Path(self.settings.output)

    def map(
        self, function: Function, inputs: dict[str, Any], frames: Callable[[Any], int] = lambda _: 0
    ) -> list[Record]:
        """Call `function(input, settings)`, of a module, for each input, in parallel, except where a run before did.

        Inputs are by their source's path, and `frames` counts those of one, for its time limit. Returns all records in
        the order of the inputs; broken ones give one that is rejected. A record of what was left out has the key
        "rejected" (see `reject`); a record's "files" are paths below the output folder that have to be there for it to
        count as done. What is no input's fault, such as a full disk, is a PrepareError.

        The journal gets a line for each input as soon as it is done. A process that is killed leaves whole lines but
        for the last one, which doesn't count.
        """
        cache_keys = {key: digest([self.name, VERSION, self.depends, value]) for key, value in inputs.items()}
        journal = self.output / FOLDER / "journal" / f"{self.name}.jsonl"
        entries = _read_journal(journal)
        write_lines(journal, entries.values())  # without half a line at its end, which the next one would be joined to
        done = {key: entry for key, entry in entries.items() if key in inputs and self._is_done(entry, cache_keys[key])}
        tasks = [
            Task(key, partial(attempt, function, self.settings, value), self._time_limit(frames(value)))
            for key, value in inputs.items()
            if key not in done
        ]
        bar = svfr.bar(len(inputs), "file", f"{self.name:<10}", initial=len(done), smoothing=0.05)
        num_bad = 0
        with bar, journal.open("a") as file:
            for task, result, why in self.workers.run(tasks):
                outcome = result or Outcome(None, why)
                if outcome.stops:
                    raise PrepareError(f"step {self.name}: {outcome.reason}")
                records = [self._bad_file(task, outcome)] if outcome.records is None else outcome.records
                done[task.key] = {"key": task.key, "cache_key": cache_keys[task.key], "records": records}
                _append(file, done[task.key], journal)
                bar.update()
                if outcome.reason is not None:
                    num_bad += 1
                    bar.set_postfix(bad=num_bad)
                    svfr.error(f"{task.key}: {records[0]['rejected']['reason']}")
        write_lines(journal, (done[key] for key in inputs))
        return [record for key in inputs for record in done[key]["records"]]

    def map_clips(self, function: Function, clips: Iterable[Record]) -> list[Record]:
        """`map` over the clips of one source file after the other, so that each file is read once."""
        groups: dict[str, list[Record]] = {}
        for clip in clips:
            groups.setdefault(clip["source"], []).append(clip)
        return self.map(function, groups, num_frames)

    def finish(self, records: Iterable[Record]) -> list[Record]:
        """Write the step's files: the records that stay, in their order, which it returns, and the rejected ones.

        NothingLeft where none stays.
        """
        kept, left_out = [], []
        for record in records:
            if "rejected" in record:
                left_out.append(record["rejected"])
            else:
                kept.append({key: value for key, value in record.items() if key != "files"})
        write_step(self.output, self.name, kept, left_out)
        if not kept:
            reasons = Counter(item["reason"] for item in left_out).most_common(3)
            listed = "; ".join(f"{count} x {reason}" for reason, count in reasons) or "there was no input"
            raise NothingLeft(f"step {self.name}: nothing is left ({listed})")
        return kept

    def sweep(self, folder: str, records: Iterable[Record]) -> None:
        """Delete from a folder of the output what no record names: of former settings, or half-written."""
        named = {self.output / file for record in records for file in record.get("files", ())}
        for path in (self.output / folder).rglob("*"):
            if path.is_file() and path not in named:
                path.unlink()

    def _time_limit(self, num_frames: int) -> float:
        return min(self.settings.time_limit + FRAME_LIMIT * num_frames, LONGEST)

    def _is_done(self, entry: Record, cache_key: str) -> bool:
        files = (file for record in entry["records"] for file in record.get("files", ()))
        return entry.get("cache_key") == cache_key and all((self.output / file).is_file() for file in files)

    def _bad_file(self, task: Task, outcome: Outcome) -> Record:
        source = Path(self.settings.source.path) / task.key
        reason = str(outcome.reason).removeprefix(f"{source}: ").removeprefix(f"{source} ")
        trace = {"trace": outcome.trace} if outcome.trace else {}
        return {**reject(self.name, task.key, reason, bad=True), **trace}


def reject(step: str, source: str, reason: str, bad: bool = False, clip: str | None = None) -> Record:
    """The record of what a step left out: a file, relative to source.path, or the `clip` of that id in it.

    `bad` says that the file is broken; else it just isn't wanted.
    """
    return {"rejected": {"step": step, "source": source, "reason": reason, "bad": bad, "clip": clip}}


def _read_journal(path: Path) -> dict[str, Record]:
    """All whole entries by key; of several with one key the last."""
    try:
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        entries = [json.loads(line) for line in lines if line.endswith(b"\n")]
        return {entry["key"]: entry for entry in entries}
    except (OSError, ValueError, KeyError) as error:
        raise PrepareError(f"{path}: cannot be read ({error}); delete it to do the step anew") from error


def _append(file: TextIO, entry: Record, path: Path) -> None:
    """Write a line that is there even if this process is killed."""
    try:
        print(json.dumps(entry), file=file, flush=True)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


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
    """The workers that the settings ask for; a PrepareError where Ray is not installed or does not start."""
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
