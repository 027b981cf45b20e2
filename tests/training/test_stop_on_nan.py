"""A training whose loss becomes NaN stops with an error that names the layer."""

from __future__ import annotations

import re
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as L

import keras_structsparse as kss
from keras_structsparse.training.fit import compile_for, fit
from keras_structsparse.training.recipes import Recipe

Array = Any


def network(activation: str = "softmax") -> keras.Model:
    inputs = keras.Input((6, 6, 1))
    x = L.Conv2D(4, 3, activation="relu", name="first")(inputs)
    x = L.Conv2D(4, 3, activation="relu", name="second")(x)
    return keras.Model(inputs, L.Dense(2, activation=activation)(L.GlobalAveragePooling2D()(x)))


def data() -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(16, 6, 6, 1)).astype("float32"), np.arange(16) % 2


def train(model: keras.Model, **options: Any) -> None:
    model.compile(keras.optimizers.SGD(0.01), "sparse_categorical_crossentropy")
    model.fit(*data(), batch_size=8, verbose=0, callbacks=[kss.StopOnNaN(**options)])


frozen = pytest.mark.filterwarnings("ignore:The model does not have any trainable weights")
"""Weights that are not trained stay as they are, whatever the loss is."""


@frozen
def test_the_first_layer_with_broken_weights_is_named() -> None:
    model = network()
    model.get_layer("second").bias.assign([0.0, np.nan, 0.0, 0.0])
    model.trainable = False
    with pytest.raises(kss.DivergedError, match=r"epoch 1, batch 2.*'second' .*\(bias\); 1 "):
        train(model)
    model.get_layer("first").kernel.assign(np.full((3, 3, 1, 4), np.inf))
    with pytest.raises(kss.DivergedError, match=r"'first' .*\(kernel\); 2 layers"):
        train(model)


@frozen
def test_the_first_layer_with_a_broken_output_is_named() -> None:
    model = network()
    model.trainable = False
    model.get_layer("second").kernel.assign(np.full((3, 3, 4, 4), 3e38))
    x, _ = data()
    with pytest.raises(kss.DivergedError, match="'second' is the first with an output"):
        train(model, inputs=x)
    with pytest.raises(kss.DivergedError, match="inputs are not finite"):
        train(model, inputs=x + np.inf)
    with pytest.raises(kss.DivergedError, match="All weights are finite"):
        train(model)


def test_a_finite_training_goes_on() -> None:
    train(network())


def test_trainings_of_the_package_stop() -> None:
    recipe = Recipe(epochs=9, batch_size=8, learning_rate=1e30)
    model = network()
    compile_for(model, recipe, 16, kss.KernelSize(0.25))
    with pytest.raises(kss.DivergedError, match=re.escape("lower alpha (now 0.")):
        fit(model, data(), recipe)
    model = kss.attach(network("linear"), kss.KernelSize(0.25))
    model.compile(kss.Proximal(keras.optimizers.SGD(1e30)), "mse")
    with pytest.raises(kss.DivergedError, match=re.escape("lower learning rate (now 1e+30)")):
        kss.fit_shrinking(
            model, data()[0], np.eye(2)[data()[1]], epochs=9, shrink_every=3, verbose=0
        )


def test_a_subclassed_model_is_served_as_well() -> None:
    class Own(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            broken = keras.initializers.Constant(np.nan)
            self.own = L.Dense(2, name="own", kernel_initializer=broken)

        def call(self, x: Any) -> Any:
            return keras.ops.softmax(self.own(keras.ops.reshape(x, (-1, 36))))

    with pytest.raises(kss.DivergedError, match=r"Layer 'own' .*kernel"):
        train(Own())
