"""Axes: the position of a number on one, and its ticks. Knows nothing of what is drawn."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

TICKS = (50, 90, 10, 99, 1, 99.9, 80, 20, 95, 5, 70, 30, 60, 40, 97, 98, 2, 99.5, 0.5, 85, 75, 65)
"""Percentages for logit axes; of two that are too close to each other, the one listed first is kept."""

EDGE = 0.0005
"""The logits of 0 and 1 are infinite, so these shares are drawn this far inside."""

MIN_TICK_DISTANCE = 0.085
"""Smallest distance between two ticks, as a fraction of the axis."""


@dataclass(frozen=True, slots=True)
class Scale:
    """An axis from `low` to `high`; `ticks` are values on it, and `labels` their texts."""

    kind: Literal["linear", "logit"]
    low: float
    high: float
    ticks: tuple[float, ...]
    labels: tuple[str, ...]

    def place(self, value: float) -> float:
        """The position of a value: 0 at the low end of the axis, 1 at its high end, never outside."""
        if self.kind == "logit":
            low, high, at = logit(self.low), logit(self.high), logit(value)
        else:
            low, high, at = self.low, self.high, value
        return min(max((at - low) / (high - low), 0.0), 1.0)


def inside(share: float) -> float:
    """The share, or the nearest one whose logit can be drawn."""
    return min(max(share, EDGE), 1 - EDGE)


def logit(share: float) -> float:
    """log(p / (1 - p)) of a share that was moved inside."""
    p = inside(share)
    return math.log(p / (1 - p))


def expit(x: float) -> float:
    """The share whose logit is x."""
    return 1 / (1 + math.exp(-x))


def widened(low: float, high: float) -> tuple[float, float]:
    """A range of shares, widened by a twelfth on either side on the logit scale."""
    a, b = logit(low), logit(high)
    room = max((b - a) / 12, 0.05)
    return expit(a - room), expit(b + room)


def logit_scale(shares: Iterable[float]) -> Scale:
    """A logit axis that tightly fits the shares, with ticks in per cent."""
    given = list(shares)
    low, high = widened(min(given), max(given))
    candidates = [tick / 100 for tick in TICKS]
    if sum(low <= tick <= high for tick in candidates) < 4:
        candidates = _round_numbers(low, high)
    bare = Scale("logit", low, high, (), ())
    ticks: list[float] = []
    for tick in candidates:
        if low <= tick <= high and all(
            abs(bare.place(tick) - bare.place(other)) >= MIN_TICK_DISTANCE for other in ticks
        ):
            ticks.append(tick)
    ticks.sort()
    return Scale("logit", low, high, tuple(ticks), tuple(f"{100 * tick:.6g}" for tick in ticks))


def linear_scale(shares: Iterable[float]) -> Scale:
    """A linear axis that fits the shares, with ticks in per cent."""
    given = list(shares)
    least, most = min(given), max(given)
    room = max((most - least) / 12, 0.002)
    low, high = max(least - room, -0.01), min(most + room, 1.01)
    ticks = tuple(tick for tick in _round_numbers(low, high) if 0 <= tick <= 1)
    return Scale("linear", low, high, ticks, tuple(f"{100 * tick:.6g}" for tick in ticks))


def signed_scale(differences: Iterable[float]) -> Scale:
    """A linear axis that fits differences of shares, and zero, with ticks in percentage points."""
    given = [0.0, *differences]
    room = max((max(given) - min(given)) / 12, 0.002)
    low, high = min(given) - room, max(given) + room
    ticks = tuple(_round_numbers(low, high))
    return Scale(
        "linear", low, high, ticks, tuple(f"{100 * tick:+.6g}".replace("+0", "0").replace("-", "−") for tick in ticks)
    )


def alpha_scale(alphas: Iterable[float]) -> Scale:
    """The axis of alpha: from 0 to 1, or farther if alphas are outside."""
    given = list(alphas)
    low, high = min(0.0, *given), max(1.0, *given)
    ticks = (0.0, 0.25, 0.5, 0.75, 1.0) if (low, high) == (0.0, 1.0) else tuple(_round_numbers(low, high))
    return Scale("linear", low, high, ticks, tuple(f"{tick:g}" for tick in ticks))


def number_scale(numbers: Sequence[float]) -> Scale:
    """A linear axis from 0 to the largest of the numbers, with plain numbers as ticks."""
    high = max(numbers) or 1.0
    ticks = tuple(_round_numbers(0.0, high))
    return Scale("linear", 0.0, high, ticks, tuple(f"{tick:g}" for tick in ticks))


def _round_numbers(low: float, high: float) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten, three to seven of them."""
    rough = (high - low) / 7
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(step * n, 12) for n in range(first, math.floor(high / step + 1e-9) + 1)]
