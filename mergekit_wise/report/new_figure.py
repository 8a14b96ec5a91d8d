"""A figure of matplotlib that no window and no state of pyplot belongs to, and that a notebook shows all the same."""

from io import BytesIO

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


class OwnFigure(Figure):
    """A figure that IPython draws although pyplot, which makes its figures visible there, is not imported."""

    def _repr_png_(self) -> bytes:
        buffer = BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()


def new_figure(size: tuple[float, float]) -> Figure:
    """An empty figure; `size` in inches."""
    figure = OwnFigure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure
