"""The mean correlation of the kernels of every layer, over training or over alpha."""

from __future__ import annotations

from collections.abc import Mapping

from keras_structsparse.plots.style import (
    STYLE,
    Figure,
    matplotlib_or_explain,
    new_figure,
    plain_ticks,
)


def correlation_figure(
    values: Mapping[str, Mapping[float, float]],
    over: str = "epoch",
    title: str = "Mean correlation of kernels",
) -> Figure:
    """The mean correlation of every layer's kernels, one line for each layer.

    Args:
        values: For each layer, in order, from an epoch or alpha to the mean correlation then, as
            ``SparsityLogger`` and :func:`mean_correlation` give it; nan is left out.
        over: What the correlation is drawn over: the label of the axis. The axis of "alpha" is
            logarithmic, but for 0.
        title: The title.

    Returns:
        A matplotlib Figure.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: No layer has a value.

    Examples:
        >>> figure = correlation_figure({"conv1": {1: 0.2, 2: 0.3}, "conv2": {1: 0.1, 2: 0.1}})
        >>> len(figure.axes[0].lines)
        2
    """
    points = {
        name: sorted((x, y) for x, y in own.items() if y == y) for name, own in values.items()
    }
    drawn = {name: own for name, own in points.items() if own}
    if not drawn:
        raise ValueError(f"values: expected a layer with a value. Received: {dict(values)!r}")
    with matplotlib_or_explain().rc_context(STYLE):
        figure = new_figure(6.4, 4.2)
        axes = figure.add_subplot()
        palette = matplotlib_or_explain().colormaps["viridis"]
        for index, (name, own) in enumerate(drawn.items()):
            colour = palette(0.05 + 0.85 * index / max(len(drawn) - 1, 1))
            axes.plot(*zip(*own, strict=True), "-o", color=colour, markersize=3, label=name)
        if over == "alpha":
            positive = [x for own in drawn.values() for x, _ in own if x > 0]
            axes.set_xscale("symlog", linthresh=min(positive, default=1.0))
            plain_ticks(axes.xaxis)
        else:
            axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_ylim(bottom=0)
        axes.set_xlabel(over)
        axes.set_ylabel("mean absolute correlation")
        axes.set_title(title)
        axes.legend(title="layer", loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure
