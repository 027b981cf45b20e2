"""The efficient frontier of a sweep."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from keras_structsparse.plots.labels import place_labels, scientific
from keras_structsparse.plots.style import (
    BLACK,
    BLUE,
    GREY,
    ORANGE,
    STYLE,
    Axes,
    Figure,
    cost_axis,
    matplotlib_or_explain,
    new_figure,
    note,
)
from keras_structsparse.profiling.pareto import TrainedPoint, pareto


def frontier_figure(
    points: Sequence[TrainedPoint],
    dense: float,
    chosen: int | None = None,
    title: str = "Accuracy against multiply-adds",
) -> Figure:
    """Test accuracy against multiply-adds, with the efficient frontier.

    Args:
        points: The networks of a sweep.
        dense: Test accuracy of the dense network, 0 to 1.
        chosen: Index of the point to ring.
        title: The title.

    Returns:
        A matplotlib Figure. Networks that fell far below the others at surgery are shown as
        triangles with their accuracy at the lower edge.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: There are no points, or ``chosen`` is no index of one.

    Examples:
        >>> from types import SimpleNamespace
        >>> point = SimpleNamespace(
        ...     alpha=1e-3,
        ...     multiply_adds_fraction=0.4,
        ...     accuracy_at_surgery=0.88,
        ...     accuracy_finetuned=0.90,
        ... )
        >>> figure = frontier_figure([point], dense=0.91, chosen=0)
        >>> figure.axes[0].get_xlabel()
        'multiply-adds left (% of the dense network)'
    """
    if not points:
        raise ValueError("points: expected at least one trained network. Received none.")
    if chosen is not None and not 0 <= chosen < len(points):
        raise ValueError(
            f"chosen: expected an index below {len(points)}, or None. Received: {chosen!r}"
        )
    with matplotlib_or_explain().rc_context(STYLE):
        figure = new_figure(7.2, 5.0)
        axes = figure.add_subplot()
        costs = [100 * point.multiply_adds_fraction for point in points]
        finals = [100 * _final(point) for point in points]
        _scale_frontier(axes, costs, finals, 100 * dense)
        _draw_dense(axes, 100 * dense)
        _draw_envelope(axes, costs, finals)
        _draw_at_surgery(axes, points)
        _draw_finals(axes, points, costs, finals)
        if chosen is not None:
            _draw_chosen(axes, costs[chosen], finals[chosen])
        axes.set_title(title)
        figure.legend(loc="outside lower center", ncols=3)
        texts = [f"α = {scientific(point.alpha)}" for point in points]
        place_labels(figure, axes, texts, list(zip(costs, finals, strict=True)))
    return figure


def _final(point: TrainedPoint) -> float:
    tuned = point.accuracy_finetuned
    return point.accuracy_at_surgery if tuned is None else tuned


def _scale_frontier(
    axes: Axes, costs: Sequence[float], finals: Sequence[float], dense: float
) -> None:
    """A logarithmic cost axis, and the accuracies from that of the front up."""
    low, high = min([*finals, dense]), max([*finals, dense])
    margin = max(high - low, 1.0)
    axes.set_ylim(low - 0.45 * margin, high + 0.16 * margin)
    cost_axis(axes, costs)
    axes.set_ylabel("test accuracy (%)")


def _draw_dense(axes: Axes, dense: float) -> None:
    axes.axhline(dense, color=GREY, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    axes.plot([100], [dense], "D", color=BLACK, markersize=6, zorder=4, label="dense network")


def _draw_envelope(axes: Axes, costs: Sequence[float], finals: Sequence[float]) -> None:
    kept = pareto(list(zip(costs, finals, strict=True)))
    # Beyond the last point the best accuracy is constant.
    x = [*(costs[i] for i in kept), axes.get_xlim()[1]]
    y = [finals[i] for i in kept]
    corners = [(x[0], y[0])]
    for (_, right), level in zip(pairwise(x), y, strict=True):
        corners += [(corners[-1][0], level), (right, level)]
    across, up = zip(*corners, strict=True)
    style = {"color": BLUE, "linewidth": 1.4, "alpha": 0.55, "zorder": 2}
    axes.plot(across, up, label="efficient frontier", **style)


def _draw_at_surgery(axes: Axes, points: Sequence[TrainedPoint]) -> None:
    tuned = [point for point in points if point.accuracy_finetuned is not None]
    places = [(100 * p.multiply_adds_fraction, 100 * p.accuracy_at_surgery) for p in tuned]
    floor = axes.get_ylim()[0]
    style = {"linestyle": "none", "markeredgecolor": ORANGE, "markeredgewidth": 1.5, "zorder": 3}
    style |= {"markerfacecolor": "white", "markersize": 6}
    if tuned:
        inside = [place for place in places if place[1] > floor]
        x, y = [x for x, _ in inside], [y for _, y in inside]
        axes.plot(x, y, "o", label="at surgery", **style)
    below = [place for place in places if place[1] <= floor]
    for across, accuracy in below:
        axes.plot([across], [floor], "v", clip_on=False, **style)
        note(axes, f"{accuracy:.0f}", (across, floor), (0, 7))
    if below:
        axes.plot([], [], "v", label="at surgery, below the axis (%)", **style)


def _draw_finals(
    axes: Axes, points: Sequence[TrainedPoint], costs: Sequence[float], finals: Sequence[float]
) -> None:
    tuned = any(point.accuracy_finetuned is not None for point in points)
    label = "fine-tuned" if tuned else "at surgery"
    axes.plot(costs, finals, "o", color=BLUE, markersize=6.5, zorder=4, label=label)


def _draw_chosen(axes: Axes, cost: float, final: float) -> None:
    style = {"markerfacecolor": "none", "markeredgecolor": BLACK, "markeredgewidth": 1.3}
    axes.plot([cost], [final], "o", markersize=13, zorder=5, label="chosen", **style)
