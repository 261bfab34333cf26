"""Where the dots of a distribution lie: one dot a video, a line at the mean, a row a method."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from svfr.evaluation.results import is_baseline
from svfr.evaluation.tables import name_of, show_number

# Okabe and Ito's colours, which people with colour blindness tell apart.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5195", "#8C6D31")
GRAY = "#8a97a6"
WIDTH, ROW, LEFT, RIGHT, BOTTOM = 340, 22, 104, 12, 20  # [px]
TICKS = 4


class Mark(NamedTuple):
    """A tick, a dot or a mean, with its text."""

    x: float  # [px]
    y: float  # [px]
    text: str


class PlotRow(NamedTuple):
    """A method's row."""

    label: Mark
    colour: str
    dots: list[Mark]
    mean: Mark


class DotPlot(NamedTuple):
    """What the page draws."""

    size: tuple[int, int]  # width, height [px]
    ticks: list[Mark]
    rows: list[PlotRow]


def colour_of(method: str, methods: Sequence[str]) -> str:
    """The same colour for a method wherever it is shown; gray for baselines."""
    if is_baseline(method):
        return GRAY
    restoring = [other for other in methods if not is_baseline(other)]
    return PALETTE[restoring.index(method) % len(PALETTE)]


def dot_plot(series: dict[str, list[tuple[str, float]]], methods: Sequence[str], column: str) -> DotPlot:
    """Lay out a distribution.

    Args:
        series: (video, value) by method.
        methods: all of them, in order, for their colours.
        column: that is shown.
    """
    values = [value for points in series.values() for _, value in points]
    ticks = nice_ticks(min(values), max(values))
    low, high = ticks[0], ticks[-1]
    bottom = ROW * len(series)

    def mark(value: float, y: float, text: str) -> Mark:
        return Mark(round(LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT), 1), round(y, 1), text)

    rows = []
    for index, (method, points) in enumerate(series.items()):
        y = ROW * (index + 0.5)
        name = name_of(method)
        dots = []
        for number, (video, value) in enumerate(points):
            shift = (number * 5 % 9 - 4) * 0.9  # spread in a fixed pattern, so that equal values don't hide each other
            dots.append(mark(value, y + shift, f"{video}: {show_number(column, value)}"))
        mean = math.fsum(value for _, value in points) / len(points)
        label = Mark(0, y + 4, name if len(name) <= 16 else f"{name[:15]}…")
        rows.append(
            PlotRow(label, colour_of(method, methods), dots, mark(mean, y, f"mean {show_number(column, mean)}"))
        )
    return DotPlot((WIDTH, bottom + BOTTOM), [mark(tick, bottom, f"{tick:g}") for tick in ticks], rows)


def nice_ticks(low: float, high: float) -> list[float]:
    """Round numbers that enclose a range, about `TICKS` of them."""
    if high <= low:
        low, high = low - (abs(low) or 1.0) * 0.05, high + (abs(high) or 1.0) * 0.05
    rough = (high - low) / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [index * step for index in range(first, last + 1)]
