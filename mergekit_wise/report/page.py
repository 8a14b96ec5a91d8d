"""The report as one HTML page that holds everything: no network, no framework, readable without its script.

Prepares what `page.html.j2` shows. A policy in the page itself lets browsers run only this script and this style.
"""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from mergekit_wise import __version__
from mergekit_wise.report.calibration_plots import calibration_diagrams
from mergekit_wise.report.calibration_svg import draw_diagram
from mergekit_wise.report.choices import difference_tables, remarks
from mergekit_wise.report.comparison import Column, Comparison, Curve
from mergekit_wise.report.estimate_plots import estimate_sections
from mergekit_wise.report.heat_map import draw_heat_map, heat_maps
from mergekit_wise.report.page_tables import analysis_tables, heading, results_table
from mergekit_wise.report.plots import Plot, alpha_plots, difference_plots, scatter_plots
from mergekit_wise.report.reproducibility import dataset_table, shared_facts, weights_table
from mergekit_wise.report.summary import Summary, robustness
from mergekit_wise.report.svg import colour, draw
from mergekit_wise.report.table import ENDPOINTS, EXTRAPOLATED, interval, listed, percent, points
from mergekit_wise.results import At, Estimation


@dataclass(frozen=True, slots=True)
class Slider:
    """The alphas at which the slider stops, the stop where it starts, and the recommended alpha.

    `symbol` is what it sets: alpha, or whatever was swept. `has_ends` says whether 0 and 1 are the two models.
    """

    stops: tuple[float, ...]
    start: int
    recommended: float | None
    symbol: str = "α"
    has_ends: bool = True

    @property
    def landmarks(self) -> dict[int, str]:
        """The stops that have a name: the two models, and the recommended alpha."""
        found: dict[int, str] = {}
        for index, alpha in enumerate(self.stops):
            roles = [ENDPOINTS[alpha]] if self.has_ends and alpha in ENDPOINTS else []
            roles += ["recommended"] if alpha == self.recommended else []
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

    def nearest(self, curve: Curve) -> list[float]:
        """For each stop the nearest alpha at which the curve was measured."""
        return [min(curve.mixtures, key=lambda alpha: abs(alpha - stop)) for stop in self.stops]


def render_page(summaries: Sequence[Summary], notes: Sequence[str], estimations: Sequence[Estimation] = ()) -> str:
    """The page as HTML. The same records give the same page: it has no clock."""
    environment = Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, undefined=StrictUndefined
    )
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "separators": (",", ":")}
    template, style, script = (
        files("mergekit_wise.report").joinpath(f"page.{kind}").read_text("utf-8") for kind in ("html.j2", "css", "js")
    )
    curves = [curve for summary in summaries for curve in summary.comparison.curves]
    slider = _slider(summaries)
    spoken = [" ".join(_spoken(summary.comparison, alpha) for summary in summaries) for alpha in slider.stops]
    return environment.from_string(template).render(
        version=__version__,
        style=Markup(style),
        style_digest=_digest(style),
        script=Markup(script),
        script_digest=_digest(script),
        suites=", ".join(summary.comparison.suite for summary in summaries),
        models=listed(dict.fromkeys(curve.model for curve in curves), most=3),
        sources=", ".join(dict.fromkeys(curve.source for curve in curves)),
        records=len({id(row) for curve in curves for row in curve.rows.values()}),  # curves may share some
        notes=notes,
        slider=slider,
        sections=[_section(summary, slider, f"s{index}") for index, summary in enumerate(summaries)],
        estimates=estimate_sections(estimations, slider.stops, slider.start),
        data={
            "names": slider.names,
            "spoken": [f"{name}. {line}" for name, line in zip(slider.names, spoken, strict=True)],
            "start": slider.start,
        },
    )


def _slider(summaries: Sequence[Summary]) -> Slider:
    """Every alpha of the curves; it starts at the first recommended one, or else as near to 0.5 as possible."""
    stops = sorted({alpha for summary in summaries for curve in summary.comparison.curves for alpha in curve.mixtures})
    chosen = [
        each.point.numbers[0]
        for summary in summaries
        for each in summary.recommendations
        if each is not None and len(each.point.names) == 1
    ]
    swept = [curve for summary in summaries for curve in summary.comparison.curves if len(curve.mixtures) > 1]
    wanted = chosen[0] if chosen else 0.5
    start = min(range(len(stops)), key=lambda index: abs(stops[index] - wanted), default=0)
    return Slider(
        tuple(stops),
        start,
        chosen[0] if chosen else None,
        ", ".join(dict.fromkeys(curve.symbol for curve in swept)) or "α",
        all(curve.has_ends for curve in swept),
    )


def _spoken(comparison: Comparison, alpha: float) -> str:
    """The headline at an alpha, as the page announces it to screen readers."""
    sentences = []
    for curve in comparison.curves:
        results = [(column, curve.result(alpha, column)) for column in comparison.headline]
        words = [f"{column.title} {percent(result.value)} %" for column, result in results if result is not None]
        if words:
            model = f"{curve.name}: " if len(comparison.curves) > 1 else ""
            sentences.append(f"{model}{', '.join(words)}.")
    return " ".join(sentences)


def _section(summary: Summary, slider: Slider, ident: str) -> dict[str, Any]:
    """The part of the page about one suite; `ident` starts the ids of its elements."""
    comparison = summary.comparison
    recommended = [
        {
            "name": curve.name,
            "point": f"α = {chosen.alpha:g}" if chosen.alpha is not None else str(chosen.point),
            "reason": chosen.reason,
            "remarks": remarks(comparison, curve, chosen),
            "command": curve.choice.merge_command if curve.choice is not None else "",
        }
        for curve, chosen in zip(comparison.curves, summary.recommendations, strict=True)
        if chosen is not None
    ]
    stops: dict[tuple[int, At], list[int]] = {}
    for index, curve in enumerate(comparison.curves):
        for stop, alpha in enumerate(slider.nearest(curve) if curve.mixtures else ()):
            stops.setdefault((index, alpha), []).append(stop)
    along_alpha, against_reference = alpha_plots(comparison), scatter_plots(comparison)
    swept = [(index, curve) for index, curve in enumerate(comparison.curves) if len(curve.mixtures) > 1]
    return {
        "ident": ident,
        "suite": comparison.suite,
        "several": len(comparison.curves) > 1,
        "legend": [(colour(index), curve.name) for index, curve in enumerate(comparison.curves)],
        "recommended": recommended,
        "measure": comparison.measure,
        "swept": listed(dict.fromkeys("alpha" if c.symbol == "α" else c.symbol for _, c in swept)),
        "heat_maps": [
            (drawn.title, Markup(draw_heat_map(drawn, f"{ident}h{index}")))
            for index, drawn in enumerate(heat_maps(summary))
        ],
        "tiles": [
            (heading(column), [_headline(index, curve, column, slider) for index, curve in swept])
            for column in comparison.headline
            if swept
        ],
        "guides": {guide.kind for plot in (*along_alpha, *against_reference) for guide in plot.guides},
        "along_alpha": [_figure(plot, comparison, slider, f"{ident}a{i}") for i, plot in enumerate(along_alpha)],
        "differences": [
            _figure(plot, comparison, slider, f"{ident}d{i}") for i, plot in enumerate(difference_plots(comparison))
        ],
        "difference_tables": difference_tables(comparison),
        "against_reference": [
            _figure(plot, comparison, slider, f"{ident}r{i}") for i, plot in enumerate(against_reference)
        ],
        "calibration": [
            (diagram, Markup(draw_diagram(diagram, f"{ident}k{number}")))
            for number, diagram in enumerate(calibration_diagrams(summary))
        ],
        "results": results_table(summary),
        "analysis": analysis_tables(summary),
        "stops": stops,
        "provenance": [
            (curve.name, shared_facts(curve), (dataset_table(comparison, curve), weights_table(curve)))
            for curve in comparison.curves
        ],
    }


def _headline(index: int, curve: Curve, column: Column, slider: Slider) -> dict[str, Any]:
    """A curve's number in a headline column at every stop, its interval, and the gain over either model."""
    results = [curve.result(alpha, column) for alpha in slider.nearest(curve)]
    gains = []
    for alpha, name in ENDPOINTS.items() if curve.has_ends else ():
        if (end := curve.result(alpha, column)) is not None:
            gains.append((name, ["–" if result is None else points(result.value - end.value) for result in results]))
    return {
        "colour": colour(index),
        "name": curve.name,
        "numbers": ["–" if result is None else percent(result.value) for result in results],
        "intervals": ["" if result is None else interval(result) for result in results],
        "gains": gains,
    }


def _figure(plot: Plot, comparison: Comparison, slider: Slider, ident: str) -> dict[str, Any]:
    """A plot, and below it the numbers of each curve that was swept."""
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

    def model(alpha: float) -> tuple[str, str]:
        value, note = texts.get(alpha, ("–", ""))
        return value, note if kind == "scatter" else ""

    return {
        "colour": colour(index),
        "name": curve.name,
        "symbol": curve.symbol,
        "has_ends": curve.has_ends,
        "zeroshot": model(0.0),
        "finetuned": model(1.0),
        "alphas": [f"{alpha:g}" for alpha in nearest],
        "numbers": [texts[alpha][0] for alpha in nearest],
        "notes": [texts[alpha][1] for alpha in nearest],
    }


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
