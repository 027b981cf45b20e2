"""The points of a sweep as curves of accuracy against multiply-adds. Plain numbers only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Protocol

from keras_structsparse.profiling.pareto import pareto

MOST = 6
"""More curves than this cannot be told apart."""


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

    A curve has a place for each alpha: the medians over the seeds and, in a range, over the
    thresholds, so that one network which fell apart does not move it. Ranges hold about as many
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
    """The networks that no other beats: the validation split decides, the test split is shown.

    So the curve may fall where a dearer network does better on the validation split only.

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
    """The different values, apart or in ranges that hold about as many of all values each."""
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
