"""Colours and axes of the report's distributions."""

import math
from collections.abc import Collection, Sequence

from svfr.evaluation.results import is_baseline

# Okabe and Ito's colours, which people with colour blindness tell apart.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5195", "#8C6D31")
GRAY = "#8a97a6"
LEFT, RIGHT = 104, 328  # [px] ends of an axis
TICKS = 4


def colour_of(method: str, methods: Sequence[str]) -> str:
    """The same colour for a method wherever it is shown; gray for baselines."""
    if is_baseline(method):
        return GRAY
    restoring = [other for other in methods if not is_baseline(other)]
    return PALETTE[restoring.index(method) % len(PALETTE)]


class Axis:
    """An axis for values; `ticks` are round numbers that enclose them, about `TICKS`."""

    def __init__(self, values: Collection[float]) -> None:
        low, high = min(values), max(values)
        if high <= low:
            low, high = low - (abs(low) or 1.0) * 0.05, high + (abs(high) or 1.0) * 0.05
        rough = (high - low) / TICKS
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
        self.ticks = [index * step for index in range(math.floor(low / step), math.ceil(high / step) + 1)]

    def x(self, value: float) -> float:
        """Where a value lies [px]."""
        share = (value - self.ticks[0]) / (self.ticks[-1] - self.ticks[0])
        return round(LEFT + share * (RIGHT - LEFT), 1)
