"""Distributions as inline SVG: one dot a video, a line at the mean."""

import math
from collections.abc import Sequence
from html import escape

from svfr.evaluation.results import is_baseline
from svfr.evaluation.tables import name_of, show_number

# Okabe and Ito's colours, which people with colour blindness tell apart.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5195", "#8C6D31")
GRAY = "#8a97a6"
WIDTH, ROW, LEFT, RIGHT, BOTTOM = 340, 22, 104, 12, 20  # [px]
TICKS = 4


def colour_of(method: str, methods: Sequence[str]) -> str:
    """The same colour for a method wherever it is shown; gray for baselines."""
    if is_baseline(method):
        return GRAY
    restoring = [other for other in methods if not is_baseline(other)]
    return PALETTE[restoring.index(method) % len(PALETTE)]


def dot_plot(series: dict[str, list[tuple[str, float]]], methods: Sequence[str], column: str) -> str:
    """One row a method.

    Args:
        series: (video, value) by method.
        methods: all of them, in order, for their colours.
        column: that is shown.
    """
    values = [value for points in series.values() for _, value in points]
    ticks = nice_ticks(min(values), max(values))
    low, high = min(ticks[0], min(values)), max(ticks[-1], max(values))
    height = ROW * len(series) + BOTTOM

    def x(value: float) -> float:
        return LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    parts = [f'<svg viewBox="0 0 {WIDTH} {height}" role="img" font-family="inherit" font-size="11">']
    for tick in ticks:
        parts.append(f'<line x1="{x(tick):.1f}" y1="2" x2="{x(tick):.1f}" y2="{height - BOTTOM}" stroke="#e3e8ee"/>')
        parts.append(f'<text x="{x(tick):.1f}" y="{height - 5}" text-anchor="middle" fill="#8a97a6">{tick:g}</text>')
    for index, (method, points) in enumerate(series.items()):
        y = ROW * index + ROW / 2
        colour = colour_of(method, methods)
        label = name_of(method)
        label = label if len(label) <= 16 else label[:15] + "…"
        parts.append(f'<text x="0" y="{y + 4:.1f}" fill="{colour}">{escape(label)}</text>')
        for number, (name, value) in enumerate(points):
            shift = (number * 5 % 9 - 4) * 0.9  # spread in a fixed pattern, so that equal values don't hide each other
            hint = escape(f"{name}: {show_number(column, value)}")
            parts.append(
                f'<circle cx="{x(value):.1f}" cy="{y + shift:.1f}" r="3" fill="{colour}" fill-opacity="0.45">'
                f"<title>{hint}</title></circle>"
            )
        mean = math.fsum(value for _, value in points) / len(points)
        parts.append(
            f'<line x1="{x(mean):.1f}" y1="{y - 8:.1f}" x2="{x(mean):.1f}" y2="{y + 8:.1f}" stroke="{colour}" '
            f'stroke-width="2"><title>{escape(f"mean {show_number(column, mean)}")}</title></line>'
        )
    return "".join(parts) + "</svg>"


def nice_ticks(low: float, high: float) -> list[float]:
    """Round numbers that enclose a range, about `TICKS` of them."""
    if high <= low:
        low, high = low - (abs(low) or 1.0) * 0.05, high + (abs(high) or 1.0) * 0.05
    rough = (high - low) / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(index * step, 12) + 0.0 for index in range(first, last + 1)]  # + 0.0: no -0
