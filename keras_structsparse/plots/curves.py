"""All networks of a sweep: a curve for each threshold, their envelope, and other networks."""

from __future__ import annotations

from collections.abc import Sequence

from keras_structsparse.plots.curve_data import Curve, SweptPoint, envelope, tau_curves
from keras_structsparse.plots.labels import place_labels, scientific
from keras_structsparse.plots.style import (
    BLACK,
    GREY,
    ORANGE,
    STYLE,
    Axes,
    Figure,
    cost_axis,
    matplotlib_or_explain,
    new_figure,
)

Reference = tuple[str, float, float]
"""Name, multiply-adds over those of the dense network, accuracy."""

LABELLED = 12
"""Envelopes of more networks have no room for every alpha."""


def curves_figure(
    points: Sequence[SweptPoint],
    dense: float,
    references: Sequence[Reference] = (),
    title: str = "Accuracy against multiply-adds",
) -> Figure:
    """Test accuracy against multiply-adds, one curve for each threshold, and their envelope.

    The curves are those of :func:`tau_curves`, so more than six thresholds share them.
    The envelope goes through the networks that no other beats on the validation split; shown is
    their test accuracy. Each has its alpha beside it, if they are few.

    Args:
        points: The networks of a sweep.
        dense: Test accuracy of the dense network, 0 to 1.
        references: Name, fraction of the dense network's multiply-adds and accuracy, 0 to 1, of
            other networks.
        title: The title.

    Returns:
        A matplotlib Figure. Networks far below the envelope are triangles at the lower edge.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: There are no points.

    Examples:
        >>> from types import SimpleNamespace
        >>> point = SimpleNamespace(
        ...     alpha=1e-3,
        ...     tau=0.1,
        ...     multiply_adds_fraction=0.4,
        ...     validation_finetuned=0.88,
        ...     accuracy_finetuned=0.90,
        ... )
        >>> figure = curves_figure([point], 0.91, [("other", 0.3, 0.89)])
        >>> [text.get_text() for text in figure.axes[0].texts]
        ['other', 'α = 1e-3']
    """
    if not points:
        raise ValueError("points: expected at least one network of a sweep. Received none.")
    best = envelope(points)
    with matplotlib_or_explain().rc_context(STYLE):
        figure = new_figure(8.2, 5.0)
        axes = figure.add_subplot()
        _scale(axes, points, best, dense, references)
        curves = tau_curves(points)
        _draw_points(axes, points, curves)
        _draw_curves(axes, curves)
        _draw_envelope(axes, best, dense)
        _draw_references(axes, references)
        axes.set_title(title)
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
        _label(figure, axes, best, references)
    return figure


def _scale(
    axes: Axes,
    points: Sequence[SweptPoint],
    best: Curve,
    dense: float,
    references: Sequence[Reference],
) -> None:
    """All costs, and the accuracies of what is worth having."""
    costs = [*(p.multiply_adds_fraction for p in points), *(cost for _, cost, _ in references)]
    cost_axis(axes, [100 * cost for cost in costs])
    shown = [100 * value for value in (*best.accuracies, dense, *(a for _, _, a in references))]
    margin = max(max(shown) - min(shown), 1.0)
    axes.set_ylim(min(shown) - 0.3 * margin, max(shown) + 0.16 * margin)
    axes.set_ylabel("test accuracy (%)")


def _draw_points(axes: Axes, points: Sequence[SweptPoint], curves: Sequence[Curve]) -> None:
    """The networks that no curve goes through: with one seed there may be none."""
    floor = axes.get_ylim()[0]
    drawn = {place for curve in curves for place in zip(*_in_percent(curve), strict=True)}
    places = [(100 * p.multiply_adds_fraction, 100 * p.accuracy_finetuned) for p in points]
    places = [place for place in places if place not in drawn or place[1] < floor]
    for low, marker, label in ((False, ".", "network"), (True, "v", "network below the axis")):
        own = [(x, max(y, floor)) for x, y in places if bool(y < floor) is low]
        if own:
            x, y = zip(*own, strict=True)
            style = {"color": GREY, "alpha": 0.45, "markersize": 5, "clip_on": not low}
            axes.plot(x, y, marker, linestyle="none", label=label, zorder=2, **style)


def _draw_curves(axes: Axes, curves: Sequence[Curve]) -> None:
    palette = matplotlib_or_explain().colormaps["viridis"]
    for index, curve in enumerate(curves):
        colour = palette(0.05 + 0.85 * index / max(len(curves) - 1, 1))
        style = {"color": colour, "linewidth": 1.3, "markersize": 4.5, "zorder": 3}
        axes.plot(*_in_percent(curve), "-o", label=f"tau = {curve.label}", **style)


def _draw_envelope(axes: Axes, best: Curve, dense: float) -> None:
    # A step: what costs more than a network and less than the next one is no better.
    style = {"color": BLACK, "linewidth": 1.1, "zorder": 4, "drawstyle": "steps-post"}
    style |= {"markerfacecolor": "none", "markeredgewidth": 1.1, "markersize": 8}
    axes.plot(*_in_percent(best), "-o", label="envelope (by validation)", **style)
    axes.axhline(100 * dense, color=GREY, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    axes.plot([100], [100 * dense], "D", color=BLACK, markersize=6, zorder=4, label="dense network")


def _draw_references(axes: Axes, references: Sequence[Reference]) -> None:
    style = {"markeredgecolor": BLACK, "markersize": 11, "linestyle": "none", "zorder": 5}
    if references:
        x, y = zip(*((100 * cost, 100 * value) for _, cost, value in references), strict=True)
        axes.plot(x, y, "*", color=ORANGE, label="other networks", **style)


def _label(figure: Figure, axes: Axes, best: Curve, references: Sequence[Reference]) -> None:
    texts = [name for name, _, _ in references]
    places = [(100 * cost, 100 * value) for _, cost, value in references]
    if len(best.alphas) <= LABELLED:
        texts += [f"α = {scientific(alpha)}" for alpha in best.alphas]
        places += zip(*_in_percent(best), strict=True)
    place_labels(figure, axes, texts, places)


def _in_percent(curve: Curve) -> tuple[list[float], list[float]]:
    fractions, accuracies = curve.fractions, curve.accuracies
    return [100 * cost for cost in fractions], [100 * value for value in accuracies]
