"""The processes of one call: whose turn an input is, who waits for whom, and that no other call writes meanwhile."""

import fcntl
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TextIO

import torch
from torch import distributed

from svfr.files import NO_LOCKS
from svfr.inference.batch import RECORDS
from svfr.models.devices import resolve_device

LOCK = ".lock"  # in the folder of the records
LONGEST_WAIT = timedelta(days=30)  # of a process that is done with its share for the others


class Processes:
    """The processes that `torchrun` or `accelerate launch` started, on CPUs as on accelerators; else this one alone.

    They exchange a few words by gloo: an accelerator's own network would want an accelerator for each process, and
    accelerate's `PartialState` lets processes on CPUs take themselves for the only ones.
    """

    def __init__(self) -> None:
        self.num_processes, self.process_index = int(os.environ.get("WORLD_SIZE", 1)), 0
        if self.num_processes > 1:
            distributed.init_process_group("gloo", timeout=LONGEST_WAIT)
            self.process_index = distributed.get_rank()
        self.is_main_process = self.process_index == 0

    def device(self, name: str) -> str:
        """The device of a setting; "auto" gives each process of a machine the next accelerator.

        Raises:
            ValueError: no such device here.
        """
        device = resolve_device(name)
        if name != "auto" or self.num_processes == 1 or device.type == "cpu":
            return str(device)
        index = int(os.environ.get("LOCAL_RANK", self.process_index)) % torch.accelerator.device_count()
        torch.accelerator.set_device_index(index)
        return f"{device.type}:{index}"

    def wait_for_everyone(self) -> None:
        """Until all processes are here.

        Raises:
            OSError: one of them has ended.
        """
        try:
            if self.num_processes > 1:
                distributed.barrier()
        except RuntimeError as error:  # of the network, which has no type of its own
            raise OSError("another process of this call has ended; run the same command again to go on") from error

    @contextmanager
    def alone_in(self, folder: Path) -> Iterator[None]:
        """During the block no other call that asks for it, too, writes into a folder; the main process sees to it.

        The lock is the system's, so that it is gone with the process, however that ends.

        Raises:
            ValueError: another call is writing there, or no such folder can be made.
        """
        with ExitStack() as stack:
            words = [""]
            try:
                if self.is_main_process:
                    _lock(folder, stack.enter_context(_open(folder)))
            except ValueError as error:
                words = [str(error)]
            if self.num_processes > 1:
                distributed.broadcast_object_list(words)
            if words[0]:
                raise ValueError(words[0])
            yield


def _open(folder: Path) -> TextIO:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / RECORDS).mkdir(exist_ok=True)
        return (folder / RECORDS / LOCK).open("a+")
    except OSError as error:
        raise ValueError(f"{folder}: no folder for the results can be made here ({error.strerror})") from error


def _lock(folder: Path, file: TextIO) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        raise ValueError(
            f"{folder}: another call writes here ({file.read()}); wait for it, or choose another"
        ) from error
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise ValueError(f"{folder}: cannot be locked ({error.strerror})") from error
        print(f"{folder}: no locks on this filesystem; see that no other call writes here", file=sys.stderr)
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}")
    file.flush()
