"""The page's section on accuracy that was estimated without labels: each set along alpha, and the back-test.

Knows lines of results files and plots; knows nothing of how estimates are made.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from mergekit_wise.analysis.point import ALPHA
from mergekit_wise.report.comparison import MOVES_ENDS, SYMBOLS, Column
from mergekit_wise.report.plots import Interval, Mark, Plot, Trace
from mergekit_wise.report.scale import alpha_scale, linear_scale
from mergekit_wise.report.svg import COLOURS, draw
from mergekit_wise.report.table import ENDPOINTS
from mergekit_wise.results import Estimation

MEASURED, ESTIMATED = 0, COLOURS
"""Numbers of curves: both have the first colour, and the second is dashed."""


def estimate_sections(
    estimations: Sequence[Estimation], stops: Sequence[float], start: int, ends: Mapping[float, str] = ENDPOINTS
) -> list[dict[str, Any]]:
    """For each sweep with estimates: its figures, those of the back-test, and the back-test's mean error in points.

    Of several estimates of the same, the last one is shown. Sweeps of several parameters have no line to draw.

    Args:
        estimations: of all results files.
        stops: the alphas at which the page's slider stops.
        start: the number of the stop where it starts.
        ends: what the two models are called, by their alphas.
    """
    latest: dict[tuple[object, ...], Estimation] = {}
    for each in estimations:
        if all(len(point) == 1 for point in each.points):
            key = (each.model, each.suite, each.pair, each.rule, each.limit, each.seed, each.dataset, each.role)
            latest[key] = each
    sweeps: dict[tuple[object, ...], list[Estimation]] = {}
    for of, each in latest.items():
        sweeps.setdefault(of[:-2], []).append(each)
    return [
        _section(several, stops, start, f"e{number}", ends)
        for number, several in enumerate(sweeps.values())
        if any(each.role == "unlabelled" for each in several)
    ]


def _section(
    several: Sequence[Estimation], stops: Sequence[float], start: int, ident: str, ends: Mapping[float, str]
) -> dict[str, Any]:
    figures: dict[str, list[dict[str, Any]]] = {"sets": [], "shifts": []}
    errors = []
    for number, each in enumerate(several):
        kind = "sets" if each.role == "unlabelled" else "shifts"
        svg = Markup(draw(estimate_plot(each, ends), f"{ident}p{number}", stops, start))
        figures[kind].append({"heading": each.title, "svg": svg, "readouts": ()})
        errors += [abs(atc - true) for atc, true in zip(each.atc, each.accuracy, strict=False)]
    first = several[0]
    limited = "" if first.limit is None else f", up to {first.limit:,} images each"
    return {
        "ident": ident,
        "title": f"{first.suite}{limited}",
        "model": first.model,
        "reference": first.reference,
        "error": f"{100 * sum(errors) / len(errors):.1f}" if errors else "",
        **figures,
    }


def estimate_plot(found: Estimation, ends: Mapping[float, str] = ENDPOINTS) -> Plot:
    """ATC's estimate along what was swept, with its interval, and the measured accuracy if it is known.

    `ends` are the names of the two models, by their alphas.
    """
    numbers = [point[0][1] for point in found.points]
    bounds: Mapping[int, Interval] = dict(enumerate(zip(found.low, found.high, strict=True)))
    estimated = [
        Mark(number, number, atc, None, bounds.get(place))
        for place, (number, atc) in enumerate(zip(numbers, found.atc, strict=True))
    ]
    measured = [Mark(number, number, true, None, None) for number, true in zip(numbers, found.accuracy, strict=False)]
    name = found.points[0][0][0]
    symbol = SYMBOLS.get(name, name)
    has_ends = name == ALPHA and not any(option in found.rule.split() for option in MOVES_ENDS)
    traces = [
        Trace(index, kind, tuple(sorted(marks, key=lambda mark: mark.x)), has_ends, symbol, ends)
        for index, kind, marks in ((MEASURED, "measured", measured), (ESTIMATED, "estimated", estimated))
        if marks
    ]
    return Plot(
        kind="alpha",
        name=f"estimate-{found.dataset}",
        title=found.title,
        column=Column(found.dataset, found.title, found.role, "top-1", {}),
        x_label=symbol,
        y_label="Estimated accuracy (%)" if not measured else "Accuracy (%)",
        x=alpha_scale(numbers),
        y=linear_scale([*found.atc, *found.low, *found.high, *found.accuracy]),
        traces=tuple(traces),
        guides=(),
    )
