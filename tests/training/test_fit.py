"""Recipes, the ramp of alpha, a few steps of training, accuracy."""

from __future__ import annotations

import math
import platform
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as L

from keras_structsparse.graph import onednn
from keras_structsparse.regularizers import KernelCount, KernelSize
from keras_structsparse.regularizers.attachment import attach, regularizers_of
from keras_structsparse.surgery.plans import plan
from keras_structsparse.training.callbacks.alpha_ramp import AlphaRamp
from keras_structsparse.training.fit import accuracy, compile_for, fit, restart
from keras_structsparse.training.optimizer.proximal import Proximal
from keras_structsparse.training.recipes import Recipe

Array = Any

RECIPE = Recipe(epochs=3, batch_size=8, learning_rate=0.1, ramp=0.5)


def network() -> keras.Model:
    inputs = keras.Input((6, 6, 1))
    x = L.Conv2D(6, 3, padding="same", use_bias=False, name="conv")(inputs)
    x = L.ReLU()(L.BatchNormalization(name="norm")(x))
    x = L.Dense(2, activation="softmax")(L.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, x)


def data(examples: int = 20) -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    labels = np.arange(examples) % 2
    images = rng.normal(size=(examples, 6, 6, 1)) + 3.0 * labels[:, None, None, None]
    return images.astype("float32"), labels


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("epochs", -1),
        ("epochs", 2.5),
        ("epochs", True),
        ("epochs", math.nan),
        ("batch_size", 0),
        ("batch_size", 32.0),
        ("learning_rate", 0.0),
        ("learning_rate", -0.1),
        ("learning_rate", math.nan),
        ("learning_rate", math.inf),
        ("momentum", 1.0),
        ("momentum", -0.1),
        ("momentum", math.nan),
        ("ramp", 1.0),
        ("ramp", -0.5),
        ("ramp", math.nan),
    ],
)
def test_bad_recipes_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name}: expected.*Received: {value}"):
        Recipe(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(("examples", "steps"), [(1, 3), (8, 3), (9, 6), (20, 9)])
def test_steps_count_the_last_batch_too(examples: int, steps: int) -> None:
    assert RECIPE.steps(examples) == steps


def test_the_rate_falls_to_zero_over_all_steps() -> None:
    schedule = RECIPE.sgd(20)._learning_rate
    rates = [float(schedule(step)) for step in range(10)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[-1] == pytest.approx(0.0, abs=1e-9)
    assert rates == sorted(rates, reverse=True)


def plainly_compiled(regularizer: KernelSize) -> keras.Model:
    """Without the proximal step, which takes seconds to trace."""
    model = attach(network(), regularizer)
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


class Recorder(keras.callbacks.Callback):
    """Remembers alpha during every step."""

    def __init__(self, alpha: keras.Variable) -> None:
        super().__init__()
        self.alpha, self.seen = alpha, list[float]()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.seen.append(float(keras.ops.convert_to_numpy(self.alpha)))


def test_alpha_rises_during_training() -> None:
    regularizer = KernelSize(0.5)
    model = plainly_compiled(regularizer)
    for _ in range(2):  # a second training starts from the full value
        recorder = Recorder(regularizer.alpha)
        fit(model, data(), RECIPE, callbacks=[recorder])
        np.testing.assert_allclose(recorder.seen, [0, 0.125, 0.25, 0.375, *[0.5] * 5])
        assert float(regularizer.alpha) == 0.5


@pytest.mark.parametrize(
    ("steps", "shares"), [(0, [1, 1, 1]), (1, [0, 1, 1]), (2, [0, 0.5, 1]), (8, [0, 0.125, 0.25])]
)
def test_the_ramp_ends_at_the_full_value(steps: int, shares: list[float]) -> None:
    alphas = [keras.Variable(0.5), keras.Variable(2.0)]
    ramp = AlphaRamp(alphas, steps)
    for _ in range(2):
        ramp.on_train_begin()
        for batch, share in enumerate(shares):
            ramp.on_train_batch_begin(batch)
            assert [float(alpha) for alpha in alphas] == [0.5 * share, 2.0 * share]
        ramp.on_train_end()
        assert [float(alpha) for alpha in alphas] == [0.5, 2.0]


class Stop(keras.callbacks.Callback):
    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        raise KeyboardInterrupt


def test_alpha_is_full_after_an_interrupted_training() -> None:
    regularizer = KernelSize(0.5)
    model = plainly_compiled(regularizer)
    with pytest.raises(KeyboardInterrupt):
        fit(model, data(), RECIPE, callbacks=[Stop()])
    assert float(regularizer.alpha) == 0.5


def test_training_with_a_regularizer_removes_kernels_and_without_one_does_not() -> None:
    left = []
    for regularizer in (KernelCount(3.0), None):
        keras.utils.set_random_seed(0)
        model = network()
        compile_for(model, RECIPE, 20, regularizer)
        assert isinstance(model.optimizer, Proximal) is (regularizer is not None)
        history = fit(model, data(), RECIPE, validation=data(6))
        assert set(history) == {"accuracy", "loss", "val_accuracy", "val_loss"}
        assert all(len(v) == 3 and np.isfinite(v).all() for v in history.values())
        left.append(plan(model, 0.0).widths["conv"])
    assert left[0] < 6
    assert left[1] == 6


def test_weights_go_to_attach() -> None:
    model = network()
    compile_for(model, RECIPE, 20, KernelSize(0.5), weights="params")
    assert regularizers_of(model)["conv"].weight == 1.0
    with pytest.raises(ValueError, match=r"weights: .*'flops'"):
        compile_for(model, RECIPE, 20, KernelSize(0.5), weights="flops")


@pytest.mark.parametrize("batch_size", [1, 3, 512])
def test_accuracy_is_the_share_of_right_classes(batch_size: int) -> None:
    model = keras.Sequential([keras.Input((3,)), L.Identity()])
    scores = np.eye(3, dtype="float32")[[0, 1, 2, 2, 1]]
    assert accuracy(model, (scores, np.array([0, 1, 2, 0, 0])), batch_size) == pytest.approx(0.6)
    assert accuracy(model, (scores, np.array([0, 1, 2, 2, 1])), batch_size) == 1.0


def test_restart_forgets_momentum_but_neither_alpha_nor_the_learning_rate() -> None:
    model = network()
    attach(model, KernelCount(alpha=0.5))
    model.compile(Proximal(keras.optimizers.SGD(0.25, momentum=0.9)), "mse")
    images, labels = data()
    model.fit(images, np.eye(2)[labels], verbose=0)
    assert len(_states(model.optimizer)) > 4
    restart(model.optimizer)
    assert _states(model.optimizer) == {"alpha": 0.5, "learning_rate": 0.25}


def _states(optimizer: keras.optimizers.Optimizer) -> dict[str, float]:
    """The largest entry of every variable that is not all zeros."""
    values = {v.path: keras.ops.convert_to_numpy(v) for v in optimizer.variables}
    return {path.split("/")[-1]: float(v.max()) for path, v in values.items() if np.any(v)}


def test_a_fit_that_fails_before_it_begins_says_why() -> None:
    """And not that the ramp does not know what alpha was."""
    images, labels = data()
    model, four = plainly_compiled(KernelSize(0.5)), (images, labels, labels, labels)
    with pytest.raises(ValueError, match="Data is expected to be in format"):
        fit(model, (images, labels), RECIPE, validation=four)


def test_a_dense_training_that_may_crash_is_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(onednn, "_USED", {keras.backend.backend(): lambda: True})
    shortcut = L.Conv2D(4, 1, strides=2, name="shortcut")
    model = keras.Sequential([keras.Input((6, 6, 1)), shortcut, L.GlobalAveragePooling2D()])
    with pytest.warns(UserWarning, match="'shortcut': strided 1x1 .* may crash"):
        compile_for(model, RECIPE, 20)
