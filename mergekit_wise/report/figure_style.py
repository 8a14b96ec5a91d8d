"""How figures look: colours, symbols and sizes. Knows nothing of what is drawn; importing it is cheap."""

from dataclasses import dataclass
from typing import Any

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
"""Okabe and Ito's colours (2008), which people who are colour-blind can distinguish; without the yellow, which is too
light for lines on white."""

GREY = "#57606a"
INK = "#3b434b"
"""For the curve of a single model, whose colours are those of its two ends and of the recommended mixture."""

MARKERS = {"zero-shot": "s", "fine-tuned": "D"}
UNKNOWN_ALPHA = "^"

DOTS = ("o", "v", "P", "X", "p")
"""Symbols of mixtures, so that curves can be distinguished without colours, too."""

SETTINGS: dict[Any, Any] = {"svg.hashsalt": "mergekit_wise", "pdf.fonttype": 42, "ps.fonttype": 42, "font.size": 9}
"""Settings of matplotlib. Fonts of type 42 are embedded as TrueType; journals refuse those of type 3."""


@dataclass(frozen=True, slots=True)
class Style:
    """Sizes in points (1/72 inch): of texts, of the alphas beside points, of lines and of symbols."""

    text: float = 9.0
    ticks: float = 8.0
    alphas: float = 7.5
    line: float = 1.3
    dot: float = 3.4
    symbol: float = 6.0
    ring: float = 11.0


ALONE = Style()
"""For a plot with a figure of its own."""

PANEL = Style(text=7.0, ticks=6.0, alphas=5.5, line=1.0, dot=2.4, symbol=4.4, ring=8.0)
"""For a plot among others."""


def colour_of(index: int) -> str:
    """The colour of a curve by its place in the comparison."""
    return COLOURS[index % len(COLOURS)]


def dot_of(index: int) -> str:
    """The symbol of a curve's mixtures."""
    return DOTS[index % len(DOTS)]
