"""What a call shows, on stderr: bars with the time that is left, lines above them, and how it ended."""

import signal
import sys
from collections.abc import Callable
from typing import Any

from tqdm import tqdm

quiet = False  # whether this process shows errors alone
INTERRUPTED = 130  # the shell's exit code of Ctrl-C


def bar(total: int | None, unit: str, title: str, shown: bool = True, **more: Any) -> tqdm:
    """A bar of `total` units, to be used in a `with` block; `more` goes to tqdm."""
    return tqdm(total=total, unit=unit, desc=title, disable=quiet or not shown, **more)


def note(line: str) -> None:
    """Show a line above the bars, unless this process is quiet."""
    if not quiet:
        error(line)


def error(line: str) -> None:
    """Show a line above the bars in any case."""
    tqdm.write(line, sys.stderr)


def filling(bar: tqdm, then: Callable[[float, str], object] | None = None) -> Callable[..., None]:
    """A function of (work, stage) that moves a bar by fractions of its unit, once for each stage, and calls `then`."""
    title, now, done = getattr(bar, "desc", "").removesuffix(": "), "", 0.0  # a disabled bar has no `desc`

    def advance(work: float, stage: str = "") -> None:
        nonlocal now, done
        if stage != now and not bar.disable:
            now, done = stage, 0.0
            bar.reset(bar.total)
            bar.set_description(f"{title} {stage}".strip())
        done += work
        bar.update(min(round(done), bar.total or round(done)) - bar.n)
        if then is not None:
            then(work, stage)

    return advance


def one_line(error: BaseException) -> str:
    """The message of an error in one line."""
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


def run_command(name: str, run: Callable[[], int]) -> int:
    """Do what a command is for; a wrong call is said in one line, and SIGTERM stops as cleanly as Ctrl-C.

    Returns:
        The exit code: that of `run`; of a ValueError or an OSError its `exit_code`, else 2; 130 if interrupted.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # of schedulers
    try:
        return run()
    except (ValueError, OSError) as error:
        print(f"{name}: {one_line(error)}", file=sys.stderr)
        return getattr(error, "exit_code", 2)
    except KeyboardInterrupt:
        print("interrupted; run the same command again to go on", file=sys.stderr)
        return INTERRUPTED
