"""Widths rounded up to blocks: by zeros in surgery, by the strongest kernels in a plan."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from helpers_models import (
    TOLERANCE,
    assert_exact_surgery,
    assert_same_function,
    chain,
    difference,
    kernel_shape,
    network_around,
    random_batch,
    random_plan,
    residual_network,
    use_float64,
)
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from keras import layers as L
from strategies_graphs import Case, cases

from keras_structsparse import compare, verify
from keras_structsparse.errors import DeadNetworkError
from keras_structsparse.graph import functional_graph
from keras_structsparse.graph.channels.costs import filled
from keras_structsparse.surgery import prune
from keras_structsparse.surgery.plans import Plan, masked, plan
from keras_structsparse.surgery.thresholds import restored

Array = Any
BLOCKS = st.sampled_from([2, 3, 4, 8])
QUICK: dict[str, Any] = {
    "phases": [Phase.explicit, Phase.generate],
    "suppress_health_check": list(HealthCheck),
}


@pytest.fixture(autouse=True)
def _float64() -> None:
    use_float64()


@given(st.integers(0, 100), st.integers(1, 20))
def test_a_filled_width_is_the_next_multiple(width: int, block: int) -> None:
    assert filled(width, block) in range(width, width + block)
    assert filled(width, block) % block == 0


@given(
    st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 1.0, 2.0, 3.0])), max_size=12), BLOCKS
)
def test_the_strongest_come_back(kernels: list[tuple[bool, float]], block: int) -> None:
    kept = np.array([k for k, _ in kernels], bool)
    strength = np.array([s for _, s in kernels], float)
    back = restored(kept, strength, block)
    assert not (back & (kept | (strength == 0))).any()
    others = ~kept & ~back
    assert not back.any() or strength[back].min() >= strength[others].max(initial=0)
    total = int((kept | back).sum())
    could = int((kept | (strength > 0)).sum())
    assert total % block == 0 or (total == kept.sum() and could < filled(total, block))
    assert kept.any() or not back.any()


# --- surgery: kernels of zeros stay ---


def widths(model: keras.Model) -> dict[str, int]:
    """The number of kernels of each ungrouped convolution; those of parts together."""
    found: dict[str, int] = {}
    for call in functional_graph.read(model).layers():
        layer = call.operation
        if isinstance(layer, L.Conv1D | L.Conv2D | L.Conv3D) and layer.groups == 1:
            name = call.name.replace("/", "_").split("_part_")[0]
            found[name] = found.get(name, 0) + layer.filters
    return {name: width for name, width in found.items() if "spread" not in name}


@settings(max_examples=10, **QUICK)
@given(cases(), BLOCKS)
def test_random_networks_stay_exact(case: Case, block: int) -> None:
    model = case.build()
    given_plan, inputs = random_plan(model, case.seed), random_batch(model, case.seed)
    reference = masked(model, given_plan)
    assume(difference(model, reference, inputs) > 1e3 * TOLERANCE)
    try:
        pruned = prune(model, given_plan, realize=case.realize, round_to=block)
    except DeadNetworkError:
        assume(False)
    assert_same_function(reference, pruned, inputs)
    before = widths(model)
    for name, width in widths(pruned).items():
        assert width % block == 0 or filled(width, block) > before[name]


def test_widths_are_multiples_where_they_were_not_before() -> None:
    model, odd = residual_network(), 0
    for seed in range(3):
        chosen = random_plan(model, seed)
        odd += sum(w % 4 != 0 for w in widths(prune(model, chosen)).values())
        for realize in ("auto", "split", "crop", "none"):
            pruned = assert_exact_surgery(model, chosen, seed, realize=realize, round_to=4)
            found = {name: w for name, w in widths(pruned).items() if w % 4}
            # They have 5 and 6 kernels: more than 4 have no next multiple.
            assert set(found) <= {"branch", "last"}
            assert all(w > 4 for w in found.values())
    assert odd > 3


def widths_of_parts(model: keras.Model) -> list[int]:
    parts = [x for x in model.layers if x.name.startswith("conv_part_")]
    return [part.filters for part in parts]


def test_every_part_of_a_split_is_a_multiple() -> None:
    model = network_around(L.Conv2D(12, 5, padding="same", name="conv"))
    chosen = Plan({"conv": [1, 1, 1, 5, 5, 5, 0, 3, 3, 0, 0, 0]})
    pruned = assert_exact_surgery(model, chosen, realize="split", round_to=2)
    parts = widths_of_parts(pruned)
    assert len(parts) > 1
    assert not any(part % 2 for part in parts)
    assert any(part % 2 for part in widths_of_parts(prune(model, chosen, realize="split")))


def test_nothing_stays_where_nothing_is_asked_for() -> None:
    model = network_around(L.Conv2D(8, 3, padding="same", use_bias=False, name="conv"))
    chosen = Plan({"conv": [3, 0, 3, 0, 3, 0, 0, 0], "first": [3, 3, 3, 3, 3, 0]})
    least = prune(model, chosen)
    assert kernel_shape(least, "conv")[-1] == 3
    assert compare(model, least).notes == ()
    rounded = prune(model, chosen, round_to=4)
    assert kernel_shape(rounded, "conv")[-1] == 4
    (note,) = compare(model, rounded).notes
    assert note == "kernels kept only to make widths multiples of 4: conv 1"


def test_a_removed_layer_stays_removed() -> None:
    model = residual_network()
    chosen = random_plan(model, 0, dead=("b3a",))
    pruned = assert_exact_surgery(model, chosen, round_to=4)
    assert "b3a" not in widths(pruned)


def test_verify_rounds_as_well() -> None:
    model = residual_network()
    result = verify(model, random_plan(model, 1), round_to=4)
    assert result.passed


@pytest.mark.parametrize("value", [0, -8, 2.0, "8", True])
def test_blocks_are_whole_numbers(value: Any) -> None:
    model = chain(L.Conv2D(4, 3, name="conv"))
    expected = r"round_to: expected a whole number >= 1\. Received: "
    with pytest.raises(ValueError, match=expected):
        prune(model, Plan({"conv": [3, 0, 0, 3]}), round_to=value)
    with pytest.raises(ValueError, match=expected):
        plan(model, 0.1, round_to=value)


# --- plans: the strongest kernels stay ---


def with_norms(norms: Array) -> keras.Model:
    """A convolution whose kernels are delta peaks of given lengths, with weaker borders."""
    model = chain(L.Conv2D(len(norms), 3, name="conv"), L.Conv2D(2, 3, name="last"))
    kernel = np.zeros((3, 3, 2, len(norms)))
    kernel[1, 1, 0] = norms
    kernel[0, 0, 0] = 0.5 * np.asarray(norms)
    model.get_layer("conv").kernel.assign(kernel)
    return model


def test_a_plan_keeps_the_strongest_below_its_threshold() -> None:
    model = with_norms([9.0, 0.2, 0.9, 0.0, 0.5, 0.0])
    assert plan(model, 2.0).sizes["conv"] == (3, 0, 0, 0, 0, 0)
    # As with a threshold that leaves just as many: of the weakest only the middle is back.
    assert plan(model, 2.0, round_to=2).sizes["conv"] == (3, 0, 1, 0, 0, 0)
    assert plan(model, 2.0, round_to=4).sizes["conv"] == (3, 1, 3, 0, 3, 0)
    assert plan(model, 2.0, round_to=5).sizes["conv"] == (3, 0, 0, 0, 0, 0)  # zeros do not return
    assert plan(model, 20.0, round_to=4).sizes["conv"] == (0,) * 6


def test_pruning_by_threshold_rounds_the_plan_and_then_by_zeros() -> None:
    model = with_norms([9.0, 0.2, 0.9, 0.0, 0.5, 0.0])
    inputs = random_batch(model)
    pruned = prune(model, tau=2.0, round_to=3)
    assert kernel_shape(pruned, "conv")[-1] == 3
    assert_same_function(masked(model, plan(model, 2.0, round_to=3)), pruned, inputs)
    assert difference(masked(model, plan(model, 2.0)), pruned, inputs) > 1e3 * TOLERANCE
    assert kernel_shape(prune(model, tau=2.0, round_to=5), "conv")[-1] == 5


def test_kernels_of_one_stream_come_back_together() -> None:
    inputs = keras.Input((6, 6, 2))
    sides = [L.Conv2D(4, 3, padding="same", name=name)(inputs) for name in ("left", "right")]
    model = keras.Model(inputs, L.Dense(2)(L.Flatten()(L.Add()(sides))))
    lengths = {"left": [9.0, 0.3, 0.1, 0.0], "right": [9.0, 0.0, 0.6, 0.2]}
    for name, norms in lengths.items():
        kernel = np.zeros((3, 3, 2, 4))
        kernel[1, 1, 0] = norms
        model.get_layer(name).kernel.assign(kernel)
    found = plan(model, 1.0, coupled=True, round_to=2).sizes
    assert found["left"] == (1, 0, 1, 0)
    assert found["right"] == (1, 0, 1, 0)
    alone = plan(model, 1.0, round_to=2).sizes
    assert alone["left"] == (1, 1, 0, 0)
