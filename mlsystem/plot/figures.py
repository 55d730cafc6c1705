"""Make matplotlib figures. matplotlib is imported here, on first use."""

import functools
import io
from typing import Any


@functools.cache
def _class() -> Any:
    """Return the class of our figures. A notebook shows them without `pyplot`."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "Plots need matplotlib, which is not installed. Install it with "
            "`python -m pip install 'mlsystem[plot]'` or `python -m pip install matplotlib`."
        ) from error

    class PlotFigure(Figure):
        def _repr_png_(self) -> bytes:
            content = io.BytesIO()
            self.savefig(content, format="png")
            return content.getvalue()

    return PlotFigure


def new_figure(figsize: tuple[float, float]) -> Any:
    """Return an empty figure, in inches, that makes room for labels and legends outside the axes.

    `pyplot` does not know it: no window opens, and it is freed with the last reference.

    Raises:
        ImportError: if matplotlib is not installed.
    """
    figure = _class()(figsize=figsize, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08)
    return figure


def plain_axes(axes: Any) -> None:
    """Remove the frame's upper and right side, and draw a light grid behind the curves."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#dfe4ea", linewidth=0.6)
    axes.set_axisbelow(True)
