"""Prepare a made collection in several ways, killing one of them again and again, and compare the results.

    python -m tests.data_prep.check_collection --files 2000 --kills 10 --folder DIR [key=value ...]

Networks are searched in $SVFR_NETWORKS. Prints one line for each way; exit code 1 if anything is wrong.
"""

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from data_prep.records import STEPS, read_step
from tests.data_prep.collection import Made, make_collection

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = ("score=none", "cut.min_frames=10", "write.size=64", "time_limit=60")
WAYS = {
    "1 process": ("processes=1",),
    "2 processes, killed": ("processes=2",),
    "Ray": ("engine=ray", "processes=2"),
}


def check(
    folder: Path, files: int, kills: int, settings: list[str], ways: dict[str, tuple[str, ...]] = WAYS
) -> list[str]:
    """What is wrong, one line each; [] if nothing is."""
    raw = folder / "raw"
    made = make_collection(raw, files)
    wrong, sums = [], {}
    for number, (way, options) in enumerate(ways.items()):
        output = folder / f"out{number}"
        started = time.perf_counter()
        command = [f"source.path={raw}", f"output={output}", *SETTINGS, *options, *settings]
        survived = kills_done = 0
        if "killed" in way:
            kills_done, survived = run_and_kill(command, output, kills, random.Random(0))
            wrong += [f"{way}: only {kills_done} of {kills} kills came in time"] if kills_done < kills else []
        code = prepare(command).wait()
        seconds = time.perf_counter() - started
        wrong += [f"{way}: exit code {code} instead of 1"] if code != 1 else []
        wrong += [f"{way}: {line}" for line in compare(output, made)]
        sums[way] = digest(output)
        print(
            f"{way}: {seconds:.0f} s, {kills_done} kills, {survived} inputs done before, {sums[way][:16]}", flush=True
        )
    wrong += ["the ways differ in their bytes"] if len(set(sums.values())) > 1 else []
    return wrong


def prepare(command: list[str]) -> "subprocess.Popen[bytes]":
    """Start the command."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with (Path(command[1].partition("=")[2]).parent / "log.txt").open("a") as log:
        return subprocess.Popen(
            [sys.executable, str(ROOT / "data_prep/prepare.py"), *command], env=environment, stdout=log, stderr=log
        )


def run_and_kill(command: list[str], output: Path, kills: int, rng: random.Random) -> tuple[int, int]:
    """Start the command and kill it, at random numbers of inputs done; returns the kills and what had been done."""
    expected = len(STEPS[:3]) * sum(1 for _ in Path(command[0].partition("=")[2]).rglob("*.mp4"))
    targets = sorted(rng.randrange(1, expected) for _ in range(kills))
    done = 0
    for number, target in enumerate(targets):
        process = prepare(command)
        before = _lines(output)
        while process.poll() is None and (_lines(output) < target or _lines(output) == before):
            time.sleep(0.02)
        if process.poll() is not None:
            return number, done
        process.send_signal(signal.SIGKILL)
        process.wait()
        done = _lines(output)
    return kills, done


def _lines(output: Path) -> int:
    """Inputs that all steps together have done so far."""
    return sum(file.read_bytes().count(b"\n") for file in (output / "steps/journal").glob("[!.]*.jsonl"))


def compare(output: Path, made: dict[str, Made]) -> list[str]:
    """Files of which not that came out which should have."""
    rejected = [json.loads(line) for line in (output / "rejected.jsonl").read_text().splitlines()]
    frames: dict[str, list[int]] = {}
    for record in read_step(output, "write"):
        frames.setdefault(record["source"], []).append(record["clip"]["num_frames"])
    wrong = []
    for source, file in made.items():
        reasons = [item for item in rejected if item["source"] == source]
        right = {
            "good": frames.get(source) == [file.num_frames] and not reasons,
            "bad": source not in frames and any(item["bad"] and item["reason"] for item in reasons),
            "same": source not in frames and any("the same bytes as" in item["reason"] for item in reasons),
        }
        if not right[file.result]:
            wrong.append(f"{source} ({file.kind}) gives {frames.get(source)}, {reasons}, not {file}")
    return wrong


def digest(output: Path) -> str:
    """Of all files of the output and their names."""
    sums = hashlib.sha256()
    for path in sorted(output.rglob("*")):
        if path.is_file() and path.name != ".lock":
            sums.update(f"{path.relative_to(output)} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return sums.hexdigest()


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--folder", type=Path, required=True, help="an empty one")
    parser.add_argument("settings", nargs="*", metavar="key=value")
    options: Any = parser.parse_args()
    wrong = check(options.folder, options.files, options.kills, options.settings)
    print("\n".join(wrong) or "all right")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
