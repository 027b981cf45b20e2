"""Training mode: what is compared there, what is not, and that a fault there is seen."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from helpers_models import chain, random_plan, randomize
from keras import layers as L

from keras_structsparse.graph.cloning import clone
from keras_structsparse.surgery import prune
from keras_structsparse.surgery.plans import Plan, masked
from keras_structsparse.surgery.verification import Verification, verify, verify_folding

module = importlib.import_module("keras_structsparse.surgery.verification")

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="others take statistics in float32"
)

PLAN = Plan({"first": [3, 0, 1, 3], "second": [0, 3, 3]})
BOTH = ("training=True", "training=None")

Body = Callable[[Any], Any]


def network(between: Body) -> keras.Model:
    """Two convolutions with something between them that may act otherwise in training."""
    inputs = keras.Input((7, 6, 2))
    x = L.Conv2D(4, 3, activation="sigmoid", name="first")(inputs)
    x = L.Conv2D(3, 3, padding="same", name="second")(between(x))
    return randomize(keras.Model(inputs, L.Dense(2)(x)))


def normalized_twice(x: Any) -> Any:
    norm = L.BatchNormalization()
    return norm(L.ReLU()(norm(x)))


BODIES: dict[str, tuple[Body, tuple[str, ...], tuple[str, ...]]] = {
    "nothing": (L.ReLU(), (), ()),
    "normalisation": (lambda x: L.BatchNormalization()(x), BOTH[:1], ()),
    "no scale": (lambda x: L.BatchNormalization(scale=False)(x), BOTH[:1], ()),
    "frozen": (lambda x: L.BatchNormalization(trainable=False)(x), (), ()),
    "dropout": (lambda x: L.BatchNormalization()(L.Dropout(0.5)(x)), BOTH[:1], ()),
    "noise": (lambda x: L.GaussianNoise(0.5)(L.SpatialDropout2D(0.5)(x)), BOTH[:1], ()),
    "dropout in every mode": (lambda x: L.Dropout(0.5)(x, training=True), BOTH, ()),
    "statistics in every mode": (lambda x: L.BatchNormalization()(x, training=True), BOTH, ()),
    "dropout in no mode": (lambda x: L.Dropout(0.5)(x, training=False), BOTH[:1], ()),
    "in no mode behind every mode": (
        lambda x: L.BatchNormalization()(L.Dropout(0.5)(x, training=True), training=False),
        BOTH,
        (),
    ),
    "training by default": (lambda x: L.BatchNormalization()(L.Resizing(6, 6)(x)), BOTH, ()),
    "default without effect": (lambda x: L.Resizing(6, 6)(x), (), ()),
    "random images": (lambda x: L.RandomFlip()(x), (), BOTH),
    "weights that change": (lambda x: L.SpectralNormalization(L.Conv2D(4, 1))(x), (), BOTH[:1]),
    "weights that converge": (
        lambda x: L.SpectralNormalization(L.Conv2D(4, 1), power_iterations=200)(x),
        (),
        BOTH[:1],
    ),
    "two statistics": (normalized_twice, (), BOTH[:1]),
}
"""What is between the convolutions, the modes that are tried, and those that are not."""


@pytest.mark.parametrize("name", BODIES)
def test_what_is_tried(name: str) -> None:
    body, tried, skipped = BODIES[name]
    result = verify(network(body), PLAN)
    assert result.passed, str(result)
    assert result.tried == ("random values", *tried)
    assert [text.split(" (")[0] for text in result.skipped] == list(skipped)


def behind_resizing(x: Any) -> Any:
    """Keras lets the normalisation train in a call without ``training``, but not if it is flat."""
    nested = keras.Sequential([keras.Input((6, 6, 4)), L.Dropout(0.3)])
    return L.BatchNormalization()(nested(L.Resizing(6, 6)(x)))


def test_which_layers_train_by_the_nesting_of_calls_is_not_compared() -> None:
    model = network(behind_resizing)
    result = verify(model, PLAN)
    assert result.passed, str(result)
    assert result.tried == ("random values", "training=True")
    (skipped,) = result.skipped
    assert skipped.startswith("training=None (layer 'resizing' lets layers train")


def test_a_constant_of_inference_is_another_one_in_training() -> None:
    """Why statistics have to be those of the batch: with others, both networks are right."""
    model = network(lambda x: L.BatchNormalization(scale=False)(x))
    plan = Plan({"first": [3, 0, 0, 3]})  # one of two constants stands for both
    assert verify(model, plan).passed
    x = np.random.default_rng(0).normal(size=(5, 7, 6, 2))
    found = [net(x, training=True) for net in (masked(model, plan), prune(model, plan))]
    assert np.abs(np.subtract(*map(keras.ops.convert_to_numpy, found))).max() > 1e-2


@pytest.mark.parametrize("seed", range(4))
def test_random_networks_agree_in_training(seed: int) -> None:
    rng = np.random.default_rng(seed)
    kinds = [L.BatchNormalization, L.ReLU, lambda: L.Dropout(0.3), L.MaxPooling2D]
    stack: list[keras.Layer] = []
    for _ in range(3):
        stack.append(L.Conv2D(int(rng.integers(2, 6)), int(rng.integers(1, 4)), padding="same"))
        stack += [kinds[i]() for i in rng.permutation(4)[: rng.integers(1, 4)]]
    model = chain(*stack, L.BatchNormalization(), L.Dense(2), shape=(16, 16, 2))
    result = verify(model, random_plan(model, seed))
    assert result.passed, str(result)
    assert "training=True" in result.tried


Wrong = Callable[[keras.Model, Plan], keras.Model]


def replaced(model: keras.Model, change: Callable[[keras.Layer], keras.Layer]) -> keras.Model:
    twin = keras.models.clone_model(model, clone_function=change)
    for old, new in zip(model.layers, twin.layers, strict=True):
        new.set_weights(old.get_weights()[: len(new.weights)])
    return twin


def freezes(model: keras.Model, plan: Plan, *args: Any, **options: Any) -> keras.Model:
    """Equal at inference, but statistics of batches are not taken any more."""

    def frozen(layer: keras.Layer) -> keras.Layer:
        norm = isinstance(layer, L.BatchNormalization)
        return clone(layer, trainable=False) if norm else clone(layer)

    return replaced(prune(model, plan), frozen)


def drops_out(model: keras.Model, plan: Plan, *args: Any, **options: Any) -> keras.Model:
    """Equal at inference, but random in training."""
    pruned = prune(model, plan)
    return keras.Model(pruned.inputs, L.Dropout(0.5, dtype="float64")(pruned.outputs[0]))


def in_another_mode(x: Any) -> Any:
    """A normalisation that takes statistics if the network is called without ``training``."""
    return L.BatchNormalization()(x, training=True)


def forgets_the_call(model: keras.Model, plan: Plan, *args: Any, **options: Any) -> keras.Model:
    return keras.Sequential([clone_of(layer) for layer in prune(model, plan).layers])


def clone_of(layer: keras.Layer) -> keras.Layer:
    if isinstance(layer, L.InputLayer):
        return keras.Input(layer.batch_shape[1:], dtype="float64")
    twin = clone(layer)
    twin.build(layer.input.shape)
    twin.set_weights(layer.get_weights())
    return twin


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        (lambda x: L.BatchNormalization()(x), freezes),
        (lambda x: L.BatchNormalization()(x), drops_out),
        (L.ReLU(), drops_out),
        (in_another_mode, forgets_the_call),
        (lambda x: L.BatchNormalization()(L.Dropout(0.0)(x, training=True)), forgets_the_call),
    ],
)
def test_a_network_that_is_wrong_in_training_only_is_found(
    body: Body, wrong: Wrong, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = network(body)
    assert verify(model, PLAN).passed
    monkeypatch.setattr(module, "prune", wrong)
    result = verify(model, PLAN)
    assert not result.passed, str(result)
    assert result.error > 1e-4
    # The control: at inference it is right.
    monkeypatch.setattr(module, "in_modes", lambda *args: ())
    assert verify(model, PLAN).passed


class Moody(keras.layers.Layer):
    """It fails in training."""

    def call(self, x: Any, training: bool | None = None) -> Any:
        if training:
            raise RuntimeError("not now")
        return x


def test_a_model_that_fails_in_training_is_checked_at_inference() -> None:
    result: Verification = verify(network(Moody()), PLAN)
    assert result.passed, str(result)
    assert result.skipped == ("training=True (RuntimeError of the masked model)",)


def fails(model: keras.Model, plan: Plan, *args: Any, **options: Any) -> keras.Model:
    """The pruned network with a dropout whose noise has another shape."""
    pruned = prune(model, plan)
    noisy = L.Dropout(0.5, noise_shape=(None, 1, 1, 2))(pruned.outputs[0][..., None, None, :])
    return keras.Model(pruned.inputs, noisy[:, 0, 0])


def test_a_rebuilt_network_that_fails_in_training_does_not_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = network(L.Dropout(0.5))
    assert verify(model, PLAN).passed
    monkeypatch.setattr(module, "prune", fails)
    result = verify(model, PLAN)
    assert not result.passed
    assert result.problem.startswith("the pruned model in training mode")


def test_folding_is_checked_at_inference_only() -> None:
    result = verify_folding(network(lambda x: L.BatchNormalization()(L.Conv2D(3, 1)(x))))
    assert result.passed
    assert result.tried == ("random values",)


KEPT = {
    "normalisation": lambda x: L.BatchNormalization(name="kept")(x, training=False),
    "dropout": lambda x: L.Dropout(0.5, name="kept")(x, training=False),
    "recurrent": lambda x: L.LSTM(3, return_sequences=True, dropout=0.5, name="kept")(
        L.Reshape((20, 4))(x), training=False
    ),
}


@pytest.mark.parametrize("kind", KEPT)
def test_a_call_keeps_its_training(kind: str) -> None:
    """Behind a layer that is called with training=True, Keras would take that for its own."""
    inputs = keras.Input((7, 6, 2))
    x = L.Conv2D(4, 3, activation="sigmoid", name="first")(inputs)
    x = KEPT[kind](L.Identity()(L.Dropout(0.0)(x, training=True)))
    model = randomize(keras.Model(inputs, L.Dense(2)(x)))
    pruned = prune(model, Plan({"first": [3, 0, 0, 3]}))
    x = np.random.default_rng(0).normal(size=(5, 7, 6, 2))
    expected, found = masked(model, Plan({"first": [3, 0, 0, 3]}))(x), pruned(x)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
