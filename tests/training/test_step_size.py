"""Step lengths: with the right one, every optimizer ends at the solution, and stays there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from helpers_prox import examples, numpy
from helpers_regression import Problem, group_lasso, nested_rings, train
from hypothesis import given
from hypothesis import strategies as st
from keras import optimizers as O

import keras_structsparse as kss
from keras_structsparse.training.optimizer import step_size

Make = Callable[[Any], keras.optimizers.Optimizer]

MADE: dict[str, tuple[float, Make]] = {
    "sgd": (2.0, O.SGD),
    "momentum": (0.2, lambda rate: O.SGD(rate, momentum=0.9)),
    "nesterov": (0.2, lambda rate: O.SGD(rate, momentum=0.9, nesterov=True)),
    "rmsprop": (0.05, O.RMSprop),
    "rmsprop-centered": (0.05, lambda rate: O.RMSprop(rate, centered=True)),
    "rmsprop-momentum": (0.01, lambda rate: O.RMSprop(rate, momentum=0.9)),
    "rmsprop-both": (0.01, lambda r: O.RMSprop(r, momentum=0.9, centered=True, epsilon=0.1)),
    "adagrad": (1.0, O.Adagrad),
    "adam": (0.1, O.Adam),
    "amsgrad": (0.1, lambda rate: O.Adam(rate, amsgrad=True)),
    "adamw": (0.1, lambda rate: O.AdamW(rate, weight_decay=0.0)),
    "adamax": (0.1, O.Adamax),
    "nadam": (0.1, O.Nadam),
    "lamb": (0.1, O.Lamb),
}
"""A good learning rate to start from, and the optimizer."""

ORDINARY = ("sgd", "momentum", "adam")

every = pytest.mark.parametrize(
    "name",
    [name if name in ORDINARY else pytest.param(name, marks=pytest.mark.slow) for name in MADE],
)

STILL = [name for name in MADE if name not in ("rmsprop-momentum", "rmsprop-both", "nadam")]
"""Where a constant gradient is followed exactly from the first step on. With momentum, RMSprop
adds up moves of different preconditioners while those settle; so does Nadam's correction."""


ROUNDING = 1e-5
"""With TensorFlow, Keras rounds factors such as 0.9 to float32."""


def solved(name: str, problem: Problem) -> Any:
    rate, make = MADE[name]
    steps = 500 if name in ORDINARY else 1500
    schedule = O.schedules.CosineDecay(rate, steps, alpha=0.01)
    return train(kss.Proximal(make(schedule)), steps, problem)


@every
def test_every_optimizer_solves_the_group_lasso(name: str) -> None:
    kernel = solved(name, group_lasso())
    assert group_lasso().residual(kernel) < 1e-6
    assert 0 < (~kernel.any(axis=0)).sum() < 8


@every
def test_every_optimizer_solves_nested_rings(name: str) -> None:
    kernel = solved(name, nested_rings())
    sizes = (numpy(kss.KernelSize(1.0).group_norms(kernel)) > 0).sum(axis=0)
    assert nested_rings().residual(kernel) < 1e-6
    assert len(set(sizes.tolist())) > 2, "kernels of several sizes"


@pytest.mark.parametrize("name", ["momentum", "adam"])
def test_the_check_sees_a_wrong_step_length(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plain learning rate under momentum, and Adam's own move with a mean step length."""
    right = step_size.move

    def wrong(
        optimizer: Any, rate: Any, step: Any, before: Any, variable: Any, plain: Any
    ) -> step_size.Move:
        length = right(optimizer, rate, step, before, variable, plain).step
        length = rate if name == "momentum" else length
        return step_size.Move(keras.ops.convert_to_tensor(variable), length)

    monkeypatch.setattr("keras_structsparse.training.optimizer.proximal.move", wrong)
    assert group_lasso().residual(solved(name, group_lasso())) > 1e-3


def drift(make: Make, rates: list[float]) -> float:
    """How far a solution moves: the penalty's pull is exactly that of a constant gradient."""
    keras.config.set_floatx("float64")
    start = np.random.default_rng(0).normal(size=(5, 3))
    kernel = keras.Variable(start, dtype="float64")
    kernel.regularizer = kss.KernelCount(0.125)
    optimizer = kss.Proximal(make(rates[0]), penalty_in_loss=False)
    gradient = keras.ops.convert_to_tensor(-0.125 * start / np.linalg.norm(start, axis=0))
    for rate in rates:
        optimizer.learning_rate = rate
        optimizer.apply([gradient], [kernel])
    return float(np.abs(numpy(kernel) - start).max())


@examples(5)
@pytest.mark.parametrize("name", STILL)
@given(rates=st.lists(st.floats(0.001, 0.5), min_size=1, max_size=8))
def test_a_solution_stays_whatever_the_learning_rate_does(name: str, rates: list[float]) -> None:
    assert drift(MADE[name][1], rates) < ROUNDING


def test_with_the_step_of_a_constant_rate_it_would_not(monkeypatch: pytest.MonkeyPatch) -> None:
    def constant_rate(optimizer: Any, past: Any, rate: Any) -> Any:
        return rate, rate / (1 - optimizer.momentum)

    rates = [0.01, 0.1, 0.1, 0.02]
    for name in ("momentum", "nesterov"):
        assert drift(MADE[name][1], rates) < ROUNDING
        with monkeypatch.context() as patch:
            patch.setattr("keras_structsparse.training.optimizer.proximal.travel", constant_rate)
            assert drift(MADE[name][1], rates) > 1e-2


def test_without_proximal_no_kernel_is_exactly_zero() -> None:
    kernel = train(O.SGD(0.1, momentum=0.9), 300, group_lasso())
    assert kernel.any(axis=0).all()


@pytest.mark.parametrize("kind", step_size.REFUSED)
def test_optimizers_without_a_step_length_are_refused_with_the_reason(kind: Any) -> None:
    inner = (O.SGD(),) if kind is O.LossScaleOptimizer else ()
    reason = step_size.REFUSED[kind]
    with pytest.raises(ValueError, match=rf"one of SGD, .*Received: {kind.__name__}; {reason}"):
        kss.Proximal(kind(*inner))


def test_a_subclass_is_another_optimizer() -> None:
    class Own(O.SGD):
        pass

    with pytest.raises(ValueError, match=r"Received: Own; its step length is not known"):
        kss.Proximal(Own())
