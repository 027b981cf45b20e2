"""Groups that go by their norms until a cost is met."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_structsparse.profiling.group_selection import (
    LayerGroups,
    select_down_to,
    select_groups,
)

Array = Any


def layers(seed: int, kernels: int) -> dict[str, LayerGroups]:
    """Two layers with nested groups, some of them gone already."""
    rng = np.random.default_rng(seed)
    return {
        name: LayerGroups(
            np.cumsum(rng.random((groups, kernels)), axis=0),
            np.arange(groups + 1),
            rng.integers(0, groups + 1, kernels),
        )
        for name, groups in (("a", 3), ("b", 1))
    }


def cost(sizes: Mapping[str, Array]) -> float:
    """Every kernel costs the square of its size."""
    return float(sum(np.square(own).sum() for own in sizes.values()))


@given(st.integers(0, 10**6), st.integers(1, 9), st.floats(0, 1))
def test_the_cost_is_met_by_taking_away(seed: int, kernels: int, share: float) -> None:
    start = layers(seed, kernels)
    before = cost({name: layer.sizes for name, layer in start.items()})
    target, slack = share * before, 4.5  # No group changes the cost by more than 9 - 0.
    found = select_groups(start, cost, target, slack)
    assert all((found.sizes[name] <= layer.sizes).all() for name, layer in start.items())
    assert cost(found.sizes) >= min(target - slack, before)
    assert cost(found.sizes) <= target + slack
    again = select_groups(start, cost, before + 1, 0.5)
    assert cost(again.sizes) == before  # Nothing goes where nothing must.


@given(st.integers(0, 10**6))
def test_small_norms_go_first(seed: int) -> None:
    start = layers(seed, 6)
    whole = {
        name: LayerGroups(x.norms, x.reached, x.reached[[-1] * 6]) for name, x in start.items()
    }
    found = select_groups(
        whole, lambda left: float(sum(own.sum() for own in left.values())), 12, 0.5
    )
    kept = {
        name: layer.norms[np.arange(len(layer.norms))[::-1, None] < found.sizes[name]]
        for name, layer in whole.items()
    }
    assert sum(map(len, kept.values())) == 12
    assert min(own.min(initial=np.inf) for own in kept.values()) > found.threshold
    everything = np.concatenate([layer.norms.ravel() for layer in whole.values()])
    assert (everything > found.threshold).sum() == 12


def test_a_group_that_costs_too_much_stays_and_the_next_goes() -> None:
    wide = LayerGroups(np.array([[0.1]]), np.array([0, 1]), np.array([1]))
    narrow = LayerGroups(np.array([[0.2, 0.3]]), np.array([0, 1]), np.array([1, 1]))
    prices = {"wide": 10.0, "narrow": 1.0}

    def price(left: Mapping[str, Array]) -> float:
        return sum(prices[name] * float(own.sum()) for name, own in left.items())

    found = select_groups({"wide": wide, "narrow": narrow}, price, 11.0, 0.5)
    assert {name: own.tolist() for name, own in found.sizes.items()} == {
        "wide": [1],
        "narrow": [0, 1],
    }
    assert found.threshold == pytest.approx(0.2)


def chained(sizes: Mapping[str, Array]) -> float:
    """Layers that read each other: nothing is left where one has no kernel."""
    return float(np.prod([own.sum() for own in sizes.values()]))


def living(seed: int, kernels: int) -> dict[str, LayerGroups]:
    """Random groups of two layers; each has at least one kernel."""
    found = layers(seed, kernels)
    for layer in found.values():
        layer.sizes[0] = max(layer.sizes[0], 1)
    return found


def steps(start: Mapping[str, LayerGroups]) -> Array:
    """All thresholds that differ, the first of which removes nothing."""
    return np.unique([-1.0, *np.concatenate([x.norms.ravel() for x in start.values()])])


@given(st.integers(0, 10**6), st.integers(1, 9), st.floats(0, 1.1))
def test_down_to_a_target_groups_go_in_order(seed: int, kernels: int, share: float) -> None:
    start = living(seed, kernels)
    target = share * chained({name: layer.sizes for name, layer in start.items()})
    found = select_down_to(start, chained, target)
    order = steps(start)
    trials = [{name: x.above(t) for name, x in start.items()} for t in order]
    costs = [chained(trial) for trial in trials]
    enough = next(n for n, cost in enumerate(costs) if cost <= target)
    left = chained(found.sizes)
    assert left > 0
    if costs[enough] > 0:  # the first threshold in the order that is cheap enough
        for name, own in found.sizes.items():
            np.testing.assert_array_equal(own, trials[enough][name])
        assert found.threshold == max(order[enough], 0.0)
    else:  # the strongest kernel of a layer stays where the layer would be emptied
        assert left <= target or left == np.prod([x.reached[1] for x in start.values()])


@given(st.integers(0, 10**6), st.floats(0, 1))
def test_all_removed_groups_are_smaller_than_all_kept_ones(seed: int, share: float) -> None:
    whole = {
        name: LayerGroups(x.norms, x.reached, x.reached[[-1] * 6])
        for name, x in living(seed, 6).items()
    }
    found = select_down_to(whole, chained, share * 18 * 6)
    kept, removed = [], []
    for name, layer in whole.items():
        left = np.arange(len(layer.norms))[::-1, None] < found.sizes[name]
        strongest = np.argmax(layer.norms[-1])  # stays where the layer would be emptied
        left[:, strongest] = layer.norms[:, strongest] > found.threshold
        kept += layer.norms[left].tolist()
        removed += layer.norms[~left].tolist()
    assert max(removed, default=0.0) <= found.threshold < min(kept)


def test_two_layers_that_die_together_keep_a_kernel_each() -> None:
    """As a residual block and its shortcut, whose norms may all be zero at the start."""
    zeros = LayerGroups(np.zeros((1, 3)), np.array([0, 1]), np.array([1, 1, 1]))
    ones = LayerGroups(np.ones((1, 3)), np.array([0, 1]), np.array([1, 1, 1]))
    layers = {"block": zeros, "shortcut": zeros, "other": ones}

    def price(left: Mapping[str, Array]) -> float:
        total = sum(float(own.sum()) for own in left.values())
        return total if left["block"].any() or left["shortcut"].any() else 0.0

    found = select_down_to(layers, price, 5.0)
    assert [own.tolist() for own in found.sizes.values()] == [[1, 0, 0], [1, 0, 0], [1, 1, 1]]


def test_a_step_by_step_selection_would_go_out_of_order() -> None:
    wide = LayerGroups(np.array([[0.1, 0.9]]), np.array([0, 1]), np.array([1, 1]))
    narrow = LayerGroups(np.array([[0.2, 0.3]]), np.array([0, 1]), np.array([1, 1]))

    def price(left: Mapping[str, Array]) -> float:
        return 10.0 * float(left["wide"].sum()) + float(left["narrow"].sum())

    layers = {"wide": wide, "narrow": narrow}
    found = select_down_to(layers, price, 21.0)
    assert [own.tolist() for own in found.sizes.values()] == [[0, 1], [1, 1]]
    control = select_groups(layers, price, 21.0, 0.5)
    assert [own.tolist() for own in control.sizes.values()] == [[1, 1], [0, 1]]


def test_nothing_goes_where_the_cost_is_small_enough() -> None:
    start = living(3, 4)
    found = select_down_to(start, chained, np.inf)
    assert all((found.sizes[name] == layer.sizes).all() for name, layer in start.items())
    assert found.threshold == 0.0
