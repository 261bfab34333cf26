"""How commands end."""

import errno
import os
import signal
from typing import Any

import pytest

from svfr.progress import INTERRUPTED, run_command


class Half(ValueError):
    exit_code = 1


def raising(error: BaseException) -> Any:
    raise error


@pytest.mark.parametrize(
    ("run", "code", "line"),
    [
        (lambda: 7, 7, ""),
        (lambda: raising(ValueError("two\nlines")), 2, "name.py: two lines\n"),
        (lambda: raising(OSError(errno.ENOSPC, "No space", "file")), 2, "name.py: file: No space\n"),
        (lambda: raising(Half("half")), 1, "name.py: half\n"),
        (lambda: os.kill(os.getpid(), signal.SIGTERM), INTERRUPTED, "interrupted; run the same command again"),
    ],
)
def test_a_command_ends_with_a_code_and_a_line(
    run: Any, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert run_command("name.py", run) == code
    finally:
        signal.signal(signal.SIGTERM, before)
    assert capsys.readouterr().err.startswith(line)
