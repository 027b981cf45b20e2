"""A small network with a pair, its data, and what to do with them in a fresh process."""

from __future__ import annotations

import hashlib
from typing import Any

import keras
import numpy as np
from keras import layers as L

import keras_structsparse as kss

Array = Any


def network(regularizer: Any = None) -> keras.Model:
    inputs = keras.Input((6, 6, 2))
    x = L.Conv2D(8, 3, padding="same", name="conv", kernel_regularizer=regularizer)(inputs)
    x = L.ReLU()(L.BatchNormalization(name="norm")(x))
    x = L.Dense(3, activation="softmax", name="classes")(L.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, x)


def images() -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(64, 6, 6, 2)).astype("float32"), rng.integers(0, 3, 64)


def compiled(
    model: keras.Model, optimizer: keras.optimizers.Optimizer, **options: Any
) -> keras.Model:
    model.compile(optimizer, "sparse_categorical_crossentropy", **options)
    return model


def digest(model: keras.Model) -> str:
    """The bits of all weights."""
    return hashlib.sha256(b"".join(weight.tobytes() for weight in model.get_weights())).hexdigest()


def resume(path: str) -> tuple[float, str, str]:
    """Load a model and train it for two epochs: alpha, and the bits before and after."""
    model = keras.models.load_model(path)
    assert isinstance(model.optimizer, kss.Proximal)
    alpha = float(keras.ops.convert_to_numpy(model.get_layer("conv").kernel.regularizer.alpha))
    before = digest(model)
    model.fit(*images(), epochs=2, batch_size=32, shuffle=False, verbose=0)
    return alpha, before, digest(model)
