"""The width of every layer at every alpha."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keras_structsparse.plots.style import (
    GREY,
    STYLE,
    Axes,
    Figure,
    matplotlib_or_explain,
    new_figure,
)


def widths_figure(
    base: Mapping[str, int],
    widths: Mapping[float, Mapping[str, int]],
    title: str = "Learned widths",
) -> Figure:
    """The learned width of every layer, one line for each alpha, inside the base's envelope.

    Args:
        base: Kernels of each layer of the base architecture, in order.
        widths: For each alpha the kernels that are left of each layer. Layers that are not named
            have all of theirs.
        title: The title.

    Returns:
        A matplotlib Figure.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: ``base`` or ``widths`` is empty, or they do not fit together.

    Examples:
        >>> figure = widths_figure({"conv1": 8, "conv2": 8}, {1e-3: {"conv1": 5}})
        >>> figure.axes[0].lines[-1].get_ydata().tolist()
        [5, 8]
    """
    learned = _learned(base, widths)
    with matplotlib_or_explain().rc_context(STYLE):
        figure = new_figure(max(5.4, 2.0 + 0.5 * len(base)), 4.2)
        axes = figure.add_subplot()
        _draw_base(axes, list(base.values()))
        palette = matplotlib_or_explain().colormaps["viridis"]
        for index, (alpha, values) in enumerate(learned.items()):
            colour = palette(0.1 + 0.8 * index / max(len(learned) - 1, 1))
            axes.plot(values, "-o", color=colour, markersize=4, label=f"{alpha:.3g}", zorder=3)
        _label(axes, base)
        axes.set_title(title)
        axes.legend(title="alpha", loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def _learned(
    base: Mapping[str, int], widths: Mapping[float, Mapping[str, int]]
) -> dict[float, list[int]]:
    if not base or not widths:
        raise ValueError(
            "base, widths: expected at least one layer and one alpha. "
            f"Received: {len(base)} and {len(widths)}"
        )
    for alpha, values in widths.items():
        if wrong := {n: w for n, w in values.items() if not 0 <= w <= base.get(n, -1)}:
            raise ValueError(
                f"widths[{alpha:g}]: expected layers of base and at most their kernels, "
                f"{dict(base)}. Received: {wrong}"
            )
    return {
        alpha: [values.get(name, width) for name, width in base.items()]
        for alpha, values in sorted(widths.items())
    }


def _draw_base(axes: Axes, widths: list[int]) -> None:
    style: dict[str, Any] = {"fill": False, "edgecolor": GREY, "linestyle": (0, (3, 2))}
    axes.bar(range(len(widths)), widths, width=1.0, label="base", zorder=2, **style)


def _label(axes: Axes, base: Mapping[str, int]) -> None:
    axes.set_xticks(range(len(base)), list(base), rotation=45, ha="right", rotation_mode="anchor")
    axes.tick_params(axis="x", length=0)
    axes.grid(False, axis="x")
    axes.set_xlim(-0.6, len(base) - 0.4)
    axes.set_ylim(0, 1.08 * max(base.values()))
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.set_ylabel("kernels left")
