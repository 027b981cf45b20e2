"""A small network with a pair, its data, and what to do with them in a fresh process."""

from __future__ import annotations

import hashlib
from pathlib import Path
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


INNER = {
    "sgd": lambda: keras.optimizers.SGD(0.1, momentum=0.9),
    "adam": lambda: keras.optimizers.Adam(0.02),
}


def train_and_save(path: str) -> tuple[str, str]:
    """Train for two epochs, save, and train for two more: the bits after both."""
    keras.utils.set_random_seed(0)
    inner = INNER[Path(path).stem]()
    model = compiled(kss.attach(network(), kss.KernelSize(0.07)), kss.Proximal(inner))
    model.fit(*images(), epochs=2, batch_size=32, shuffle=False, verbose=0)
    model.save(path)
    half = digest(model)
    model.fit(*images(), epochs=2, batch_size=32, shuffle=False, verbose=0)
    return half, digest(model)


def resume(path: str) -> tuple[float, str, str]:
    """Load a model and train it for two epochs: alpha, and the bits before and after."""
    model = keras.models.load_model(path)
    assert isinstance(model.optimizer, kss.Proximal)
    alpha = float(keras.ops.convert_to_numpy(model.get_layer("conv").kernel.regularizer.alpha))
    before = digest(model)
    model.fit(*images(), epochs=2, batch_size=32, shuffle=False, verbose=0)
    return alpha, before, digest(model)
