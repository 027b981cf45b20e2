"""A batch normalisation behind activation and pooling: what the pair leaves as it is, in float64.

The normalisation undoes a positive factor of kernel and bias where everything between commutes with
it: ReLU, LeakyReLU, PReLU and poolings do, ReLU6 and GELU do not. In both cases gamma is the scale
of the channel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from helpers_models import (
    assert_same_function,
    difference,
    random_batch,
    randomize,
    use_float64,
)
from keras import layers as L

import keras_structsparse as kss
from keras_structsparse.graph.prunable_layers import PrunableLayers

Array = Any
Body = Callable[[], Any]

HOMOGENEOUS: dict[str, Body] = {
    "relu": L.ReLU,
    "leaky": L.LeakyReLU,
    "prelu": lambda: L.PReLU(shared_axes=[1, 2]),
    "max": lambda: L.MaxPooling2D(2),
    "average": lambda: L.AveragePooling2D(3, 2, padding="same"),
    "global": lambda: L.GlobalMaxPooling2D(keepdims=True),
    "relu and pooling": lambda: keras.Sequential([L.ReLU(), L.MaxPooling2D(2)]),
    "operation": lambda: keras.ops.relu,
}
OTHERS: dict[str, Body] = {
    "relu6": lambda: L.Activation("relu6"),
    "gelu": lambda: L.Activation("gelu"),
    "elu": L.ELU,
    "tanh": lambda: L.Activation("tanh"),
}


def network(between: Body) -> keras.Model:
    """Convolution, something, normalisation without epsilon, and a reader."""
    inputs = keras.Input((9, 9, 2))
    x = between()(L.Conv2D(6, 3, name="conv")(inputs))
    x = L.BatchNormalization(epsilon=0.0, name="norm")(x)
    x = L.Conv2D(3, 3, padding="same", name="reader")(L.ReLU()(x))
    model = randomize(keras.Model(inputs, x))
    model.get_layer("norm").gamma.assign([0.5, -0.7, 1.0, 0.3, -0.1, 0.9])
    return model


def in_training(model: keras.Model, inputs: Array) -> Array:
    return keras.ops.convert_to_numpy(model(inputs, training=True))


def rescaled(model: keras.Model, factors: Array) -> Array:
    """How far the outputs in training move when kernels and biases are multiplied."""
    inputs = random_batch(model)
    before, layer = in_training(model, inputs), model.get_layer("conv")
    layer.kernel.assign(layer.kernel * factors)
    layer.bias.assign(layer.bias * factors)
    return np.abs(in_training(model, inputs) - before).max() / np.abs(before).max()


@pytest.mark.parametrize("name", HOMOGENEOUS)
def test_a_positive_factor_of_kernel_and_bias_is_undone(name: str) -> None:
    use_float64()
    model, factors = network(HOMOGENEOUS[name]), np.random.default_rng(1).random(6) + 0.5
    found = PrunableLayers.of(model)
    assert found.batch_norms["conv"].name == "norm"
    assert rescaled(model, factors) < 1e-10
    # The control: signs, which no normalisation undoes behind these, but behind an average.
    assert name == "average" or rescaled(model, -factors) > 1e-3


@pytest.mark.parametrize("name", OTHERS)
def test_behind_other_activations_factors_are_not_undone(name: str) -> None:
    use_float64()
    model = network(OTHERS[name])
    assert PrunableLayers.of(model).batch_norms["conv"].name == "norm"
    assert rescaled(model, np.full(6, 3.0)) > 1e-3


@pytest.mark.parametrize("name", [*HOMOGENEOUS, *OTHERS])
@pytest.mark.parametrize("kind", [kss.KernelCount, kss.KernelSize])
def test_the_penalty_is_that_of_the_scale_of_the_channels(name: str, kind: Any) -> None:
    use_float64()
    model = network({**HOMOGENEOUS, **OTHERS}[name])
    kss.attach(model, kind(1.0), layers="conv")
    layer = model.get_layer("conv")
    before = float(layer.kernel.regularizer(layer.kernel))
    rescaled(model, np.arange(1.0, 7.0))
    np.testing.assert_allclose(float(layer.kernel.regularizer(layer.kernel)), before)
    gamma = keras.ops.convert_to_numpy(model.get_layer("norm").gamma)
    if kind is kss.KernelCount:
        np.testing.assert_allclose(before, np.abs(gamma).sum())


@pytest.mark.parametrize("name", [*HOMOGENEOUS, *OTHERS])
def test_a_step_on_whole_kernels_shrinks_gammas_alone(name: str) -> None:
    """Exact behind any activation: the penalty does not depend on kernel and bias."""
    use_float64()
    model = network({**HOMOGENEOUS, **OTHERS}[name])
    kss.attach(model, kss.KernelCount(0.2), layers="conv")
    layer, norm = model.get_layer("conv"), model.get_layer("norm")
    kernel, gamma = map(keras.ops.convert_to_numpy, (layer.kernel, norm.gamma))
    found = layer.kernel.regularizer.pair_prox(kernel, gamma, 1.0)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(found[0]), kernel, rtol=1e-12)
    shrunk = np.sign(gamma) * np.maximum(np.abs(gamma) - 0.2, 0.0)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(found[1]), shrunk, atol=1e-12)


@pytest.mark.parametrize("name", [*HOMOGENEOUS, *OTHERS])
def test_channels_with_a_gamma_of_zero_are_removed_exactly(name: str) -> None:
    use_float64()
    model = network({**HOMOGENEOUS, **OTHERS}[name])
    norm = model.get_layer("norm")
    norm.gamma.assign([0.5, 0.0, 1.0, 0.0, -0.1, 0.0])
    plan = kss.plan(model, tau=0.0)
    assert plan.sizes["conv"] == (3, 0, 3, 0, 3, 0)
    pruned, inputs = kss.prune(model, plan), random_batch(model)
    assert pruned.get_layer("conv").filters <= 4
    assert_same_function(model, kss.masked(model, plan), inputs)
    assert_same_function(model, pruned, inputs)
    norm.gamma.assign([0.5, 0.0, 1.0, 0.0, 0.1, 0.0])
    assert difference(model, pruned, inputs) > 1e-6, "the control does not fail"


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_an_unknown_activation_is_named_in_a_warning() -> None:
    def own(x: Any) -> Any:
        return keras.ops.relu(x)

    inputs = keras.Input((9, 9, 2))
    x = L.BatchNormalization(name="norm")(L.Conv2D(4, 3, activation=own, name="conv")(inputs))
    model = keras.Model(inputs, x)
    with pytest.warns(UserWarning, match="Layer 'conv': the batch normalisation 'norm'"):
        kss.attach(model, kss.KernelSize(1e-3))
    assert kss.regularizers_of(model)["conv"].scale is None


@pytest.mark.parametrize("between", ["relu", "pooling"])
def test_kernels_vanish_and_the_accuracy_stays(between: str) -> None:
    """Without the pair the penalty only makes numbers small: nothing vanishes."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    labels = np.arange(128) % 2
    images = rng.normal(size=(128, 6, 6, 1)) + 2.0 * labels[:, None, None, None]
    inputs = x = keras.Input((6, 6, 1))
    x = L.Conv2D(8, 3, padding="same", activation="relu", name="conv")(x)
    x = L.MaxPooling2D(2)(x) if between == "pooling" else x
    x = L.GlobalAveragePooling2D()(L.BatchNormalization(momentum=0.9)(x))
    model = keras.Model(inputs, L.Dense(2, activation="softmax")(x))
    kss.attach(model, kss.KernelSize(0.1))
    model.compile(
        kss.Proximal(keras.optimizers.SGD(0.1, momentum=0.9)),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    model.fit(images, labels, epochs=12, batch_size=32, verbose=0)
    pruned = kss.prune(model, tau=1e-3)
    share = kss.profile(pruned).multiply_adds / kss.profile(model).multiply_adds
    found = np.argmax(pruned.predict(images, verbose=0), -1)
    assert share < 0.5
    assert np.mean(found == labels) > 0.9
