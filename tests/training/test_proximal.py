from __future__ import annotations

import keras
import numpy as np
import pytest
from helpers_training import compiled, images, network

import keras_structsparse as kss


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


def test_only_the_proximal_step_knows_the_penalty(monkeypatch: pytest.MonkeyPatch) -> None:
    """One plain step with a penalty whose proximal step is switched off is one without."""
    monkeypatch.setattr(kss.Proximal, "_proximal_step", lambda *arguments: [])
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


def test_learning_rate_and_iterations_are_those_of_the_wrapped_optimizer() -> None:
    model = kss.attach(network(), kss.KernelSize(0.02))
    compiled(model, proximal()).fit(*images(), epochs=2, batch_size=32, verbose=0)
    assert int(model.optimizer.iterations) == 4
    model.optimizer.learning_rate = 0.5
    assert float(model.optimizer.optimizer.learning_rate) == 0.5


def test_nothing_to_do_is_an_error() -> None:
    model = compiled(network(), proximal())
    with pytest.raises(ValueError, match="expected a variable with a regularizer"):
        model.fit(*images(), verbose=0)


def test_a_gamma_that_the_optimizer_does_not_train_is_an_error() -> None:
    model = kss.attach(network(), kss.KernelSize(0.02))
    others = [v for v in model.trainable_variables if v.path != "norm/gamma"]
    with pytest.raises(ValueError, match=r"expected one trainable variable 'norm/gamma'"):
        proximal().apply([keras.ops.zeros(v.shape) for v in others], others)


def test_what_is_no_optimizer_is_refused() -> None:
    with pytest.raises(TypeError, match="expected a Keras optimizer"):
        kss.Proximal("sgd")
