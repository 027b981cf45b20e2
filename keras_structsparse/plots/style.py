"""What all figures share: style, notes and files."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keras_structsparse._files import write_atomically
from keras_structsparse._typing import StrPath
from keras_structsparse.errors import OutputError

Axes = Any
Figure = Any

DPI = 150
SUFFIXES = (".png", ".svg")

# Okabe and Ito's colours, which people with any colour vision can tell apart.
BLUE, ORANGE, BLACK, DARK, GREY = "#0072B2", "#E69F00", "#222222", "#555555", "#767676"

STYLE = {
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "axes.labelcolor": BLACK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.axisbelow": True,
    "axes.titlelocation": "left",
    "axes.titlesize": 11.5,
    "axes.titleweight": "bold",
    "axes.titlepad": 12.0,
    "font.size": 9.5,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.7,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "keras_structsparse",
    # Names of users may hold dollars; nothing here is a formula.
    "text.parse_math": False,
    "xtick.color": GREY,
    "xtick.labelcolor": BLACK,
    "ytick.color": GREY,
    "ytick.labelcolor": BLACK,
}


def note(axes: Axes, text: str, place: tuple[float, float], shift: tuple[float, float]) -> Any:
    """Small text, shifted by points from a place in data units."""
    vertical = "center" if not shift[1] else ("bottom" if shift[1] > 0 else "top")
    style = {"fontsize": 7.5, "color": DARK, "zorder": 6, "ha": "center", "va": vertical}
    style |= {"bbox": {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.4}}
    return axes.annotate(text, place, xytext=shift, textcoords="offset points", **style)


def cost_axis(axes: Axes, costs: Sequence[float]) -> None:
    """A logarithmic axis of multiply-adds, in per cent of the dense network's."""
    axes.set_xscale("log")
    axes.set_xlim(0.75 * min([*costs, 50]), 1.25 * max([*costs, 100]))
    steps = [1, 2, 5]
    ticks = [step * 10.0**power for power in range(-3, 7) for step in steps]
    left, right = axes.get_xlim()
    shown = [tick for tick in ticks if left <= tick <= right]
    axes.set_xticks(shown, [f"{tick:g}" for tick in shown])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("multiply-adds left (% of the dense network)")


def plain_ticks(axis: Any) -> None:
    """Numbers at the ticks as texts; matplotlib writes those of logarithmic axes as formulas.

    Args:
        axis: The axis of a figure, such as ``axes.xaxis``.
    """
    axis.set_major_formatter(lambda value, place: f"{value:g}")


def save(figure: Figure, path: StrPath) -> Path:
    """Write a figure as PNG (150 dots per inch) or SVG, atomically and deterministically.

    Args:
        figure: The figure.
        path: The file; its ending decides the format.

    Returns:
        The path.

    Raises:
        OutputError: The path has another ending or cannot be written.
    """
    if Path(path).suffix not in SUFFIXES:
        raise OutputError(f"path: expected a name that ends in .png or .svg. Received: {path}")
    metadata = {"Date": None} if Path(path).suffix == ".svg" else {}

    def write(target: Path) -> None:
        with matplotlib_or_explain().rc_context(STYLE):
            figure.savefig(target, dpi=DPI, metadata=metadata)

    return write_atomically(path, write)


def svg(figure: Figure) -> str:
    """A figure as an SVG element for an HTML page, deterministically.

    Args:
        figure: The figure.
    """
    text = io.StringIO()
    with matplotlib_or_explain().rc_context(STYLE):
        figure.savefig(text, format="svg", metadata={"Date": None})
    # Without the XML declaration.
    return text.getvalue()[text.getvalue().index("<svg") :]


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, its sides in inches; without pyplot and its global state."""
    matplotlib_or_explain()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as NewFigure

    figure = NewFigure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def matplotlib_or_explain() -> Any:
    """matplotlib, or an ImportError that says how to install it."""
    try:
        import matplotlib
    except ImportError as error:
        raise ImportError(
            'Figures need matplotlib. Install it with: pip install "keras-structsparse[plots]"'
        ) from error
    return matplotlib
