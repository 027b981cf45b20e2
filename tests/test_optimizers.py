from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as L

import keras_structsparse as kss
from keras_structsparse.moves import MOVES, Move

Array = Any
ALPHA = 0.15


def regression() -> tuple[Array, Array]:
    """Targets that depend on few outputs strongly and on the others weakly."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(64, 6))
    truth = rng.normal(size=(6, 8)) * np.array([2, 2, 1, 1, 0.5, 0.1, 0.05, 0.02])
    return inputs, inputs @ truth + 0.05 * rng.normal(size=(64, 8))


def train(optimizer: keras.optimizers.Optimizer, steps: int, regularizer: Any = None) -> Array:
    """Full-batch training of one linear layer; the kernel it ends with."""
    keras.utils.set_random_seed(0)
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    regularizer = kss.KernelCount(ALPHA) if regularizer is None else regularizer
    layer = L.Dense(8, use_bias=False, kernel_regularizer=regularizer)
    model = keras.Sequential([keras.Input((6,)), layer])
    model.compile(optimizer, "mse")
    inputs, targets = regression()
    data = (np.tile(inputs, (steps, 1)), np.tile(targets, (steps, 1)))
    model.fit(*data, batch_size=64, shuffle=False, verbose=0)
    return keras.ops.convert_to_numpy(layer.kernel)


def kkt_residual(kernel: Array, alpha: float = ALPHA) -> float:
    """How far a kernel is from satisfying the optimality conditions of the group lasso."""
    inputs, targets = regression()
    gradient = 2 * inputs.T @ (inputs @ kernel - targets) / targets.size
    norms = np.linalg.norm(kernel, axis=0)
    alive = norms > 0
    inward = alpha * kernel[:, alive] / norms[alive]
    living = np.abs(gradient[:, alive] + inward).max(initial=0.0)
    dead = (np.linalg.norm(gradient[:, ~alive], axis=0) - alpha).max(initial=0.0)
    return float(max(living, dead))


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: keras.optimizers.SGD(2.0),
        lambda: keras.optimizers.SGD(0.1, momentum=0.9),
        lambda: keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True),
        lambda: keras.optimizers.SGD(
            keras.optimizers.schedules.CosineDecay(0.3, 300, alpha=0.3), momentum=0.9
        ),
    ],
    ids=["plain", "momentum", "nesterov", "schedule"],
)
def test_sgd_reaches_the_solution_of_the_group_lasso(optimizer: Any) -> None:
    kernel = train(kss.Proximal(optimizer()), 800)
    dead = ~kernel.any(axis=0)
    assert kkt_residual(kernel) < 1e-6
    assert 0 < dead.sum() < 8


def test_the_check_sees_a_wrong_step_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        MOVES,
        keras.optimizers.SGD,
        lambda optimizer, rate, before, variable: Move(keras.ops.convert_to_tensor(variable), rate),
    )
    kernel = train(kss.Proximal(keras.optimizers.SGD(0.1, momentum=0.9)), 800)
    assert kkt_residual(kernel) > 1e-2


def test_without_proximal_no_kernel_is_exactly_zero() -> None:
    kernel = train(keras.optimizers.SGD(0.1, momentum=0.9), 800)
    assert kernel.any(axis=0).all()


@pytest.mark.parametrize(
    "kind",
    [keras.optimizers.Adam, pytest.param(keras.optimizers.AdamW, marks=pytest.mark.slow)],
)
def test_adam_reaches_the_solution_of_the_group_lasso(kind: Any) -> None:
    rate = keras.optimizers.schedules.CosineDecay(0.1, 3000)
    options = {"weight_decay": 0.0} if kind is keras.optimizers.AdamW else {}
    kernel = train(kss.Proximal(kind(rate, **options)), 3000)
    assert kkt_residual(kernel) < 1e-4
    assert 0 < (~kernel.any(axis=0)).sum() < 8


def network(regularizer: Any = None) -> keras.Model:
    inputs = keras.Input((6, 6, 2))
    x = L.Conv2D(8, 3, padding="same", name="conv", kernel_regularizer=regularizer)(inputs)
    x = L.ReLU()(L.BatchNormalization(name="norm")(x))
    x = L.Dense(3, activation="softmax", name="classes")(L.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, x)


def images() -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(64, 6, 6, 2)).astype("float32"), rng.integers(0, 3, 64)


def compiled(model: keras.Model, optimizer: keras.optimizers.Optimizer) -> keras.Model:
    model.compile(optimizer, "sparse_categorical_crossentropy")
    return model


def proximal(rate: float = 0.1) -> kss.Proximal:
    return kss.Proximal(keras.optimizers.SGD(rate, momentum=0.9))


def test_paired_kernels_die_through_gamma() -> None:
    model = kss.attach(network(), kss.KernelSize(0.05))
    compiled(model, proximal()).fit(*images(), epochs=20, batch_size=32, verbose=0)
    gamma = keras.ops.convert_to_numpy(model.get_layer("norm").gamma)
    kernel = keras.ops.convert_to_numpy(model.get_layer("conv").kernel)
    sizes = np.array(kss.plan(model, tau=0).sizes["conv"])
    assert (gamma == 0).any()
    assert np.array_equal(gamma == 0, sizes == 0)
    assert kernel.any(axis=(0, 1, 2)).all(), "a dead kernel keeps its length"


def test_alpha_zero_trains_like_the_wrapped_optimizer() -> None:
    trained = []
    for optimizer in (keras.optimizers.SGD(0.1, momentum=0.9), proximal()):
        keras.utils.set_random_seed(0)
        model = kss.attach(network(), kss.KernelSize(0.0))
        compiled(model, optimizer).fit(*images(), epochs=3, shuffle=False, verbose=0)
        trained.append(model.get_weights())
    for left, right in zip(*trained, strict=True):
        np.testing.assert_allclose(left, right, atol=1e-5)


def test_alpha_changes_without_compiling_again() -> None:
    regularizer = kss.KernelSize(0.0)
    model = kss.attach(network(), regularizer)
    compiled(model, proximal()).fit(*images(), epochs=1, verbose=0)
    assert min(kss.plan(model, tau=0).sizes["conv"]) == 3
    regularizer.alpha.assign(10.0)
    model.fit(*images(), epochs=3, verbose=0)
    assert max(kss.plan(model, tau=0).sizes["conv"]) == 0


def test_gradients_lose_exactly_the_penalty(monkeypatch: pytest.MonkeyPatch) -> None:
    """One plain step with a penalty whose proximal step is switched off is one without."""
    monkeypatch.setattr(kss.Proximal, "_proximal_step", lambda self, targets, before, rate: None)
    kernels = []
    for alpha in (0.0, 0.5):
        keras.utils.set_random_seed(0)
        model = kss.attach(network(), kss.KernelSize(alpha))
        compiled(model, proximal()).fit(*images(), epochs=1, shuffle=False, verbose=0)
        kernels.append(keras.ops.convert_to_numpy(model.get_layer("conv").kernel))
    np.testing.assert_allclose(kernels[0], kernels[1], atol=1e-6)


def test_a_loop_of_ones_own_may_leave_the_penalty_out() -> None:
    variable = keras.Variable(np.ones((2, 3)), dtype="float64")
    variable.regularizer = kss.KernelCount(0.5)
    optimizer = kss.Proximal(keras.optimizers.SGD(1.0), penalty_in_loss=False)
    optimizer.apply([keras.ops.zeros((2, 3), dtype="float64")], [variable])
    shrunk = 1 - 0.5 / np.sqrt(2)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(variable), shrunk)


def test_gathered_gradients_take_one_proximal_step() -> None:
    inner = keras.optimizers.SGD(1.0, gradient_accumulation_steps=4)
    variable = keras.Variable(np.ones((2, 3)), dtype="float64")
    variable.regularizer = kss.KernelCount(0.5)
    optimizer = kss.Proximal(inner, penalty_in_loss=False)
    for _ in range(4):
        optimizer.apply([keras.ops.zeros((2, 3), dtype="float64")], [variable])
    np.testing.assert_allclose(keras.ops.convert_to_numpy(variable), 1 - 0.5 / np.sqrt(2))


def test_saves_loads_and_goes_on_bit_for_bit(tmp_path: Path) -> None:
    model = kss.attach(network(), kss.KernelSize(0.02))
    compiled(model, proximal()).fit(*images(), epochs=3, shuffle=False, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(loaded.optimizer, kss.Proximal)
    for each in (model, loaded):
        each.fit(*images(), epochs=2, shuffle=False, verbose=0)
    for left, right in zip(model.get_weights(), loaded.get_weights(), strict=True):
        assert np.array_equal(left, right)


def test_learning_rate_and_iterations_are_those_of_the_wrapped_optimizer() -> None:
    model = kss.attach(network(), kss.KernelSize(0.02))
    compiled(model, proximal()).fit(*images(), epochs=2, batch_size=32, verbose=0)
    assert int(model.optimizer.iterations) == 4
    model.optimizer.learning_rate = 0.5
    assert float(model.optimizer.optimizer.learning_rate) == 0.5


def test_nothing_to_do_is_an_error() -> None:
    model = compiled(network(), proximal())
    with pytest.raises(ValueError, match="none of the variables carries a regularizer"):
        model.fit(*images(), verbose=0)


def test_a_frozen_normalisation_is_an_error() -> None:
    model = kss.attach(network(), kss.KernelSize(0.02))
    model.get_layer("norm").trainable = False
    with pytest.raises(ValueError, match=r"expected one trainable variable 'norm/gamma'"):
        compiled(model, proximal()).fit(*images(), verbose=0)


@pytest.mark.parametrize(
    ("optimizer", "error", "message"),
    [("sgd", TypeError, "expected a Keras optimizer"), (None, ValueError, "step length is known")],
)
def test_bad_optimizers(optimizer: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        kss.Proximal(optimizer or keras.optimizers.Lion())
