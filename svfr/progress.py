"""What a call shows while it works, on stderr: bars with the time that is left, and lines above them."""

import sys
from collections.abc import Callable, Sequence
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
    return tqdm(total=total, unit=unit, desc=title, disable=_quiet or not shown, **more)


def note(line: str) -> None:
    """Show a line above the bars, unless this process is quiet."""
    if not _quiet:
        error(line)


def error(line: str) -> None:
    """Show a line above the bars in any case."""
    tqdm.write(line, sys.stderr)


def filling(bar: tqdm, then: Callable[[float, str], object] | None = None) -> Callable[[float, str], None]:
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


def table(rows: Sequence[Sequence[object]]) -> str:
    """Rows of cells, the head first, as plain text in columns; the first is of names, the others are of figures."""
    words = [[f"{cell:.1f}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*words, strict=True)]
    return "\n".join("  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in words)
