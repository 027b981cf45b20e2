"""Activations that are layers, functions of keras.ops, or functions of a user."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from helpers_models import (
    assert_exact_surgery,
    assert_same_function,
    outputs,
    random_batch,
    randomize,
    use_float64,
)
from keras import layers as L
from keras import ops

from keras_structsparse.graph.cloning import copy_model
from keras_structsparse.surgery import prune
from keras_structsparse.surgery.activation_functions import ELEMENTWISE, is_elementwise
from keras_structsparse.surgery.plans import Plan, masked
from keras_structsparse.surgery.provenance import notes
from keras_structsparse.surgery.verification import verify

PLAN = Plan({"first": [3, 0, 2, 0, 0, 1]})


@pytest.fixture(autouse=True)
def _float64() -> None:
    use_float64()


def network(activation: Any, where: str = "first") -> keras.Model:
    chosen = {"first": None, "second": None, where: activation}
    inputs = keras.Input((7, 6, 2))
    x = L.Conv2D(6, 3, padding="same", activation=chosen["first"], name="first")(inputs)
    x = L.Conv2D(4, 3, padding="same", activation=chosen["second"], name="second")(x)
    return randomize(keras.Model(inputs, L.Dense(2)(x)))


def relu(x: Any) -> Any:
    """Not the function of this name that Keras has."""
    return ops.tanh(x) * 2.0


def centred(x: Any) -> Any:
    return x - ops.mean(x, axis=(1, 2), keepdims=True)


LAYERS = [L.ReLU, L.ELU, lambda: L.LeakyReLU(0.2), lambda: L.Activation("swish")]
FUNCTIONS = [ops.relu, ops.silu, ops.sin, functools.partial(ops.elu, alpha=0.4)]


@pytest.mark.parametrize("make", [*LAYERS, *[lambda f=f: f for f in FUNCTIONS]])
def test_known_ones_are_elementwise(make: Any) -> None:
    pruned = assert_exact_surgery(network(make()), PLAN)
    assert pruned.get_layer("first").filters == 4, "with the carrier"
    assert not notes(pruned)


@pytest.mark.parametrize("where", ["first", "second"])
@pytest.mark.parametrize("realize", ["split", "crop"])
@pytest.mark.parametrize(
    "make",
    [
        lambda: relu,
        lambda: centred,
        lambda: lambda x: x * ops.sigmoid(x),
        lambda: ops.softmax,
        lambda: "softmax",
        lambda: L.Softmax(),
        lambda: functools.partial(ops.softmax, axis=1),
        lambda: L.UnitNormalization(),
    ],
)
def test_others_keep_their_layer(make: Any, where: str, realize: str) -> None:
    model = network(make(), where)
    pruned = assert_exact_surgery(model, PLAN, realize=realize)
    reasons = (
        "its activation is not known to treat every channel",
        "its activation mixes channels",
    )
    said = [note for note in notes(pruned) if any(reason in note for reason in reasons)]
    assert len(said) == (where == "first")


def test_a_layer_with_weights_as_an_activation() -> None:
    model = network(L.PReLU())
    model(random_batch(model))  # Keras makes the weights at the first call
    randomize(model)
    assert len(model.get_layer("first").weights) == 3
    assert any("kept as it is" in note for note in notes(assert_exact_surgery(model, PLAN)))


def test_a_function_of_the_name_of_another_one_is_kept() -> None:
    for kind in (network(relu), network(relu, "second")):
        batch = random_batch(kind)
        for twin in (copy_model(kind), masked(kind, Plan({})), prune(kind, Plan({}))):
            assert_same_function(kind, twin, batch)
    other = network("relu")
    other.set_weights(network(relu).get_weights())
    assert np.abs(outputs(other, batch)[0] - outputs(network(relu), batch)[0]).max() > 1e-3


def test_verification_computes_layers_as_activations_in_float64() -> None:
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")
    assert verify(network(L.LeakyReLU(0.3)), PLAN).passed
    assert verify(network(ops.gelu), PLAN).passed


@pytest.mark.parametrize("make", [L.ReLU, lambda: ops.silu])
def test_the_pruned_model_is_saved(make: Any, tmp_path: Path) -> None:
    model = network(make())
    pruned = prune(model, PLAN)
    pruned.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert_same_function(pruned, loaded, random_batch(model), tolerance=0.0)


def test_no_listed_function_mixes_entries() -> None:
    values = np.linspace(0.1, 0.9, 12)
    for function in ELEMENTWISE:
        if function is keras.activations.threshold:
            continue  # it has more arguments
        whole = ops.convert_to_numpy(function(ops.convert_to_tensor(values.reshape(1, 4, 3))))
        each = [ops.convert_to_numpy(function(ops.convert_to_tensor([v])))[0] for v in values]
        np.testing.assert_allclose(whole.ravel(), each, rtol=1e-12)
    assert not is_elementwise(keras.activations.softmax)
    assert not is_elementwise([])
