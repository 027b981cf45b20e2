"""The Pareto front of value against cost, and the choice of a point. Plain numbers only."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

from keras_structsparse._validation import finite

Point = tuple[float, float]

ROUNDING = 1e-9
"""Tolerance of comparisons: in floating point 0.91 - 0.90 is slightly above 0.01."""


class TrainedPoint(Protocol):
    """One network of a sweep, as figures need it: any object with these attributes."""

    @property
    def alpha(self) -> float:
        """The weight of the penalty."""

    @property
    def multiply_adds_fraction(self) -> float:
        """The remaining fraction of the multiply-adds; 1 for the dense network."""

    @property
    def accuracy_at_surgery(self) -> float:
        """Test accuracy after surgery, before fine-tuning, from 0 to 1."""

    @property
    def accuracy_finetuned(self) -> float | None:
        """Test accuracy after fine-tuning, from 0 to 1; None without fine-tuning."""


def pareto(points: Sequence[Point]) -> tuple[int, ...]:
    """The Pareto front: the points that no other point dominates.

    A point dominates another if its cost is not higher, its value is not lower, and they differ.

    Args:
        points: (cost, value) of each point, such as multiply-adds and accuracy.

    Returns:
        The indices of the points on the front, cheapest first; equal points in the given order.

    Raises:
        ValueError: A number is NaN or infinite.

    Examples:
        >>> pareto([(3, 0.9), (1, 0.7), (2, 0.6), (2, 0.8)])
        (1, 3, 0)
    """
    _check(points)
    best, kept = -math.inf, list[int]()
    for index in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1], i)):
        value = points[index][1]
        if value > best or (kept and tuple(points[index]) == tuple(points[kept[-1]])):
            best = value
            kept.append(index)
    return tuple(kept)


def choose(
    points: Sequence[Point],
    max_drop: float | None = None,
    reference: float | None = None,
    max_cost: float | None = None,
) -> int:
    """Choose the cheapest point with a small drop in value, or the best one at a limited cost.

    Args:
        points: (cost, value) of each point.
        max_drop: Choose the cheapest point whose value is at most this far below ``reference``, in
            the unit of the values.
        reference: The value of the dense network; None for the highest value of the points.
        max_cost: Choose the point of the highest value among those with at most this cost.

    Returns:
        The index of the point. Ties are broken by the higher value or the lower cost, then by the
        given order.

    Raises:
        ValueError: No point qualifies, a number is NaN or infinite, or not exactly one of
            ``max_drop`` and ``max_cost`` is given.

    Examples:
        >>> points = [(1, 0.70), (2, 0.89), (3, 0.90)]
        >>> choose(points, max_drop=0.02, reference=0.91), choose(points, max_cost=1.5)
        (1, 0)
    """
    _check(points)
    if (max_drop is None) == (max_cost is None):
        raise ValueError(
            "choose: expected max_drop or max_cost. "
            f"Received: max_drop={max_drop!r}, max_cost={max_cost!r}"
        )
    if not points:
        raise ValueError("points: expected at least one (cost, value). Received none.")
    if max_cost is not None:
        return _best_within(points, finite("max_cost", max_cost))
    best = max(value for _, value in points)
    start = best if reference is None else finite("reference", reference)
    return _cheapest_above(points, finite("max_drop", max_drop or 0.0), start)


def _cheapest_above(points: Sequence[Point], max_drop: float, reference: float) -> int:
    index = _first(
        points,
        lambda cost, value: reference - value <= max_drop + ROUNDING,
        lambda cost, value: (cost, -value),
    )
    if index is None:
        best = max(value for _, value in points)
        raise ValueError(
            f"max_drop: expected a point within {max_drop:g} of the reference {reference:g}. "
            f"Received points of at most {best:g}, a drop of {reference - best:g}."
        )
    return index


def _best_within(points: Sequence[Point], max_cost: float) -> int:
    index = _first(points, lambda cost, value: cost <= max_cost, lambda cost, value: (-value, cost))
    if index is None:
        raise ValueError(
            f"max_cost: expected a point that costs at most {max_cost:g}. "
            f"Received points from {min(cost for cost, _ in points):g} on."
        )
    return index


def _first(
    points: Sequence[Point],
    fits: Callable[[float, float], bool],
    order: Callable[[float, float], tuple[float, float]],
) -> int | None:
    """The index of the first point, in an order, that fits; None if none does."""
    fitting = (index for index, point in enumerate(points) if fits(*point))
    return min(fitting, key=lambda index: (*order(*points[index]), index), default=None)


def _check(points: Sequence[Point]) -> None:
    for index, (cost, value) in enumerate(points):
        if not (math.isfinite(cost) and math.isfinite(value)):
            raise ValueError(
                f"points[{index}]: expected finite (cost, value). Received: {(cost, value)!r}"
            )
