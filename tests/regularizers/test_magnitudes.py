"""Values, sub-gradients and proximal steps at kernels of every magnitude and precision.

The reference is the same function in float64, whose range is far wider. Half precision rounds the
kernels and the results, nothing between.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from helpers_prox import Array, examples, numpy, random_kernel
from hypothesis import given
from hypothesis import strategies as st
from keras import ops

from keras_structsparse.regularizers import KernelCount, KernelSize
from keras_structsparse.regularizers.base import GroupSparsityRegularizer
from keras_structsparse.regularizers.coupling import joint_norms
from keras_structsparse.regularizers.effective_kernels import effective_kernel, write_back
from keras_structsparse.regularizers.group_norms import group_norms
from keras_structsparse.regularizers.penalties import counting_weights
from keras_structsparse.regularizers.prox import joint_shrinkage
from keras_structsparse.surgery.thresholds import threshold_norms
from keras_structsparse.training.optimizer.batched_prox import (
    RegularizedKernel,
    proximal_steps,
    subgradients,
)
from keras_structsparse.training.optimizer.proximal import Proximal

PENALTIES: dict[str, Callable[..., GroupSparsityRegularizer]] = {
    "count": KernelCount,
    "size": KernelSize,
    "linf": lambda **o: KernelSize(norm="linf", **o),
    "scaled": lambda **o: KernelSize(norm="group_scaled", **o),
    "normalized": lambda **o: KernelCount(norm="group_normalized", **o),
    "reweighted": lambda **o: KernelSize(reweight=0.1, **o),
}
SHAPE = (3, 3, 2, 4)
ROUNDING = {"float32": 1e-5, "bfloat16": 2e-2, "float16": 2e-3}

penalties = st.sampled_from(sorted(PENALTIES))
exponents = st.integers(-30, 30)
seeds = st.integers(0, 99)


def kernel_of(exponent: int, seed: int, dtype: str = "float32") -> tuple[Any, Array]:
    """A kernel in a precision, and its values; its last kernel is 1e8 times as large."""
    values = random_kernel(SHAPE, seed, dead=0.2) * 10.0**exponent
    values[..., -1] *= 1e8 if exponent < 20 else 1.0
    kernel = ops.cast(ops.convert_to_tensor(values.astype("float32")), dtype)
    return kernel, numpy(kernel).astype("float64")


def assert_close(found: Any, expected: Any, rounding: float) -> None:
    """Equal up to rounding in every kernel, whatever its magnitude."""
    found, expected = numpy(found).astype("float64"), numpy(expected).astype("float64")
    axes = tuple(range(expected.ndim - 1))
    error = np.abs(found - expected).max(axis=axes)
    assert (error <= rounding * np.abs(expected).max(axis=axes) + 1e-37).all(), (found, expected)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@examples(30)
@given(penalties, exponents, seeds, st.sampled_from([0.0, 1e-3, 0.3, 2.0]))
def test_proximal_steps_are_those_of_float64(
    dtype: str, name: str, exponent: int, seed: int, share: float
) -> None:
    kernel, values = kernel_of(exponent, seed, dtype)
    step = float(np.float32(share * 10.0**exponent))
    regularizer = PENALTIES[name](alpha=1.0)
    moved, expected = regularizer.prox(kernel, step), regularizer.prox(values, step)
    assert_close(moved, expected, ROUNDING[dtype])
    assert (np.abs(numpy(moved)) <= np.abs(numpy(kernel))).all()
    assert share or np.array_equal(numpy(moved), numpy(kernel))


@examples(20)
@given(penalties, st.integers(-4, 3), seeds)
def test_float16_kernels_are_served_in_float32(name: str, exponent: int, seed: int) -> None:
    kernel, values = kernel_of(exponent, seed, "float16")
    values = np.where(np.isfinite(values), values, 0.0)
    kernel = ops.cast(values, "float16")
    regularizer = PENALTIES[name](alpha=1.0)
    step = 0.3 * 10.0**exponent
    assert_close(regularizer.prox(kernel, step), regularizer.prox(values, step), 1e-2)
    assert np.isfinite(numpy(regularizer.subgradient(kernel))).all()


@examples(30)
@given(penalties, exponents, seeds)
def test_values_and_subgradients_are_those_of_float64(name: str, exponent: int, seed: int) -> None:
    kernel, values = kernel_of(exponent, seed)
    regularizer = PENALTIES[name](alpha=1.0)
    np.testing.assert_allclose(float(regularizer(kernel)), float(regularizer(values)), rtol=1e-5)
    assert_close(regularizer.subgradient(kernel), regularizer.subgradient(values), 1e-5)


@pytest.mark.parametrize("kind", [KernelCount, KernelSize])
@pytest.mark.parametrize("exponent", [-30, 0, 28])
def test_squared_penalties(kind: Any, exponent: int) -> None:
    kernel, values = kernel_of(exponent, 0)
    regularizer = kind(alpha=1.0, power=2)
    assert_close(regularizer.prox(kernel, 0.1), regularizer.prox(values, 0.1), 1e-4)
    assert_close(regularizer.subgradient(kernel), regularizer.subgradient(values), 1e-5)
    assert float(kind(alpha=0.0, power=2)(kernel)) == 0.0


@examples(30)
@given(st.sampled_from(["count", "size", "scaled", "reweighted"]), exponents, exponents, seeds)
def test_steps_of_effective_kernels(name: str, exponent: int, length: int, seed: int) -> None:
    kernel, values = kernel_of(exponent, seed)
    gamma = np.array([1.0, -1.0, 0.0, 1e-3]) * 10.0**length
    own = PENALTIES[name](alpha=1.0)
    step = float(np.float32(0.2 * 10.0**length))
    expected = own.pair_prox(values, gamma, step)
    found = own.pair_prox(kernel, gamma.astype("float32"), step)
    member = RegularizedKernel(own.bound(1.0, "gamma"), kernel, gamma.astype("float32"), "k")
    stacked = proximal_steps([member], [step])[0]
    for mine, together, theirs in zip(found, stacked, expected, strict=True):
        assert_close(mine, theirs, 1e-4)
        assert_close(together, theirs, 1e-4)
    for change in (own.pair_subgradient(kernel, member.gamma), subgradients([member])[0]):
        # At a kernel of length 1e-6 a turn of 1e30 gammas is 1e36; the next one overflows.
        assert all(np.isfinite(numpy(part)).all() for part in change)


def test_short_kernels_are_not_turned_by_subgradients() -> None:
    kernel = random_kernel(SHAPE)
    gamma = np.ones(4)
    size = KernelSize(1.0)
    for scale, turned in ((1e-3, True), (1e-9, False)):
        change, _ = size.pair_subgradient(kernel * scale, gamma)
        member = RegularizedKernel(size.bound(1.0, "gamma"), kernel * scale, gamma, "k")
        assert numpy(change).any() == turned
        assert numpy(subgradients([member])[0][0]).any() == turned


@examples(30)
@given(exponents, seeds, st.sampled_from(["half_ring", "ring", "kernel"]))
def test_norms_scale_with_their_kernel(exponent: int, seed: int, groups: str) -> None:
    kernel = random_kernel(SHAPE, seed).astype("float32")
    unit = np.float32(2.0 ** round(exponent * np.log2(10)))
    norms = numpy(group_norms(kernel, groups))
    np.testing.assert_allclose(numpy(group_norms(kernel * unit, groups)), norms * unit, rtol=1e-6)
    again = threshold_norms(kernel.astype("float64") * 1e-200, None, groups)
    np.testing.assert_allclose(again, norms.astype("float64") * 1e-200, rtol=1e-6)
    effective = threshold_norms(kernel * unit, np.ones(4), groups)
    np.testing.assert_allclose(effective, threshold_norms(kernel, np.ones(4), groups), rtol=1e-5)


def test_unscaled_squares_would_lose_these_norms() -> None:
    """The control: what the tests above check is not so by itself."""
    kernel = np.full(SHAPE, 1e-25, "float32")
    assert np.sqrt(np.square(kernel).sum()) == 0 < numpy(group_norms(kernel)).min()
    kernel = np.full(SHAPE, 1e25, "float32")
    with np.errstate(over="ignore"):
        assert np.isinf(np.square(kernel)).all()
    assert np.isfinite(numpy(group_norms(kernel))).all()


@examples(30)
@given(exponents, seeds)
def test_joint_norms_and_their_steps(exponent: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    unit = 10.0**exponent
    lengths, thresholds = rng.random((2, 5)) * unit, rng.random((2, 5)) * unit
    small = [ops.convert_to_tensor(own.astype("float32")) for own in lengths]
    steps = [ops.convert_to_tensor(own.astype("float32")) for own in thresholds]
    expected = np.linalg.norm(lengths, axis=0)
    np.testing.assert_allclose(numpy(joint_norms(small)), expected, rtol=1e-6)
    wide = joint_shrinkage([*map(ops.convert_to_tensor, lengths)], [*thresholds])
    for mine, theirs in zip(joint_shrinkage(small, steps), wide, strict=True):
        np.testing.assert_allclose(numpy(mine), numpy(theirs), atol=1e-4)
    weights = counting_weights(ops.stack(small), 0.1)
    same = counting_weights(lengths, 0.1)
    np.testing.assert_allclose(numpy(weights), numpy(same), rtol=1e-5)


@examples(20)
@given(exponents, seeds)
def test_writing_back_what_was_read_changes_nothing(exponent: int, seed: int) -> None:
    kernel, _ = kernel_of(exponent, seed)
    gamma = np.array([0.5, -2.0, 1e-20, 1e20], "float32")
    found = write_back(effective_kernel(kernel, gamma), kernel, gamma)
    for mine, before in zip(found, (kernel, gamma), strict=True):
        alive = numpy(kernel).any(axis=(0, 1, 2))
        assert_close(numpy(mine)[..., alive], numpy(before)[..., alive], 1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("kind", [keras.optimizers.Adam, keras.optimizers.RMSprop])
def test_variables_in_half_precision_get_finite_steps(dtype: str, kind: Any) -> None:
    """Squares of these gradients are 0 in float16."""
    layer = keras.layers.Dense(3, dtype=dtype, use_bias=False, kernel_regularizer=KernelSize(1e-2))
    layer.build((None, 4))
    before = numpy(layer.kernel)
    optimizer = Proximal(kind(1e-3), penalty_in_loss=False)
    for _ in range(3):
        optimizer.apply([ops.full((4, 3), 1e-5, dtype=dtype)], [layer.kernel])
    after = numpy(layer.kernel)
    assert np.isfinite(after).all()
    assert np.linalg.norm(after) < np.linalg.norm(before)
