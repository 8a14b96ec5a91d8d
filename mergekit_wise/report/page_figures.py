"""What the page shows of a plot: its drawing, and below it numbers that follow the slider. Knows curves and plots."""

from typing import Any

from markupsafe import Markup

from mergekit_wise.report.comparison import Column, Comparison, Curve
from mergekit_wise.report.page_tables import heading
from mergekit_wise.report.plots import Plot
from mergekit_wise.report.slider import Slider
from mergekit_wise.report.summary import robustness
from mergekit_wise.report.svg import colour, draw
from mergekit_wise.report.table import EXTRAPOLATED, interval, percent, points


def headline(index: int, curve: Curve, column: Column, slider: Slider) -> dict[str, Any]:
    """A curve's number in a headline column at every stop, its interval, and the gain over either model."""
    results = [curve.result(alpha, column) for alpha in slider.nearest(curve)]
    gains = []
    for alpha, name in curve.ends.items() if curve.has_ends else ():
        if (end := curve.result(alpha, column)) is not None:
            gains.append((name, ["–" if result is None else points(result.value - end.value) for result in results]))
    return {
        "colour": colour(index),
        "name": curve.name,
        "numbers": ["–" if result is None else percent(result.value) for result in results],
        "intervals": ["" if result is None else interval(result) for result in results],
        "gains": gains,
    }


def figure(plot: Plot, comparison: Comparison, slider: Slider, ident: str) -> dict[str, Any]:
    """A plot, and below it the numbers of each curve that was swept; `ident` starts the ids of its elements."""
    return {
        "heading": heading(plot.column),
        "svg": Markup(draw(plot, ident, slider.stops, slider.start)),
        "readouts": [
            _readout(plot.kind, comparison, trace.index, plot.column, slider)
            for trace in plot.traces
            if plot.kind != "difference" and len(comparison.curves[trace.index].mixtures) > 1
        ],
    }


def _readout(kind: str, comparison: Comparison, index: int, column: Column, slider: Slider) -> dict[str, Any]:
    """Zero-shot, the slider's mixture and fine-tuned in numbers, for one curve of a plot.

    The number's note is its interval, or under a scatter plot its effective robustness if a baseline is known.
    """
    curve = comparison.curves[index]
    texts: dict[float, tuple[str, str]] = {}
    for alpha in curve.mixtures:
        result = curve.result(alpha, column)
        note = interval(result) if kind == "alpha" and result is not None else ""
        if kind == "scatter" and (rho := robustness(comparison, curve, alpha, column)) is not None:
            note = f"ρ {points(rho.value.value)}{EXTRAPOLATED if rho.is_extrapolated else ''}"
        texts[alpha] = ("–" if result is None else percent(result.value), note)
    nearest = slider.nearest(curve)

    def model(alpha: float) -> tuple[str, str, str]:
        value, note = texts.get(alpha, ("–", ""))
        return curve.ends[alpha], value, note if kind == "scatter" else ""

    return {
        "colour": colour(index),
        "name": curve.name,
        "symbol": curve.symbol,
        "ends": (model(0.0), model(1.0)) if curve.has_ends else (),
        "alphas": [f"{alpha:g}" for alpha in nearest],
        "numbers": [texts[alpha][0] for alpha in nearest],
        "notes": [texts[alpha][1] for alpha in nearest],
    }
