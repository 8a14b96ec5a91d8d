"""The diagrams of calibration as inline SVG, in the colours and the size of the page's other plots."""

from collections.abc import Iterable
from html import escape

from mergekit_wise.report.calibration_plots import Diagram, Line
from mergekit_wise.report.svg import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, colour

RIGHT_EDGE, FLOOR = WIDTH - RIGHT, HEIGHT - BOTTOM


def draw_diagram(diagram: Diagram, ident: str) -> str:
    """The diagram as an ``svg`` element whose ids start with `ident`."""
    diagonal = f'<path class="guide nobody" d="{_path(diagram, [(0, 0), (1, 1)])}"/>' if diagram.diagonal else ""
    return "".join(
        (
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="{ident}t {ident}d">'
            f'<title id="{ident}t">{escape(diagram.title)}</title><desc id="{ident}d">{escape(diagram.description)}'
            "</desc>",
            *_axes(diagram),
            diagonal,
            *(_line(diagram, line) for line in diagram.lines),
            "</svg>",
        )
    )


def _axes(diagram: Diagram) -> Iterable[str]:
    grid, texts = [], []
    for tick, label in zip(diagram.x.ticks, diagram.x.labels, strict=True):
        x = LEFT + diagram.x.place(tick) * (RIGHT_EDGE - LEFT)
        grid.append(f"M{x:.1f} {TOP}V{FLOOR}")
        texts.append(f'<text x="{x:.1f}" y="{FLOOR + 14}" class="x">{label}</text>')
    for tick, label in zip(diagram.y.ticks, diagram.y.labels, strict=True):
        y = FLOOR - diagram.y.place(tick) * (FLOOR - TOP)
        grid.append(f"M{LEFT} {y:.1f}H{RIGHT_EDGE}")
        texts.append(f'<text x="{LEFT - 6}" y="{y:.1f}" class="y">{label}</text>')
    yield f'<path class="grid-lines" d="{"".join(grid)}"/><g class="ticks" aria-hidden="true">{"".join(texts)}'
    yield f'<text x="{(LEFT + RIGHT_EDGE) / 2:g}" y="{HEIGHT - 5}" class="x name">{escape(diagram.x_label)}</text>'
    yield f'<text x="4" y="13" class="name">{escape(diagram.y_label)}</text></g>'


def _line(diagram: Diagram, line: Line) -> str:
    more = " more" if line.dashed else ""
    dots = "".join(f"{_path(diagram, [point])}h0" for point in line.points)
    return (
        f'<g class="{colour(line.index)}{more}"><path class="line" d="{_path(diagram, line.points)}"/>'
        f'<path class="dots" d="{dots}"/></g>'
    )


def _path(diagram: Diagram, points: Iterable[tuple[float, float]]) -> str:
    places = (
        (LEFT + diagram.x.place(x) * (RIGHT_EDGE - LEFT), FLOOR - diagram.y.place(y) * (FLOOR - TOP)) for x, y in points
    )
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
