"""The mean correlation of a layer's kernels."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_structsparse.profiling.kernel_correlation import mean_correlation


@given(st.integers(0, 10**6), st.integers(2, 6))
def test_it_is_the_mean_over_pairs(seed: int, kernels: int) -> None:
    kernel = np.random.default_rng(seed).normal(size=(3, 2, 2, kernels))
    flat = kernel.reshape(-1, kernels)
    pairs = itertools.combinations(range(kernels), 2)
    expected = np.mean([abs(np.corrcoef(flat[:, a], flat[:, b])[0, 1]) for a, b in pairs])
    assert mean_correlation(kernel) == pytest.approx(expected, abs=1e-12)


@given(st.integers(0, 10**6))
def test_scales_offsets_and_dead_kernels_do_not_count(seed: int) -> None:
    rng = np.random.default_rng(seed)
    kernel = rng.normal(size=(3, 3, 2, 4))
    changed = np.concatenate([kernel * [-2, 5, 1, 0.1] + 3, np.zeros((3, 3, 2, 2))], axis=-1)
    assert mean_correlation(changed) == pytest.approx(mean_correlation(kernel), abs=1e-9)
    other = rng.normal(size=(3, 3, 2, 4))
    assert abs(mean_correlation(other) - mean_correlation(kernel)) > 1e-6, "the control"


def test_multiples_are_one_and_one_kernel_has_no_pair() -> None:
    kernel = np.random.default_rng(0).normal(size=(3, 3, 2, 1))
    assert mean_correlation(np.concatenate([kernel, -3 * kernel], axis=-1)) == pytest.approx(1.0)
    assert np.isnan(mean_correlation(kernel))
    assert np.isnan(mean_correlation(np.ones((3, 3, 2, 4))))
    assert np.isnan(mean_correlation(np.ones((3, 3, 2, 0))))
