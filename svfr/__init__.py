"""SVFR: unified video face restoration (blind restoration, colorization, inpainting).

>>> import svfr
>>> svfr.__version__.split(".")[0]
'0'
"""

import sys
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

if TYPE_CHECKING:
    from svfr.inference.pipeline import SVFRPipeline
    from svfr.inference.settings import Sampling
    from svfr.models.svfr import SVFR

__version__ = "0.2.0"
__all__ = ["SVFR", "SVFRPipeline", "Sampling", "__version__"]
_HOMES = {"SVFR": "svfr.models.svfr", "SVFRPipeline": "svfr.inference.pipeline", "Sampling": "svfr.inference.settings"}


def __getattr__(name: str) -> Any:
    """Import a class when it is asked for: diffusers takes seconds, which workers on data need not wait for."""
    if name not in _HOMES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


# What a call shows while it works, on stderr: bars with the time that is left, and lines above them.
quiet = False  # whether this process shows errors alone


def bar(total: int | None, unit: str, title: str, shown: bool = True, **more: Any) -> tqdm:
    """A bar, if it is to be shown, with a title and a total in a unit, for a `with` block; tqdm takes more."""
    return tqdm(total=total, unit=unit, desc=title, disable=quiet or not shown, **more)


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


def note(line: str) -> None:
    """Show a line above the bars, unless this process is quiet."""
    if not quiet:
        error(line)


def error(line: str) -> None:
    """Show a line above the bars in any case."""
    tqdm.write(line, sys.stderr)
