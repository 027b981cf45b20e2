"""GoogLeNet (Szegedy et al. 2015), without its auxiliary classifiers.

Local response normalisation is left out: Keras has no layer for it. It has no parameters and, as
activations and pooling, no multiply-adds in eq. (10).
"""

from __future__ import annotations

from collections.abc import Mapping

import keras
from keras import layers

from keras_structsparse._typing import Tensor
from keras_structsparse.models.entries import Entry, Published, Shape

MODULES: Mapping[str, tuple[int, int, int, int, int, int]] = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
"""Widths: 1x1, 1x1 before 3x3, 3x3, 1x1 before 5x5, 5x5, 1x1 after the pooling."""


def _convolution(tensor: Tensor, width: int, size: int, name: str, stride: int = 1) -> Tensor:
    return layers.Conv2D(width, size, stride, "same", activation="relu", name=name)(tensor)


def _pool(tensor: Tensor, name: str, stride: int = 2) -> Tensor:
    return layers.MaxPooling2D(3, stride, "same", name=name)(tensor)


def _inception(tensor: Tensor, name: str) -> Tensor:
    one, before_three, three, before_five, five, pooled = MODULES[name]
    sides = [
        _convolution(tensor, one, 1, f"{name}_1x1"),
        _convolution(
            _convolution(tensor, before_three, 1, f"{name}_3x3_reduce"), three, 3, f"{name}_3x3"
        ),
        _convolution(
            _convolution(tensor, before_five, 1, f"{name}_5x5_reduce"), five, 5, f"{name}_5x5"
        ),
        _convolution(_pool(tensor, f"{name}_pool", 1), pooled, 1, f"{name}_pool_1x1"),
    ]
    return layers.Concatenate(name=f"{name}_join")(sides)


def build_googlenet(input_shape: Shape, classes: int) -> keras.Model:
    """Build GoogLeNet with new weights.

    Args:
        input_shape: Shape of one input, (height, width, channels).
        classes: Number of classes.
    """
    inputs = keras.Input(input_shape, name="image")
    x = _pool(_convolution(inputs, 64, 7, "conv1", 2), "pool1")
    x = _convolution(_convolution(x, 64, 1, "conv2_reduce"), 192, 3, "conv2")
    x = _pool(x, "pool2")
    for name in MODULES:
        if name in ("4a", "5a"):
            x = _pool(x, f"pool{int(name[0]) - 1}")
        x = _inception(x, name)
    x = layers.Dropout(0.4, name="dropout")(layers.GlobalAveragePooling2D(name="pool")(x))
    outputs = layers.Dense(classes, activation="softmax", name="classes")(x)
    return keras.Model(inputs, outputs, name="googlenet")


ENTRY = Entry(
    "GoogLeNet, without auxiliary classifiers and local response normalisation",
    (224, 224, 3),
    1000,
    build_googlenet,
    Published(
        "top-5 10.07 % (1 crop), 9.15 % (10 crops)",
        "Szegedy et al. 2015, Going Deeper with Convolutions, Table 3, one network",
    ),
)
