"""Statistics of batch normalisations, estimated anew: exact ones, of what is read at inference."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import keras_structsparse as kss
from keras_structsparse.errors import ModelError

RNG = np.random.default_rng(0)
X = RNG.normal(1.0, 2.0, (12, 6, 6, 2))


def norm(name: str, **options: Any) -> keras.layers.BatchNormalization:
    return keras.layers.BatchNormalization(name=name, dtype="float64", **options)


def conv(name: str, **options: Any) -> keras.layers.Conv2D:
    return keras.layers.Conv2D(3, 3, padding="same", name=name, dtype="float64", **options)


def network() -> keras.Model:
    """A residual network in float64, with dropout."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 6, 2), dtype="float64")
    x = keras.layers.ReLU(dtype="float64")(norm("norm1")(conv("conv1")(inputs)))
    y = keras.layers.Dropout(0.5, dtype="float64")(x)
    y = norm("norm2")(conv("conv2", strides=1)(y))
    y = keras.layers.Add(name="sum", dtype="float64")([x, y])
    return keras.Model(inputs, norm("norm3")(y))


def numbers(variable: Any) -> Any:
    return np.asarray(keras.ops.convert_to_numpy(variable))


def statistics(model: keras.Model) -> dict[str, tuple[Any, Any]]:
    norms = [each for each in model.layers if isinstance(each, keras.layers.BatchNormalization)]
    return {n.name: (numbers(n.moving_mean), numbers(n.moving_variance)) for n in norms}


def received(model: keras.Model, name: str) -> Any:
    """What a normalisation reads at inference, (examples and places, channels)."""
    probe = keras.Model(model.inputs, model.get_layer(name).input)
    return numbers(probe([X], training=False)).reshape(-1, 3)


def test_every_normalisation_has_the_moments_of_what_it_receives() -> None:
    model = network()
    assert kss.reestimate_batch_norm(model, X) is model
    for name, (mean, variance) in statistics(model).items():
        rows = received(model, name)
        np.testing.assert_allclose(mean, rows.mean(0), rtol=1e-10)
        np.testing.assert_allclose(variance, rows.var(0), rtol=1e-10)
    for name in ("norm1", "norm2", "norm3"):
        rows = received(network(), name)
        assert abs(rows.mean(0)).max() > 1e-2, "the control: at first they had others"


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 14))
def test_the_size_of_batches_changes_nothing(batch_size: int) -> None:
    whole = statistics(kss.reestimate_batch_norm(network(), X))
    parts = statistics(kss.reestimate_batch_norm(network(), X, batch_size))
    for name, values in whole.items():
        np.testing.assert_allclose(parts[name], values, rtol=1e-10)
    fewer = statistics(kss.reestimate_batch_norm(network(), X[:7], batch_size))
    assert not np.allclose(fewer["norm1"], whole["norm1"], rtol=1e-3), "the control"


def test_nothing_but_the_statistics_changes() -> None:
    model, before = network(), network()
    kss.reestimate_batch_norm(model, X)
    for weight, old in zip(model.weights, before.weights, strict=True):
        same = np.array_equal(numbers(weight), numbers(old))
        assert same is not weight.name.startswith("moving"), weight.path


def test_constants_frozen_and_shared_normalisations_keep_theirs() -> None:
    keras.utils.set_random_seed(0)
    frozen, shared = norm("frozen"), norm("shared")
    frozen.trainable = False
    inputs = keras.Input((6, 6, 2), dtype="float64")
    x = norm("own")(conv("conv", use_bias=False)(inputs))
    x = shared(keras.layers.ReLU(dtype="float64")(shared(x)))
    model = keras.Model(inputs, frozen(x))
    layer = model.get_layer("conv")
    layer.kernel.assign(numbers(layer.kernel) * np.array([1.0, 0.0, 1.0]))
    model.get_layer("own").moving_mean.assign([5.0, 5.0, 5.0])
    found = statistics(kss.reestimate_batch_norm(model, X))
    mean, variance = found["own"]
    assert (mean[1], variance[1]) == (5.0, 1.0)
    assert 5.0 not in mean[[0, 2]]
    for name in ("frozen", "shared"):
        np.testing.assert_array_equal(found[name], ([0.0] * 3, [1.0] * 3))


def test_a_constant_stays_what_it_was() -> None:
    """With mean and variance of its own, which are both 0, it would become beta = 0."""
    model = network()
    kss.reestimate_batch_norm(model, X)
    kernel = model.get_layer("conv1").kernel
    kernel.assign(numbers(kernel) * np.array([1.0, 0.0, 1.0]))
    outputs = numbers(model.get_layer("norm1")(model.get_layer("conv1")(X)))[..., 1]
    kss.reestimate_batch_norm(model, X + 1.0)
    again = numbers(model.get_layer("norm1")(model.get_layer("conv1")(X)))[..., 1]
    np.testing.assert_array_equal(again, outputs)
    assert abs(outputs).max() > 1e-3


def test_inputs_may_be_several_and_models_nested() -> None:
    inner = keras.Sequential([keras.Input((3,), dtype="float64"), norm("inner")], name="nested")
    a, b = (keras.Input((3,), dtype="float64", name=name) for name in "ab")
    summed = keras.layers.Add(dtype="float64")([inner(a), norm("other", axis=1)(b)])
    model = keras.Model({"a": a, "b": b}, summed)
    data = {name: RNG.normal(size=(9, 3)) for name in "ab"}
    kss.reestimate_batch_norm(model, data, batch_size=4)
    other = model.get_layer("other")
    np.testing.assert_allclose(numbers(inner.layers[-1].moving_mean), data["a"].mean(0))
    np.testing.assert_allclose(numbers(other.moving_variance), data["b"].var(0))


def test_channels_may_come_first() -> None:
    inputs = keras.Input((3, 5), dtype="float64")
    model = keras.Model(inputs, norm("norm", axis=1)(inputs))
    data = RNG.normal(size=(4, 3, 5))
    kss.reestimate_batch_norm(model, data)
    np.testing.assert_allclose(numbers(model.layers[-1].moving_mean), data.mean((0, 2)))


@pytest.mark.parametrize("data", [X[:0], [X, X], [], np.array(1.0)])
def test_other_data_is_refused(data: Any) -> None:
    with pytest.raises(ValueError, match="data: expected arrays with the same number of examples"):
        kss.reestimate_batch_norm(network(), data)


def test_after_an_error_all_is_as_before() -> None:
    model = network()
    kernel = model.get_layer("conv2").kernel
    kernel.assign(np.full(kernel.shape, np.inf))
    with pytest.raises(ModelError, match="layer 'norm2': expected finite inputs"):
        kss.reestimate_batch_norm(model, X)
    np.testing.assert_array_equal(statistics(model)["norm1"], ([0.0] * 3, [1.0] * 3))
    with pytest.raises(ValueError, match="batch_size: expected a whole number >= 1"):
        kss.reestimate_batch_norm(model, X, batch_size=0)
