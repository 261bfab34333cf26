"""A batch that goes on after its process has died: of a decoder's crash, of a hang, or for want of memory."""

import ctypes
import mmap
import os
import signal
import sys
import traceback
from collections.abc import Callable
from secrets import token_hex
from types import FrameType

LONGEST = 3600  # [s] without any progress, which a step of a large model on a CPU may take, after which it hangs
PR_SET_PDEATHSIG = 1  # of Linux's prctl: the signal that a process gets when its parent dies
SIGNALLED = 128  # the shell adds it to the number of the signal that ended a process
_working = mmap.mmap(-1, 1)  # shared with the child: whether it is at an input
CALL = "SVFR_CALL"  # environment variable that names the call, for the records of what ended a process of it


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
        if child:
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
