"""The part of a page about one suite: headline, plots, tables, and how it was measured."""

from collections.abc import Iterable, Sequence
from html import escape

from mergekit_wise.report.analysis_sheets import analysis_sheets
from mergekit_wise.report.comparison import Comparison
from mergekit_wise.report.markup import facts, table
from mergekit_wise.report.panels import Panel, alpha_panels, scatter_panels
from mergekit_wise.report.provenance import dataset_sheet, shared_facts, weights_sheet
from mergekit_wise.report.readout import readout, tiles
from mergekit_wise.report.sheet import Sheet, accuracy_sheet, heading, percent
from mergekit_wise.report.summary import Verdict
from mergekit_wise.report.svg import colour, draw
from mergekit_wise.report.timeline import Timeline


def section(comparison: Comparison, verdicts: Sequence[Verdict], timeline: Timeline, ident: str) -> str:
    """The whole part; `ident` starts the names of its elements."""
    stops: dict[tuple[int, float], list[int]] = {}
    for index, curve in enumerate(comparison.curves):
        for stop, alpha in enumerate(timeline.nearest(curve) if curve.mixtures else ()):
            stops.setdefault((index, alpha), []).append(stop)
    sheet = accuracy_sheet(comparison, verdicts)
    parts = [
        f'<section aria-labelledby="{ident}"><h2 id="{ident}">{escape(comparison.suite)}</h2>',
        *_recommendations(comparison, verdicts),
        _legend(comparison),
        tiles(comparison, timeline),
        *_plots(comparison, timeline, ident),
        f'<h3>Results</h3><p class="soft">{escape(sheet.remark)}</p>{table(sheet, stops)}',
        *_analysis(analysis_sheets(comparison, verdicts), stops),
        *_methods(comparison),
        "</section>",
    ]
    return "\n".join(part for part in parts if part)


def spoken(comparison: Comparison, alpha: float) -> str:
    """The headline at an alpha, in words."""
    said = []
    for curve in comparison.curves:
        results = [(column, curve.result(alpha, column)) for column in comparison.headline]
        words = [f"{column.title} {percent(result.value)} %" for column, result in results if result is not None]
        if words:
            who = f"{curve.name}: " if len(comparison.curves) > 1 else ""
            said.append(f"{who}{', '.join(words)}.")
    return " ".join(said)


def _recommendations(comparison: Comparison, verdicts: Sequence[Verdict]) -> Iterable[str]:
    warnings: dict[str, None] = {}
    for curve, verdict in zip(comparison.curves, verdicts, strict=True):
        if (chosen := verdict.recommendation) is None:
            continue
        who = f" for {escape(curve.name)}" if len(comparison.curves) > 1 else ""
        yield f'<p class="lede">Recommended{who}: <b>α = {chosen.alpha:g}</b> – {escape(chosen.reason)}.</p>'
        warnings[chosen.warning] = None
    yield from (f'<p class="soft">{escape(warning)}</p>' for warning in warnings if warning)


def _legend(comparison: Comparison) -> str:
    if len(comparison.curves) < 2:
        return ""
    lines = (f'<li class="{colour(i)}">{escape(curve.name)}</li>' for i, curve in enumerate(comparison.curves))
    return f'<ul class="legend">{"".join(lines)}</ul>'


def _plots(comparison: Comparison, timeline: Timeline, ident: str) -> Iterable[str]:
    if panels := alpha_panels(comparison):
        about = "Every mixture, with its 95 % interval, and the straight line between the ends (dashed)."
        if any(guide.kind == "outputs" for panel in panels for guide in panel.guides):
            about += " Dotted: the outputs of the ends mixed instead of their weights."
        yield f'<h3>Along alpha</h3><p class="soft">{about}</p>'
        yield _figures(panels, comparison, timeline, f"{ident}a")
    if panels := scatter_panels(comparison):
        about = "Up and to the right is better; logit axes, 95 % intervals. Squares are zero-shot, diamonds fine-tuned."
        if any(panel.guides for panel in panels):
            about += " The dashed line is what models without robustness reach, ρ how far above it a model is."
        yield f'<h3>Reference against shifts</h3><p class="soft">{about}</p>'
        yield _figures(panels, comparison, timeline, f"{ident}r")


def _figures(panels: Sequence[Panel], comparison: Comparison, timeline: Timeline, ident: str) -> str:
    figures = []
    for number, panel in enumerate(panels):
        svg = draw(panel, f"{ident}{number}", timeline.stops, timeline.start)
        below = "".join(readout(panel, comparison, trace.index, timeline) for trace in panel.traces)
        figures.append(
            f"<figure><figcaption><h4>{escape(heading(panel.column))}</h4></figcaption>{svg}{below}</figure>"
        )
    return f'<div class="grid">{"".join(figures)}</div>'


def _analysis(sheets: Sequence[Sheet], stops: dict[tuple[int, float], list[int]]) -> Iterable[str]:
    if sheets:
        yield "<h3>Analysis</h3>"
    for sheet in sheets:
        remark = f'<p class="soft">{escape(sheet.remark)}</p>' if sheet.remark else ""
        yield f"<h4>{escape(sheet.title)}</h4>{remark}{table(sheet, stops)}"


def _methods(comparison: Comparison) -> Iterable[str]:
    yield "<h3>What was measured, and how</h3>"
    for curve in comparison.curves:
        yield f"<h4>{escape(curve.name)}</h4>{facts(shared_facts(curve))}"
        yield table(dataset_sheet(comparison, curve), {})
        yield table(weights_sheet(curve), {})
