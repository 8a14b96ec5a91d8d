"""One page that holds everything: no network, no framework, readable without its script.

Knows comparisons and verdicts. A policy in the page itself lets a browser run this script and this style alone.
"""

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files

from mergekit_wise import __version__
from mergekit_wise.report.comparison import Comparison
from mergekit_wise.report.section import section, spoken
from mergekit_wise.report.summary import Verdict
from mergekit_wise.report.timeline import Timeline, timeline_of

ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Cpath d='M2 13C4 4 9 2 14 6' "
    "fill='none' stroke='%231f6feb' stroke-width='2.5'/%3E%3Ccircle cx='8' cy='5' r='3' fill='%231f6feb'/%3E%3C/svg%3E"
)


@dataclass(frozen=True, slots=True)
class Story:
    """A comparison, and what analysis says of each of its curves."""

    comparison: Comparison
    verdicts: tuple[Verdict, ...]


def draw_page(stories: Sequence[Story], notes: Sequence[str]) -> str:
    """The page as HTML. The same records give the same page: it has no clock."""
    curves = [curve for story in stories for curve in story.comparison.curves]
    chosen = [verdict.recommendation for story in stories for verdict in story.verdicts]
    timeline = timeline_of(curves, [each.alpha for each in chosen if each is not None])
    style, script = (
        files("mergekit_wise.report").joinpath(name).read_text("utf-8") for name in ("page.css", "page.js")
    )
    policy = (
        f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    suites = ", ".join(story.comparison.suite for story in stories)
    parts = [
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{escape(suites)} – WiSE-FT</title>'
        f'<link rel="icon" href="{ICON}"><style>{style}</style></head><body>',
        "<header><h1>Mixing zero-shot and fine-tuned weights</h1>",
        _summary(stories),
        "</header>",
        _notes(notes),
        "<main>",
        _control(timeline),
        *(section(story.comparison, story.verdicts, timeline, f"s{i}") for i, story in enumerate(stories)),
        "</main>",
        _footer(stories),
        f'<script type="application/json" id="data">{_data(stories, timeline)}</script><script>{script}</script>',
        "</body></html>\n",
    ]
    return "\n".join(parts)


def _summary(stories: Sequence[Story]) -> str:
    models = dict.fromkeys(curve.model for story in stories for curve in story.comparison.curves)
    shown = ", ".join(list(models)[:3]) + (f" and {len(models) - 3} more" if len(models) > 3 else "")
    return (
        f'<p class="soft">{escape(shown)}</p><p class="soft">The weights are (1 − α) · zero-shot + α · fine-tuned: '
        "α = 0 is the zero-shot model, α = 1 the fine-tuned one.</p>"
    )


def _notes(notes: Sequence[str]) -> str:
    if not notes:
        return ""
    lines = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f'<aside class="notes" aria-labelledby="notes"><h2 id="notes">To keep in mind</h2><ul>{lines}</ul></aside>'


def _control(timeline: Timeline) -> str:
    """The slider, buttons for the alphas that matter, and a line that is read aloud."""
    live = '<p id="live" class="hidden" aria-live="polite"></p>'
    if len(timeline.stops) < 2:
        return live
    names = timeline.names
    buttons = "".join(
        f'<button type="button" data-stop="{index}" aria-pressed="{str(index == timeline.start).lower()}">'
        f"{name}</button>"
        for index, name in timeline.landmarks.items()
    )
    texts = [f"{alpha:g}" for alpha in timeline.stops]
    return (
        f'<div class="control" role="group" aria-label="Mixture that is shown"><div class="top">'
        f'<label for="alpha">α = <b data-at="{"|".join(texts)}">{texts[timeline.start]}</b></label>'
        f'<div class="jumps">{buttons}</div></div>'
        f'<input type="range" id="alpha" min="0" max="{len(texts) - 1}" step="1" value="{timeline.start}" '
        f'aria-valuetext="{escape(names[timeline.start])}"></div>{live}'
    )


def _footer(stories: Sequence[Story]) -> str:
    curves = [curve for story in stories for curve in story.comparison.curves]
    sources = ", ".join(dict.fromkeys(curve.source for curve in curves))
    count = sum(len(curve.rows) for curve in curves)
    return (
        f'<footer class="soft">Drawn by mergekit_wise {escape(__version__)} from {count} records of {escape(sources)}. '
        "Method: Wortsman et al., Robust fine-tuning of zero-shot models, CVPR 2022.</footer>"
    )


def _data(stories: Iterable[Story], timeline: Timeline) -> str:
    """What the script says aloud, as JSON that no text in it can end."""
    lines = [" ".join(spoken(s.comparison, alpha) for s in stories) for alpha in timeline.stops]
    data = {
        "names": timeline.names,
        "spoken": [f"{name}. {line}" for name, line in zip(timeline.names, lines, strict=True)],
        "start": timeline.start,
    }
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
