"""The folder of a training run: its settings, its metrics, its samples, checkpoints and weights."""

import fcntl
import json
import os
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from svfr.config import ConfigError, load, save
from svfr.training.settings import TrainConfig

CONFIG, METRICS, PROVENANCE, LOCK = "config.yaml", "metrics.jsonl", "provenance.json", ".lock"
# Settings that may differ when a run goes on: they change its length, its pace and its records, not its numbers.
FREE = (
    "output_dir",
    "max_steps",
    "log_every",
    "validate_every",
    "checkpoint_every",
    "keep_checkpoints",
    "max_skipped",
    "tracker",
    "device",
    "gradient_checkpointing",
    "data.num_workers",
    "data.max_broken_share",
)


class RunFolder:
    """Where a run keeps what it makes. Of several processes, only the main one writes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.weights = path / "weights"
        self.samples = path / "samples"
        self._lock: IO[str] | None = None

    def claim(self, config: TrainConfig) -> None:
        """Note the settings; a run that is there already has to be this one, and nobody else may be at it.

        Raises:
            ConfigError: the folder holds a run with other settings, the first one that differs is named; or another
                process is training there.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(self.path)
        if (self.path / CONFIG).is_file():
            before = _flat(asdict(load(TrainConfig, self.path / CONFIG)))
            for key, value in _flat(asdict(config)).items():
                if key not in FREE and before.get(key) != value:
                    raise ConfigError(
                        f"{key}={value}: {self.path} holds a run with {key}={before.get(key)}; "
                        "set it to that to go on, or take another output_dir"
                    )
        save(config, self.path / CONFIG)
        provenance = {"git_revision": git_revision(), "seed": config.seed}
        (self.path / PROVENANCE).write_text(json.dumps(provenance, indent=2) + "\n")

    def describe(self, folder: Path) -> None:
        """Put the settings and the revision beside weights."""
        for name in (CONFIG, PROVENANCE):
            (folder / name).write_bytes((self.path / name).read_bytes())

    def cut_metrics(self, step: int) -> None:
        """Forget the metrics after a step, which the run that goes on from there writes again."""
        path = self.path / METRICS
        if not path.is_file():
            return
        kept = [line for line in path.read_text().splitlines() if _step_of(line) <= step]
        temporary = path.with_name(f".{METRICS}.partial")
        temporary.write_text("".join(line + "\n" for line in kept))
        os.replace(temporary, path)

    def add_metrics(self, step: int, values: dict[str, float]) -> None:
        """Append a line to metrics.jsonl."""
        with (self.path / METRICS).open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")


def _lock(folder: Path) -> IO[str]:
    """Keep other processes out of a folder as long as this file is open, at most as long as this process lives.

    Processes whose launcher was killed go on for a while. A lock of this kind is not handed on to loader workers.
    """
    file = (folder / LOCK).open("a+")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
        file.seek(0)
        raise ConfigError(
            f"{folder}: process {file.read() or 'unknown'} is training there; end it, or take another output_dir"
        ) from error
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def git_revision() -> str | None:
    """The revision of the code, with a + where it has been changed; None outside of a git checkout."""
    folder = Path(__file__).parents[1]

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no", ".") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return float("inf")  # half a line, of a process that was killed


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and key == "data":
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
