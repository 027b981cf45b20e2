"""The last activation of a network: found, taken away, and inverted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from helpers_models import outputs, randomize
from keras import layers as L

from keras_structsparse.graph.last_activations import in_front, inverted, kinds

SOFTMAX = keras.activations.softmax


def model(body: Callable[[Any], Any]) -> keras.Model:
    inputs = keras.Input((6,))
    return randomize(keras.Model(inputs, body(L.Dense(5, name="before")(inputs))))


def images(body: Callable[[Any], Any]) -> keras.Model:
    inputs = keras.Input((6, 6, 2))
    return randomize(keras.Model(inputs, body(inputs)))


def nested(x: Any) -> Any:
    head = [keras.Input((5,)), L.Dense(3, name="last"), L.Softmax()]
    return keras.Sequential(head, name="head")(x)


FOUND = [
    ("softmax", lambda: model(L.Dense(3, activation="softmax"))),
    ("softmax", lambda: model(L.Softmax())),
    ("softmax", lambda: model(L.Activation("softmax"))),
    ("softmax", lambda: model(keras.ops.softmax)),
    ("softmax", lambda: model(nested)),
    ("sigmoid", lambda: model(L.Dense(1, activation="sigmoid"))),
    ("sigmoid", lambda: images(L.Conv2D(1, 3, activation="sigmoid"))),
    ("sigmoid", lambda: images(L.Conv2DTranspose(1, 3, activation="sigmoid"))),
    ("tanh", lambda: images(L.SeparableConv2D(3, 3, activation="tanh"))),
    ("tanh", lambda: model(keras.ops.tanh)),
]


@pytest.mark.parametrize(("kind", "build"), FOUND)
def test_what_is_in_front_gives_the_outputs(kind: str, build: Callable[[], keras.Model]) -> None:
    network = build()
    assert kinds(network) == (kind,)
    x = np.random.default_rng(0).normal(size=(3, *network.input_shape[1:])).astype("float32")
    weights = network.get_weights()
    (front,) = outputs(in_front(network, [0]), x)
    (found,) = outputs(network, x)
    activation = getattr(keras.ops, kind)
    np.testing.assert_allclose(activation(front), found, rtol=1e-5, atol=1e-6)
    assert np.abs(front - found).max() > 0.05
    np.testing.assert_equal(network.get_weights(), weights)


def shared(x: Any) -> Any:
    last = L.Activation("softmax")
    return [last(x), last(L.Dense(5)(x))]


def read_again(x: Any) -> Any:
    y = L.Dense(3, activation="softmax")(x)
    return [y, L.Dense(2)(y)]


@pytest.mark.parametrize(
    "body",
    [
        L.Dense(3),
        L.Dense(3, activation="relu"),
        lambda x: L.LSTM(3)(L.Reshape((5, 1))(x)),  # its activation is inside
        lambda x: L.Reshape((3, 1))(L.Dense(3, activation="softmax")(x)),
        shared,
        read_again,
    ],
)
def test_other_outputs_have_no_kind(body: Callable[[Any], Any]) -> None:
    network = model(body)
    assert kinds(network) == ("",) * len(network.outputs)


def test_each_output_has_its_own() -> None:
    network = model(lambda x: {"a": L.Dense(3, "softmax")(x), "b": L.Dense(2)(x), "c": L.ReLU()(x)})
    assert kinds(network) == ("softmax", "", "")
    x = np.ones((2, 6), "float32")
    before, after = network(x), in_front(network, [0])(x)
    np.testing.assert_allclose(keras.ops.softmax(after["a"]), before["a"], rtol=1e-5)
    np.testing.assert_array_equal(after["b"], before["b"])


@pytest.mark.parametrize(("kind", "most"), [("softmax", 30), ("sigmoid", 6), ("tanh", 3)])
def test_float32_outputs_tell_what_was_in_front(kind: str, most: float) -> None:
    front = np.random.default_rng(0).uniform(-most, most, (4, 5)).astype("float32")
    told = inverted(np.asarray(getattr(keras.ops, kind)(front)).astype(float), kind)
    left = (told - front) - (told - front)[:, :1] * (kind == "softmax")
    assert np.abs(left).max() < 1e-3 * most


@pytest.mark.parametrize("kind", ["softmax", "sigmoid", "tanh"])
def test_saturated_outputs_are_finite(kind: str) -> None:
    assert np.isfinite(inverted(np.array([0.0, 1.0]), kind)).all()
