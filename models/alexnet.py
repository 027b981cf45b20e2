"""AlexNet (Krizhevsky et al. 2012), as one network with grouped convolutions for its two halves.

Local response normalisation is left out: Keras has no layer for it. It has no parameters and, as
activations and pooling, no multiply-adds in eq. (10). `attach` skips its three grouped
convolutions.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from keras_structsparse._typing import Tensor
from keras_structsparse.models.entries import Entry, Published, Shape


def _convolution(tensor: Tensor, index: int, width: int, size: int, **options: Any) -> Tensor:
    options = {"padding": "same", "activation": "relu", **options}
    return layers.Conv2D(width, size, name=f"conv{index}", **options)(tensor)


def _pool(tensor: Tensor, index: int) -> Tensor:
    return layers.MaxPooling2D(3, 2, name=f"pool{index}")(tensor)


def _dense(tensor: Tensor, index: int) -> Tensor:
    tensor = layers.Dense(4096, activation="relu", name=f"dense{index}")(tensor)
    return layers.Dropout(0.5, name=f"dropout{index}")(tensor)


def build_alexnet(input_shape: Shape, classes: int) -> keras.Model:
    """Build AlexNet with new weights.

    Args:
        input_shape: Shape of one input, (height, width, channels), 67x67 or larger.
        classes: Number of classes.
    """
    inputs = keras.Input(input_shape, name="image")
    x = _pool(_convolution(inputs, 1, 96, 11, strides=4, padding="valid"), 1)
    x = _pool(_convolution(x, 2, 256, 5, groups=2), 2)
    x = _convolution(x, 3, 384, 3)
    x = _convolution(x, 4, 384, 3, groups=2)
    x = _pool(_convolution(x, 5, 256, 3, groups=2), 5)
    x = _dense(_dense(layers.Flatten(name="flatten")(x), 6), 7)
    outputs = layers.Dense(classes, activation="softmax", name="classes")(x)
    return keras.Model(inputs, outputs, name="alexnet")


ENTRY = Entry(
    "AlexNet, without local response normalisation",
    (227, 227, 3),
    1000,
    build_alexnet,
    Published(
        "top-1 40.7 %, top-5 18.2 % (10 crops)",
        "Krizhevsky et al. 2012, ImageNet Classification with Deep Convolutional Neural "
        "Networks, Table 2, one network",
    ),
)
