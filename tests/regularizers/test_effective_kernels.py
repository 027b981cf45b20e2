"""Kernels paired with a batch normalisation: effective kernels, on plain float64 arrays."""

from __future__ import annotations

import numpy as np
import pytest
from helpers_prox import Array, examples, gradient, numpy, random_kernel
from hypothesis import given
from hypothesis import strategies as st

from keras_structsparse._typing import Tensor
from keras_structsparse.regularizers import effective_kernels, norm_factors, penalties
from keras_structsparse.regularizers.group_norms import group_norms
from keras_structsparse.regularizers.prox import prox_chain

SHAPES = [(5, 5, 2, 6), (4, 4, 1, 6), (3, 2, 3, 6), (7, 2, 6), (5, 6)]

shapes = st.sampled_from(SHAPES)
norms = st.sampled_from(norm_factors.NORMS)
powers = st.sampled_from([1, 2])
seeds = st.integers(0, 999)


def random_gamma(kernels: int, seed: int = 0) -> Array:
    gamma = np.random.default_rng(seed).normal(size=kernels)
    gamma[0] = 0.0
    return gamma


def effective(kernel: Array, gamma: Array) -> Array:
    length = np.sqrt((kernel**2).sum(axis=tuple(range(kernel.ndim - 1))))
    return kernel * np.where(length > 0, gamma / np.where(length > 0, length, 1), 0)


@examples(40)
@given(shapes, seeds)
def test_effective_kernels_have_gammas_length(shape: tuple[int, ...], seed: int) -> None:
    kernel, gamma = random_kernel(shape, seed, dead=0.2), random_gamma(shape[-1], seed)
    v = numpy(effective_kernels.effective_kernel(kernel, gamma))
    np.testing.assert_allclose(v, effective(kernel, gamma), atol=1e-14)


@examples(40)
@given(shapes, seeds)
def test_write_back_gives_the_effective_kernel_and_keeps_lengths(
    shape: tuple[int, ...], seed: int
) -> None:
    kernel, gamma = random_kernel(shape, seed), random_gamma(shape[-1], seed)
    v = prox_chain(effective(kernel, gamma), "half_ring", "l2", 0.2)
    new_kernel, new_gamma = map(numpy, effective_kernels.write_back(v, kernel, gamma))
    v = numpy(v)
    np.testing.assert_allclose(effective(new_kernel, new_gamma), v, atol=1e-13)
    axes = tuple(range(len(shape) - 1))
    np.testing.assert_allclose((new_kernel**2).sum(axes), (kernel**2).sum(axes))
    dead = (v == 0).all(axis=axes)
    assert dead[0]
    assert (new_gamma[dead] == 0).all()
    np.testing.assert_array_equal(new_kernel[..., dead], kernel[..., dead])
    np.testing.assert_array_equal(np.sign(new_gamma)[~dead], np.sign(gamma)[~dead])


def test_write_back_without_the_sign_of_gamma_would_turn_kernels_round() -> None:
    kernel, gamma = np.array([[3.0], [4.0]]), np.array([-5.0])
    new_kernel, new_gamma = effective_kernels.write_back(effective(kernel, gamma), kernel, gamma)
    np.testing.assert_allclose(numpy(new_kernel), kernel)
    np.testing.assert_allclose(numpy(new_gamma), gamma)
    assert np.abs(effective(-numpy(new_kernel), numpy(new_gamma)) - [[-3], [-4]]).max() > 1


@examples(40)
@given(shapes, norms, powers, seeds)
def test_pair_gradients_equal_automatic_differentiation(
    shape: tuple[int, ...], norm: str, power: int, seed: int
) -> None:
    kernel, gamma = random_kernel(shape, seed, dead=0.2), random_gamma(shape[-1], seed)

    def value(k: Tensor, g: Tensor) -> Tensor:
        v = effective_kernels.effective_kernel(k, g)
        return penalties.value(group_norms(v, "half_ring", norm), power=power)

    v = effective_kernels.effective_kernel(kernel, gamma)
    slope = penalties.slopes(group_norms(v, "half_ring", norm), power=power)
    at_v = penalties.subgradient(v, "half_ring", norm, slope)
    closed = effective_kernels.pair_gradient(at_v, kernel, gamma)
    for mine, automatic in zip(closed, gradient(value, kernel, gamma), strict=True):
        np.testing.assert_allclose(numpy(mine), automatic, rtol=1e-10, atol=1e-12)


def test_gamma_must_have_one_entry_per_kernel() -> None:
    kernel = np.ones((3, 3, 1, 2))
    with pytest.raises(ValueError, match=r"`gamma` .* 2 kernels. Received shape: \(3,\)"):
        effective_kernels.effective_kernel(kernel, np.ones(3))
