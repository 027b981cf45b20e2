"""KernelCount and KernelSize as Keras regularizers: values, steps, settings, saving."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from helpers_prox import (
    Array,
    assert_prox_minimises,
    gradient,
    naive_norms,
    numpy,
    random_kernel,
)

from keras_structsparse.regularizers import (
    KernelCount,
    KernelSize,
    effective_kernels,
    norm_factors,
)

SHAPE = (4, 4, 2, 5)

every = pytest.mark.parametrize(
    "regularizer",
    [
        *(KernelCount(0.25, norm=norm) for norm in norm_factors.NORMS),
        *(KernelSize(0.25, norm=norm) for norm in norm_factors.NORMS),
        KernelSize(0.25, groups="ring"),
        KernelCount(0.125, power=2),
        KernelSize(0.125, power=2, norm="group_normalized"),
        KernelCount(0.25, reweight=0.5),
        KernelSize(0.25, reweight=0.5, norm="linf"),
        KernelSize(0.125, reweight=0.5, power=2),
        KernelSize(0.25, weight=0.5),
    ],
    ids=lambda r: "-".join(str(x) for x in (type(r).__name__, *r.get_config().values())),
)


def naive_penalty(r: Any, at: Array) -> Callable[[Array], float]:
    """The penalty of equations (13), (22), (32), (33), with the group weights of `at`."""
    norms = naive_norms(at, r.groups, r.norm)
    scale = r.reweight * norms[-1].mean()
    weights = scale / (norms + scale) if r.reweight else 1.0

    def penalty(kernel: Array) -> float:
        sums = (weights * naive_norms(kernel, r.groups, r.norm)).sum(axis=0)
        sums = sums.sum(keepdims=True) if isinstance(r, KernelCount) else sums
        return float(r.get_config()["alpha"] * r.weight * (sums**r.power).sum())

    return penalty


@every
def test_the_value_follows_the_equations(regularizer: Any) -> None:
    kernel = random_kernel(SHAPE, dead=0.2)
    value = float(regularizer(kernel))
    np.testing.assert_allclose(value, naive_penalty(regularizer, kernel)(kernel), rtol=1e-12)


@every
def test_the_subgradient_is_that_of_the_value(regularizer: Any) -> None:
    kernel = random_kernel(SHAPE, dead=0.2)
    closed = numpy(regularizer.subgradient(kernel))
    (automatic,) = gradient(regularizer, kernel)
    np.testing.assert_allclose(closed, automatic, rtol=1e-11, atol=1e-13)
    assert closed.any()


@every
def test_the_prox_is_the_minimum(regularizer: Any) -> None:
    kernel = random_kernel(SHAPE)
    step = 0.5
    penalty = naive_penalty(regularizer, kernel)
    z = regularizer.prox(kernel, step)
    assert_prox_minimises(z, kernel, lambda k: step * penalty(k))
    with pytest.raises(AssertionError, match="can be lowered"):
        assert_prox_minimises(0.99 * z, kernel, lambda k: step * penalty(k))


@every
def test_the_pair_prox_acts_on_the_effective_kernel(regularizer: Any) -> None:
    kernel, gamma = random_kernel(SHAPE), np.array([1.0, -2.0, 0.5, 0.0, -0.1])
    effective = effective_kernels.effective_kernel(kernel, gamma)
    after = effective_kernels.effective_kernel(*regularizer.pair_prox(kernel, gamma, 0.5))
    expected = numpy(regularizer.prox(effective, 0.5))
    np.testing.assert_allclose(numpy(after), expected, atol=1e-13)


@every
def test_a_bound_scale_moves_the_penalty_to_the_effective_kernel(regularizer: Any) -> None:
    kernel, gamma = random_kernel(SHAPE), np.array([1.0, -2.0, 0.5, 0.0, -0.1])
    paired = regularizer.bound(regularizer.weight, "bn/gamma")
    paired.bind({"bn/gamma": gamma})
    effective = effective_kernels.effective_kernel(kernel, gamma)
    np.testing.assert_allclose(float(paired(kernel)), float(regularizer(effective)), rtol=1e-12)

    def value(k: Any, g: Any) -> Any:
        paired.bind({"bn/gamma": g})
        return paired(k)

    closed = paired.pair_subgradient(kernel, gamma)
    for mine, automatic in zip(closed, gradient(value, kernel, gamma), strict=True):
        np.testing.assert_allclose(numpy(mine), automatic, rtol=1e-10, atol=1e-12)
    paired.bind({"bn/gamma": gamma})
    np.testing.assert_array_equal(numpy(paired.subgradient(kernel)), numpy(closed[0]))


@every
def test_the_config_round_trip(regularizer: Any) -> None:
    config = regularizer.get_config()
    again = type(regularizer).from_config(config)
    assert again.get_config() == config
    serialized = keras.regularizers.serialize(regularizer)
    assert serialized["registered_name"] == f"keras_structsparse>{type(regularizer).__name__}"
    assert keras.regularizers.deserialize(serialized).get_config() == config


@pytest.mark.parametrize("make", [KernelCount, KernelSize])
def test_a_scale_that_is_not_bound_says_what_to_do(make: Any) -> None:
    r = make(scale="bn/gamma")
    for call in (r, r.subgradient):
        with pytest.raises(RuntimeError, match=r"'bn/gamma'.*kss\.attach.*kss\.Proximal"):
            call(np.ones(SHAPE))
    assert make.from_config(r.get_config()).scale == "bn/gamma"


@pytest.mark.parametrize("make", [KernelCount, KernelSize])
def test_copies_share_alpha_and_nothing_else(make: Any) -> None:
    r = make(0.25, norm="linf", power=2, reweight=0.5)
    twin = r.bound(3.0, "bn/gamma")
    twin.bind({"bn/gamma": np.ones(5)})
    assert type(twin) is make
    assert twin.alpha is r.alpha
    assert {**r.get_config(), "weight": 3.0, "scale": "bn/gamma"} == twin.get_config()
    assert (r.weight, r.scale) == (1.0, None)
    with pytest.raises(RuntimeError, match="does not hold"):
        twin.bound(1.0, "other/gamma")(np.ones(SHAPE))


def test_alpha_can_change_and_is_saved_as_it_is() -> None:
    r = KernelSize(1e-3)
    kernel = random_kernel(SHAPE)
    before = float(r(kernel))
    r.alpha.assign(2e-3)
    np.testing.assert_allclose(float(r(kernel)), 2 * before)
    assert r.get_config()["alpha"] == 0.002
    assert not r.alpha.trainable


@pytest.mark.skipif(
    keras.backend.backend() == "jax",
    reason="the JAX trainer compiles variables that the model does not track as constants",
)
def test_alpha_changes_inside_a_compiled_training_step() -> None:
    r = KernelSize(0.0)
    layer = keras.layers.Conv2D(2, 3, kernel_regularizer=r, kernel_initializer="ones")
    model = keras.Sequential([keras.Input((8, 8, 1)), layer, keras.layers.Flatten()])
    model.compile("sgd", loss=lambda y, p: 0.0 * keras.ops.sum(p, axis=-1))
    model.optimizer.learning_rate = 0.0
    x, y = np.ones((4, 8, 8, 1), "float32"), np.zeros((4, 1), "float32")
    losses = []
    for alpha in (0.0, 0.5):
        r.alpha.assign(alpha)
        losses.append(model.train_on_batch(x, y))
    np.testing.assert_allclose(losses, [0.0, 0.5 * 2 * sum(np.sqrt([5, 8, 9]))], rtol=1e-5)


@pytest.mark.parametrize("make", [KernelCount, KernelSize])
def test_a_model_saves_and_loads_with_its_penalty(make: Any, tmp_path: Path) -> None:
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, kernel_regularizer=make(1e-2, norm="group_scaled"))(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2, kernel_regularizer=make(0.5))(x))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    losses = [float(numpy(loss)) for loss in model.losses]
    kernels = [layer.kernel for layer in model.layers[1:]]
    penalties = [make(1e-2, norm="group_scaled")(kernels[0]), make(0.5)(kernels[1])]
    expected = [float(numpy(penalty)) for penalty in penalties]
    np.testing.assert_allclose(losses, expected, rtol=1e-6)
    np.testing.assert_allclose([float(numpy(loss)) for loss in loaded.losses], losses)
    assert len(model.weights) == 4  # alpha is no weight of the model


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@every
def test_half_precision_gives_finite_float32_values(regularizer: Any, dtype: str) -> None:
    kernel = keras.ops.cast(random_kernel(SHAPE, dead=0.5), dtype)
    gamma = keras.ops.ones(5)
    value = regularizer(kernel)
    assert keras.backend.standardize_dtype(value.dtype) == "float32"
    results = [regularizer.prox(kernel, 0.1), regularizer.subgradient(kernel)]
    pairs = [
        *regularizer.pair_prox(kernel, gamma, 0.1),
        *regularizer.pair_subgradient(kernel, gamma),
    ]
    assert np.isfinite(float(value))
    assert all(np.isfinite(numpy(x)).all() for x in (*results, *pairs))
    assert all(keras.backend.standardize_dtype(x.dtype) == dtype for x in results)


@every
def test_a_layer_of_zeros_is_harmless(regularizer: Any) -> None:
    kernel, gamma = np.zeros(SHAPE), np.ones(5)
    assert float(regularizer(kernel)) == 0
    assert not numpy(regularizer.prox(kernel, 1.0)).any()
    assert not gradient(regularizer, kernel)[0].any()
    new_kernel, new_gamma = regularizer.pair_prox(kernel, gamma, 1.0)
    assert not numpy(new_kernel).any()
    assert not numpy(new_gamma).any()


def test_a_step_per_kernel_and_variables() -> None:
    kernel = keras.Variable(random_kernel((3, 3, 1, 3)), dtype="float32")
    r = KernelCount(1.0)
    z = numpy(r.prox(kernel, np.array([0.0, 0.5, 99.0])))
    np.testing.assert_allclose(z[..., 0], numpy(kernel)[..., 0], rtol=1e-6)
    assert z[..., 1].any()
    assert not z[..., 2].any()
    assert tuple(r.group_norms(kernel).shape) == (1, 3)


@pytest.mark.parametrize("make", [KernelCount, KernelSize])
@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("alpha", -1.0),
        ("alpha", float("nan")),
        ("alpha", float("inf")),
        ("alpha", "0.1"),
        ("norm", "l1"),
        ("power", 3),
        ("reweight", -0.1),
        ("weight", float("inf")),
        ("scale", ""),
    ],
)
def test_errors_name_the_argument_and_what_was_received(
    make: Any, argument: str, value: Any
) -> None:
    with pytest.raises(
        ValueError, match=f"{argument}`?:? (must be|expected) .*Received: {value!r}"
    ):
        make(**{argument: value})


def test_unknown_groups_and_vectors_are_refused() -> None:
    with pytest.raises(ValueError, match="groups: expected one of"):
        KernelSize(groups="rings")
    with pytest.raises(ValueError, match="two axes or more"):
        KernelSize()(np.ones(3))
    with pytest.raises(ValueError, match="weight: expected"):
        KernelSize().bound(-1.0)
