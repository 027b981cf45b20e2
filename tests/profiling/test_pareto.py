"""The frontier against its definition, point by point."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_structsparse.profiling.pareto import ROUNDING, Point, choose, pareto

# Few different numbers, so that ties are common.
numbers = st.integers(0, 5).map(float) | st.floats(-3, 3)
clouds = st.lists(st.tuples(numbers, numbers), max_size=12)
some_points = st.lists(st.tuples(numbers, numbers), min_size=1, max_size=12)


def beats(left: Point, right: Point) -> bool:
    return left[0] <= right[0] and left[1] >= right[1] and left != right


@given(clouds)
def test_the_frontier_is_what_no_point_beats(points: list[Point]) -> None:
    kept = pareto(points)
    unbeaten = {i for i, p in enumerate(points) if not any(beats(q, p) for q in points)}
    assert set(kept) == unbeaten
    assert len(kept) == len(unbeaten)


@given(clouds)
def test_the_frontier_rises_in_cost_and_value(points: list[Point]) -> None:
    chosen = [points[i] for i in pareto(points)]
    assert chosen == sorted(chosen)
    assert [value for _, value in chosen] == sorted(value for _, value in chosen)


def test_equal_points_stay_in_order_and_worse_ones_of_equal_cost_go() -> None:
    assert pareto([(1, 0.5), (2, 0.9), (1, 0.5), (1, 0.4), (2, 0.9), (3, 0.9)]) == (0, 2, 1, 4)
    assert pareto([]) == ()


@given(some_points, st.floats(0, 3), numbers)
def test_the_cheapest_within_a_drop(points: list[Point], drop: float, reference: float) -> None:
    good = [p for p in points if reference - p[1] <= drop + ROUNDING]
    if not good:
        with pytest.raises(ValueError, match="max_drop: expected a point"):
            choose(points, max_drop=drop, reference=reference)
        return
    cost, value = points[choose(points, max_drop=drop, reference=reference)]
    assert (cost, value) in good
    assert cost == min(p[0] for p in good)
    assert value == max(p[1] for p in good if p[0] == cost)


@given(some_points, numbers)
def test_the_best_within_a_cost(points: list[Point], limit: float) -> None:
    cheap = [p for p in points if p[0] <= limit]
    if not cheap:
        with pytest.raises(ValueError, match="max_cost: expected a point"):
            choose(points, max_cost=limit)
        return
    cost, value = points[choose(points, max_cost=limit)]
    assert value == max(p[1] for p in cheap)
    assert cost == min(p[0] for p in cheap if p[1] == value)


@given(some_points, st.floats(0, 3))
def test_without_a_reference_the_best_point_counts(points: list[Point], drop: float) -> None:
    best = max(value for _, value in points)
    assert choose(points, drop) == choose(points, drop, reference=best)


def test_a_drop_of_one_point_is_one_point_in_floating_point_too() -> None:
    assert 0.91 - 0.90 > 0.01  # the trap
    assert choose([(1, 0.90), (2, 0.91)], max_drop=0.01, reference=0.91) == 0
    assert choose([(1, 0.8999), (2, 0.91)], max_drop=0.01, reference=0.91) == 1


def test_among_equals_the_first() -> None:
    assert choose([(1, 0.9), (1, 0.9)], max_drop=0) == 0
    assert choose([(1, 0.9), (1, 0.9)], max_cost=2) == 0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 1])
def test_points_that_are_not_finite_are_named(bad: float, place: int) -> None:
    point = (bad, 0.5) if place == 0 else (0.5, bad)
    with pytest.raises(ValueError, match=r"points\[1\]: expected finite"):
        pareto([(1, 1), point])
    with pytest.raises(ValueError, match=r"points\[1\]: expected finite"):
        choose([(1, 1), point], max_cost=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "expected max_drop or max_cost"),
        ({"max_drop": 0.1, "max_cost": 1.0}, "expected max_drop or max_cost"),
        ({"max_drop": math.nan}, "max_drop: expected a finite"),
        ({"max_cost": math.nan}, "max_cost: expected a finite"),
        ({"max_drop": 0.1, "reference": math.nan}, "reference: expected a finite"),
        ({"max_drop": 0.01, "reference": 0.9}, "at most 0.5, a drop of 0.4"),
        ({"max_cost": 0.5}, "from 1 on"),
    ],
)
def test_a_choice_that_cannot_be_made_says_why(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        choose([(1, 0.5)], **options)


def test_nothing_to_choose_from() -> None:
    with pytest.raises(ValueError, match="points: expected at least one"):
        choose([], max_drop=0.1)
