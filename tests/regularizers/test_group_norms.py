"""The norms of groups, against one-mask-at-a-time numpy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from helpers_prox import NORM, gradient, naive_norms, numpy, random_kernel
from hypothesis import given
from hypothesis import strategies as st

from keras_structsparse.graph import nested_groups
from keras_structsparse.regularizers import group_norms, norm_factors

shapes = st.lists(st.integers(1, 7), min_size=0, max_size=2).map(tuple)
how = st.sampled_from(nested_groups.GROUPS)


@pytest.mark.parametrize("norm", norm_factors.NORMS)
@given(shape=shapes, how=how, seed=st.integers(0, 99), channels=st.integers(1, 3))
def test_norms_equal_one_mask_at_a_time(
    norm: str, shape: tuple[int, ...], how: str, seed: int, channels: int
) -> None:
    kernel = random_kernel((*shape, channels, 4), seed, dead=0.3)
    lengths = numpy(group_norms.group_norms(kernel, how, norm))
    expected = naive_norms(kernel, how, norm)
    assert lengths.dtype == "float64"
    np.testing.assert_allclose(lengths, expected, rtol=1e-13)
    np.testing.assert_array_equal(lengths == 0, expected == 0)


@given(shapes, how, st.integers(0, 9))
def test_the_number_of_non_zero_norms_gives_the_size(
    shape: tuple[int, ...], how: str, size: int
) -> None:
    kernel = np.zeros(shape)
    kernel[nested_groups.support(shape, size)] = float(size > 0)
    lengths = numpy(group_norms.group_norms(kernel.reshape(*shape, 1, 1), how))
    sizes = (0, *nested_groups.sizes(shape, how))
    base = max(shape, default=1)
    assert sizes[np.count_nonzero(lengths)] == min(s for s in sizes if s >= min(size, base))


@pytest.mark.parametrize("norm", norm_factors.NORMS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_computed_in_float32(norm: str, dtype: str) -> None:
    kernel = keras.ops.cast(np.full((3, 3, 64, 2), 30.0), dtype)  # Squares overflow float16.
    lengths = group_norms.group_norms(kernel, norm=norm)
    assert keras.backend.standardize_dtype(lengths.dtype) == "float32"
    expected = NORM[norm](np.full(9 * 64, 30.0))
    np.testing.assert_allclose(numpy(lengths)[-1], expected, rtol=1e-6)


@pytest.mark.parametrize("norm", norm_factors.NORMS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("dead", [0.5, 1.0])
def test_gradients_are_finite_at_dead_groups(norm: str, dtype: str, dead: float) -> None:
    values = random_kernel((4, 4, 2, 6), dead=dead)
    kernel = keras.ops.cast(values, dtype)
    (slope,) = gradient(lambda k: keras.ops.sum(group_norms.group_norms(k, norm=norm)), kernel)
    slope = slope.astype("float64")
    assert np.isfinite(slope).all()
    assert (slope[values == 0] == 0).all()
    assert slope.any() == (dead < 1)


def test_variables_and_dense_kernels_have_norms() -> None:
    kernel = keras.Variable([[3.0, 0.0], [4.0, 1.0]])
    np.testing.assert_allclose(numpy(group_norms.group_norms(kernel)), [[5.0, 1.0]])


@given(shapes, how, st.integers(0, 99))
def test_ring_by_ring_gives_the_same_squares(shape: tuple[int, ...], how: str, seed: int) -> None:
    blocks, _ = group_norms.to_blocks(random_kernel((*shape, 2, 3), seed, dead=0.3))
    with pytest.MonkeyPatch.context() as patch:
        together = numpy(group_norms.ring_squares(blocks, shape, how)[0])
        patch.setattr(group_norms, "MOST_ENTRIES", 0)
        one_by_one = numpy(group_norms.ring_squares(blocks, shape, how)[0])
    np.testing.assert_allclose(one_by_one, together, rtol=1e-13)
    np.testing.assert_array_equal(one_by_one == 0, together == 0)


def test_a_large_kernel_is_reduced_ring_by_ring(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    reduce_rings = group_norms.reduce_rings

    def counted(*args: Any) -> Any:
        calls.append(args)
        return reduce_rings(*args)

    monkeypatch.setattr(group_norms, "reduce_rings", counted)
    for side, kernels in [(5, 4), (101, 4)]:  # 101 * 101**2 * 4 entries
        kernel = np.ones((side, side, 1, kernels), "float32")
        lengths = numpy(group_norms.group_norms(kernel))
        np.testing.assert_allclose(lengths[-1], side, rtol=1e-6)
        assert len(calls) == (side == 101)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: group_norms.group_norms(np.ones((3, 3, 1, 1)), norm="l1"),
            "norm: expected one of .*Received: 'l1'",
        ),
        (lambda: group_norms.group_norms(np.ones(3)), r"two axes or more. Received shape: \(3,\)"),
        (lambda: group_norms.group_norms(np.float64(3.0)), "two axes or more"),
    ],
)
def test_errors_say_what_was_expected_and_received(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
