"""What a call shows while it works, on stderr: bars with the time that is left, and lines above them."""

import sys
from collections.abc import Callable
from typing import Any

from tqdm import tqdm

quiet = False  # whether this process shows errors alone


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
