"""The share that surgery would leave, and the groups that go until it is met."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from helpers_models import residual_network
from helpers_shrink import NETWORKS, Array, plain, random_losses, random_sizes, whole
from hypothesis import given, settings
from hypothesis import strategies as st

import keras_structsparse as kss
from keras_structsparse.graph.prunable_layers import PrunableLayers
from keras_structsparse.profiling.group_prices import priced
from keras_structsparse.profiling.group_selection import LayerGroups, above, thresholds
from keras_structsparse.profiling.work_share import UNITS, WorkShare, plan_of

CACHE: dict[str, keras.Model] = {}


def share_of(name: str, unit: str, realize: str = "split") -> WorkShare:
    """The network is built once: no test changes it."""
    keras.utils.clear_session(free_memory=False)
    model = CACHE.setdefault(name, NETWORKS[name]())
    return WorkShare(PrunableLayers.of(model), realize, unit)


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("realize", ["split", "auto"])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_estimate_is_near_the_rebuilt_network(name: str, realize: str, unit: str) -> None:
    share = share_of(name, unit, realize)
    sizes = random_sizes(share.found, 1)
    exact = share.exact(plan_of(sizes))
    assert share.work(whole(share.found)) == pytest.approx(1)
    assert share.work(sizes) == pytest.approx(exact, rel=0.16)
    assert 1.16 * exact < 1  # The control: the whole network is not near.
    assert share.rebuilt(sizes) == pytest.approx(share.estimate(sizes))


@settings(max_examples=6)
@given(st.integers(0, 10**6), st.sampled_from(UNITS))
def test_plain_stacks_are_counted_exactly(seed: int, unit: str) -> None:
    share = share_of("plain", unit)
    sizes = random_sizes(share.found, seed)
    smaller = kss.prune(share.found.model, plan_of(sizes), realize="split")
    counted = sum(share.counting.remaining(sizes).values())
    assert counted == getattr(kss.profile(smaller), unit)
    assert counted < share.base == getattr(kss.profile(plain()), unit)


def assert_just_enough(
    share: WorkShare, layers: dict[str, LayerGroups], sizes: dict[str, Array], target: float
) -> None:
    """Fail unless the share is at most the target, and too large with one group more."""
    left = share.exact(plan_of(sizes))
    assert 0 < left <= target
    norms = thresholds(layers)
    same = [all((x.above(t) == sizes[n]).all() for n, x in layers.items()) for t in norms]
    fewer = above(layers, norms[same.index(True) - 1])
    assert left >= (1 - share.near) * target or share.exact(plan_of({**sizes, **fewer})) > target


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("target", [0.75, 0.3])
@pytest.mark.parametrize("name", NETWORKS)
def test_at_most_the_target_and_no_group_too_many(name: str, target: float, unit: str) -> None:
    share = share_of(name, unit)
    now = whole(share.found)
    layers = priced(share, random_losses(share.found, 1), now, "half_ring")
    sizes = dict(share.reduce(layers, now, target))
    assert_just_enough(share, layers, sizes, target)


def test_a_wrong_estimate_is_mended_by_rebuilding() -> None:
    model = residual_network(dtype="float32")
    found = PrunableLayers.of(model)
    share = WorkShare(found, "split")
    now = whole(found)
    layers = priced(share, random_losses(found, 2), now, "half_ring")
    share._correction = 0.8
    sizes = dict(share.reduce(layers, now, 0.5))
    assert_just_enough(share, layers, sizes, 0.5)


def test_dead_networks_have_no_share() -> None:
    share = share_of("plain", "params")
    sizes = {**whole(share.found), "b": np.zeros(5, int)}
    assert share.exact(plan_of(sizes)) == 0
    assert share.rebuilt(sizes) == 0
    assert share.estimate(whole(share.found)) == 1  # not corrected by it
