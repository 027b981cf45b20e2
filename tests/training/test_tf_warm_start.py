"""Variables made before the first step."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

import keras_structsparse as kss
from keras_structsparse.training.tf_input import build_for_training

COMPILED: Any = {"loss": "sparse_categorical_crossentropy", "metrics": ["accuracy"]}


@keras.saving.register_keras_serializable("tests")
class Traced(keras.layers.Layer):
    """Counts how often it is traced."""

    count = 0

    def call(self, x: Any) -> Any:
        Traced.count += 1
        return x


def network() -> keras.Model:
    layers = [keras.layers.Conv2D(2, 3, name="conv"), Traced(), keras.layers.Flatten()]
    model = keras.Sequential([keras.Input((5, 5, 1)), *layers, keras.layers.Dense(3, "softmax")])
    kss.attach(model, kss.KernelCount(1e-3))
    optimizer = kss.Proximal(keras.optimizers.SGD(0.1, momentum=0.9))
    model.compile(optimizer, **COMPILED)
    return model


X, Y = np.random.default_rng(0).normal(size=(8, 5, 5, 1)).astype("float32"), np.arange(8) % 3


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the others trace once anyway")
def test_a_step_is_traced_once_in_place_of_twice() -> None:
    counts = []
    for built in (True, False):
        model = network()
        if built:
            build_for_training(model, X, Y)
        Traced.count = 0
        model.fit(X, Y, batch_size=4, verbose=0)
        counts.append(Traced.count)
    assert counts == [1, 2]


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="pays on TensorFlow")
def test_other_backends_are_left_to_their_first_step() -> None:
    model = network()
    build_for_training(model, X, Y)
    assert not model.optimizer.built


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="a strategy of TensorFlow")
@pytest.mark.parametrize("penalised", [True, False])
def test_one_device_under_a_strategy_is_built_in_its_scope(penalised: bool) -> None:
    import tensorflow as tf

    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        model = network()
        if not penalised:
            model.compile(keras.optimizers.SGD(0.1, momentum=0.9), **COMPILED)
        other = keras.optimizers.SGD(0.1, momentum=0.9)
    with pytest.raises(RuntimeError, match="scope"):  # the control
        other.build(model.trainable_variables)
    build_for_training(model, X, Y)
    assert model.optimizer.built
    model.fit(X, Y, batch_size=4, verbose=0)


def test_training_is_the_same() -> None:
    weights, logs = [], []
    for built in (True, False):
        keras.utils.set_random_seed(0)
        model = network()
        if built:
            build_for_training(model, X, Y)
        history = model.fit(X, Y, batch_size=4, epochs=2, verbose=0, shuffle=False)
        logs.append(history.history)
        weights.append(model.get_weights())
    assert logs[0].keys() == logs[1].keys()
    for key in logs[0]:
        np.testing.assert_allclose(logs[0][key], logs[1][key], rtol=1e-6)
    for left, right in zip(*weights, strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("data", [(None, None), ([], []), (iter([X]), None), (X, None)])
def test_what_is_no_array_is_left_to_the_first_step(data: tuple[Any, Any]) -> None:
    model = network()
    build_for_training(model, *data)
    assert not model.optimizer.built
