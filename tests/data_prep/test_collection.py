"""A large collection of made files, good and bad, prepared in several ways, one of them killed again and again."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data_prep.records import read_step
from tests.assets import NETWORKS, needs_assets
from tests.data_prep.collection import Made, make_collection
from tests.data_prep.test_prepare import ROOT, digest

COLLECTION = ["detector=yunet", "recognizer=none", "landmarks=none", "score=none"]
COLLECTION += ["cut.min_frames=10", "write.size=64", "time_limit=60"]


@needs_assets
@pytest.mark.slow
def test_a_collection_comes_out_right_however_it_is_prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """1 process, 2 processes killed three times, and Ray."""
    monkeypatch.setenv("SVFR_NETWORKS", str(NETWORKS))
    made = make_collection(tmp_path / "raw", 40)
    command = [f"source.path={tmp_path}/raw", *COLLECTION]
    ways = {"one": ["processes=1"], "killed": ["processes=2"], "ray": ["engine=ray", "processes=2"]}
    run_and_kill([*command, f"output={tmp_path}/killed", *ways["killed"]], tmp_path / "killed", [20, 60, 100])
    for name, options in ways.items():
        assert start([*command, f"output={tmp_path}/{name}", *options]).wait() == 1
        assert wrong_files(tmp_path / name, made) == []
    assert digest(tmp_path / "one") == digest(tmp_path / "killed") == digest(tmp_path / "ray")


def start(command: list[str]) -> "subprocess.Popen[bytes]":
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, str(ROOT / "data_prep/prepare.py"), *command], env=environment, stderr=subprocess.DEVNULL
    )


def run_and_kill(command: list[str], output: Path, targets: list[int]) -> None:
    """Start the command again and again, and kill it as soon as the steps have done so many inputs, and one more."""
    for target in targets:
        before = num_done(output)
        process = start(command)
        while num_done(output) < target or num_done(output) == before:
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()


def num_done(output: Path) -> int:
    """Inputs that all steps together have done so far."""
    return sum(file.read_bytes().count(b"\n") for file in (output / "steps/journal").glob("[!.]*.jsonl"))


def wrong_files(output: Path, made: dict[str, Made]) -> list[str]:
    """Files of which something else came out than should have."""
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
