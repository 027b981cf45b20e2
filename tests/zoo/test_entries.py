"""Every network of the zoo: what it is, that it trains, shrinks and is stored."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from hand_counts import COUNTS, PUBLISHED
from helpers_models import difference, outputs, random_plan
from keras import layers as L

import keras_structsparse as kss
from keras_structsparse import models
from keras_structsparse.profiling.architecture import architecture

HEAVY = frozenset({"alexnet", "vgg16", "googlenet", "resnet152", "cifar10-resnet56"})
QUICK = frozenset({"digits-residual", "digits-plain"})
SIDES = {"imagenet": 64, "alexnet": 95, "vgg16": 32, "googlenet": 64, "resnet152": 32}
"""Smaller images, so that a step of training does not take minutes."""

REGULARIZERS: dict[str, Callable[[], Any]] = {
    "count": lambda: kss.KernelCount(1e-4),
    "size": lambda: kss.KernelSize(1e-4),
    "multiply-adds": lambda: kss.MultiplyAdds(1e-9),
}


def names(light: frozenset[str] | None = None) -> list[Any]:
    """All networks; those that take long, or all but some, are slow."""
    slow = HEAVY if light is None else frozenset(models.REGISTRY) - light
    marks = {name: pytest.mark.slow if name in slow else () for name in models.REGISTRY}
    return [pytest.param(name, marks=mark) for name, mark in marks.items()]


def test_every_network_was_counted_by_hand() -> None:
    assert set(COUNTS) == set(models.REGISTRY)
    assert set(models.BASES) | set(models.REFERENCES) == set(models.REGISTRY)


@pytest.mark.parametrize("name", names())
def test_what_was_counted_by_hand(name: str) -> None:
    assert architecture(models.build(name)) == COUNTS[name]


@pytest.mark.parametrize("name", PUBLISHED)
def test_hand_counts_are_the_published_ones(name: str) -> None:
    params, work = PUBLISHED[name]
    assert COUNTS[name].params == pytest.approx(params, rel=0.05)
    assert work is None or COUNTS[name].multiply_adds == pytest.approx(work, rel=0.06)


@pytest.mark.parametrize("name", models.REFERENCES)
def test_published_errors_have_a_source(name: str) -> None:
    published = models.REFERENCES[name].published
    assert published is not None
    assert " %" in published.errors
    assert "Table" in published.source


def small(name: str) -> keras.Model:
    """The network for small images and ten classes."""
    shape = models.REGISTRY[name].input_shape
    side = SIDES.get(name.partition("-")[0], shape[0])
    return models.build(name, (side, side, shape[2]), 10)


def batch(model: keras.Model) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    return rng.random((2, *model.input_shape[1:]), "float32"), np.array([1, 7])


@pytest.mark.parametrize("kind", REGULARIZERS)
@pytest.mark.parametrize("name", names(QUICK))
def test_a_step_of_training_moves_what_is_penalised(name: str, kind: str) -> None:
    model = small(name)
    kss.attach(model, REGULARIZERS[kind]())
    optimizer = kss.Proximal(keras.optimizers.SGD(0.0))
    model.compile(optimizer, "sparse_categorical_crossentropy", run_eagerly=True)
    kernels = [model.get_layer(layer).kernel for layer in kss.regularizers_of(model)]
    assert len(kernels) >= 2  # all of AlexNet's that have no groups
    penalties = []
    for rate in (0.0, 1e-2):  # without a rate nothing moves
        optimizer.learning_rate = rate
        before = [keras.ops.convert_to_numpy(kernel).copy() for kernel in kernels]
        assert np.isfinite(model.train_on_batch(*batch(model)))
        after = [keras.ops.convert_to_numpy(kernel) for kernel in kernels]
        moved = [not np.array_equal(a, b) for a, b in zip(before, after, strict=True)]
        assert all(moved) == any(moved) == bool(rate)
        penalties.append(kss.penalty(model))
    assert penalties[0] != penalties[1]


def lively(model: keras.Model) -> keras.Model:
    """Without shortcuts, signals fade by √6 a layer with new weights: larger scales keep them."""
    if not any(isinstance(layer, L.Add) for layer in model.layers):
        for layer in model.layers:
            if isinstance(layer, L.BatchNormalization):
                layer.gamma.assign(layer.gamma * np.sqrt(6))
    return model


@pytest.mark.parametrize("name", names(QUICK))
def test_surgery_is_exact_and_its_result_is_stored(name: str, tmp_path: Path) -> None:
    model = lively(small(name))
    # Every third layer: where all are cut, hardly anything reaches the end of a deep network.
    sizes = random_plan(model, seed=1).sizes
    plan = kss.Plan({layer: sizes[layer] for layer in [*sizes][::3]})
    found = kss.verify(model, plan)
    assert found.passed, str(found)
    pruned = kss.prune(model, plan)
    assert kss.profile(pruned).multiply_adds < kss.profile(model).multiply_adds
    pruned.save(tmp_path / "pruned.keras")
    again = keras.models.load_model(tmp_path / "pruned.keras")
    images = batch(model)[0]
    for left, right in zip(outputs(pruned, images), outputs(again, images), strict=True):
        np.testing.assert_array_equal(left, right)
    assert difference(model, again, images) > 0
