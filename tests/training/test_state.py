"""What two processes (gloo, on the CPU) hold in memory, and how long they wait for each other."""

import time
from copy import deepcopy
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator, PartialState
from diffusers.training_utils import EMAModel
from torch import distributed, multiprocessing, nn

from svfr.training.processes import Processes, Stopped
from svfr.training.run_folder import RunFolder, writing_step
from svfr.training.state import STATE, ModelAndOptimizer, MovingAverage, Progress, State, resume
from tests.training.test_distributed import free_port, join

LAYERS, WIDTH = 32, 1000  # 128 MB of float32
MEGABYTES = LAYERS * WIDTH * WIDTH * 4 / 1e6


def made_state(is_main: bool, value: float) -> tuple[State, nn.Module]:
    model = nn.Sequential(*(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(LAYERS)))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(value)
    optimizer = torch.optim.AdamW(model.parameters())
    average = MovingAverage(model, deepcopy(model) if is_main else None, 0.5)
    trained = ModelAndOptimizer(model, optimizer, is_main)
    return State(trained, average, torch.amp.GradScaler(enabled=False), Progress(step=int(value))), model


def memory(kind: str) -> float:
    """[MB] of this process: VmRSS now, VmHWM at most since the last reset."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(kind))
    return int(line.split()[1]) * 1.024e-3


def worker(rank: int, port: int, folder: Path) -> None:
    join(rank, port)
    distributed.init_process_group("gloo", timeout=timedelta(seconds=3))
    processes, run = Processes(Accelerator(cpu=True)), RunFolder(folder)
    facts: dict[str, Any] = {}
    if processes.is_main:
        saved, _ = made_state(True, 7.0)
        with writing_step(run.checkpoints, 7) as checkpoint:
            torch.save(saved.state_dict(), checkpoint / STATE)
        del saved
    with processes.agreeing():
        if processes.is_main:
            time.sleep(5)  # longer than the limit of the other network

    state, model = made_state(processes.is_main, 1.0)
    Path("/proc/self/clear_refs").write_text("5")  # sets VmHWM back
    before = memory("VmRSS")
    facts["step"] = resume(state, run, processes)
    facts["grown"] = memory("VmHWM") - before
    facts["loaded"] = all(bool((parameter == 7).all()) for parameter in model.parameters())
    facts["progress"] = state.progress.step
    facts["held"] = sum(tensor.numel() for tensor in state.ema.state_dict().values()) * 4e-6

    try:
        with processes.agreeing():
            if not processes.is_main:
                raise ValueError("a disk that is not there")
    except (ValueError, Stopped) as error:
        facts["error"] = type(error).__name__
    torch.save(facts, folder / f"{rank}.pt")
    PartialState().destroy_process_group()


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Of the main process, and of the other."""
    folder = tmp_path_factory.mktemp("state")
    multiprocessing.spawn(worker, args=(free_port(), folder), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.slow
def test_all_processes_get_what_the_main_one_reads(facts: list[dict[str, Any]]) -> None:
    for each in facts:
        assert (each["step"], each["progress"], each["loaded"]) == (7, 7, True)


@pytest.mark.slow
def test_resuming_takes_no_memory_beside_the_main_process(facts: list[dict[str, Any]]) -> None:
    main, other = facts
    assert other["grown"] < 0.5 * MEGABYTES
    assert main["grown"] < 4.5 * MEGABYTES  # the pages of the file, which the system may take back
    assert main["held"] == pytest.approx(MEGABYTES)
    assert other["held"] == 0


@pytest.mark.slow
def test_an_error_of_one_process_ends_all(facts: list[dict[str, Any]]) -> None:
    assert [each["error"] for each in facts] == ["Stopped", "ValueError"]


def test_the_moving_average_is_diffusers_own() -> None:
    torch.manual_seed(0)
    model = nn.Linear(5, 5)
    averaged, theirs = deepcopy(model), EMAModel(model.parameters(), decay=0.3)
    ours = MovingAverage(model, averaged, decay=0.3)
    for updates in range(6):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        theirs.step(model.parameters())
        ours.update(updates)
        ours.finish()
        averaged.double().float()  # as a validation moves it to a device and back: its memory is another one
        for average, wanted in zip(averaged.parameters(), theirs.shadow_params, strict=True):
            torch.testing.assert_close(average.detach(), wanted)
