"""Nested groups of kernel entries.

A kernel of size `s` loses one half-ring of positions per step, from the outside in. The group
`G_1` is the outermost half-ring, each following group adds the next one, and `G_s` is the whole
kernel. Every group contains all input channels of its positions. The groups are nested, so the
number of nonzero groups is the size of the kernel (equation 20 of the paper).

Arrays of positions are flat: position `p` of a kernel with spatial shape `(h, w)` is row `p // w`,
column `p % w`. A Dense kernel has the spatial shape `()`, one position and one group.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from keras_structsparse._typing import SpatialShape
from keras_structsparse._validation import GROUPS as GROUPS
from keras_structsparse._validation import one_of


def support(shape: SpatialShape, size: int) -> tuple[slice, ...]:
    """The box of positions that a kernel keeps when it is cropped to `size`.

    An odd support loses its top row and left column first, an even one its bottom row and right
    column. Only in this order is the cropped kernel, in a stride-1 `padding="same"` convolution,
    the kernel of a smaller `padding="same"` convolution. Rectangular kernels are cropped along
    their longer side until they are square.

    Args:
        shape: Spatial shape of the kernel, in positions; `()` for Dense.
        size: Side of the square that is kept, in positions; 0 keeps nothing.

    Returns:
        One slice per spatial axis.

    Raises:
        ValueError: If `size` is negative.

    Examples:
        >>> support((5, 5), 4), support((4, 4), 3), support((1, 7), 3)
        ((slice(1, 5, None), slice(1, 5, None)), (slice(0, 3, None), slice(0, 3, None)), \
(slice(0, 1, None), slice(2, 5, None)))
    """
    if size < 0:
        raise ValueError(f"`size` must be >= 0. Received: {size}")
    return tuple(_kept(length, min(length, size)) for length in shape)


def _kept(length: int, kept: int) -> slice:
    # SAME padding puts (length - 1) // 2 positions before the aligned one: the crop must keep
    # that alignment, for odd and for even lengths.
    start = (length - 1) // 2 - (kept - 1) // 2 if kept else 0
    return slice(start, start + kept)


def _axis_levels(length: int) -> np.ndarray:
    offset = np.arange(length) - (length - 1) // 2
    return np.where(offset > 0, 2 * offset, 1 - 2 * offset)


@functools.lru_cache(maxsize=256)
def levels(shape: SpatialShape) -> np.ndarray:
    """The smallest size whose support contains each position.

    Args:
        shape: Spatial shape of the kernel, in positions.

    Returns:
        Integers (positions,), read-only.

    Examples:
        >>> levels((3, 3)).reshape(3, 3).tolist()
        [[3, 3, 3], [3, 1, 2], [3, 2, 2]]
    """
    grid = np.meshgrid(*map(_axis_levels, shape), indexing="ij")
    return _frozen(np.max(grid, axis=0).ravel() if shape else np.ones(1, int))


def _frozen(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False  # All callers share the cached arrays.
    return array


def sizes(shape: SpatialShape, groups: str = "half_ring") -> tuple[int, ...]:
    """The sizes a kernel can have besides 0, equations (18) and (19).

    Args:
        shape: Spatial shape of the kernel, in positions.
        groups: `"half_ring"` (every size), `"ring"` (every other size) or `"kernel"` (all or none).

    Returns:
        Ascending sizes; a kernel with n nonzero groups has the n-th of them.

    Raises:
        ValueError: If `groups` is unknown.

    Examples:
        >>> sizes((5, 5)), sizes((5, 5), "ring"), sizes((5, 5), "kernel"), sizes(())
        ((1, 2, 3, 4, 5), (1, 3, 5), (5,), (1,))
    """
    one_of("groups", groups, GROUPS)
    base = max(shape, default=1)
    step = {"half_ring": 1, "ring": 2, "kernel": base}[groups]
    return tuple(range(base, 0, -step))[::-1]


@functools.lru_cache(maxsize=256)
def masks(shape: SpatialShape, groups: str = "half_ring") -> np.ndarray:
    """The positions of each group, one row per group.

    Args:
        shape: Spatial shape of the kernel, in positions.
        groups: `"half_ring"`, `"ring"` or `"kernel"`.

    Returns:
        Float array (groups, positions) of 0 and 1, read-only: rows `G_1` (the outermost half-ring)
        to `G_s` (the whole kernel); each row contains the previous one.

    Raises:
        ValueError: If `groups` is unknown.

    Examples:
        >>> masks((2, 2)).astype(int)
        array([[0, 1, 1, 1],
               [1, 1, 1, 1]])
    """
    below = (0, *sizes(shape, groups)[:-1])[::-1]
    return _frozen((levels(shape)[None] > np.array(below)[:, None]).astype("float64"))


def ring_index(shape: SpatialShape, groups: str = "half_ring") -> np.ndarray:
    """The first group that contains each position.

    Args:
        shape: Spatial shape of the kernel, in positions.
        groups: `"half_ring"`, `"ring"` or `"kernel"`.

    Returns:
        Integers (positions,) from 0, the outermost group.

    Raises:
        ValueError: If `groups` is unknown.

    Examples:
        >>> ring_index((3, 3)).reshape(3, 3).tolist()
        [[0, 0, 0], [0, 2, 1], [0, 1, 1]]
    """
    mask = masks(shape, groups)
    return np.asarray(len(mask) - mask.sum(axis=0), dtype="int64")


def group_sizes(shape: SpatialShape, groups: str, channels: int) -> np.ndarray:
    """The number of entries `m` of each group.

    Args:
        shape: Spatial shape of the kernel, in positions.
        groups: `"half_ring"`, `"ring"` or `"kernel"`.
        channels: Number of input channels of the kernel.

    Returns:
        Integers (groups,).

    Raises:
        ValueError: If `groups` is unknown.

    Examples:
        >>> group_sizes((3, 3), "half_ring", channels=2)
        array([10, 16, 18])
    """
    return np.asarray(masks(shape, groups).sum(axis=1) * channels, dtype="int64")


def masked_kernel(kernel: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """Set a kernel to zero outside its supports.

    Args:
        kernel: np.ndarray (*spatial, in, out).
        sizes: The size of each kernel (out,).

    Returns:
        The masked kernel, of the same shape and dtype.
    """
    *shape, _, width = kernel.shape
    inside = np.zeros((*shape, width), bool)
    for size in sorted(set(sizes) - {0}):
        inside[support(tuple(shape), size)] |= np.asarray(sizes) == size
    return np.where(inside[..., None, :], kernel, np.zeros((), kernel.dtype))
