"""Validation metrics as they would be after pruning, in the logs of a training."""

from __future__ import annotations

import copy
from typing import Any

import keras
import numpy as np
import pytest
from helpers_shrinking import CROSS, Batches, ready, values

import keras_structsparse as kss
from keras_structsparse.training.callbacks.pruned_metrics import PrunedMetrics

Array = Any


def fitted(
    model: keras.Model, data: Any, *callbacks: keras.callbacks.Callback, **options: Any
) -> Any:
    options = {"epochs": 2, "batch_size": 24, "verbose": 0, **options}
    return model.fit(*data, callbacks=list(callbacks), **options).history


class Epochs(keras.callbacks.Callback):
    """Stores the weights of every epoch, as callbacks after another one see them."""

    def __init__(self) -> None:
        super().__init__()
        self.weights: list[list[Array]] = []

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.weights.append(values(self.model.variables))


@pytest.mark.parametrize(
    ("name", "budget"),
    [
        ("residual", {"multiply_adds": 0.5}),
        ("plain", {"multiply_adds": 0.4, "realize": "split"}),
        ("dense", {"params": 0.3}),
    ],
)
def test_the_entries_are_the_metrics_of_the_pruned_network(name: str, budget: Any) -> None:
    model, data = ready(name)
    history = fitted(model, data, PrunedMetrics(data, **budget), validation_data=data)
    assert {n for n in history if n.startswith("pruned_")} == {"pruned_loss", "pruned_accuracy"}
    pruned = kss.prune(model, kss.plan(model, **budget), realize=budget.get("realize", "auto"))
    pruned.compile(loss=CROSS, metrics=["accuracy"])
    expected = pruned.evaluate(*data, verbose=0, return_dict=True)
    for metric, value in expected.items():
        assert history[f"pruned_{metric}"][-1] == pytest.approx(value, rel=1e-4)
    # The control: they are not the metrics of the network as it is.
    assert history["pruned_loss"][-1] != pytest.approx(history["val_loss"][-1], rel=1e-3)


def test_the_training_is_the_same_as_without() -> None:
    """Also what is stored beside the weights: moments, statistics and seeds."""
    trained = []
    for evaluated in (False, True):
        model, data = ready("residual")
        callbacks = [PrunedMetrics(data, multiply_adds=0.3)] if evaluated else []
        keras.utils.set_random_seed(0)
        seen = Epochs()
        # On torch, an evaluation draws random numbers, as Keras' own validation does.
        fitted(model, data, *callbacks, seen, shuffle=False)
        trained.append([*seen.weights, values(model.optimizer.variables)])
    for own, other in zip(*trained, strict=True):
        for one, two in zip(own, other, strict=True):
            np.testing.assert_array_equal(one, two)
    assert any((one != two).any() for one, two in zip(*trained[0][:2], strict=True))  # it trains


@pytest.mark.parametrize("fails_at", [0, 1])
def test_the_weights_are_given_back_if_the_evaluation_fails(fails_at: int) -> None:
    model, (x, y) = ready("plain")
    wrong = x[:, 1:]  # one row less than the network takes
    batches = Batches([(x[:24], y[:24]), (x[24:], y[24:])])
    batches.batches = [*batches.batches[:fails_at], (wrong, y)]
    before: list[Array] = []

    class Last(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            before.extend(values(self.model.variables))

    with pytest.raises(Exception, match=r"(?i)shape|dimension|size|axis"):  # by backend
        fitted(model, (x, y), Last(), PrunedMetrics(batches, multiply_adds=0.4))
    after = values(model.variables)
    assert len(before) == len(after)
    for one, two in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, two)


def test_other_epochs_repeat_the_last_values() -> None:
    model, data = ready("dense")
    kept = PrunedMetrics(data, multiply_adds=0.5, every=3)
    found = fitted(model, data, kept, epochs=8)["pruned_loss"]
    assert len(found) == 8
    changes = [i + 1 for i in range(1, 8) if found[i] != found[i - 1]]
    assert changes == [3, 6, 8]  # the first, every third, and the last


def test_a_callback_after_it_can_watch_the_entries() -> None:
    model, data = ready("dense")
    stop = keras.callbacks.EarlyStopping("pruned_loss", mode="max", patience=1, baseline=1e9)
    history = fitted(model, data, PrunedMetrics(data, multiply_adds=0.5), stop, epochs=5)
    assert len(history["pruned_loss"]) == 2


def test_data_sets_and_sample_weights() -> None:
    model, (x, y) = ready("dense", weighted_metrics=["accuracy"])
    weights = np.linspace(0.0, 1.0, len(y))
    kinds = [(x, y, weights), Batches([(x, y, weights)]), (x, y)]
    found = []
    for validation in kinds:
        callback = PrunedMetrics(validation, multiply_adds=0.5, batch_size=len(y))
        found.append(fitted(model, (x, y), callback, epochs=1, steps_per_epoch=1))
        model, _ = ready("dense", weighted_metrics=["accuracy"])
    one, two, three = (run["pruned_loss"] for run in found)
    assert one == pytest.approx(two)
    assert one != pytest.approx(three)  # the weights count


def test_a_copy_shares_the_data() -> None:
    data = np.ones((4, 5)), np.ones(4)
    callback = PrunedMetrics(data, multiply_adds=0.5)
    twin = copy.deepcopy(callback)
    assert twin is not callback
    assert all(own is other for own, other in zip(twin._data, callback._data, strict=True))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "expected one of multiply_adds, params. Received: none"),
        ({"multiply_adds": 0.5, "params": 0.5}, "expected one of multiply_adds, params"),
        ({"multiply_adds": 0}, r"multiply_adds: expected a number in \(0, 1\]"),
        ({"params": 1.5}, r"params: expected a number in \(0, 1\]"),
        ({"multiply_adds": 0.5, "every": 0}, "every: expected a whole number >= 1"),
        ({"multiply_adds": 0.5, "batch_size": 2.5}, "batch_size: expected a whole number"),
        ({"multiply_adds": 0.5, "realize": "all"}, "realize"),
        ({"multiply_adds": 0.5, "validation": None}, "validation: expected arrays"),
        ({"multiply_adds": 0.5, "validation": (np.ones(3),)}, "validation: expected arrays"),
    ],
)
def test_bad_arguments(arguments: Any, message: str) -> None:
    options = {"validation": (np.ones((2, 5)), np.ones(2)), **arguments}
    with pytest.raises(ValueError, match=message):
        PrunedMetrics(**options)


def test_a_model_without_a_graph_is_refused() -> None:
    class Own(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = keras.layers.Dense(1)

        def call(self, inputs: Any) -> Any:
            return self.dense(inputs)

    model, data = Own(), (np.ones((4, 5)), np.ones(4))
    model.compile("sgd", "mse")
    with pytest.raises(kss.ModelError):
        fitted(model, data, PrunedMetrics(data, multiply_adds=0.5))
