"""All networks of a sweep: a curve for each threshold, their envelope, and other networks.

:func:`tau_curves` and :func:`envelope` give the curves as plain numbers, without matplotlib;
:func:`curves_figure` draws them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Protocol

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
from keras_structsparse.profiling.pareto import pareto

MOST = 6
"""More curves than this cannot be told apart."""

Reference = tuple[str, float, float]
"""Name, multiply-adds over those of the dense network, accuracy."""

LABELLED = 12
"""Envelopes of more networks have no room for every alpha."""


class SweptPoint(Protocol):
    """One network of a sweep, as its curves need it; any object with these attributes is one."""

    @property
    def alpha(self) -> float:
        """The penalty's weight."""

    @property
    def tau(self) -> float:
        """The threshold on group norms."""

    @property
    def multiply_adds_fraction(self) -> float:
        """Multiply-adds left; 1 for the dense network."""

    @property
    def validation_finetuned(self) -> float:
        """Accuracy on the validation split, 0 to 1: what choices are made by."""

    @property
    def accuracy_finetuned(self) -> float:
        """Accuracy on the test split, 0 to 1: what is shown."""


@dataclass(frozen=True)
class Curve:
    """Networks that belong together, the cheapest first.

    Attributes:
        label: What they have in common.
        alphas: The penalty's weight of each.
        fractions: The multiply-adds left of each; 1 for the dense network.
        accuracies: Test accuracy of each, 0 to 1.
    """

    label: str
    alphas: tuple[float, ...]
    fractions: tuple[float, ...]
    accuracies: tuple[float, ...]


def tau_curves(points: Sequence[SweptPoint], most: int = MOST) -> list[Curve]:
    """One curve for each threshold, or for each range of thresholds where there are many.

    A curve has one place for each alpha: the medians over the seeds and, in a range, over the
    thresholds, so that a single outlier does not move it. The ranges hold about the same number of
    points each.

    Args:
        points: The networks of a sweep.
        most: The largest number of curves.

    Returns:
        The curves by increasing tau, labelled with it.

    Examples:
        >>> from types import SimpleNamespace
        >>> point = SimpleNamespace(
        ...     alpha=1e-3, tau=0.1, multiply_adds_fraction=0.4, accuracy_finetuned=0.9
        ... )
        >>> tau_curves([point])
        [Curve(label='0.1', alphas=(0.001,), fractions=(0.4,), accuracies=(0.9,))]
    """
    ranges = _ranges([point.tau for point in points], most)
    return [
        _curve(_range_label(taus), [_middle(own) for own in _by_alpha(points, taus)])
        for taus in ranges
    ]


def envelope(points: Sequence[SweptPoint]) -> Curve:
    """The Pareto front by validation accuracy, shown with the test accuracy.

    The curve may fall where a more expensive network is better on the validation split only.

    Args:
        points: The networks of a sweep.

    Returns:
        The curve.
    """
    values = [(point.multiply_adds_fraction, point.validation_finetuned) for point in points]
    return _curve("", [_place(points[index]) for index in pareto(values)])


Place = tuple[float, float, float]
"""Fraction of multiply-adds, accuracy, alpha."""


def _place(point: SweptPoint) -> Place:
    return point.multiply_adds_fraction, point.accuracy_finetuned, point.alpha


def _middle(points: Sequence[SweptPoint]) -> Place:
    fraction, accuracy, alpha = map(list, zip(*map(_place, points), strict=True))
    return median(fraction), median(accuracy), alpha[0]


def _by_alpha(points: Sequence[SweptPoint], taus: Sequence[float]) -> Iterable[list[SweptPoint]]:
    own = [point for point in points if point.tau in taus]
    for alpha in sorted({point.alpha for point in own}):
        yield [point for point in own if point.alpha == alpha]


def _curve(label: str, places: Iterable[Place]) -> Curve:
    fractions, accuracies, alphas = zip(*sorted(places), strict=True)
    return Curve(label, alphas, fractions, accuracies)


def _ranges(taus: Sequence[float], most: int) -> list[list[float]]:
    """The distinct values, single or in ranges that cover about the same number of points each."""
    different = sorted(set(taus))
    if len(different) <= most:
        return [[tau] for tau in different]
    ranges: dict[int, list[float]] = {}
    below = 0
    for tau in different:
        middle = below + taus.count(tau) / 2
        ranges.setdefault(int(most * middle / len(taus)), []).append(tau)
        below += taus.count(tau)
    return list(ranges.values())


def _range_label(taus: Sequence[float]) -> str:
    return "–".join(f"{tau:g}" for tau in dict.fromkeys((taus[0], taus[-1])))


def curves_figure(
    points: Sequence[SweptPoint],
    dense: float,
    references: Sequence[Reference] = (),
    title: str = "Accuracy against multiply-adds",
) -> Figure:
    """Test accuracy against multiply-adds, one curve for each threshold, and their envelope.

    The curves are those of :func:`tau_curves`, so more than six thresholds share them.
    The envelope is the Pareto front by validation accuracy, drawn with the test accuracy. Its
    networks are labelled with their alpha if there are at most twelve.

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
    """All costs, and the accuracies from that of the envelope up."""
    costs = [*(p.multiply_adds_fraction for p in points), *(cost for _, cost, _ in references)]
    cost_axis(axes, [100 * cost for cost in costs])
    shown = [100 * value for value in (*best.accuracies, dense, *(a for _, _, a in references))]
    margin = max(max(shown) - min(shown), 1.0)
    axes.set_ylim(min(shown) - 0.3 * margin, max(shown) + 0.16 * margin)
    axes.set_ylabel("test accuracy (%)")


def _draw_points(axes: Axes, points: Sequence[SweptPoint], curves: Sequence[Curve]) -> None:
    """The networks that are not on a curve; with one seed there may be none."""
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
    # Steps: between two networks of the front, the cheaper one is the best that is affordable.
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
