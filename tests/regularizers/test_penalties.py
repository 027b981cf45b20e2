"""Penalties, sub-gradients and proximal steps on plain float64 arrays."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import pytest
from helpers_prox import (
    Array,
    assert_prox_minimises,
    examples,
    gradient,
    naive_norms,
    numpy,
    prox_gap,
    random_kernel,
)
from hypothesis import given
from hypothesis import strategies as st

from keras_structsparse._typing import Tensor
from keras_structsparse.graph import nested_groups
from keras_structsparse.regularizers import norm_factors, penalties
from keras_structsparse.regularizers.group_norms import group_norms
from keras_structsparse.regularizers.prox import prox_chain, prox_squared

SHAPES = [(5, 5, 2, 6), (4, 4, 1, 6), (3, 2, 3, 6), (7, 2, 6), (5, 6)]

shapes = st.sampled_from(SHAPES)
hows = st.sampled_from(nested_groups.GROUPS)
norms = st.sampled_from(norm_factors.NORMS)
powers = st.sampled_from([1, 2])
pers = st.sampled_from(["layer", "kernel"])
seeds = st.integers(0, 999)


def naive_penalty(
    how: str, norm: str, weights: Array | float, power: int, per: str
) -> Callable[[Array], float]:
    def penalty(kernel: Array) -> float:
        sums = (weights * naive_norms(kernel, how, norm)).sum(axis=0)
        return float(np.sum((sums.sum(keepdims=True) if per == "layer" else sums) ** power))

    return penalty


def random_weights(kernel: Array, how: str, seed: int, scale: float = 1.0) -> Array:
    shape = (len(nested_groups.sizes(kernel.shape[:-2], how)), kernel.shape[-1])
    return scale * np.random.default_rng(seed + 1).random(shape)


@examples(40)
@given(shapes, hows, norms, powers, pers, seeds)
def test_values_follow_the_equations(
    shape: tuple[int, ...], how: str, norm: str, power: int, per: str, seed: int
) -> None:
    kernel = random_kernel(shape, seed, dead=0.3)
    weights = random_weights(kernel, how, seed)
    value = penalties.value(group_norms(kernel, how, norm), weights, power, per)
    expected = naive_penalty(how, norm, weights, power, per)(kernel)
    np.testing.assert_allclose(float(value), expected, rtol=1e-12)


def test_squares_are_of_the_layer_or_of_each_kernel() -> None:
    norms = np.array([[1.0, 2.0], [3.0, 4.0]])
    assert float(penalties.value(norms, power=2, per="layer")) == 100
    assert float(penalties.value(norms, power=2, per="kernel")) == 4**2 + 6**2


@examples(40)
@given(shapes, hows, norms, powers, pers, seeds, st.booleans())
def test_subgradients_equal_automatic_differentiation(
    shape: tuple[int, ...], how: str, norm: str, power: int, per: str, seed: int, ties: bool
) -> None:
    kernel = random_kernel(shape, seed, dead=0.3, ties=ties)
    weights = random_weights(kernel, how, seed)

    def value(k: Tensor) -> Tensor:
        return penalties.value(group_norms(k, how, norm), weights, power, per)

    slope = penalties.slopes(group_norms(kernel, how, norm), weights, power, per)
    closed = numpy(penalties.subgradient(kernel, how, norm, slope))
    (automatic,) = gradient(value, kernel)
    np.testing.assert_allclose(closed, automatic, rtol=1e-12, atol=1e-13)


def test_ties_share_the_subgradient_of_the_largest_entry() -> None:
    kernel = np.array([[2.0], [-2.0], [1.0], [2.0]])
    slope = penalties.subgradient(kernel, "kernel", "linf", np.ones((1, 1)))
    np.testing.assert_allclose(numpy(slope)[:, 0], [1 / 3, -1 / 3, 0, 1 / 3])


@examples(60)
@given(shapes, hows, norms, seeds, st.sampled_from([0.03, 0.3, 3.0]))
def test_the_chain_of_thresholds_is_the_minimum(
    shape: tuple[int, ...], how: str, norm: str, seed: int, scale: float
) -> None:
    kernel = random_kernel(shape, seed, dead=0.1)
    steps = random_weights(kernel, how, seed, scale)
    z = prox_chain(kernel, how, norm, steps)
    assert_prox_minimises(z, kernel, naive_penalty(how, norm, steps, 1, "kernel"))


@examples(10)  # Root finding in eager mode takes its time.
@given(shapes, hows, norms, pers, seeds, st.sampled_from([0.001, 0.03, 0.5]))
def test_the_squared_step_is_the_minimum(
    shape: tuple[int, ...], how: str, norm: str, per: str, seed: int, scale: float
) -> None:
    kernel = random_kernel(shape, seed, dead=0.1)
    weights = random_weights(kernel, how, seed)
    z = prox_squared(kernel, how, norm, scale, weights, per)
    naive = naive_penalty(how, norm, weights, 2, per)
    assert_prox_minimises(z, kernel, lambda k: scale * naive(k))
    level = penalties.relaxed(group_norms(z, how, norm), weights, per)
    again = prox_chain(kernel, how, norm, 2 * scale * numpy(level) * weights)
    np.testing.assert_allclose(numpy(z), numpy(again), atol=1e-10)


@pytest.mark.parametrize("norm", norm_factors.NORMS)
def test_a_wrong_step_is_not_the_minimum(norm: str) -> None:
    kernel = random_kernel((5, 5, 2, 6))
    penalty = naive_penalty("half_ring", norm, 0.3, 1, "kernel")
    z = numpy(prox_chain(kernel, "half_ring", norm, 0.3))
    assert prox_gap(z, kernel, penalty) <= 1e-12
    for wrong in (1.01 * z, numpy(prox_chain(kernel, "half_ring", norm, 0.25))):
        assert prox_gap(wrong, kernel, penalty) > 1e-6


@pytest.mark.parametrize("norm", norm_factors.NORMS)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_step_matches_thresholds_written_out(shape: tuple[int, ...], norm: str) -> None:
    kernel = random_kernel(shape)
    expected = kernel.copy()
    masks = nested_groups.masks(shape[:-2]).reshape(-1, *shape[:-2]).astype(bool)
    for mask in masks:
        for j in range(shape[-1]):
            expected[..., j][mask] = written_out(expected[..., j][mask], 0.2, norm)
    z = numpy(prox_chain(kernel, "half_ring", norm, 0.2))
    np.testing.assert_allclose(z, expected, atol=1e-12)


def written_out(entries: Array, step: float, norm: str) -> Array:
    if norm == "linf":
        levels = np.linspace(0, np.abs(entries).max(), 4)
        low, high = levels[0], levels[-1]
        for _ in range(60):
            middle = (low + high) / 2
            enough = np.maximum(np.abs(entries) - middle, 0).sum() >= step
            low, high = (middle, high) if enough else (low, middle)
        return np.clip(entries, -low, low) if np.abs(entries).sum() > step else 0 * entries
    power = {"l2": 0.0, "group_normalized": -0.5, "group_scaled": 0.5}[norm]
    length = np.sqrt(np.sum(entries**2))
    return entries * max(0.0, 1 - step * entries.size**power / length)


@pytest.mark.parametrize("norm", norm_factors.NORMS)
def test_removed_groups_are_exactly_zero_and_no_step_changes_nothing(norm: str) -> None:
    kernel = random_kernel((5, 5, 2, 6))
    gone = numpy(prox_chain(kernel, "half_ring", norm, 1e3))
    assert not gone.any()
    # About the step that removes the outermost half ring of 18 entries.
    step = {"l2": 4.2, "group_normalized": 17.8, "group_scaled": 1.0, "linf": 14.4}[norm]
    outermost = np.array([[step], [0], [0], [0], [0]])
    zeros = (
        naive_norms(numpy(prox_chain(kernel, "half_ring", norm, outermost)), "half_ring", norm)[0]
        == 0
    )
    assert 0 < zeros.sum() < zeros.size
    np.testing.assert_array_equal(numpy(prox_chain(kernel, "half_ring", norm, 0.0)), kernel)


@pytest.mark.parametrize("norm", norm_factors.NORMS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_steps_keep_the_dtype_and_survive_zeros(norm: str, dtype: str) -> None:
    values = random_kernel((3, 3, 2, 6), dead=0.5)
    kernel = keras.ops.cast(values, dtype)
    for z in (
        prox_chain(kernel, "half_ring", norm, 0.1),
        prox_squared(kernel, "half_ring", norm, 0.1),
        penalties.subgradient(kernel, "half_ring", norm, np.ones((3, 6), "float32")),
    ):
        assert keras.backend.standardize_dtype(z.dtype) == dtype
        assert np.isfinite(numpy(z)).all()
        assert (numpy(z)[values == 0] == 0).all()


@pytest.mark.parametrize("norm", norm_factors.NORMS)
def test_a_diverged_kernel_is_not_passed_off_as_a_removed_one(norm: str) -> None:
    kernel = random_kernel((3, 3, 1, 2))
    kernel[1, 1, 0, 0] = np.nan
    z = numpy(prox_chain(kernel, "half_ring", norm, 0.1))
    assert np.isnan(z[..., 0]).any()
    assert np.isfinite(z[..., 1]).all()


def test_steps_may_differ_between_kernels() -> None:
    kernel = random_kernel((3, 3, 2, 4))
    steps = np.array([0.0, 0.1, 1.0, 9.0])
    z = numpy(prox_chain(kernel, "half_ring", "l2", steps))
    for j, step in enumerate(steps):
        alone = numpy(prox_chain(kernel[..., j : j + 1], "half_ring", "l2", step))
        np.testing.assert_allclose(z[..., j : j + 1], alone, atol=1e-14)


def test_reweighting_spares_large_groups_and_is_a_constant() -> None:
    values = np.array([[0.0, 1.0], [2.0, 4.0]])
    mean = 3.0
    weights = numpy(penalties.reweighting(values, 0.1))
    np.testing.assert_allclose(weights, 0.1 * mean / (values + 0.1 * mean))
    np.testing.assert_array_equal(numpy(penalties.reweighting(values, 0.0)), 1.0)
    np.testing.assert_array_equal(numpy(penalties.reweighting(0 * values, 0.1)), 1.0)
    (slope,) = gradient(lambda x: keras.ops.sum(penalties.reweighting(x, 0.1) * x), values)
    np.testing.assert_allclose(slope, weights)


def test_counting_weights_make_norms_count_alike_and_are_constants() -> None:
    """A weighted norm is 0 at 0, m at m, and at most (1 + eps) m; zeros have no part in m."""
    values = np.array([[0.0, 1.0, 8.0], [2.0, 3.0, 30.0]])
    m = (4 + 9 + 900) / 35
    weights = numpy(penalties.counting_weights(values, 0.1))
    np.testing.assert_allclose(weights * values, 1.1 * m * values / (values + 0.1 * m))
    more = np.concatenate([values, np.zeros((2, 5))], axis=1)
    np.testing.assert_allclose(numpy(penalties.counting_weights(more, 0.1))[:, :3], weights)
    assert not np.allclose(numpy(penalties.reweighting(more, 0.1))[:, :3], weights, rtol=0.1)
    np.testing.assert_allclose(numpy(penalties.counting_weights(values * 0 + 5, 0.1)), 1.0)
    np.testing.assert_array_equal(numpy(penalties.counting_weights(values, 0.0)), 1.0)
    np.testing.assert_allclose(numpy(penalties.counting_weights(0 * values, 0.1)), 11.0)
    (slope,) = gradient(lambda x: keras.ops.sum(penalties.counting_weights(x, 0.1) * x), values)
    np.testing.assert_allclose(slope, weights)
