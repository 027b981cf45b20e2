"""The kernels of layers before and after, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from keras_structsparse._typing import Array
from keras_structsparse.graph.nested_groups import support
from keras_structsparse.plots.style import (
    GREY,
    STYLE,
    Axes,
    Figure,
    matplotlib_or_explain,
    new_figure,
)

Shades = Sequence[Array]
"""For every kernel of a layer the norms over its input channels, (height, width)."""

MOST_KERNELS, MOST_LAYERS = 24, 10


def strips_figure(
    layers: Mapping[str, tuple[Shades, Shades]],
    names: tuple[str, str] = ("before", "after"),
    title: str = "Kernels before and after",
) -> Figure:
    """The kernels of some layers in two networks: a strip for each.

    Shades are the norms over the input channels, in units of the largest of the layer's network.
    Smaller kernels are drawn at the position of a crop of the larger ones. If there are many, the
    first layers and kernels are shown.

    Args:
        layers: By name, the kernels before, all of one size, and those after, of at most that size.
        names: Labels of the two networks.
        title: The title.

    Returns:
        A matplotlib Figure.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: There is no layer, or one without kernels before.

    Examples:
        >>> figure = strips_figure({"conv": ([np.ones((3, 3))] * 4, [np.ones((1, 1))])})
        >>> len(figure.axes), figure.axes[0].images[0].get_array().shape
        (1, (7, 15))
    """
    if not layers or not all(before for before, _ in layers.values()):
        raise ValueError(
            "layers: expected at least one, each with kernels before. "
            f"Received: { {name: len(before) for name, (before, _) in layers.items()} }"
        )
    shown = list(layers.items())[:MOST_LAYERS]
    with matplotlib_or_explain().rc_context(STYLE):
        figure = new_figure(7.6, 0.5 + 1.0 * len(shown))
        rows = figure.subplots(len(shown), 1, squeeze=False)[:, 0]
        for axes, (name, (before, after)) in zip(rows, shown, strict=True):
            _strips(axes, name, before, after, names)
        figure.suptitle(title, x=0.01, ha="left", weight="bold")
    return figure


def _strips(axes: Axes, name: str, before: Shades, after: Shades, names: tuple[str, str]) -> None:
    side = before[0].shape
    columns = min(len(before), MOST_KERNELS)
    image = np.full((2 * (side[0] + 1) - 1, columns * (side[1] + 1) - 1), np.nan)
    for row, kernels in enumerate((before, after)):
        highest = max((float(kernel.max()) for kernel in kernels), default=0.0) or 1.0
        for column, kernel in enumerate(kernels[:columns]):
            top, left = row * (side[0] + 1), column * (side[1] + 1)
            place = image[top : top + side[0], left : left + side[1]]
            place[support(side, max(kernel.shape))] = kernel / highest
    axes.imshow(image, cmap="viridis", vmin=0.0, vmax=1.0, interpolation="nearest")
    axes.set_facecolor("white")
    axes.set_xticks([])
    axes.set_yticks([(side[0] - 1) / 2, side[0] + 1 + (side[0] - 1) / 2], names, fontsize=7.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(False)
    axes.set_ylabel(name, rotation=0, ha="right", va="center", color=GREY)
    for edge in axes.spines.values():
        edge.set_visible(False)
