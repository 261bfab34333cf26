"""A process that dies costs the input that it worked on, and no other."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

BATCH = """
import os, signal, sys, time
from pathlib import Path
import svfr
from svfr.inference import processes
from svfr.inference.batch import REPORT, collect, find_items, run_items
from svfr.inference.video import VideoReport
from svfr.files import digest, write_json

source, output = map(Path, sys.argv[1:])
processes.LONGEST, svfr.error = 2, print
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are born deaf to it

if (source / "early.mp4").exists():  # a SIGTERM comes in each new child before that has its own handlers
    set_handler, first = signal.signal, os.getpid()

    def set_late(number, handler):
        if os.getpid() != first and callable(signal.getsignal(signal.SIGTERM)):
            os.kill(os.getpid(), signal.SIGTERM)
        return set_handler(number, handler)

    signal.signal = set_late


def restore(item):
    name = item.source.stem
    if name == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if name == "hang":
        time.sleep(600)
    if name == "slow":
        for _ in range(25):
            time.sleep(0.1)
            processes.progress()
    if name == "wait":
        (output / "waiting").touch()
        for _ in range(200):
            time.sleep(0.1)
            processes.progress()
    (output / item.target).write_bytes(b"x")
    return VideoReport(output / item.target, 1, 1, 1, 8, 8, 25.0, 0.1, {}, None)


def run():
    if (source / "heavy.mp4").exists():  # what loads weights is killed for want of memory
        os.kill(os.getpid(), signal.SIGKILL)
    if (source / "fault.mp4").exists():
        raise RuntimeError("ours")
    items = find_items(source, output, "mp4")
    try:
        run_items(items, output, lambda item: digest(str(item)), restore, lambda: None)
    finally:
        report = collect(items, output, lambda item: digest(str(item)))
        write_json(output / REPORT, report)
    return 1 if report["failed"] else 0


sys.exit(processes.watched(run))
"""

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are watched on Linux")


def start(folder: Path, *names: str) -> subprocess.Popen[str]:
    (folder / "in").mkdir(exist_ok=True)
    (folder / "out").mkdir(exist_ok=True)
    for name in names:
        (folder / "in" / f"{name}.mp4").write_bytes(b"x")
    words = [sys.executable, "-c", BATCH, str(folder / "in"), str(folder / "out")]
    alone = "early" in names  # in a process group without this one
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=alone)


def test_a_crash_and_a_hang_cost_their_inputs_alone(tmp_path: Path) -> None:
    process = start(tmp_path, "a", "crash", "hang", "slow", "z")
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 1
    assert errors.splitlines() == [
        "ended by signal 11; going on with the next",
        "ended by signal 14; going on with the next",
    ]
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    reasons = {Path(video["input"]).stem: video["reason"] for video in report["videos"]}
    assert [name for name, reason in reasons.items() if reason is None] == ["a", "slow", "z"]
    assert "its process ended" in reasons["crash"]
    assert reasons["hang"] == reasons["crash"]


def test_a_signal_before_there_is_a_child_does_not_go_to_the_whole_group(tmp_path: Path) -> None:
    process = start(tmp_path, "crash", "early")
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 1
    assert errors.splitlines() == ["ended by signal 11; going on with the next"]
    assert (tmp_path / "out" / "early.mp4").exists()


def test_what_ends_between_inputs_is_not_tried_again(tmp_path: Path) -> None:
    process = start(tmp_path, "heavy")
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 128 + signal.SIGKILL
    assert errors.splitlines() == ["ended by signal 9, by itself or for want of memory"]


def test_a_fault_of_ours_is_not_silent(tmp_path: Path) -> None:
    process = start(tmp_path, "fault")
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 1
    assert errors.splitlines()[-1] == "RuntimeError: ours"


def test_ctrl_c_reaches_a_child_that_took_the_place_of_another(tmp_path: Path) -> None:
    process = start(tmp_path, "crash", "wait")
    while not (tmp_path / "out" / "waiting").exists():
        assert process.poll() is None
        signal.sigtimedwait([], 0.05)
    [child] = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(child), signal.SIGINT)
    process.communicate(timeout=5)
    assert process.returncode == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_child_ends_with_its_parent(tmp_path: Path, number: int) -> None:
    process = start(tmp_path, "wait")
    while not (tmp_path / "out" / "waiting").exists():
        assert process.poll() is None
        signal.sigtimedwait([], 0.05)
    [child] = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.send_signal(number)
    process.communicate(timeout=20)
    for _ in range(100):
        if not Path(f"/proc/{child}").exists():
            break
        signal.sigtimedwait([], 0.05)
    assert not Path(f"/proc/{child}").exists()
