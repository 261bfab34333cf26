"""The folder of a training run: its settings, metrics, samples, checkpoints and weights."""

import fcntl
import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from svfr.config import ConfigError, load, save
from svfr.files import NO_LOCKS, remove, replacing, sha256_of, write_json
from svfr.training.settings import TrainConfig

CONFIG, METRICS, PROVENANCE = "config.yaml", "metrics.jsonl", "provenance.json"
LOCK, CHECKSUMS = ".lock", "checksums.json"
# Settings that may differ when a run goes on: they change its length, its pace and its records, not its numbers.
LENGTH = ("max_steps", "max_skipped", "data.max_broken_share")
PACE = ("device", "gradient_checkpointing", "compile", "data.num_workers")
SPLIT = ("batch_size", "accumulate")  # their product with the number of processes may not, see `claim`
RECORDS = ("output_dir", "tracker", "log_every", "validate_every")
STEPS = ("checkpoint_every", "keep_checkpoints", "keep_weights")
CHANGEABLE = {*LENGTH, *PACE, *SPLIT, *RECORDS, *STEPS}
ANNOUNCED = "learning_rate"  # may differ, and changes the numbers


class RunFolder:
    """Where a run keeps what it makes. Of several processes, only the main one writes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints, self.weights, self.samples = (path / name for name in ("checkpoints", "weights", "samples"))
        self._lock: IO[str] | None = None

    def claim(self, config: TrainConfig, facts: Mapping[str, Any], show: Callable[[str], None]) -> None:
        """Note the settings; a run that is there already has to be this one, and nobody else may be at it.

        Its `facts`, as JSON has them, have to be the same, too. A folder without a checkpoint holds no run yet. `show`
        takes a line on what is different from here on. A ConfigError that names a setting, or says who trains there.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(self.path, show)
        now = _by_key(config) | dict(facts)
        # A cosine that has come down to 0 by one number of steps would jump up by another.
        changeable = CHANGEABLE - ({"max_steps"} if config.schedule == "cosine" else set())
        if find_steps(self.checkpoints) or find_steps(self.weights):
            before = _by_key(load(TrainConfig, self.path / CONFIG)) | json.loads((self.path / PROVENANCE).read_text())
            for key in [key for key, value in now.items() if before.get(key) != value and key not in changeable]:
                if key != ANNOUNCED:
                    raise ConfigError(
                        f"{key}={now[key]}: {self.path} holds a run with {key}={before.get(key)}; "
                        "set it to that to go on, or take another output_dir"
                    )
                show(f"{self.path}: {key}={now[key]} from here on, {before[key]} until now")
        with replacing(self.path / CONFIG) as partial:
            save(config, partial)
        write_json(self.path / PROVENANCE, {"git_revision": git_revision(), "seed": config.seed, **facts})

    def look_at(self, step: int | None) -> str | list[int] | None:
        """What shows whether two processes see the same: a checkpoint's checksums; without one, all steps."""
        if step is None:
            return find_steps(self.checkpoints)
        sums = self.checkpoints / step_name(step) / CHECKSUMS
        return sums.read_text() if sums.is_file() else None

    def describe(self, folder: Path) -> None:
        """Put the settings and the revision beside weights."""
        for name in (CONFIG, PROVENANCE):
            (folder / name).write_bytes((self.path / name).read_bytes())

    def cut_metrics(self, step: int) -> None:
        """Forget the metrics after a step, which the run that goes on from there writes again."""
        path = self.path / METRICS
        if path.is_file():
            kept = [line for line in path.read_text().splitlines() if _step_of(line) <= step]
            with replacing(path) as partial:
                partial.write_text("".join(line + "\n" for line in kept))

    def add_metrics(self, step: int, values: dict[str, float]) -> None:
        """Append a line to metrics.jsonl."""
        with (self.path / METRICS).open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")


def step_name(step: int) -> str:
    """Name of the folder of a step."""
    return f"step_{step:06d}"


def find_steps(folder: Path) -> list[int]:
    """Steps that have a finished folder, ascending."""
    matches = [re.fullmatch(r"step_(\d+)", child.name) for child in folder.glob("step_*") if child.is_dir()]
    return sorted(int(match[1]) for match in matches if match)


@contextmanager
def writing_step(folder: Path, step: int) -> Iterator[Path]:
    """An empty folder to write a step into; it gets its name, with a checksum of each file, when the block ends well.

    What interrupted writing left in `folder` is removed. Of several processes, one calls this. Errors as `replacing`.
    """
    for rest in folder.glob(".step_*"):
        remove(rest)
    with replacing(folder / step_name(step)) as partial:
        partial.mkdir()
        yield partial
        files = sorted(file for file in partial.rglob("*") if file.is_file())
        write_json(partial / CHECKSUMS, {str(file.relative_to(partial)): sha256_of(file) for file in files})
        for file in files:
            with file.open("rb") as opened:
                os.fsync(opened.fileno())  # a name must not outlive its content in a power cut


def find_newest(folder: Path, show: Callable[[str], None]) -> int | None:
    """The newest step whose files are all as they were written; `show` names those passed over."""
    for step in reversed(find_steps(folder)):
        newest = folder / step_name(step)
        try:
            sums = json.loads((newest / CHECKSUMS).read_text())
            if all(sha256_of(newest / name) == digest for name, digest in sums.items()):
                return step
        except (OSError, ValueError):
            pass
        show(f"{newest}: damaged, passed over")
    return None


def keep_newest(folder: Path, count: int) -> None:
    """Delete all but the newest `count` steps."""
    for step in find_steps(folder)[:-count]:
        remove(folder / step_name(step))


def git_revision() -> str | None:
    """The revision of the code, with a + where it has been changed; None outside of a git checkout."""
    command = ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+"]
    here = Path(__file__).parent
    try:
        return subprocess.check_output(command, cwd=here, stderr=subprocess.DEVNULL, text=True, timeout=30).strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _lock(folder: Path, show: Callable[[str], None]) -> IO[str]:
    """Keep other processes out of a folder as long as this file is open, at most as long as this process lives.

    Processes whose launcher was killed go on for a while. A lock of this kind is not handed on to loader workers.
    """
    file = (folder / LOCK).open("a+")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
        file.seek(0)
        process, advice = file.read() or "unknown", "end it, or take another output_dir"
        raise ConfigError(f"{folder}: process {process} is training there; {advice}") from error
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise OSError(error.errno, error.strerror, file.name) from error
        show(f"{folder}: cannot be locked ({error.strerror}); take care that nothing else trains there")
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return float("inf")  # half a line, of a process that was killed


def _by_key(config: TrainConfig) -> dict[str, Any]:
    """The settings by the keys of the command line."""
    values = asdict(config)
    for group in ("data", "lora"):
        values |= {f"{group}.{key}": value for key, value in values.pop(group).items()}
    return values
