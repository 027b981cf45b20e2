"""Surgery of depthwise and separable convolutions."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import pytest
from helpers_models import assert_exact_surgery, chain, kernel_shape, use_float64
from keras import layers as L

from keras_structsparse.surgery.plans import Plan
from keras_structsparse.surgery.provenance import notes

HALF = Plan({"first": [3, 0, 3, 0, 3, 0]})

LAYERS: dict[str, Callable[[str], keras.Layer]] = {
    "depthwise": lambda padding: L.DepthwiseConv2D(3, padding=padding, activation="relu"),
    "without bias": lambda padding: L.DepthwiseConv2D((2, 3), padding=padding, use_bias=False),
    "strided": lambda padding: L.DepthwiseConv2D(3, 2, padding=padding),
    "twice": lambda padding: L.DepthwiseConv2D(3, padding=padding, depth_multiplier=2),
    "separable": lambda padding: L.SeparableConv2D(5, 3, padding=padding, activation="tanh"),
    "separable twice": lambda padding: L.SeparableConv2D(5, 3, padding=padding, depth_multiplier=2),
}


@pytest.fixture(autouse=True)
def _float64() -> None:
    use_float64()


def network(layer: keras.Layer, activation: str) -> keras.Model:
    """A convolution of six kernels, the layer, and readers; removed kernels leave f(bias)."""
    model = chain(
        L.Conv2D(6, 3, activation=activation, name="first"),
        layer,
        L.BatchNormalization(),
        L.Activation("swish"),
        L.Conv2D(4, 1),
        L.Dense(2, "tanh"),
        shape=(9, 8, 2),
    )
    if activation == "relu":
        model.get_layer("first").bias.assign(-np.ones(6))  # constants of zero
    return model


@pytest.mark.parametrize("kind", LAYERS)
def test_constants_of_zero_go(kind: str) -> None:
    pruned = assert_exact_surgery(network(LAYERS[kind]("same"), "relu"), HALF)
    assert kernel_shape(pruned, "first")[-1] == 3


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("kind", LAYERS)
def test_other_constants_go_where_no_border_shows(kind: str, padding: str) -> None:
    pruned = assert_exact_surgery(network(LAYERS[kind](padding), "sigmoid"), HALF)
    assert kernel_shape(pruned, "first")[-1] == (3 if padding == "valid" else 6)
    noted = any("3 constant channels are kept: its padding" in note for note in notes(pruned))
    assert noted == (padding == "same")


def test_a_channel_without_weights_is_constant() -> None:
    layer = L.DepthwiseConv2D(3, name="depthwise")
    model = network(layer, "relu")
    layer.kernel.assign(layer.kernel * np.array([1, 1, 0, 1, 1, 1])[:, None])
    pruned = assert_exact_surgery(model, HALF)
    assert kernel_shape(pruned, "first")[-1] == 2
