"""Surgery of depthwise layers whose kernels are removed and get smaller, one by one."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from helpers_depthwise import inverted_residual, is_depthwise, random_block
from helpers_models import (
    assert_exact_surgery,
    assert_same_function,
    chain,
    kernel_shape,
    random_batch,
    random_plan,
    types,
    use_float64,
)
from helpers_seeds import seeds
from keras import layers as L

import keras_structsparse as kss
from keras_structsparse.graph.kernel_axes import plain_shape

REALIZE = ("split", "auto", "crop", "none")


@pytest.fixture(autouse=True)
def _float64() -> None:
    use_float64()


@pytest.mark.parametrize("seed", seeds(40))
def test_random_blocks_are_pruned_exactly(seed: int) -> None:
    model = random_block(seed)
    assert_exact_surgery(model, random_plan(model, seed), realize=REALIZE[seed % 4])


@pytest.mark.parametrize("seed", seeds(8))
def test_ancestry_knows_every_kernel_that_is_left(seed: int) -> None:
    model = random_block(seed)
    plan = random_plan(model, seed + 50)
    pruned = kss.prune(model, plan, realize="split")
    width = plain_shape(model.get_layer("depthwise"))[-1]
    left: set[int] = set()
    for base, numbers in kss.Ancestry.between(model, pruned).layers.values():
        left |= set(numbers) if base == "depthwise" else set()
    assert left <= set(range(width))
    expand, own = (np.array(plan.sizes[n]) for n in ("expand", "depthwise"))
    alive = np.flatnonzero((own > 0) & np.repeat(expand > 0, width // len(expand)))
    assert set(alive) <= left


def planted(model: keras.Model, seed: int = 0) -> kss.Plan:
    """Half of the depthwise kernels are removed, the others get random sizes."""
    rng = np.random.default_rng(seed)
    sizes = {}
    for name, own in kss.plan(model, 0.0).sizes.items():
        if is_depthwise(name):
            drawn = rng.integers(1, max(own) + 1, len(own))
            drawn[rng.permutation(len(own))[: len(own) // 2]] = 0
            sizes[name] = drawn.tolist()
    return kss.Plan(sizes)


def ideal(model: keras.Model, plan: kss.Plan) -> float:
    """What could be left: with a depthwise kernel all goes that reads or writes its channel."""
    counted = {layer.name: layer.multiply_adds for layer in kss.profile(model).layers}
    left: dict[str, float] = dict(counted)
    sizes = np.concatenate([np.array(plan.sizes[name]) for name in plan.sizes])
    for name in set(counted) & {"expand", "project", "squeeze", "excite"}:
        left[name] = counted[name] * float(np.mean(sizes > 0))
    for name, own in plan.sizes.items():
        area = max(kss.plan(model).sizes[name]) ** 2
        left[name] = counted[name] * float(np.mean(np.square(own))) / area
    return float(sum(left.values()) / sum(counted.values()))


BLOCKS: dict[str, dict[str, Any]] = {
    "MobileNetV2": {},
    "large kernels": {"activation": "swish", "size": 7},
    "strided": {"activation": "swish", "size": 5, "strides": 2},
    "MixConv": {"activation": "swish", "mix": True},
    "MobileNetV3": {"activation": "relu", "size": 5, "gate": "hard_sigmoid"},
    "EfficientNet": {"activation": "swish", "size": 5, "gate": "sigmoid"},
}


@pytest.mark.parametrize("kind", BLOCKS)
def test_with_a_depthwise_kernel_goes_all_that_only_its_channel_needs(kind: str) -> None:
    model = inverted_residual(**BLOCKS[kind])
    plan = planted(model)
    pruned = assert_exact_surgery(model, plan, realize="split")
    comparison = kss.compare(model, pruned)
    assert comparison.multiply_adds_fraction == pytest.approx(ideal(model, plan), rel=1e-6)
    assert comparison.multiply_adds_fraction < 0.6
    assert not comparison.left_out
    assert pruned.get_layer("expand").filters == 16


def test_behind_a_gate_a_channel_without_scale_keeps_its_constant() -> None:
    model = inverted_residual("swish", 5, gate="sigmoid")
    plan = planted(model)
    norm = model.layers[[x.name for x in model.layers].index("depthwise") + 1]
    dead = np.array(plan.sizes["depthwise"]) == 0
    norm.gamma.assign(np.where(dead, 0.0, keras.ops.convert_to_numpy(norm.gamma)))
    masked = kss.masked(model, plan)
    left, right = (keras.ops.convert_to_numpy(m.get_layer(norm.name).beta) for m in (model, masked))
    np.testing.assert_array_equal(left, right)
    pruned = kss.prune(model, plan, realize="split")
    assert_same_function(masked, pruned, random_batch(model))
    # The first convolution goes in any case: a depthwise kernel of zeros can read any channel.
    assert pruned.get_layer("expand").filters == 16
    assert pruned.get_layer("project").kernel.shape[-2] == 32


def options(realize: str) -> tuple[list[int], int]:
    """The kernel sizes of the parts, and the number of layers."""
    sizes = [5, 3, 0, 3, 1, 5, 0, 2]
    layers = [L.Conv2D(8, 1), L.DepthwiseConv2D(5, padding="same", name="depthwise")]
    model = chain(*layers, L.Conv2D(3, 1))
    pruned = assert_exact_surgery(model, kss.Plan({"depthwise": sizes}), realize=realize)
    parts = [x for x in pruned.layers if isinstance(x, L.DepthwiseConv2D)]
    return sorted(max(x.kernel_size) for x in parts), len(types(pruned))


def test_a_split_has_one_layer_for_each_size_and_keeps_the_order_of_channels() -> None:
    assert options("split")[0] == [1, 2, 3, 5]
    for realize in ("auto", "crop", "none"):
        assert options(realize) == ([5], 3)


def test_kernels_of_one_smaller_size_are_cropped() -> None:
    layers = [L.Conv2D(4, 1), L.DepthwiseConv2D(5, padding="same", name="depthwise")]
    model = chain(*layers, L.Conv2D(3, 1))
    plan = kss.Plan({"depthwise": [3, 3, 2, 0]})
    for realize in ("auto", "crop"):
        pruned = assert_exact_surgery(model, plan, realize=realize)
        assert kernel_shape(pruned, "depthwise") == (3, 3, 3, 1)
        assert "explicit" not in " ".join(x.name for x in pruned.layers)
    assert kernel_shape(kss.prune(model, plan, realize="none"), "depthwise") == (5, 5, 3, 1)


def test_a_stream_that_is_read_beside_keeps_its_channels_and_no_kernels_of_zeros() -> None:
    i = keras.Input((9, 9, 2))
    x = L.Conv2D(6, 1, name="stem")(i)
    y = L.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    y = L.Concatenate()([L.Conv2D(3, 1)(x), L.Conv2D(4, 1)(y)])
    model = keras.Model(i, L.Dense(2)(L.GlobalMaxPooling2D()(y)))
    plan = kss.Plan({"depthwise": [3, 0, 0, 3, 0, 3]})
    pruned = assert_exact_surgery(model, plan, realize="crop")
    assert pruned.get_layer("stem").filters == 6
    assert kernel_shape(pruned, "depthwise") == (3, 3, 3, 1)


@pytest.mark.parametrize("seed", seeds(4))
def test_a_grouped_convolution_with_one_channel_a_group_keeps_their_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    layers = [L.Conv2D(6, 3, padding="same", activation="sigmoid", name="first")]
    layers += [L.Conv2D(12, 3, padding="same", groups=6), L.ReLU(), L.Conv2D(3, 2)]
    model = chain(*layers)
    plan = kss.Plan({"first": [2, *rng.integers(0, 4, 5).tolist()]})
    assert_exact_surgery(model, plan, realize="split")


@pytest.mark.parametrize("realize", ["split", "crop"])
def test_widths_are_rounded_up_together(realize: str) -> None:
    model = inverted_residual("swish", 5)
    plan = planted(model)
    sizes = np.array(plan.sizes["depthwise"])
    sizes[np.flatnonzero(sizes)[:3]] = 0  # 13 are left
    plan = kss.Plan({"depthwise": sizes.tolist()})
    inputs = random_batch(model)
    pruned = kss.prune(model, plan, realize=realize, round_to=8)
    assert_same_function(kss.masked(model, plan), pruned, inputs)
    assert pruned.get_layer("expand").filters == 16
    assert pruned.get_layer("project").kernel.shape[-2] == 16


def test_a_plan_without_depthwise_layers_keeps_their_kernels() -> None:
    model = inverted_residual()
    plan = kss.Plan({"last": [1, 0] * 6})
    pruned = assert_exact_surgery(model, plan)
    assert kernel_shape(pruned, "depthwise") == (3, 3, 32, 1)
