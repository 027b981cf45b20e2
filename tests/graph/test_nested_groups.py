"""Groups, against crops and convolutions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from helpers_prox import numpy
from hypothesis import given
from hypothesis import strategies as st

from keras_structsparse.graph import nested_groups

shapes = st.lists(st.integers(1, 7), min_size=0, max_size=2).map(tuple)
boxes = st.lists(st.integers(1, 7), min_size=1, max_size=2).map(tuple)
how = st.sampled_from(nested_groups.GROUPS)


def inside(shape: tuple[int, ...], size: int) -> np.ndarray:
    box = np.zeros(shape)
    box[nested_groups.support(shape, size)] = 1
    return box.ravel()


@given(boxes, st.integers(0, 9))
def test_a_support_has_the_size_or_the_whole_side(shape: tuple[int, ...], size: int) -> None:
    kept = np.zeros(shape)[nested_groups.support(shape, size)].shape
    assert kept == tuple(min(length, size) for length in shape)


@given(boxes, st.integers(0, 9))
def test_levels_are_the_least_sizes_whose_support_holds_a_position(
    shape: tuple[int, ...], size: int
) -> None:
    np.testing.assert_array_equal(nested_groups.levels(shape) <= size, inside(shape, size))


@pytest.mark.parametrize("side", [2, 3, 4, 5, 6, 7])
def test_an_odd_side_loses_top_and_left_an_even_one_bottom_and_right(side: int) -> None:
    (kept, _) = nested_groups.support((side, side), side - 1)
    assert kept == (slice(1, side) if side % 2 else slice(0, side - 1))


@given(shapes, how)
def test_groups_are_what_lies_outside_the_size_below(shape: tuple[int, ...], how: str) -> None:
    masks, sizes = nested_groups.masks(shape, how), nested_groups.sizes(shape, how)
    assert len(masks) == len(sizes)
    assert sizes[-1] == max(shape, default=1)
    assert (masks[-1] == 1).all()
    for mask, below in zip(masks[-2::-1], sizes[:-1], strict=True):
        np.testing.assert_array_equal(mask, 1 - inside(shape, below))


@given(shapes, how)
def test_groups_are_nested_and_each_adds_something(shape: tuple[int, ...], how: str) -> None:
    steps = np.diff(nested_groups.masks(shape, how), axis=0)
    assert (steps >= 0).all()
    assert (steps.sum(axis=1) > 0).all()
    assert (nested_groups.masks(shape, how)[0].sum()) > 0


@given(shapes, how, st.integers(1, 4))
def test_group_sizes_count_entries(shape: tuple[int, ...], how: str, channels: int) -> None:
    counts = nested_groups.group_sizes(shape, how, channels)
    np.testing.assert_array_equal(counts, nested_groups.masks(shape, how).sum(axis=1) * channels)
    assert counts[-1] == np.prod(shape, dtype=int) * channels


def test_cached_masks_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="read-only"):
        nested_groups.masks((3, 3))[0, 0] = 7.0


@pytest.mark.parametrize("base", [(2, 2), (3, 3), (4, 4), (5, 5), (6, 6), (7, 7), (2, 5), (6, 3)])
def test_a_crop_inside_a_same_convolution_is_the_smaller_same_convolution(
    base: tuple[int, int],
) -> None:
    rng = np.random.default_rng(0)
    image = rng.normal(size=(1, 9, 8, 2))
    for size in range(1, max(base)):
        box = nested_groups.support(base, size)
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


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: nested_groups.sizes((3, 3), "rings"),
            "groups: expected one of .* Received: 'rings'",
        ),
        (lambda: nested_groups.masks((3, 3), "rings"), "groups: expected one of"),
        (lambda: nested_groups.support((3, 3), -1), "`size` must be >= 0. Received: -1"),
    ],
)
def test_errors_say_what_was_expected_and_received(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
