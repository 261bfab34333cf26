"""The processes of one call: whose turn an input is, who waits for whom, and that no other call writes meanwhile.

And a parent that goes on after its child has died: of a decoder's crash, of a hang, or for want of memory.
"""

import ctypes
import fcntl
import mmap
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from secrets import token_hex
from types import FrameType
from typing import TextIO

import torch
from torch import distributed

from svfr.files import NO_LOCKS
from svfr.models.devices import resolve_device

RECORDS = ".svfr"  # folder of the output that holds a record for each input: what a later run skips by
LOCK = ".lock"  # in the folder of the records
LONGEST_WAIT = timedelta(days=30)  # of a process that is done with its share for the others
LONGEST = 3600  # [s] without any progress, which a step of a large model on a CPU may take, after which it hangs
PR_SET_PDEATHSIG = 1  # of Linux's prctl: the signal that a process gets when its parent dies
SIGNALLED = 128  # the shell adds it to the number of the signal that ended a process
_working = mmap.mmap(-1, 1)  # shared with the child: whether it is at an input
CALL = "SVFR_CALL"  # environment variable that names the call, for the records of what ended a process of it


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
                    (folder / RECORDS).mkdir(parents=True, exist_ok=True)
                    _lock(folder, stack.enter_context((folder / RECORDS / LOCK).open("a+")))
            except OSError as error:
                words = [f"{folder}: no folder for the results can be made here ({error.strerror})"]
            except ValueError as error:
                words = [str(error)]
            if self.num_processes > 1:
                distributed.broadcast_object_list(words)
            if words[0]:
                raise ValueError(words[0])
            yield


def _lock(folder: Path, file: TextIO) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        owner = file.read()
        raise ValueError(f"{folder}: another call writes here ({owner}); wait for it, or choose another") from error
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise ValueError(f"{folder}: cannot be locked ({error.strerror})") from error
        print(f"{folder}: no locks on this filesystem; see that no other call writes here", file=sys.stderr)
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}")
    file.flush()


def watched(run: Callable[[], int]) -> int:
    """Call `run` in a child of this process, and again if a signal ends that, until it returns an exit code.

    What it worked on when it ended is for `run` to see, and not to try again: `svfr.inference.batch.run_items` does.
    What ends between inputs, such as while weights are loaded, would end again: the exit code is the shell's of that
    signal. Call it before anything has started threads or an accelerator. On other systems than Linux, and for
    processes that a launcher started, which have to end together, `run` is called here.
    """
    if not sys.platform.startswith("linux") or int(os.environ.get("WORLD_SIZE", 1)) > 1:
        return run()
    os.environ[CALL] = token_hex(8)
    child = 0

    def hand_on(number: int, frame: FrameType | None) -> None:
        if child:  # not yet, or in a new child: 0 would be the whole process group
            os.kill(child, number)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        while True:
            child = os.fork()
            if child == 0:
                for number, handler in before.items():
                    signal.signal(number, handler)
                ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
                _be_the_child(run)
            # A terminal's Ctrl-C reaches the child by itself.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, hand_on)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            if code >= 0:
                return code
            if not _working[0]:
                print(f"ended by signal {-code}, by itself or for want of memory", file=sys.stderr)
                return SIGNALLED - code
            _working[0] = 0
            print(f"ended by signal {-code}; going on with the next", file=sys.stderr)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        del os.environ[CALL]


def progress() -> None:
    """Say that the watched process does something; `LONGEST` seconds without it end it."""
    if CALL in os.environ:
        _working[0] = 1
        signal.alarm(LONGEST)


def rest() -> None:
    """Say that nothing is due, between inputs."""
    if CALL in os.environ:
        signal.alarm(0)
        _working[0] = 0


def _be_the_child(run: Callable[[], int]) -> None:
    code = 1
    try:
        code = run()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
