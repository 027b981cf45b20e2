"""The same network with its channels last and first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from helpers_models import randomize
from keras import layers as L

from keras_structsparse.surgery.plans import Plan

Array = Any
Tensor = Any
Make = Callable[["Format", Tensor], Tensor]


# Keras computes some operations in float32 on JAX and torch, whatever the policy: means,
# normalisation, and products with matrices. No constant other than zero goes into one of them.


class Format:
    """Layers that put the channels on one axis.

    Attributes:
        axis: 1 or -1.
        data_format: The same in the words of Keras.
    """

    def __init__(self, axis: int) -> None:
        self.axis = axis
        self.data_format = "channels_first" if axis == 1 else "channels_last"

    def conv(self, filters: int, size: Any, name: str | None = None, **options: Any) -> Any:
        return L.Conv2D(filters, size, data_format=self.data_format, name=name, **options)

    def layer(self, kind: Any, *args: Any, **options: Any) -> Any:
        return kind(*args, data_format=self.data_format, **options)

    def norm(self, **options: Any) -> Any:
        return L.BatchNormalization(axis=self.axis, **options)


def convolutions(f: Format, x: Tensor) -> Tensor:
    """Carriers, crops with explicit padding, a split, a flattening."""
    x = f.conv(6, 3, "first", padding="same", activation="sigmoid")(x)
    x = f.conv(6, 5, "second", strides=2, padding="same")(x)
    x = L.Activation("tanh")(f.norm()(x))
    x = f.layer(L.ZeroPadding2D, ((1, 0), (2, 1)))(x)
    x = f.conv(4, 3, "third")(x)
    x = f.layer(L.MaxPooling2D, 2)(x)
    return L.Dense(3, "relu", name="units")(f.layer(L.Flatten)(x))


def streams(f: Format, x: Tensor) -> Tensor:
    """Sums whose sides lack channels, a concatenation, a gate."""
    x = f.conv(6, 3, "first", padding="same", activation="sigmoid")(x)
    y = L.Activation("sigmoid")(f.norm()(f.conv(6, 3, "second", padding="same")(x)))
    x = L.Add()([x, y])
    z = f.conv(4, 1, "third", activation="relu")(x)
    x = L.Concatenate(axis=f.axis)([x, z, f.layer(L.DepthwiseConv2D, 1)(x)])
    gate = f.layer(L.GlobalAveragePooling2D, keepdims=True)(x)
    gate = f.conv(16, 1, "gate", activation="sigmoid")(f.conv(2, 1, "squeeze")(gate))
    x = f.layer(L.UpSampling2D, 2)(L.Multiply()([x, gate]))
    x = f.layer(L.SeparableConv2D, 4, 3, padding="same")(x)
    x = f.layer(L.Cropping2D, 1)(f.layer(L.AveragePooling2D, 2)(keras.ops.relu(x + 1.0)))
    return L.Dense(3, name="units")(f.layer(L.GlobalMaxPooling2D)(x))


def shared(f: Format, x: Tensor) -> Tensor:
    """Two layers for two maps of different sizes."""
    tower = f.conv(5, 3, "third", padding="same", activation="sigmoid"), f.conv(3, 2, "fourth")
    x = f.conv(6, 3, "first", padding="same", use_bias=False)(x)
    y = f.conv(6, 2, "second", strides=2, use_bias=False)(x)
    ends = [f.layer(L.GlobalMaxPooling2D)(tower[1](tower[0](side))) for side in (x, y)]
    return L.Concatenate()(ends)


NETWORKS: dict[str, Make] = {
    "convolutions": convolutions,
    "streams": streams,
    "shared": shared,
}
BOTH = {"first": (3, 0, 3, 0, 2, 0), "second": (2, 0, 2, 1, 0, 1)}
PLANS = {
    "convolutions": Plan({**BOTH, "units": (1, 0, 1)}),
    "streams": Plan({**BOTH, "third": (1, 0, 1, 0)}),
    "shared": Plan({**BOTH, "third": (3, 0, 2, 2, 0)}),
}


def network(make: Make, axis: int, side: int = 11) -> keras.Model:
    """A network of one format, with the same random weights in either."""
    f = Format(axis)
    inputs = keras.Input((side, side - 2, 2) if axis == -1 else (2, side, side - 2))
    return randomize(keras.Model(inputs, L.Dense(2, name="last")(make(f, inputs))))


def moved(images: Array) -> Array:
    """Images whose channels come last with their channels first."""
    return np.moveaxis(images, -1, 1)
