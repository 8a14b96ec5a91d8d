"""The numbers that follow the slider, beside those of zero-shot and fine-tuned, as HTML."""

from html import escape

from mergekit_wise.report.baseline import robustness
from mergekit_wise.report.comparison import Column, Comparison, Curve
from mergekit_wise.report.markup import moving
from mergekit_wise.report.panels import Panel
from mergekit_wise.report.sheet import ends, heading, percent, points
from mergekit_wise.report.svg import colour
from mergekit_wise.report.timeline import KNOWN, Timeline


def tiles(comparison: Comparison, timeline: Timeline) -> str:
    """The headline at the slider's alpha, and what was gained over either end; empty where nothing was swept."""
    swept = [(index, curve) for index, curve in enumerate(comparison.curves) if len(curve.mixtures) > 1]
    if not swept:
        return ""
    found = []
    for column in comparison.headline:
        lines = []
        for index, curve in swept:
            who = f'<p class="who {colour(index)}">{escape(curve.name)}</p>' if len(comparison.curves) > 1 else ""
            lines.append(who + _headline(curve, column, timeline))
        found.append(f'<div class="tile"><p class="what">{escape(heading(column))}</p>{"".join(lines)}</div>')
    return f'<div class="tiles{" many" if len(comparison.curves) > 1 else ""}">{"".join(found)}</div>'


def _headline(curve: Curve, column: Column, timeline: Timeline) -> str:
    results = [curve.result(alpha, column) for alpha in timeline.nearest(curve)]
    shown = ["–" if result is None else percent(result.value) for result in results]
    intervals = ["" if result is None else ends(result) for result in results]
    gains = []
    for alpha, name in KNOWN.items():
        if (end := curve.result(alpha, column)) is not None:
            texts = ["–" if result is None else points(result.value - end.value) for result in results]
            gains.append(f"<div><dt>over {name}</dt>{moving('dd', texts, timeline.start)}</div>")
    return (
        f'<p class="value">{moving("span", shown, timeline.start)}{moving("small", intervals, timeline.start)}</p>'
        f"<dl>{''.join(gains)}</dl>"
    )


def readout(panel: Panel, comparison: Comparison, index: int, timeline: Timeline) -> str:
    """Zero-shot, the slider's mixture and fine-tuned in numbers, for one curve of a plot.

    Beside the number stands its interval, or under a scatter plot how robust that is, where a line tells.
    """
    curve = comparison.curves[index]
    if len(curve.mixtures) < 2:
        return ""
    texts = {}
    for alpha in curve.mixtures:
        result = curve.result(alpha, panel.column)
        beside = ends(result) if panel.kind == "alpha" and result is not None else ""
        if panel.kind == "scatter" and (rho := robustness(comparison, curve, alpha, panel.column)) is not None:
            beside = f"ρ {points(rho.value)}"
        texts[alpha] = ("–" if result is None else percent(result.value), beside)
    who = f'<div class="who">{escape(curve.name)}</div>' if len(comparison.curves) > 1 else ""
    return f'<div class="readout {colour(index)}">{who}{_three(curve, texts, timeline, panel.kind)}</div>'


def _three(curve: Curve, texts: dict[float, tuple[str, str]], timeline: Timeline, kind: str) -> str:
    near = timeline.nearest(curve)

    def end(alpha: float, mark: str) -> str:
        text, beside = texts.get(alpha, ("–", ""))
        small = f"<small>{escape(beside)}</small>" if kind == "scatter" and beside else ""
        return (
            f'<div><span class="what {mark}">{KNOWN[alpha]}</span><span class="value"><b>{text}</b>{small}</span></div>'
        )

    value = moving("b", [texts[alpha][0] for alpha in near], timeline.start)
    beside = moving("small", [texts[alpha][1] for alpha in near], timeline.start)
    at = moving("span", [f"{alpha:g}" for alpha in near], timeline.start)
    return (
        f'{end(0.0, "zs")}<div><span class="what at">α = {at}</span><span class="value">{value}{beside}</span></div>'
        f"{end(1.0, 'ft')}"
    )
