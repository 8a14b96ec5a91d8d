"""The diagrams of calibration as inline SVG, in the colours and the size of the page's other plots."""

from mergekit_wise.report.calibration_plots import Diagram, Line
from mergekit_wise.report.svg import Frame, Point, axes, colour, heading_of, line, points_attribute


def draw_diagram(diagram: Diagram, ident: str) -> str:
    """The diagram as an ``svg`` element whose ids start with `ident`."""
    frame = Frame(diagram.x, diagram.y)
    diagonal = f'<path class="guide nobody" d="{line([frame.place(0, 0), frame.place(1, 1)])}"/>'
    return "".join(
        (
            heading_of(ident, diagram.title, diagram.description, (frame.width, frame.height)),
            axes(frame, diagram.x_label, diagram.y_label),
            diagonal if diagram.diagonal else "",
            *(_line(diagram, frame, each) for each in diagram.lines),
            "</svg>",
        )
    )


def _line(diagram: Diagram, frame: Frame, drawn: Line) -> str:
    more = " more" if drawn.dashed else ""
    places = [frame.place(x, y) for x, y in drawn.points]
    dots = "".join(f"{line([place])}h0" for place in places)
    shown = [
        Point(place, None if diagram.diagonal else x, f"{drawn.name}, {diagram.text(x, y)}")
        for place, (x, y) in zip(places, drawn.points, strict=True)
    ]
    return (
        f'<g class="{colour(drawn.index)}{more}"{points_attribute(shown)}><path class="line" d="{line(places)}"/>'
        f'<path class="dots" d="{dots}"/></g>'
    )
