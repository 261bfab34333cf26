"""Run one step over its inputs: skip what is done, keep a journal, show a bar, put the results in order."""

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data_prep.records import (
    FOLDER,
    VERSION,
    NothingLeft,
    OutputError,
    PrepareError,
    Record,
    digest,
    write_lines,
    write_step,
)
from data_prep.settings import DataPrepConfig
from data_prep.workers import Function, Outcome, Task, Workers

LONGEST_LIMIT = 86_400.0  # [s] whatever number of frames a broken file claims to have


@dataclass(frozen=True)
class Rejected:
    """What a step left out.

    Attributes:
        step: its name.
        source: the file, relative to source.path.
        reason: one line.
        bad: whether the file is broken; else it, or a clip of it, just isn't wanted.
        clip: the clip's id, if it is one of several of the file.
    """

    step: str
    source: str
    reason: str
    bad: bool
    clip: str | None = None


@dataclass
class Step:
    """One step of the preparation, and where it runs.

    Attributes:
        name: of the step.
        settings: all of them.
        workers: that do the work.
        depends: what of the settings its results depend on; with another value all is done again.
    """

    name: str
    settings: DataPrepConfig
    workers: Workers
    depends: dict[str, Any]

    @property
    def output(self) -> Path:
        """Folder of the result."""
        return Path(self.settings.output)

    def map(
        self, function: Function, inputs: dict[str, Any], frames: Callable[[Any], int] = lambda _: 0
    ) -> list[Record]:
        """Call `function(input, settings)` for each input, in parallel, except where a run before did.

        A record of what was left out has the key "rejected" (see `reject`); a record's "files" are paths below the
        output folder that have to be there for it to count as done.

        Args:
            function: of a module, so that other processes find it.
            inputs: by key, which is the source's path.
            frames: of an input, for its time limit.

        Returns:
            All records in the order of the inputs; broken inputs give one that is rejected.

        Raises:
            PrepareError: no input's fault, such as a full disk.
        """
        calls = {key: digest(self.name, VERSION, self.depends, value) for key, value in inputs.items()}
        journal = _Journal(self.output / FOLDER / "journal" / f"{self.name}.jsonl")
        done = {key: entry for key, entry in journal.read().items() if self._is_done(entry, calls.get(key))}
        tasks = [Task(key, value, self._limit(frames(value))) for key, value in inputs.items() if key not in done]
        bar = tqdm(total=len(inputs), initial=len(done), desc=f"{self.name:<10}", unit="file", smoothing=0.05)
        bad = 0
        try:
            with journal:
                for task, outcome in self.workers.run(function, self.settings, tasks):
                    if outcome.stops:
                        raise PrepareError(f"step {self.name}: {outcome.reason}")
                    records = self._records(task, outcome)
                    entry = {"key": task.key, "call": calls[task.key], "records": records}
                    journal.add(entry)
                    done[task.key] = entry
                    bar.update()
                    if outcome.reason is not None:
                        bad += 1
                        bar.set_postfix(bad=bad)
                        bar.write(f"{task.key}: {records[0]['rejected']['reason']}", file=sys.stderr)
        finally:
            bar.close()
        entries = [done[key] for key in inputs]
        journal.replace(entries)
        return [record for entry in entries for record in entry["records"]]

    def finish(self, records: Iterable[Record], rejected: Iterable[Rejected] = ()) -> list[Record]:
        """Write the step's files: the records that stay, in their order, and what was left out.

        Args:
            records: of `map`, those with "rejected" among them.
            rejected: what was left out besides.

        Returns:
            The records that stay.

        Raises:
            NothingLeft: none stays.
        """
        records = list(records)
        kept = [
            {key: value for key, value in record.items() if key != "files"}
            for record in records
            if "rejected" not in record
        ]
        left_out = [record["rejected"] for record in records if "rejected" in record]
        left_out += [item.__dict__ for item in rejected]
        write_lines(rejected_file(self.output, self.name), left_out)
        write_step(self.output, self.name, kept)
        if not kept:
            reasons = Counter(item["reason"] for item in left_out).most_common(3)
            listed = "; ".join(f"{count} x {reason}" for reason, count in reasons) or "there was no input"
            raise NothingLeft(f"step {self.name}: nothing is left ({listed})")
        return kept

    def sweep(self, folder: str, records: Iterable[Record]) -> None:
        """Delete from a folder of the output what no record names: of former settings, or half-written."""
        root = self.output / folder
        named = {self.output / file for record in records for file in record.get("files", ())}
        for path in root.rglob("*") if root.is_dir() else ():
            if path.is_file() and path not in named:
                path.unlink()

    def _is_done(self, entry: Record, call: str | None) -> bool:
        files = (file for record in entry["records"] for file in record.get("files", ()))
        return entry["call"] == call and all((self.output / file).is_file() for file in files)

    def _limit(self, num_frames: int) -> float:
        return min(self.settings.time_limit + self.settings.time_per_frame * num_frames, LONGEST_LIMIT)

    def _records(self, task: Task, outcome: Outcome) -> list[Record]:
        if outcome.records is not None:
            return outcome.records
        source = str(Path(self.settings.source.path) / task.key)
        reason = (outcome.reason or "").removeprefix(f"{source}: ").removeprefix(f"{source} ")
        record = reject(Rejected(self.name, task.key, reason, bad=True))
        return [{**record, "trace": outcome.trace} if outcome.trace else record]


def reject(rejected: Rejected) -> Record:
    """The record of what was left out."""
    return {"rejected": rejected.__dict__}


def rejected_file(output: Path, step: str) -> Path:
    """Where a step's list of what it left out lies."""
    return output / FOLDER / f"{step}.rejected.jsonl"


def by_source(records: Iterable[Record]) -> dict[str, list[Record]]:
    """Clips grouped by their source file, so that each file is read once in a step."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(record["source"], []).append(record)
    return groups


def num_frames(clips: Sequence[Record]) -> int:
    """Frames that have to be read for the clips of one source file."""
    return max(clip["start_frame"] + clip["num_frames"] for clip in clips)


class _Journal:
    """What a step has done, one line an input, written as it goes.

    A process that is killed leaves whole lines but for the last one, which doesn't count.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> dict[str, Record]:
        """All entries by key; of several with one key the last."""
        if not self._path.exists():
            return {}
        entries = {}
        try:
            for line in self._path.read_bytes().splitlines(keepends=True):
                if line.endswith(b"\n"):
                    entry = json.loads(line)
                    entries[entry["key"]] = entry
        except (OSError, ValueError, KeyError) as error:
            raise PrepareError(f"{self._path}: cannot be read ({error}); delete it to do the step anew") from error
        self.replace(entries.values())  # without half a line at its end, which the next one would be joined to
        return entries

    def replace(self, entries: Iterable[Record]) -> None:
        """Write all entries anew."""
        write_lines(self._path, entries)

    def __enter__(self) -> "_Journal":
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("a")
        except OSError as error:
            raise OutputError(f"{self._path}: cannot be written ({error.strerror})") from error
        return self

    def add(self, entry: Record) -> None:
        """Append an entry, so that it is there even if this process is killed."""
        try:
            self._file.write(json.dumps(entry) + "\n")
            self._file.flush()
        except OSError as error:
            raise OutputError(f"{self._path}: cannot be written ({error.strerror})") from error

    def __exit__(self, *_: object) -> None:
        self._file.close()
