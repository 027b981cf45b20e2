"""Surgery of transposed convolutions."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from helpers_models import (
    assert_exact_surgery,
    chain,
    difference,
    kernel_shape,
    random_batch,
    use_float64,
)
from keras import layers as L

from keras_structsparse.surgery import prune
from keras_structsparse.surgery.plans import Plan, masked
from keras_structsparse.surgery.provenance import notes

HALF = Plan({"first": [3, 0, 3, 0, 3, 0]})

OPTIONS: list[dict[str, Any]] = [
    {"kernel_size": 3, "strides": 2, "padding": "same"},
    {"kernel_size": (2, 5), "strides": (3, 1), "padding": "valid", "use_bias": False},
    {"kernel_size": 4, "padding": "same", "activation": "tanh"},
    {"kernel_size": 3, "strides": 2, "padding": "same", "output_padding": 1},
    {"kernel_size": 2, "strides": 2, "padding": "valid"},
    {"kernel_size": 1, "strides": 2, "padding": "same"},
]


@pytest.fixture(autouse=True)
def _float64() -> None:
    use_float64()


def network(layer: keras.Layer, activation: str = "sigmoid", rank: int = 2) -> keras.Model:
    """A convolution of six kernels, the layer, and readers; removed kernels leave f(bias)."""
    conv = getattr(L, f"Conv{rank}D")
    stack = [conv(6, 3, activation=activation, name="first"), layer, L.BatchNormalization()]
    reader = conv(4, 3, padding="same", name="reader")
    shape = (*(6, 5, 6)[:rank], 2)
    model = chain(*stack, L.Activation("swish"), reader, L.Dense(2, "tanh"), shape=shape)
    if activation == "relu":
        model.get_layer("first").bias.assign(-np.ones(6))  # constants of zero
    return model


def transposed(rank: int = 2, **options: Any) -> keras.Layer:
    return getattr(L, f"Conv{rank}DTranspose")(5, name="transposed", **options)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize(("activation", "left"), [("relu", 3), ("sigmoid", 4)])
def test_one_carrier_stands_for_all_constants(
    options: dict[str, Any], activation: str, left: int
) -> None:
    pruned = assert_exact_surgery(network(transposed(**options), activation), HALF)
    assert kernel_shape(pruned, "first")[-1] == left
    assert kernel_shape(pruned, "transposed")[-2:] == (5, left)
    assert notes(pruned) == ()


@pytest.mark.parametrize("rank", [1, 3])
def test_one_and_three_axes(rank: int) -> None:
    layer = transposed(rank, kernel_size=3, strides=2, padding="same")
    pruned = assert_exact_surgery(network(layer, rank=rank), HALF)
    assert kernel_shape(pruned, "transposed")[-2:] == (5, 4)


def test_a_single_entry_folds_into_the_bias() -> None:
    pruned = assert_exact_surgery(network(transposed(kernel_size=1)), HALF)
    assert kernel_shape(pruned, "transposed") == (1, 1, 5, 3)


@pytest.mark.parametrize(("use_bias", "left"), [(True, 4), (False, 3)])
def test_kernels_of_zeros_go(use_bias: bool, left: int) -> None:
    """Their constants, beta or what normalisation makes of the bias, need one carrier."""
    layer = transposed(kernel_size=3, strides=2, padding="same", use_bias=use_bias)
    model = network(layer)
    layer.kernel.assign(layer.kernel * np.array([1, 0, 1, 1, 0])[:, None])
    norm = next(x for x in model.layers if isinstance(x, L.BatchNormalization))
    if not use_bias:  # swish(0) = 0
        norm.beta.assign(norm.moving_mean * norm.gamma / np.sqrt(norm.moving_variance + 1e-3))
    pruned = assert_exact_surgery(model, HALF)
    assert kernel_shape(pruned, "transposed")[-2:] == (left, 4)
    assert kernel_shape(pruned, "reader")[-2:] == (left, 4)


def test_constants_with_a_border_are_carried_too() -> None:
    pad = L.ZeroPadding2D(1)
    stack = [L.Conv2D(6, 3, activation="sigmoid", name="first"), pad, transposed(kernel_size=1)]
    pruned = assert_exact_surgery(chain(*stack, L.Dense(2, "tanh")), HALF)
    assert kernel_shape(pruned, "transposed")[-2:] == (5, 4)


@pytest.mark.parametrize(("constants", "exact"), [("interior", True), ("drop", False)])
def test_other_modes(constants: str, exact: bool) -> None:
    """No position is like all the others, so "interior" has nothing to be approximate about."""
    stack = [L.Conv2D(6, 3, activation="sigmoid", name="first"), transposed(kernel_size=3)]
    model = chain(*stack, L.Dense(2, "tanh"))
    found = difference(masked(model, HALF), prune(model, HALF, constants), random_batch(model))
    assert (found <= 1e-10) == exact


def test_channels_first_is_left_alone() -> None:
    inputs = keras.Input((2, 6, 5))
    x = L.Conv2D(6, 3, name="first", data_format="channels_first")(inputs)
    model = keras.Model(inputs, transposed(kernel_size=3, data_format="channels_first")(x))
    pruned = prune(model, HALF)
    assert [w.shape for w in pruned.weights] == [w.shape for w in model.weights]
    assert any("'transposed'" in note for note in notes(pruned))
