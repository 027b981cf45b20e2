"""A small network with two outputs, for tests of files."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers as kl


def network(regularizer: Any = None) -> keras.Model:
    inputs = keras.Input((8, 8, 3))
    x = kl.Conv2D(4, 3, activation="relu", kernel_regularizer=regularizer)(inputs)
    return keras.Model(inputs, {"map": x, "mean": kl.GlobalAveragePooling2D()(x)})


def images(count: int = 2) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, 8, 8, 3)).astype("float32")


def same(left: keras.Model, right: keras.Model) -> bool:
    return all(np.allclose(left(images())[name], right(images())[name]) for name in ("map", "mean"))
