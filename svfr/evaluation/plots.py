"""Where the dots of a distribution lie: a row a method, a dot a video, a line at the mean."""

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from svfr.evaluation.results import is_baseline
from svfr.evaluation.tables import name_of, show_number

# Okabe and Ito's colours, which people with colour blindness tell apart.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5195", "#8C6D31")
GRAY = "#8a97a6"
LEFT, RIGHT = 104, 328  # [px] ends of the axis
TICKS = 4


class Mark(NamedTuple):
    """A tick, a dot or a mean, and what is said of it."""

    x: float  # [px]
    text: str


class PlotRow(NamedTuple):
    """A method's row."""

    label: str
    colour: str
    dots: list[Mark]
    mean: Mark


class DotPlot(NamedTuple):
    """All that is drawn."""

    ticks: list[Mark]
    rows: list[PlotRow]


def colour_of(method: str, methods: Sequence[str]) -> str:
    """The same colour for a method wherever it is shown; gray for baselines."""
    if is_baseline(method):
        return GRAY
    restoring = [other for other in methods if not is_baseline(other)]
    return PALETTE[restoring.index(method) % len(PALETTE)]


def dot_plot(series: dict[str, dict[str, float]], methods: Sequence[str], column: str) -> DotPlot:
    """Lay out a column's values, by method and video; `methods` are all that the page shows."""
    values = [value for points in series.values() for value in points.values()]
    ticks = nice_ticks(min(values), max(values))

    def mark(value: float, text: str) -> Mark:
        share = (value - ticks[0]) / (ticks[-1] - ticks[0])
        return Mark(round(LEFT + share * (RIGHT - LEFT), 1), text)

    plot = DotPlot([mark(tick, f"{tick:g}") for tick in ticks], [])
    for method, points in series.items():
        dots = [mark(value, f"{video}: {show_number(column, value)}") for video, value in points.items()]
        mean = statistics.fmean(points.values())
        mean_mark = mark(mean, f"mean {show_number(column, mean)}")
        plot.rows.append(PlotRow(name_of(method), colour_of(method, methods), dots, mean_mark))
    return plot


def nice_ticks(low: float, high: float) -> list[float]:
    """Round numbers that enclose a range, about `TICKS` of them."""
    if high <= low:
        low, high = low - (abs(low) or 1.0) * 0.05, high + (abs(high) or 1.0) * 0.05
    rough = (high - low) / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    return [index * step for index in range(math.floor(low / step), math.ceil(high / step) + 1)]
