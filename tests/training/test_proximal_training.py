"""`Proximal` together with what else optimizers and `fit` can do, on every backend."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from helpers_prox import numpy
from helpers_training import INNER, compiled, images, network
from keras import ops
from keras import optimizers as O

import keras_structsparse as kss
from keras_structsparse.training.callbacks.alpha_ramp import AlphaRamp

Array = Any

HERE = Path(__file__).parents[1]


def sgd(**options: Any) -> keras.optimizers.Optimizer:
    return kss.Proximal(O.SGD(0.1, momentum=0.9, **options))


def trained(optimizer: O.Optimizer, **options: Any) -> list[Array]:
    """The weights after four steps with a network of a convolution-normalisation pair."""
    keras.utils.set_random_seed(0)
    model = kss.attach(network(), kss.KernelSize(0.1))
    compiled(model, optimizer, **options).fit(
        *images(), epochs=2, batch_size=32, shuffle=False, verbose=0
    )
    return model.get_weights()


def distance(left: list[Array], right: list[Array]) -> float:
    return max(float(np.abs(a - b).max()) for a, b in zip(left, right, strict=True))


@pytest.fixture(scope="module")
def plain() -> list[Array]:
    weights = trained(sgd())
    assert distance(trained(sgd(nesterov=True)), weights) > 1e-3, "small changes show"
    return weights


COMPILED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "jit": ({}, {"jit_compile": True}),
    "several-steps-a-call-and-scaled-loss": ({"loss_scale_factor": 64.0}, {}),
}


@pytest.mark.parametrize("name", COMPILED)
def test_how_it_is_compiled_makes_no_difference(name: str, plain: list[Array]) -> None:
    inner, options = COMPILED[name]
    if keras.backend.backend() == "torch":
        options = {}  # Where torch has no such thing.
    elif inner:
        options = {"steps_per_execution": 2}
    assert distance(trained(sgd(**inner), **options), plain) < 1e-5


def test_half_precision_is_wrapped_and_sparse() -> None:
    keras.config.set_dtype_policy("mixed_float16")
    model = kss.attach(network(), kss.KernelSize(0.1))
    compiled(model, sgd()).fit(*images(), epochs=8, verbose=0)
    assert isinstance(model.optimizer, O.LossScaleOptimizer)
    assert min(kss.plan(model, tau=0).sizes["conv"]) == 0
    assert all(np.isfinite(weight).all() for weight in model.get_weights())


def regularized(value: Array) -> keras.Variable:
    variable = keras.Variable(value, dtype="float32")
    variable.regularizer = kss.KernelCount(0.5)
    return variable


def apply(optimizer: O.Optimizer, variable: keras.Variable, gradient: Array) -> None:
    gradients = [ops.convert_to_tensor(gradient)]
    if keras.backend.backend() != "jax":
        optimizer.apply(gradients, [variable])
        return
    # Loss scaling is stateless there.
    state = [v.value for v in optimizer.variables]
    (value,), state = optimizer.stateless_apply(state, gradients, [variable.value])
    variable.assign(value)
    for own, new in zip(optimizer.variables, state, strict=True):
        own.assign(new)


def test_steps_with_infinite_gradients_are_skipped_as_a_whole() -> None:
    start = np.ones((2, 3), "float32")
    variable = regularized(start)
    proximal = kss.Proximal(O.SGD(1.0), penalty_in_loss=False)
    scaled = O.LossScaleOptimizer(proximal, initial_scale=4.0)
    scaled.build([variable])
    for value, shrinks in ((np.inf, False), (0.0, True)):
        apply(scaled, variable, np.full_like(start, value))
        assert np.array_equal(numpy(variable), start) != shrinks
    np.testing.assert_allclose(numpy(variable), 1 - 0.5 / np.sqrt(2), rtol=1e-6)
    assert float(numpy(scaled.dynamic_scale)) == 2.0


CLIPS: dict[str, Callable[[Array], Array]] = {
    "clipnorm": lambda g: g * min(1.0, 0.1 / np.linalg.norm(g)),
    "clipvalue": lambda g: np.clip(g, -0.1, 0.1),
    "global_clipnorm": lambda g: g * min(1.0, 0.1 / np.linalg.norm(g)),
}


@pytest.mark.parametrize("name", CLIPS)
def test_the_gradient_of_the_mean_loss_is_clipped_and_not_the_penalty(name: str) -> None:
    start = np.array([[3.0, 0.1], [4.0, 0.1]], "float32")
    gradient = np.array([[1.0, -2.0], [0.0, 0.5]], "float32")
    variable = regularized(start)
    optimizer = kss.Proximal(O.SGD(1.0, **{name: 0.1}))
    optimizer.apply([ops.convert_to_tensor(gradient)], [variable])
    expected = numpy(kss.KernelCount(0.5).prox(start - CLIPS[name](gradient), 1.0))
    np.testing.assert_allclose(numpy(variable), expected, atol=1e-6)
    assert (expected == 0).any()
    assert np.abs(expected - numpy(kss.KernelCount(0.5).prox(start - gradient, 1.0))).max() > 0.1


def test_averages_are_those_of_the_sparse_weights() -> None:
    inner = O.SGD(0.25, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=3)
    variable = regularized(np.array([[3.0, 0.2], [4.0, 0.2]]))
    optimizer = kss.Proximal(inner, penalty_in_loss=False)
    values, direction = [], np.array([0.6, 0.8])
    for _ in range(3):
        optimizer.apply([ops.zeros((2, 2))], [variable])
        values.append(numpy(variable).copy())
    lengths = [5 - 0.125, 5 - 0.25, 5 - 0.375]
    average = 0.25 * lengths[0] + 0.25 * lengths[1] + 0.5 * lengths[2]
    np.testing.assert_allclose(values[1][:, 0], lengths[1] * direction, rtol=1e-6)
    np.testing.assert_allclose(values[2][:, 0], average * direction, rtol=1e-6)
    assert not values[2][:, 1].any(), "though its average was not zero before"
    assert values[0][:, 1].any()


@pytest.mark.parametrize("inner", [lambda: O.SGD(0.5), lambda: O.Adam(0.5)])
def test_constraints_hold_after_the_proximal_step(inner: Callable[[], Any]) -> None:
    """Beside zeros, which they keep. The control: without the constraint the kernel is longer."""
    lengths = []
    for constraint in (keras.constraints.MaxNorm(1.0), None):
        variable = regularized(np.array([[3.0, 0.01], [0.1, 0.01]]))
        variable.constraint = constraint
        optimizer = kss.Proximal(inner())
        optimizer.apply(
            [ops.convert_to_tensor(np.array([[0.1, 0.0], [-2.0, 0.0]], "float32"))], [variable]
        )
        lengths.append(np.linalg.norm(numpy(variable), axis=0))
    assert lengths[0][0] <= 1.0 + 1e-5 < lengths[1][0]
    assert lengths[0][1] == lengths[1][1] == 0.0


def test_alpha_may_change_with_every_batch() -> None:
    """Under a ramp that ends with the first epoch, little is lost; without it everything is."""
    alive = []
    for steps in (0, 8):
        keras.utils.set_random_seed(0)
        regularizer = kss.KernelSize(1.0)
        model = compiled(kss.attach(network(), regularizer), sgd())
        ramp = AlphaRamp([regularizer.alpha], steps)
        model.fit(*images(), epochs=1, batch_size=16, callbacks=[ramp], verbose=0)
        alive.append(sum(kss.plan(model, tau=0).sizes["conv"]))
        assert float(numpy(regularizer.alpha)) == 1.0
    assert alive[0] < alive[1]


IN_A_PROCESS = """
import json, sys
sys.path.insert(0, sys.argv[1])
import conftest, helpers_training
print(json.dumps([getattr(helpers_training, sys.argv[2])(path) for path in sys.argv[3:]]))
"""


def in_a_fresh_process(function: str, *paths: Path) -> Any:
    """What a function of helpers_training returns for each path.

    Not in this process: another test may have turned deterministic operations on, for good.
    """
    command = [sys.executable, "-c", IN_A_PROCESS, str(HERE), function, *map(str, paths)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def test_a_fresh_process_goes_on_bit_for_bit(tmp_path: Path) -> None:
    """Four epochs are two, a file, a new process, and two more."""
    paths = [tmp_path / f"{name}.keras" for name in INNER]
    whole = in_a_fresh_process("train_and_save", *paths)
    resumed = in_a_fresh_process("resume", *paths)
    for (half, end), (alpha, before, after) in zip(whole, resumed, strict=True):
        assert alpha == pytest.approx(0.07)
        assert before == half
        assert after == end != before
