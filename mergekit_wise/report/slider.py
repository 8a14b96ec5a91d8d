"""The alphas at which the page's slider stops, and what the page says at each of them. Knows comparisons."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mergekit_wise.analysis.point import ALPHA
from mergekit_wise.report.comparison import Comparison, Curve
from mergekit_wise.report.summary import Summary
from mergekit_wise.report.table import ENDPOINTS, listed, percent

MOST_RECOMMENDED, LONGEST = 4, 40
"""How many recommended alphas get a button, and the characters of a model's name on it."""


@dataclass(frozen=True, slots=True)
class Slider:
    """The alphas at which the slider stops, the stop where it starts, and the recommended alphas, each with its name.

    `symbol` is what it sets, and `key` its name in the page's address: alpha, or whatever was swept. `ends` has the
    names of the two models by their alphas; it is empty where 0 and 1 are not the two models.
    """

    stops: tuple[float, ...]
    start: int
    recommended: Mapping[float, str]
    symbol: str
    key: str
    ends: Mapping[float, str]

    @classmethod
    def of(cls, summaries: Sequence[Summary]) -> "Slider":
        """Every alpha of the curves; it starts at the first recommended one, or else as near to 0.5 as possible."""
        curves = [curve for summary in summaries for curve in summary.comparison.curves]
        stops = sorted({alpha for curve in curves for alpha in curve.mixtures})
        chosen = [
            (each.point.numbers[0], summary.comparison, curve)
            for summary in summaries
            for curve, each in zip(summary.comparison.curves, summary.recommendations, strict=True)
            if each is not None and len(each.point.names) == 1
        ]
        swept = [curve for curve in curves if len(curve.mixtures) > 1]
        wanted = chosen[0][0] if chosen else 0.5
        start = min(range(len(stops)), key=lambda index: abs(stops[index] - wanted), default=0)
        ends = swept[0].ends if swept else ENDPOINTS
        return cls(
            tuple(stops),
            start,
            _recommended(chosen, len(summaries)),
            ", ".join(dict.fromkeys(curve.symbol for curve in swept)) or "α",
            next((curve.swept[0] for curve in swept), ALPHA),
            ends if all(curve.has_ends for curve in swept) else {},
        )

    @property
    def landmarks(self) -> dict[int, str]:
        """The stops that have a name: the two models, and the recommended alpha."""
        found: dict[int, str] = {}
        for index, alpha in enumerate(self.stops):
            roles = [self.ends[alpha]] if alpha in self.ends else []
            roles += [self.recommended[alpha]] if alpha in self.recommended else []
            if roles:
                found[index] = " and ".join(roles)
        return found

    @property
    def names(self) -> list[str]:
        """The name of every stop, for screen readers."""
        marks = self.landmarks
        return [
            f"{self.symbol} = {alpha:g}" + (f", {marks[i]}" if i in marks else "") for i, alpha in enumerate(self.stops)
        ]

    @property
    def texts(self) -> list[str]:
        """The number of every stop, as commands take it."""
        return [f"{alpha:.9g}" for alpha in self.stops]

    def nearest(self, curve: Curve) -> list[float]:
        """For each stop the nearest alpha at which the curve was measured."""
        return [min(curve.mixtures, key=lambda alpha: abs(alpha - stop)) for stop in self.stops]

    def spoken(self, comparisons: Sequence[Comparison]) -> list[str]:
        """The headline at every stop, as the page announces it to screen readers."""
        lines = (" ".join(line for each in comparisons for line in _spoken(each, alpha)) for alpha in self.stops)
        return [f"{name}. {line}" for name, line in zip(self.names, lines, strict=True)]


def _recommended(chosen: Sequence[tuple[float, Comparison, Curve]], suites: int) -> dict[float, str]:
    """The recommended alphas and what they are called: for which model and suite, if these have different ones."""
    names: dict[float, list[str]] = {}
    for alpha, comparison, curve in chosen:
        name = curve.name if len(comparison.curves) > 1 else comparison.suite
        several = suites > 1 and len(comparison.curves) > 1
        names.setdefault(alpha, []).append(f"{name}, {comparison.suite}" if several else name)
    if len(names) < 2:
        return dict.fromkeys(names, "recommended")
    shown = list(names.items())[:MOST_RECOMMENDED]
    return {alpha: f"recommended for {_short(listed(each, most=1))}" for alpha, each in shown}


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"


def _spoken(comparison: Comparison, alpha: float) -> Iterable[str]:
    for curve in comparison.curves:
        results = [(column, curve.result(alpha, column)) for column in comparison.headline]
        words = [f"{column.title} {percent(result.value)} %" for column, result in results if result is not None]
        if words:
            model = f"{curve.name}: " if len(comparison.curves) > 1 else ""
            yield f"{model}{', '.join(words)}."
