"""Which tensors have the same shape at every size of the open axes."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from helpers_models import assert_exact_surgery, kernel_shape, randomize, use_float64
from keras import layers as L
from keras import ops

from keras_structsparse.graph.functional_graph import read
from keras_structsparse.graph.open_sizes import same_shape
from keras_structsparse.surgery import prune
from keras_structsparse.surgery.plans import Plan, masked


@pytest.fixture(autouse=True)
def _float64() -> None:
    use_float64()


def halves(x: Any) -> tuple[Any, Any]:
    return L.MaxPooling1D(2)(x), L.MaxPooling1D(2, padding="same")(x)


def window(x: Any) -> tuple[Any, Any]:
    y = L.Conv1D(3, 5)(x)
    return L.Conv1D(3, 3, padding="same")(y), L.ReLU()(y)


def strided(x: Any) -> tuple[Any, Any]:
    return L.Conv1D(3, 3, strides=2, padding="same")(x), L.Conv1D(3, 1, strides=2)(x)


@pytest.mark.parametrize(
    ("pair", "same"),
    [
        (lambda x: (x, L.Dense(3)(x)), True),
        (window, True),
        (strided, True),
        (halves, False),
        (lambda x: (x, x[:, :1]), False),
        (lambda x: (x, x[:, :10]), False),
        (lambda x: (x, ops.mean(x, axis=1, keepdims=True)), False),
        (lambda x: (x, L.Cropping1D(1)(L.ZeroPadding1D(1)(x))), True),
        (lambda x: (x, L.Cropping1D(1)(x)), False),
    ],
)
def test_one_open_size(pair: Any, same: bool) -> None:
    inputs = keras.Input((None, 3))
    network = read(keras.Model(inputs, pair(inputs)))
    assert same_shape(network, network.outputs) is same


def test_sizes_of_different_inputs_and_axes_differ() -> None:
    inputs = [keras.Input((None, None, 3)) for _ in range(2)]
    network = read(keras.Model(inputs, [L.Permute((2, 1, 3))(inputs[0]), inputs[0] + inputs[1]]))
    left, right = network.inputs
    turned, total = network.outputs
    assert same_shape(network, [left, left])
    assert not same_shape(network, [left, right])
    assert not same_shape(network, [left, turned])
    assert not same_shape(network, [left, total])


def test_rows_that_become_samples() -> None:
    inputs = keras.Input((4, 3))
    rows, flat = ops.reshape(inputs, (-1, 6)), L.Dense(6)(L.Flatten()(inputs))
    network = read(keras.Model(inputs, [rows, flat, L.ReLU()(flat)]))
    first, second, third = network.outputs
    assert not same_shape(network, [first, second])
    assert same_shape(network, [second, third])


def summed(sides: Any) -> keras.Model:
    inputs = keras.Input((None, 3))
    left, right = sides(inputs)
    y = L.Dense(6, name="dead")(left) + L.Dense(6, name="live")(right)
    return randomize(keras.Model(inputs, L.Dense(2)(y)))


PLAN = Plan({"dead": [0] * 6, "live": [1, 1, 1, 0, 0, 1]})


@pytest.mark.parametrize("size", [1, 3, 4])
@pytest.mark.parametrize("sides", [halves, lambda x: (x, x[:, :1])])
def test_a_dead_summand_of_another_size_keeps_its_shape(sides: Any, size: int) -> None:
    model = summed(sides)
    if size == 1 and sides is halves:
        return
    batch = np.random.default_rng(0).normal(size=(7, size, 3))
    expected, found = (m(batch) for m in (masked(model, PLAN), prune(model, PLAN)))
    assert expected.shape == found.shape
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_a_dead_summand_of_the_same_size_is_removed() -> None:
    pruned = assert_exact_surgery(summed(lambda x: (L.ReLU()(x), x)), PLAN)
    assert kernel_shape(pruned, "live") == (3, 4)
    assert "dead" not in [layer.name for layer in pruned.layers]
