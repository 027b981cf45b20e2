"""The cost model with blocks: no form costs more than the layer in one piece."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from helpers_models import assert_exact_surgery, network_around, types, use_float64
from hypothesis import given
from hypothesis import strategies as st
from keras import layers as L

from keras_structsparse.graph.channels.costs import Costs
from keras_structsparse.graph.channels.splitting import (
    SegmentCost,
    cheapest_segments,
    one_segment,
    realizations,
)
from keras_structsparse.surgery.plans import Plan

SIZES = st.lists(st.integers(1, 7), min_size=1, max_size=14)
BLOCKS = st.sampled_from([1, 2, 4, 8])
COSTS = st.builds(Costs, st.floats(0, 50), st.floats(0, 1e4), BLOCKS)


def cost_of(costs: Costs) -> SegmentCost:
    return lambda size, kernels: costs.convolution(16, size**2, 8, kernels)


def total(keys: Sequence[int], cost: SegmentCost, segments: Sequence[tuple[int, int]]) -> float:
    return sum(cost(max(keys[start:stop]), stop - start) for start, stop in segments)


@given(SIZES, COSTS, BLOCKS)
def test_no_split_costs_more_than_one_segment(keys: list[int], costs: Costs, step: int) -> None:
    cost, segments = cost_of(costs), cheapest_segments(keys, cost_of(costs), step)
    assert [i for start, stop in segments for i in range(start, stop)] == list(range(len(keys)))
    assert all(start % step == 0 for start, _ in segments)
    assert total(keys, cost, segments) <= total(keys, cost, one_segment(keys, cost)) + 1e-9


@given(SIZES, COSTS)
def test_the_split_is_the_cheapest_of_all(keys: list[int], costs: Costs) -> None:
    cost = cost_of(costs)
    places = [i for i in range(1, len(keys)) if keys[i - 1] != keys[i]]
    chosen = itertools.chain.from_iterable(
        itertools.combinations(places, n) for n in range(min(len(places), 3) + 1)
    )
    least = min(
        total(keys, cost, list(itertools.pairwise((0, *some, len(keys))))) for some in chosen
    )
    assert total(keys, cost, cheapest_segments(keys, cost)) <= least + 1e-9


def test_parts_that_fill_no_block_are_not_made() -> None:
    """The control: without blocks the same layer is split."""
    keys = [1] * 5 + [3] * 7 + [5] * 4
    assert cheapest_segments(keys, cost_of(Costs(0.0, 0.0, 16))) == [(0, 16)]
    assert cheapest_segments(keys, cost_of(Costs(0.0, 0.0, 1))) == [(0, 5), (5, 12), (12, 16)]


@pytest.mark.parametrize(("block", "parts"), [(16, 1), (1, 3)])
def test_surgery_asks_for_the_block(block: int, parts: int) -> None:
    use_float64()
    model = network_around(lambda x: L.Conv2D(16, 5, padding="same", name="conv")(x))
    chosen = Plan({"conv": [1] * 5 + [3] * 7 + [5] * 4})
    pruned = assert_exact_surgery(model, chosen, costs=Costs(0.0, 0.0, block))
    assert types(pruned).count(L.Conv2D) == 2 + parts


def test_only_auto_asks_what_operations_cost() -> None:
    keys, costs = [1] * 5 + [3] * 11, Costs(0.0, 1e9)
    found = {
        name: each.segments(keys, cost_of(each.costs)) for name, each in realizations(costs).items()
    }
    assert found["auto"] == found["crop"] == found["none"] == [(0, 16)]
    assert found["split"] == [(0, 5), (5, 16)]
    stepped = realizations(costs, round_to=8)["split"]
    assert stepped.segments(keys, cost_of(stepped.costs)) == [(0, 16)]
