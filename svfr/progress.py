"""What a call shows while it works, on stderr: bars with the time that is left, and lines above them."""

import sys
from typing import Any

from tqdm import tqdm

_quiet = False


def set_quiet(quiet: bool) -> None:
    """Whether this process shows errors alone from here on."""
    global _quiet
    _quiet = quiet


def is_quiet() -> bool:
    """Whether this process shows errors alone."""
    return _quiet


def bar(total: int | None, unit: str, title: str, shown: bool = True, **more: Any) -> tqdm:
    """A bar of `total` units, to be used in a `with` block; `more` goes to tqdm."""
    return tqdm(total=total, unit=unit, desc=title, disable=_quiet or not shown, dynamic_ncols=True, **more)


def note(line: str) -> None:
    """Show a line above the bars, unless this process is quiet."""
    if not _quiet:
        error(line)


def error(line: str) -> None:
    """Show a line above the bars in any case."""
    tqdm.write(line, sys.stderr)


class Advance:
    """Moves a bar by fractions of its unit; it fills once for each stage of the work, whose name it shows.

    Args:
        bar: tqdm's.
        name: of what is worked on.
    """

    def __init__(self, bar: tqdm, name: str = "") -> None:
        self._bar, self._name, self._stage, self._done = bar, name, "", 0.0

    def __call__(self, work: float, stage: str = "") -> None:
        """So many units of a stage are done."""
        if stage != self._stage:
            self._stage, self._done = stage, 0.0
            self._bar.reset(self._bar.total)
            self._bar.set_description_str(f"{self._name} {stage}".strip() + ": ")
        self._done += work
        done = round(self._done) if self._bar.total is None else min(round(self._done), self._bar.total)
        self._bar.update(done - self._bar.n)


def table(rows: list[list[object]]) -> str:
    """Rows of cells, the head first, as plain text in columns: numbers to the right, all else to the left."""
    words = [
        ["" if cell is None else f"{cell:.1f}" if isinstance(cell, float) else str(cell) for cell in row]
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*words, strict=True)]
    numeric = [all(isinstance(row[i], int | float | None) for row in rows[1:]) for i in range(len(widths))]
    lines = [
        "  ".join(
            w.rjust(n) if right else w.ljust(n) for w, n, right in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in words
    ]
    return "\n".join(lines)
