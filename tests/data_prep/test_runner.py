import errno
import json
import os
import signal
import time
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest

from data_prep.records import PrepareError, Record, read_step, step_file
from data_prep.runner import Step, attempt, reject, start_workers
from data_prep.settings import DataPrepConfig, SourceConfig
from svfr.data.video import VideoError
from svfr.inference.workers import Task, Workers


def work(number: int, settings: DataPrepConfig) -> list[Record]:
    """Squares; some inputs misbehave."""
    Path(settings.output, f"did-{number}").touch()
    if number == 13:
        raise ValueError(f"{settings.source.path}/13: unlucky")
    if number == 14:
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 15:
        time.sleep(100)
    if number == 16:
        raise OSError(28, "No space left on device")
    if number == 17:
        raise KeyError("ours")
    if number % 2:
        return [reject("work", str(number), "odd")]
    return [{"source": str(number), "square": number**2}]


def step(folder: Path, workers: Workers, **settings: Any) -> Step:
    source = SourceConfig(path="raw")
    return Step("work", DataPrepConfig(source, str(folder), score="none", **settings), workers, {"a": 1})


def started(engine: Literal["local", "ray"], processes: int) -> Workers:
    return start_workers(DataPrepConfig(engine=engine, processes=processes))


def in_process() -> Workers:
    return started("local", 0)


def done(folder: Path) -> set[str]:
    """Which inputs were worked on since the last call."""
    files = list(folder.glob("did-*"))
    for file in files:
        file.unlink()
    return {file.name for file in files}


def inputs(*numbers: int) -> dict[str, Any]:
    return {str(number): number for number in numbers}


def test_results_are_in_order_and_whole(tmp_path: Path) -> None:
    workers = started("local", 2)
    try:
        records = step(tmp_path, workers).map(work, inputs(6, 2, 3, 4))
    finally:
        workers.close()
    assert step(tmp_path, in_process()).finish(records) == [{"source": str(n), "square": n**2} for n in (6, 2, 4)]
    assert [record["source"] for record in read_step(tmp_path, "work")] == ["6", "2", "4"]
    [left_out] = map(json.loads, step_file(tmp_path, "work.rejected").read_text().splitlines())
    assert left_out == {"step": "work", "source": "3", "reason": "odd", "bad": False, "clip": None}


def test_nothing_is_done_twice(tmp_path: Path) -> None:
    first = step(tmp_path, in_process()).map(work, inputs(2, 13))
    assert len(done(tmp_path)) == 2
    assert step(tmp_path, in_process()).map(work, inputs(2, 13)) == first
    assert not done(tmp_path)
    step(tmp_path, in_process()).map(work, inputs(2, 4, 13))
    assert done(tmp_path) == {"did-4"}
    other = step(tmp_path, in_process())
    other.depends["a"] = 2
    other.map(work, inputs(2))
    assert done(tmp_path) == {"did-2"}
    step(tmp_path, in_process()).map(work, {"2": 8})  # another input of the same name
    assert done(tmp_path) == {"did-8"}


def test_half_a_line_of_the_journal_does_not_count(tmp_path: Path) -> None:
    expected = step(tmp_path, in_process()).map(work, inputs(2, 4))
    journal = tmp_path / "steps/journal/work.jsonl"
    whole = journal.read_bytes()
    journal.write_bytes(whole[:-5])
    done(tmp_path)
    assert step(tmp_path, in_process()).map(work, inputs(2, 4)) == expected
    assert done(tmp_path) == {"did-4"}
    assert journal.read_bytes() == whole


def test_a_result_whose_file_is_gone_is_made_again(tmp_path: Path) -> None:
    def with_file(number: int, settings: DataPrepConfig) -> list[Record]:
        work(number, settings)
        Path(settings.output, "result").touch()
        return [{"source": "2", "files": ["result"]}]

    step(tmp_path, in_process()).map(with_file, inputs(2))
    done(tmp_path)
    step(tmp_path, in_process()).map(with_file, inputs(2))
    assert not done(tmp_path)
    (tmp_path / "result").unlink()
    step(tmp_path, in_process()).map(with_file, inputs(2))
    assert done(tmp_path)


def misbehave(folder: Path, workers: Workers) -> dict[str, str]:
    """Reasons by source."""
    numbers = inputs(2, 13, 14, 15, 17, 4)
    try:
        records = step(folder, workers, time_limit=1.5).map(work, numbers)
    finally:
        workers.close()
    assert [record["square"] for record in records if "square" in record] == [4, 16]
    return {record["rejected"]["source"]: record["rejected"]["reason"] for record in records if "rejected" in record}


def test_bad_inputs_stop_nothing(tmp_path: Path) -> None:
    reasons = misbehave(tmp_path, started("local", 2))
    assert reasons["13"] == "unlucky"
    assert reasons["14"] == "ended its worker process (crash, or out of memory)"
    assert reasons["15"] == "took longer than 2 s"
    assert reasons["17"].startswith("internal error (KeyError")


@pytest.mark.slow
def test_bad_inputs_stop_nothing_on_ray(tmp_path: Path) -> None:
    reasons = misbehave(tmp_path, started("ray", 2))
    assert reasons["13"] == "unlucky"
    assert reasons["14"] == "ended its worker process (crash, or out of memory)"
    assert reasons["15"] == "took longer than 2 s"


def test_workers_go_on_after_one_died_while_idle(tmp_path: Path) -> None:
    workers = started("local", 1)
    try:
        [pid] = [record["pid"] for record in step(tmp_path, workers).map(own_pid, inputs(1))]
        os.kill(pid, signal.SIGKILL)
        time.sleep(0.5)
        [other] = [record["pid"] for record in step(tmp_path, workers).map(own_pid, inputs(2))]
    finally:
        workers.close()
    assert other != pid


def own_pid(number: int, settings: DataPrepConfig) -> list[Record]:
    return [{"source": str(number), "pid": os.getpid()}]


def test_closing_ends_a_worker_in_the_middle_of_a_task(tmp_path: Path) -> None:
    workers = started("local", 2)
    settings = DataPrepConfig(SourceConfig(path="raw"), str(tmp_path), score="none")
    running = workers.run([Task(n, partial(attempt, work, settings, n), 60) for n in (2, 15)])
    assert next(running)[1].records == [{"source": "2", "square": 4}]
    since = time.monotonic()
    workers.close()
    assert time.monotonic() - since < 30


def test_an_output_that_cannot_be_written_is_no_inputs_fault(tmp_path: Path) -> None:
    (tmp_path / "clips").touch()
    with pytest.raises(PrepareError, match=f"^step work: {tmp_path}/clips/aa: Not a directory$"):
        step(tmp_path, in_process()).map(write_a_clip, inputs(2))


def write_a_clip(number: int, settings: DataPrepConfig) -> list[Record]:
    Path(settings.output, "clips/aa").mkdir()
    return []


def test_a_full_disk_stops_all_and_is_no_inputs_fault(tmp_path: Path) -> None:
    with pytest.raises(PrepareError, match="No space left"):
        step(tmp_path, in_process()).map(work, inputs(2, 16, 4))
    done(tmp_path)
    assert len(step(tmp_path, in_process()).map(work, inputs(2, 4))) == 2
    assert done(tmp_path) == {"did-4"}


def read_as_the_decoder_does(number: int, settings: DataPrepConfig) -> list[Record]:
    if number == 1:
        raise VideoError("a file that claims a huge table") from OSError(errno.ENOMEM, "Cannot allocate memory")
    return [{"source": str(number)}]


def test_memory_that_a_file_asks_for_is_that_files_fault(tmp_path: Path) -> None:
    records = step(tmp_path, in_process()).map(read_as_the_decoder_does, inputs(1, 2))
    assert [record.get("source") for record in records] == [None, "2"]


def test_nothing_left_says_why(tmp_path: Path) -> None:
    records = step(tmp_path, in_process()).map(work, inputs(1, 3))
    with pytest.raises(PrepareError, match=r"^step work: nothing is left \(2 x odd\)$"):
        step(tmp_path, in_process()).finish(records)


def test_files_of_another_version_and_missing_ones(tmp_path: Path) -> None:
    with pytest.raises(PrepareError, match="run the step work first"):
        read_step(tmp_path, "work")
    step(tmp_path, in_process()).finish([{"source": "a"}])
    file = step_file(tmp_path, "work")
    file.write_text(file.read_text().replace('"version": 1', '"version": 0'))
    with pytest.raises(PrepareError, match=r"another version \(0, this code's is 1\)"):
        read_step(tmp_path, "work")
    file.write_text("nonsense\n")
    with pytest.raises(PrepareError, match="cannot be read"):
        read_step(tmp_path, "work")


def test_sweep_deletes_what_no_record_names(tmp_path: Path) -> None:
    (tmp_path / "clips/aa").mkdir(parents=True)
    for name in ("kept.mp4", "old.mp4", ".x.partial-1.mp4"):
        (tmp_path / "clips/aa" / name).touch()
    step(tmp_path, in_process()).sweep("clips", [{"files": ["clips/aa/kept.mp4"]}])
    assert [file.name for file in (tmp_path / "clips/aa").iterdir()] == ["kept.mp4"]
