"""The alphas that the slider of a page stops at. Knows curves."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mergekit_wise.report.comparison import Curve

KNOWN = {0.0: "zero-shot", 1.0: "fine-tuned"}


@dataclass(frozen=True, slots=True)
class Timeline:
    """The stops of the slider, where it starts, and the alpha that is recommended."""

    stops: tuple[float, ...]
    start: int
    recommended: float | None

    @property
    def names(self) -> list[str]:
        """What each stop is called."""
        marks = self.landmarks
        return [f"α = {alpha:g}" + (f", {marks[i]}" if i in marks else "") for i, alpha in enumerate(self.stops)]

    @property
    def landmarks(self) -> dict[int, str]:
        """The stops that have a name: the ends, and what is recommended."""
        found: dict[int, str] = {}
        for index, alpha in enumerate(self.stops):
            roles = [KNOWN[alpha]] if alpha in KNOWN else []
            roles += ["recommended"] if alpha == self.recommended else []
            if roles:
                found[index] = " and ".join(roles)
        return found

    def nearest(self, curve: Curve) -> list[float]:
        """For each stop the nearest alpha at which the curve was measured."""
        return [min(curve.mixtures, key=lambda alpha: abs(alpha - stop)) for stop in self.stops]


def timeline_of(curves: Iterable[Curve], recommended: Sequence[float]) -> Timeline:
    """Every alpha of the curves; it starts at the first recommended one, or else as near to 0.5 as can be."""
    stops = sorted({alpha for curve in curves for alpha in curve.mixtures})
    wanted = recommended[0] if recommended else 0.5
    start = min(range(len(stops)), key=lambda index: abs(stops[index] - wanted), default=0)
    return Timeline(tuple(stops), start, recommended[0] if recommended else None)
