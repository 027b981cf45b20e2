"""One norm over vectors that move by different steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers_prox import Array, examples, numpy
from hypothesis import given
from hypothesis import strategies as st

from keras_structsparse.regularizers.prox import joint_shrinkage

lengths = st.lists(st.floats(0, 10), min_size=2, max_size=5)


def shrunk(u: Any, b: Any) -> Array:
    factors = joint_shrinkage([np.array([x]) for x in u], [np.array([x]) for x in b])
    return np.array([numpy(factor)[0] for factor in factors]) * np.asarray(u)


def residual(z: Array, u: Array, b: Array) -> float:
    """How far the lengths z are from the optimality conditions."""
    norm = np.sqrt((z**2).sum())
    if norm == 0:
        return float(max(0.0, np.sqrt(((u / b) ** 2).sum()) - 1))
    return float(np.abs((z - u) / b + z / norm).max())


@examples(80)
@given(lengths, st.integers(0, 999))
def test_the_result_satisfies_the_optimality_conditions(u: list[float], seed: int) -> None:
    b = 10.0 ** np.random.default_rng(seed).uniform(-4, 1, len(u))
    z = shrunk(u, b)
    assert residual(z, np.array(u), b) < 1e-7
    if z.any() and np.sqrt((z**2).sum()) > 1e-3:
        assert residual(1.001 * z, np.array(u), b) > 1e-7, "the control does not fail"


@examples(50)
@given(lengths, st.floats(0.01, 5))
def test_equal_thresholds_are_block_soft_thresholding(u: list[float], threshold: float) -> None:
    norm = np.sqrt(np.square(u).sum())
    expected = np.array(u) * max(0.0, 1 - threshold / norm if norm else 0.0)
    np.testing.assert_allclose(shrunk(u, [threshold] * len(u)), expected, atol=1e-12)


def test_no_step_changes_nothing_and_nan_stays_nan() -> None:
    np.testing.assert_array_equal(shrunk([3.0, 0.0, 4.0], [0.0] * 3), [3.0, 0.0, 4.0])
    assert np.isnan(shrunk([np.nan, 1.0], [0.1, 0.2])).any()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_vanishing_is_exact_and_common(dtype: str) -> None:
    u = [np.array([0.3, 3.0], dtype), np.array([0.4, 4.0], dtype)]
    first, second = (numpy(f) for f in joint_shrinkage(u, [np.ones(2, dtype)] * 2))
    assert first.dtype == dtype
    np.testing.assert_allclose(first, [0.0, 0.8], rtol=1e-6)
    assert first[0] == second[0] == 0.0
