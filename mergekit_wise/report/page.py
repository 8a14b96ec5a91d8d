"""The report as one HTML page that holds everything: no network, no framework, readable without its script.

Prepares what `page.html.j2` shows. A policy in the page itself lets browsers run only this script and this style.
"""

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from mergekit_wise import __version__
from mergekit_wise.report.calibration_numbers import calibration_numbers
from mergekit_wise.report.calibration_plots import calibration_diagrams
from mergekit_wise.report.calibration_svg import draw_diagram
from mergekit_wise.report.choices import difference_tables, remarks
from mergekit_wise.report.comparison import Comparison
from mergekit_wise.report.estimate_plots import estimate_sections
from mergekit_wise.report.heat_map import draw_heat_map, heat_maps
from mergekit_wise.report.merge_line import merge_line
from mergekit_wise.report.overview import overviews
from mergekit_wise.report.overview_svg import draw_overview
from mergekit_wise.report.page_figures import figure, headline
from mergekit_wise.report.page_tables import analysis_tables, heading, results_table
from mergekit_wise.report.plots import alpha_plots, difference_plots, scatter_plots
from mergekit_wise.report.reproducibility import dataset_table, shared_facts, weights_table
from mergekit_wise.report.slider import Slider
from mergekit_wise.report.summary import Summary
from mergekit_wise.report.svg import colour
from mergekit_wise.report.table import Table, listed
from mergekit_wise.report.table_texts import KINDS, table_texts
from mergekit_wise.results import At, Estimation

PAPER = "https://arxiv.org/abs/2109.01903"

SCRIPTS = ("page.js", "page_address.js", "page_points.js", "page_tables.js", "page_export.js")
"""The parts of the page's script, in their order; they share one scope."""


def render_page(summaries: Sequence[Summary], notes: Sequence[str], estimations: Sequence[Estimation] = ()) -> str:
    """The page as HTML. The same records give the same page: it has no clock."""
    environment = Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, undefined=StrictUndefined
    )
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "separators": (",", ":")}
    template, style = map(_text, ("page.html.j2", "page.css"))
    script = f'(() => {{\n"use strict";\n{"".join(map(_text, SCRIPTS))}}})();\n'
    comparisons = [summary.comparison for summary in summaries]
    curves = [curve for comparison in comparisons for curve in comparison.curves]
    slider = Slider.of(summaries)
    sections = [_section(summary, slider, f"s{index}") for index, summary in enumerate(summaries)]
    return environment.from_string(template).render(
        version=__version__,
        paper=PAPER,
        style=Markup(style),
        style_digest=_digest(style),
        script=Markup(script),
        script_digest=_digest(script),
        suites=", ".join(comparison.suite for comparison in comparisons),
        models=listed(dict.fromkeys(curve.model for curve in curves), most=3),
        sources=", ".join(dict.fromkeys(curve.source for curve in curves)),
        records=len({id(row) for curve in curves for row in curve.rows.values()}),  # curves may share some
        notes=notes,
        slider=slider,
        sections=sections,
        estimates=estimate_sections(estimations, slider.stops, slider.start, curves[0].ends),
        data={
            "names": slider.names,
            "spoken": slider.spoken(comparisons),
            "start": slider.start,
            "stops": slider.stops,
            "key": slider.key,
            "kinds": KINDS,
            "tables": {ident: table_texts(table) for section in sections for ident, table in _tables(section)},
        },
    )


def _section(summary: Summary, slider: Slider, ident: str) -> dict[str, Any]:
    """The part of the page about one suite; `ident` starts the ids of its elements."""
    comparison = summary.comparison
    stops: dict[tuple[int, At], list[int]] = {}
    for index, curve in enumerate(comparison.curves):
        for stop, alpha in enumerate(slider.nearest(curve) if curve.mixtures else ()):
            stops.setdefault((index, alpha), []).append(stop)
    along_alpha, against_reference = alpha_plots(comparison), scatter_plots(comparison)
    swept = [(index, curve) for index, curve in enumerate(comparison.curves) if len(curve.mixtures) > 1]
    calibration = calibration_numbers(comparison)
    scatter = [figure(plot, comparison, slider, f"{ident}r{i}") for i, plot in enumerate(against_reference)]
    section = {
        "ident": ident,
        "suite": comparison.suite,
        "several": len(comparison.curves) > 1,
        "has_ends": any(curve.has_ends and {*curve.ends} & {*curve.mixtures} for curve in comparison.curves),
        "legend": [(colour(index), curve.name) for index, curve in enumerate(comparison.curves)],
        "recommended": _recommended(summary),
        "merge": _merge_lines(comparison, slider),
        "measure": comparison.measure,
        "swept": listed(dict.fromkeys("alpha" if c.symbol == "α" else c.symbol for _, c in swept)),
        "overviews": [
            (drawn, Markup(draw_overview(drawn, f"{ident}o{index}", slider.stops, slider.start)))
            for index, drawn in enumerate(overviews(comparison))
        ],
        "heat_maps": [
            (drawn.title, Markup(draw_heat_map(drawn, f"{ident}h{index}")))
            for index, drawn in enumerate(heat_maps(summary))
        ],
        "tiles": [
            (heading(column), [headline(index, curve, column, slider) for index, curve in swept])
            for column in comparison.headline
            if swept
        ],
        "guides": {guide.kind for plot in (*along_alpha, *against_reference) for guide in plot.guides},
        "along_alpha": [figure(plot, comparison, slider, f"{ident}a{i}") for i, plot in enumerate(along_alpha)],
        "differences": [
            figure(plot, comparison, slider, f"{ident}d{i}") for i, plot in enumerate(difference_plots(comparison))
        ],
        "difference_tables": _numbered(f"{ident}dt", difference_tables(comparison)),
        "against_reference": scatter,
        "has_rho": any(any(readout["notes"]) for drawn in scatter for readout in drawn["readouts"]),
        "calibration": [
            (diagram, Markup(draw_diagram(diagram, f"{ident}k{number}")))
            for number, diagram in enumerate(calibration_diagrams(summary))
        ],
        "calibration_tables": _numbered(f"{ident}kt", [calibration] if calibration.body else []),
        "results": _numbered(f"{ident}rt", [results_table(summary)]),
        "analysis": _numbered(f"{ident}at", analysis_tables(summary)),
        "stops": stops,
        "provenance": [
            (
                curve.name,
                shared_facts(curve),
                _numbered(f"{ident}p{index}t", (dataset_table(comparison, curve), weights_table(curve))),
            )
            for index, curve in enumerate(comparison.curves)
        ],
    }
    return {**section, "contents": list(_contents(section))}


def _recommended(summary: Summary) -> list[dict[str, Any]]:
    """The recommendation for each curve that has one: what is recommended, why, and what a reader must know of it."""
    comparison = summary.comparison
    return [
        {
            "name": curve.name,
            "point": f"α = {chosen.alpha:g}" if chosen.alpha is not None else str(chosen.point),
            "reason": chosen.reason,
            "remarks": remarks(comparison, curve, chosen),
            # Of alpha there is a line that follows the slider.
            "command": curve.choice.merge_command if curve.choice is not None and merge_line(curve) is None else "",
        }
        for curve, chosen in zip(comparison.curves, summary.recommendations, strict=True)
        if chosen is not None
    ]


def _merge_lines(comparison: Comparison, slider: Slider) -> list[dict[str, Any]]:
    """The line of ``wise merge`` for each curve along alpha, and the alphas that are in it at each stop."""
    lines = [(curve, merge_line(curve)) for curve in comparison.curves]
    return [
        {"name": curve.name, "line": line, "alphas": [f"{alpha:.9g}" for alpha in slider.nearest(curve)]}
        for curve, line in lines
        if line is not None
    ]


def _contents(section: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """The id and the title of each part of a section that has something in it."""
    shown = {
        "overview": (section["overviews"], "All data sets"),
        "alpha": (section["along_alpha"], f"{section['measure']} vs. {section['swept']}"),
        "differences": (section["difference_tables"], "Difference from α = 0.5"),
        "scatter": (section["against_reference"], "Shifts vs. reference"),
        "grid": (section["heat_maps"], "Grid"),
        "calibration": (section["calibration"], "Calibration"),
        "results": (section["results"], "Results"),
        "analysis": (section["analysis"], "Analysis"),
        "reproducibility": (section["provenance"], "Reproducibility"),
    }
    return ((f"{section['ident']}-{name}", title) for name, (found, title) in shown.items() if found)


def _numbered(ident: str, tables: Iterable[Table]) -> list[tuple[str, Table]]:
    """Tables with their ids."""
    return [(f"{ident}{number}", table) for number, table in enumerate(tables)]


def _tables(section: Mapping[str, Any]) -> Iterable[tuple[str, Table]]:
    """All tables of a section, with their ids."""
    for name in ("difference_tables", "calibration_tables", "results", "analysis"):
        yield from section[name]
    for _, _, tables in section["provenance"]:
        yield from tables


def _text(name: str) -> str:
    return files("mergekit_wise.report").joinpath(name).read_text("utf-8")


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
