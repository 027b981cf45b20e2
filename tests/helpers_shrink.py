"""Small networks, data and groups for the tests of shrinking."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from helpers_models import randomize as loud
from keras import layers as L

from keras_structsparse.graph.kernel_axes import axes_of, plain_shape
from keras_structsparse.graph.prunable_layers import PrunableLayers
from keras_structsparse.profiling.inner_layers import inner_layers
from keras_structsparse.profiling.kernel_reader import reached_sizes

Array = Any


def randomize(model: keras.Model) -> keras.Model:
    """Random weights with which a removed kernel leaves zeros, for which surgery adds nothing."""
    return quieted(loud(model))


def quieted(model: keras.Model) -> keras.Model:
    """Weights changed so that a removed kernel leaves zeros behind a ReLU."""
    for weight in model.weights:
        if weight.name in ("bias", "beta"):
            weight.assign(-np.abs(keras.ops.convert_to_numpy(weight)))
        if weight.name in ("gamma", "moving_mean"):
            weight.assign(np.abs(keras.ops.convert_to_numpy(weight)))
    return model


def conv(x: Any, width: int, size: int = 3, name: str | None = None, **options: Any) -> Any:
    return L.Conv2D(width, size, padding="same", name=name, **options)(x)


def normed(x: Any) -> Any:
    return L.ReLU()(L.BatchNormalization()(x))


def head(x: Any) -> Any:
    return L.Dense(3, activation="softmax", name="head")(L.GlobalAveragePooling2D()(x))


def plain() -> keras.Model:
    """A stack of convolutions and dense layers."""
    inputs = keras.Input((6, 6, 2))
    x = normed(conv(inputs, 6, name="a"))
    x = conv(x, 5, 2, name="b", activation="relu")
    x = L.Dense(7, activation="relu", name="c")(L.Flatten()(x))
    return randomize(keras.Model(inputs, L.Dense(3, activation="softmax", name="head")(x)))


def residual(stream: int = 6, inner: int = 5, last: int = 4) -> keras.Model:
    """A block with a sum, as in a residual network, and a layer behind it, of these widths."""
    inputs = keras.Input((6, 6, 2))
    x = normed(conv(inputs, stream, name="stem"))
    y = normed(conv(x, inner, name="a", use_bias=False))
    x = L.ReLU()(L.Add()([x, L.BatchNormalization()(conv(y, stream, name="b", use_bias=False))]))
    return randomize(keras.Model(inputs, head(conv(x, last, name="c", activation="relu"))))


def separable() -> keras.Model:
    """Separable, depthwise and strided convolutions."""
    inputs = keras.Input((6, 6, 3))
    x = L.SeparableConv2D(6, 3, padding="same", activation="relu", name="a")(inputs)
    x = L.DepthwiseConv2D(3, padding="same", activation="relu", name="depthwise")(x)
    return randomize(keras.Model(inputs, head(conv(x, 5, strides=2, name="b"))))


def dense() -> keras.Model:
    """Dense layers only."""
    stack = [L.Dense(12, activation="relu", name="a"), L.Dense(8, activation="relu", name="b")]
    stack += [L.Dense(3, activation="softmax", name="head")]
    return randomize(keras.Sequential([keras.Input((5,)), *stack]))


def series() -> keras.Model:
    """Convolutions over time."""
    stack = [
        L.Conv1D(6, 5, padding="same", activation="relu", name="a"),
        L.Conv1D(5, 3, activation="relu", name="b"),
        L.GlobalAveragePooling1D(),
        L.Dense(3, activation="softmax", name="head"),
    ]
    return randomize(keras.Sequential([keras.Input((12, 2)), *stack]))


NETWORKS = {f.__name__: f for f in (plain, residual, separable, dense, series)}


def whole(found: PrunableLayers) -> dict[str, Array]:
    """The sizes of all kernels before anything is removed."""
    return {
        name: np.full(plain_shape(layer)[-1], max(plain_shape(layer)[:-2], default=1))
        for name, layer in found.layers.items()
    }


def random_sizes(found: PrunableLayers, seed: int) -> dict[str, Array]:
    """Random sizes of the kernels of inner layers; the first kernel of each is kept."""
    rng, sizes = np.random.default_rng(seed), whole(found)
    for name in inner_layers(found):
        reached = reached_sizes(found, name, "half_ring")
        drawn = reached[rng.integers(0, len(reached), len(sizes[name]))]
        drawn[0] = max(drawn[0], reached[1])
        sizes[name] = drawn
    return sizes


def random_losses(found: PrunableLayers, seed: int) -> dict[str, Array]:
    """Random losses (groups, kernels) of the inner layers: larger groups lose more."""
    rng = np.random.default_rng(seed)
    return {
        name: np.cumsum(
            rng.random((len(reached_sizes(found, name, "half_ring")) - 1, width)), axis=0
        )
        for name in inner_layers(found)
        for width in [plain_shape(found.layers[name])[-1]]
    }


def sized(found: PrunableLayers, name: str) -> bool:
    return axes_of(found.layers[name]).sized
