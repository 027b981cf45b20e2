"""Recipes as data: schedules, weight decay, and what is refused."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_structsparse import models
from keras_structsparse.data.augmentation import Augmentation
from keras_structsparse.training.recipes import RECIPES, DataRecipe

DECAYING = DataRecipe(epochs=3, batch_size=4, weight_decay=0.01, drops=(0.5,))


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_name_a_base_and_a_source(name: str) -> None:
    recipe = RECIPES[name]
    assert recipe.model in models.BASES
    assert recipe.source
    with pytest.raises(FrozenInstanceError):
        recipe.epochs = 1  # type: ignore[misc]


def test_the_schedule_of_imagenet_falls_after_30_60_and_80_epochs() -> None:
    recipe = RECIPES["imagenet"]
    each = recipe.steps(1_281_167) // recipe.epochs
    rates = [
        float(recipe.schedule(recipe.steps(1_281_167))(e * each + each // 2)) for e in range(90)
    ]
    falls = [e for e in range(1, 90) if rates[e] < rates[e - 1]]
    assert falls == [30, 60, 80]
    assert rates[-1] == pytest.approx(1e-4)


def test_cifar10_is_trained_for_64000_steps() -> None:
    assert RECIPES["cifar10"].steps(45_000) == pytest.approx(64_000, rel=0.003)


@given(st.integers(1, 5), st.integers(1, 200))
def test_without_drops_the_rate_falls_to_zero(epochs: int, examples: int) -> None:
    recipe = DataRecipe(epochs=epochs, batch_size=7, learning_rate=0.3)
    schedule, steps = recipe.schedule(recipe.steps(examples)), recipe.steps(examples)
    assert float(schedule(0)) == pytest.approx(0.3)
    assert float(schedule(steps)) == pytest.approx(0.0, abs=1e-7)


def test_the_decay_is_that_of_a_penalty_in_the_gradient() -> None:
    """A weight without a loss shrinks as fast as by weight_decay * w as a part of its gradient."""
    recipe = DataRecipe(
        epochs=1, batch_size=1, weight_decay=1e-2, learning_rate=0.01, drops=(0.9999,)
    )
    steps = 3000
    optimizer, weight = recipe.sgd(steps), keras.Variable([1.0], name="kernel")
    optimizer.build([weight])
    expected, speed = 1.0, 0.0
    for _ in range(steps // 3):
        optimizer.apply([keras.ops.zeros(1)])
        speed = 0.9 * speed - 0.01 * 1e-2 * expected
        expected += speed
    assert np.log(float(weight[0])) == pytest.approx(np.log(expected), rel=0.02)
    assert expected < 0.5


@pytest.mark.parametrize("name", ["kernel", "bias", "gamma", "beta"])
def test_only_kernels_decay(name: str) -> None:
    optimizer, weight = DECAYING.sgd(100), keras.Variable([1.0], name=name)
    optimizer.build([weight])
    optimizer.apply([keras.ops.zeros(1)])
    assert (float(weight[0]) < 1) == (name == "kernel")


@pytest.mark.parametrize("beside", [True, False])
@pytest.mark.parametrize("penalised", [True, False])
def test_the_decay_can_be_switched_off_beside_a_penalty(beside: bool, penalised: bool) -> None:
    recipe = replace(DECAYING, decay_beside_penalty=beside).beside(penalised)
    assert recipe.weight_decay == (0.01 if beside or not penalised else 0.0)
    assert bool(recipe.sgd(10).weight_decay) == bool(recipe.weight_decay)
    assert isinstance(recipe, DataRecipe)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"drops": (0.5, 0.2)}, r"drops: .*Received: \(0.5, 0.2\)"),
        ({"drops": (1.0,)}, r"drops: expected rising numbers"),
        ({"weight_decay": -1e-3}, r"weight_decay: .*Received: -0.001"),
        ({"augmentation": Augmentation(area=(0.1, 1.0))}, r"side: expected a number"),
        ({"epochs": 0}, r"epochs: expected a whole number"),
    ],
)
def test_bad_recipes_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DataRecipe(**change)


def test_numbers_of_numpy_can_be_trained_with() -> None:
    recipe = DataRecipe(epochs=1, momentum=np.float64(0.5))
    assert type(recipe.sgd(64).momentum) is float
    assert recipe.sgd(64).momentum == 0.5
