"""Layers with weights that are called more than once shrink, at all calls together."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from helpers_models import assert_exact_surgery, kernel_shape, randomize, types, use_float64
from keras import layers as L

from keras_structsparse.surgery import prune
from keras_structsparse.surgery.plans import Plan
from keras_structsparse.surgery.provenance import notes

Tensor = Any


@pytest.fixture(autouse=True)
def _float64() -> None:
    use_float64()


def levels(
    *tower: keras.Layer, sides: tuple[int, ...] = (12, 9), activation: str = "relu"
) -> keras.Model:
    """A stem of its own for each image, then one tower for all of them."""
    inputs = [keras.Input((side, side, 2)) for side in sides]
    outputs = []
    for index, tensor in enumerate(inputs):
        x = L.Conv2D(6, 3, padding="same", activation=activation, name=f"stem{index}")(tensor)
        for layer in tower:
            x = layer(x)
        outputs.append(L.Dense(2, "tanh")(L.GlobalAveragePooling2D()(x)))
    return randomize(keras.Model(inputs, outputs))


def conv(name: str, **options: Any) -> keras.Layer:
    return L.Conv2D(**{"filters": 5, "kernel_size": 3, "padding": "same", "name": name, **options})


def test_a_tower_over_several_levels_gets_narrower_at_all_of_them() -> None:
    tower = conv("a", activation="sigmoid"), L.BatchNormalization(name="norm"), conv("b")
    model = levels(*tower)
    plan = Plan({"a": [3, 0, 3, 0, 3], "b": [3, 0, 0, 2, 0]})
    pruned = assert_exact_surgery(model, plan, realize="crop")
    assert kernel_shape(pruned, "a") == (3, 3, 6, 4)  # a carrier stays
    assert kernel_shape(pruned, "b") == (3, 3, 4, 2)
    assert pruned.get_layer("norm").gamma.shape == (4,)
    assert len(pruned.get_layer("a")._inbound_nodes) == 2
    assert notes(pruned) == ()


@pytest.mark.parametrize(("same", "left"), [(True, 3), (False, 6)])
def test_constants_go_only_if_they_are_the_same_at_all_calls(same: bool, left: int) -> None:
    model = levels(L.Conv2D(4, 1, name="head"), activation="sigmoid")
    if same:
        model.get_layer("stem1").bias.assign(model.get_layer("stem0").bias)
    sizes = [3, 0, 0, 3, 0, 3]
    pruned = assert_exact_surgery(model, Plan({"stem0": sizes, "stem1": sizes}))
    assert kernel_shape(pruned, "head") == (1, 1, left, 4)
    assert kernel_shape(pruned, "stem0")[-1] == kernel_shape(pruned, "stem1")[-1] == left


def test_a_channel_that_is_live_at_one_call_stays_at_all() -> None:
    model = levels(L.Conv2D(4, 1, name="head"))
    plan = Plan({"stem0": [3, 0, 0, 3, 0, 3], "stem1": [3, 3, 0, 3, 0, 3]})
    for name in ("stem0", "stem1"):
        bias = model.get_layer(name).bias
        bias.assign(-np.abs(bias))
    pruned = assert_exact_surgery(model, plan)
    assert kernel_shape(pruned, "head") == (1, 1, 4, 4)


def test_kernels_are_cropped_and_split_the_same_way_at_all_calls() -> None:
    model = levels(conv("a", kernel_size=5), conv("b"))
    plan = Plan({"a": [3, 3, 1, 1, 1]})
    pruned = assert_exact_surgery(model, plan, realize="split")
    assert kernel_shape(pruned, "a_part_0") == (3, 3, 6, 2)
    assert kernel_shape(pruned, "a_part_1") == (1, 1, 6, 3)
    assert types(pruned).count(L.Conv2D) == 2 + 2 + 1
    assert len(pruned.get_layer("a_part_1")._inbound_nodes) == 2


@pytest.mark.parametrize(("sides", "size"), [((12, 10), 2), ((12, 9), 5)])
def test_a_stride_is_cropped_if_its_border_is_the_same_everywhere(
    sides: tuple[int, ...], size: int
) -> None:
    """The padding of maps of even and odd sides differs; then the kernel stays as large."""
    model = levels(conv("a", kernel_size=5, strides=2), sides=sides if size == 5 else (12, 12))
    pruned = assert_exact_surgery(model, Plan({"a": [2, 2, 0, 1, 2]}), realize="crop")
    assert kernel_shape(pruned, "a")[0] == size


def test_a_layer_that_reads_itself() -> None:
    inputs, again = keras.Input((9, 8, 2)), conv("again", activation="relu")
    x = L.Conv2D(5, 3, padding="same", name="first", activation="relu")(inputs)
    model = randomize(keras.Model(inputs, L.Dense(2)(again(again(again(x))))))
    for layer in ("first", "again"):
        bias = model.get_layer(layer).bias
        bias.assign(-np.abs(bias))
    plan = Plan({"first": [3, 0, 3, 0, 3], "again": [3, 0, 3, 3, 0]})
    pruned = assert_exact_surgery(model, plan)
    assert kernel_shape(pruned, "again") == (3, 3, 4, 4)
    assert kernel_shape(pruned, "first")[-1] == 4


def test_a_residual_block_that_is_called_twice() -> None:
    inner = keras.Input((9, 8, 5))
    y = conv("b", activation=None)(L.ReLU()(L.BatchNormalization(name="n")(conv("a")(inner))))
    block = keras.Model(inner, L.Add()([inner, y]), name="block")
    inputs = keras.Input((9, 8, 2))
    x = L.Conv2D(5, 3, padding="same", name="first")(inputs)
    model = randomize(keras.Model(inputs, L.Dense(2)(block(block(x)))))
    pruned = assert_exact_surgery(model, Plan({"block/a": [3, 0, 0, 3, 1]}))
    assert kernel_shape(pruned, "block_a")[-1] == 4  # with a carrier
    assert kernel_shape(pruned, "block_b")[-2] == 4


def test_a_call_that_forbids_it_forbids_it_for_all() -> None:
    inputs, norm = keras.Input((9, 8, 2)), L.BatchNormalization(name="norm")
    x = L.Conv2D(4, 3, name="first")(inputs)
    model = randomize(keras.Model(inputs, L.Dense(2)(norm(norm(x), training=True))))
    pruned = assert_exact_surgery(model, Plan({"first": [3, 0, 3, 0]}))
    assert kernel_shape(pruned, "first")[-1] == 4
    assert any("training=True" in note for note in notes(pruned))


def test_without_a_shared_rule_all_calls_stay() -> None:
    inputs, norm = keras.Input((9, 8, 2)), L.LayerNormalization(name="norm")
    x = L.Conv2D(4, 3, name="first")(inputs)
    model = randomize(keras.Model(inputs, L.Dense(2)(norm(L.ReLU()(norm(x))))))
    pruned = assert_exact_surgery(model, Plan({"first": [3, 0, 3, 0]}))
    assert kernel_shape(pruned, "first")[-1] == 4
    assert len(pruned.get_layer("norm")._inbound_nodes) == 2


def test_surgery_again_changes_nothing_more() -> None:
    model = levels(conv("a", activation="relu"), conv("b"))
    pruned = prune(model, Plan({"a": [3, 0, 3, 0, 3]}))
    assert [w.shape for w in prune(pruned, Plan({})).weights] == [w.shape for w in pruned.weights]
