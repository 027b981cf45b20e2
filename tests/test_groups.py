"""Groups and their norms, against crops, convolutions and one-mask-at-a-time numpy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from helpers_prox import NORM, gradient, naive_norms, numpy, random_kernel
from hypothesis import given
from hypothesis import strategies as st

from keras_structsparse import groups

shapes = st.lists(st.integers(1, 7), min_size=0, max_size=2).map(tuple)
boxes = st.lists(st.integers(1, 7), min_size=1, max_size=2).map(tuple)
how = st.sampled_from(groups.GROUPS)


def inside(shape: tuple[int, ...], size: int) -> np.ndarray:
    box = np.zeros(shape)
    box[groups.support(shape, size)] = 1
    return box.ravel()


@given(boxes, st.integers(0, 9))
def test_a_support_has_the_size_or_the_whole_side(shape: tuple[int, ...], size: int) -> None:
    kept = np.zeros(shape)[groups.support(shape, size)].shape
    assert kept == tuple(min(length, size) for length in shape)


@given(boxes, st.integers(0, 9))
def test_levels_are_the_least_sizes_whose_support_holds_a_position(
    shape: tuple[int, ...], size: int
) -> None:
    np.testing.assert_array_equal(groups.levels(shape) <= size, inside(shape, size))


@pytest.mark.parametrize("side", [2, 3, 4, 5, 6, 7])
def test_an_odd_side_loses_top_and_left_an_even_one_bottom_and_right(side: int) -> None:
    (kept, _) = groups.support((side, side), side - 1)
    assert kept == (slice(1, side) if side % 2 else slice(0, side - 1))


@given(shapes, how)
def test_groups_are_what_lies_outside_the_size_below(shape: tuple[int, ...], how: str) -> None:
    masks, sizes = groups.masks(shape, how), groups.sizes(shape, how)
    assert len(masks) == len(sizes)
    assert sizes[-1] == max(shape, default=1)
    assert (masks[-1] == 1).all()
    for mask, below in zip(masks[-2::-1], sizes[:-1], strict=True):
        np.testing.assert_array_equal(mask, 1 - inside(shape, below))


@given(shapes, how)
def test_groups_are_nested_and_each_adds_something(shape: tuple[int, ...], how: str) -> None:
    steps = np.diff(groups.masks(shape, how), axis=0)
    assert (steps >= 0).all()
    assert (steps.sum(axis=1) > 0).all()
    assert (groups.masks(shape, how)[0].sum()) > 0


@given(shapes, how, st.integers(1, 4))
def test_group_sizes_count_entries(shape: tuple[int, ...], how: str, channels: int) -> None:
    counts = groups.group_sizes(shape, how, channels)
    np.testing.assert_array_equal(counts, groups.masks(shape, how).sum(axis=1) * channels)
    assert counts[-1] == np.prod(shape, dtype=int) * channels


def test_cached_masks_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="read-only"):
        groups.masks((3, 3))[0, 0] = 7.0


@pytest.mark.parametrize("base", [(2, 2), (3, 3), (4, 4), (5, 5), (6, 6), (7, 7), (2, 5), (6, 3)])
def test_a_crop_inside_a_same_convolution_is_the_smaller_same_convolution(
    base: tuple[int, int],
) -> None:
    rng = np.random.default_rng(0)
    image = rng.normal(size=(1, 9, 8, 2))
    for size in range(1, max(base)):
        box = groups.support(base, size)
        kernel = np.zeros((*base, 2, 3))
        kernel[box] = rng.normal(size=kernel[box].shape)
        whole = numpy(keras.ops.conv(image, kernel, padding="same"))
        cropped = numpy(keras.ops.conv(image, kernel[box], padding="same"))
        np.testing.assert_allclose(whole, cropped, atol=1e-12)
        if size % 2 == base[0] % 2:
            continue
        # Negative control: the crop on the other side is another convolution.
        other = np.roll(kernel, -1 if base[0] % 2 else 1, axis=0)
        assert np.abs(numpy(keras.ops.conv(image, other, padding="same")) - cropped).max() > 0.1


@pytest.mark.parametrize("norm", groups.NORMS)
@given(shape=shapes, how=how, seed=st.integers(0, 99), channels=st.integers(1, 3))
def test_norms_equal_one_mask_at_a_time(
    norm: str, shape: tuple[int, ...], how: str, seed: int, channels: int
) -> None:
    kernel = random_kernel((*shape, channels, 4), seed, dead=0.3)
    norms = numpy(groups.group_norms(kernel, how, norm))
    expected = naive_norms(kernel, how, norm)
    assert norms.dtype == "float64"
    np.testing.assert_allclose(norms, expected, rtol=1e-13)
    np.testing.assert_array_equal(norms == 0, expected == 0)


@given(shapes, how, st.integers(0, 9))
def test_the_number_of_non_zero_norms_gives_the_size(
    shape: tuple[int, ...], how: str, size: int
) -> None:
    kernel = inside(shape, size) if shape else np.full(1, float(size > 0))
    norms = numpy(groups.group_norms(kernel.reshape(*shape, 1, 1), how))
    sizes = (0, *groups.sizes(shape, how))
    base = max(shape, default=1)
    assert sizes[np.count_nonzero(norms)] == min(s for s in sizes if s >= min(size, base))


@pytest.mark.parametrize("norm", groups.NORMS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_computed_in_float32(norm: str, dtype: str) -> None:
    kernel = keras.ops.cast(np.full((3, 3, 64, 2), 30.0), dtype)  # Squares overflow float16.
    norms = groups.group_norms(kernel, norm=norm)
    assert keras.backend.standardize_dtype(norms.dtype) == "float32"
    expected = NORM[norm](np.full(9 * 64, 30.0))
    np.testing.assert_allclose(numpy(norms)[-1], expected, rtol=1e-6)


@pytest.mark.parametrize("norm", groups.NORMS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("dead", [0.5, 1.0])
def test_gradients_are_finite_at_dead_groups(norm: str, dtype: str, dead: float) -> None:
    values = random_kernel((4, 4, 2, 6), dead=dead)
    kernel = keras.ops.cast(values, dtype)
    (slope,) = gradient(lambda k: keras.ops.sum(groups.group_norms(k, norm=norm)), kernel)
    slope = slope.astype("float64")
    assert np.isfinite(slope).all()
    assert (slope[values == 0] == 0).all()
    assert slope.any() == (dead < 1)


def test_variables_and_dense_kernels_have_norms() -> None:
    kernel = keras.Variable([[3.0, 0.0], [4.0, 1.0]])
    np.testing.assert_allclose(numpy(groups.group_norms(kernel)), [[5.0, 1.0]])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: groups.sizes((3, 3), "rings"), "`groups` must be one of .* Received: 'rings'"),
        (lambda: groups.masks((3, 3), "rings"), "`groups`"),
        (lambda: groups.group_norms(np.ones((3, 3, 1, 1)), norm="l1"), "`norm`.*Received: 'l1'"),
        (lambda: groups.group_norms(np.ones(3)), r"two axes or more. Received shape: \(3,\)"),
        (lambda: groups.group_norms(np.float64(3.0)), "two axes or more"),
        (lambda: groups.support((3, 3), -1), "`size` must be >= 0. Received: -1"),
    ],
)
def test_errors_say_what_was_expected_and_received(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
