"""Nested groups of kernel entries, and their norms.

A kernel of size `s` is peeled from the outside in. The group `G_1` is what the first peel removes,
each next group adds the next peel, and `G_s` is the whole kernel; every group holds all input
channels of its positions. The groups are nested, so the number of non-zero groups *is* the size of
the kernel (equation 20 of the paper).

Arrays of positions are flat: position `p` of a kernel with spatial shape `(h, w)` is row `p // w`,
column `p % w`. A Dense kernel has the spatial shape `()`, one position and one group.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

Tensor = Any
Shape = tuple[int, ...]

GROUPS = ("half_ring", "ring", "kernel")
NORMS = ("l2", "group_normalized", "group_scaled", "linf")

# What multiplies the l2 norm of a group of m entries: equations (25) and (29).
_ENTRY_POWER = {"l2": 0.0, "group_normalized": -0.5, "group_scaled": 0.5, "linf": 0.0}


def require(argument: str, value: object, allowed: Sequence[object]) -> None:
    """Raise a ValueError unless an argument has one of its allowed values."""
    if value not in allowed:
        raise ValueError(f"`{argument}` must be one of {tuple(allowed)}. Received: {value!r}")


def support(shape: Shape, size: int) -> tuple[slice, ...]:
    """The box of positions that a kernel cut down to `size` keeps.

    An odd support loses its top row and left column first, an even one its bottom row and right
    column: the only order for which the crop, in a stride-1 `padding="same"` convolution, is the
    smaller `padding="same"` convolution. Rectangular kernels lose their longer side until square.

    Args:
        shape: Spatial shape of the kernel, in positions; `()` for Dense.
        size: Side of the square to keep, in positions; 0 keeps nothing.

    Returns:
        One slice per spatial axis.

    Raises:
        ValueError: If `size` is negative.

    Example:
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
def levels(shape: Shape) -> np.ndarray:
    """The smallest size whose support holds each position, integers (positions,).

    Example:
        >>> levels((3, 3)).reshape(3, 3).tolist()
        [[3, 3, 3], [3, 1, 2], [3, 2, 2]]
    """
    grid = np.meshgrid(*map(_axis_levels, shape), indexing="ij")
    return _frozen(np.max(grid, axis=0).ravel() if shape else np.ones(1, int))


def _frozen(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False  # Cached arrays are shared by all callers.
    return array


def sizes(shape: Shape, groups: str = "half_ring") -> tuple[int, ...]:
    """The sizes a kernel can have besides 0, equations (18) and (19).

    Args:
        shape: Spatial shape of the kernel, in positions.
        groups: `"half_ring"` (every size), `"ring"` (every other size) or `"kernel"` (all or none).

    Returns:
        Ascending sizes; with the n inmost groups non-zero, the kernel has the n-th of them.

    Raises:
        ValueError: If `groups` is unknown.

    Example:
        >>> sizes((5, 5)), sizes((5, 5), "ring"), sizes((5, 5), "kernel"), sizes(())
        ((1, 2, 3, 4, 5), (1, 3, 5), (5,), (1,))
    """
    require("groups", groups, GROUPS)
    base = max(shape, default=1)
    step = {"half_ring": 1, "ring": 2, "kernel": base}[groups]
    return tuple(range(base, 0, -step))[::-1]


@functools.lru_cache(maxsize=256)
def masks(shape: Shape, groups: str = "half_ring") -> np.ndarray:
    """The positions of each group, one row per group.

    Args:
        shape: Spatial shape of the kernel, in positions.
        groups: `"half_ring"`, `"ring"` or `"kernel"`.

    Returns:
        Float 0/1 array (groups, positions), read-only, rows `G_1` (the outermost half ring) to
        `G_s` (the whole kernel), each row containing the one before.

    Raises:
        ValueError: If `groups` is unknown.

    Example:
        >>> masks((2, 2)).astype(int)
        array([[0, 1, 1, 1],
               [1, 1, 1, 1]])
    """
    below = (0, *sizes(shape, groups)[:-1])[::-1]
    return _frozen((levels(shape)[None] > np.array(below)[:, None]).astype("float64"))


def ring_index(shape: Shape, groups: str = "half_ring") -> np.ndarray:
    """The first group that holds each position, integers (positions,) from 0 (outermost).

    Example:
        >>> ring_index((3, 3)).reshape(3, 3).tolist()
        [[0, 0, 0], [0, 2, 1], [0, 1, 1]]
    """
    mask = masks(shape, groups)
    return np.asarray(len(mask) - mask.sum(axis=0), dtype="int64")


def group_sizes(shape: Shape, groups: str, channels: int) -> np.ndarray:
    """The number of entries `m` of each group.

    Args:
        shape: Spatial shape of the kernel, in positions.
        groups: `"half_ring"`, `"ring"` or `"kernel"`.
        channels: Input channels of the kernel.

    Returns:
        Integers (groups,).

    Example:
        >>> group_sizes((3, 3), "half_ring", channels=2)
        array([10, 16, 18])
    """
    return np.asarray(masks(shape, groups).sum(axis=1) * channels, dtype="int64")


def norm_factors(shape: Shape, groups: str, channels: int, norm: str) -> np.ndarray:
    """What multiplies the plain norm of each group: 1, 1/sqrt(m) (25) or sqrt(m) (29).

    Args:
        shape: Spatial shape of the kernel, in positions.
        groups: `"half_ring"`, `"ring"` or `"kernel"`.
        channels: Input channels of the kernel.
        norm: `"l2"`, `"group_normalized"`, `"group_scaled"` or `"linf"`.

    Returns:
        Floats (groups, 1).

    Raises:
        ValueError: If `groups` or `norm` is unknown.

    Example:
        >>> norm_factors((2, 2), "kernel", 1, "group_scaled").tolist()
        [[2.0]]
    """
    require("norm", norm, NORMS)
    return np.asarray(group_sizes(shape, groups, channels)[:, None] ** _ENTRY_POWER[norm])


def to_blocks(kernel: Tensor) -> tuple[Tensor, Shape]:
    """Flatten a kernel's spatial axes, in the precision norms are computed in.

    Args:
        kernel: Variable, tensor or array (*spatial, in, out); (in, out) for Dense.

    Returns:
        Tensor (positions, in, out), float64 if the kernel is and float32 otherwise, and the
        spatial shape.

    Raises:
        ValueError: If the kernel has less than two axes.
    """
    kernel = ops.convert_to_tensor(kernel)
    if len(kernel.shape) < 2:
        raise ValueError(
            "`kernel` must have the shape (*spatial, in, out), two axes or more. "
            f"Received shape: {tuple(kernel.shape)}"
        )
    *shape, channels, kernels = kernel.shape
    wide = keras.backend.standardize_dtype(kernel.dtype) == "float64"
    blocks = ops.cast(kernel, "float64" if wide else "float32")
    return ops.reshape(blocks, (-1, channels, kernels)), tuple(shape)


def constant(values: Tensor | float, like: Tensor) -> Tensor:
    """Numbers, an array or a tensor, with the dtype of another tensor."""
    # Not `ops.cast`: a float must not pass through float32.
    return ops.convert_to_tensor(values, dtype=keras.backend.standardize_dtype(like.dtype))


def safe_sqrt(squares: Tensor) -> Tensor:
    """Square root of a non-negative tensor; its gradient at 0 is 0, on every backend."""
    zero = ops.equal(squares, 0)
    # Both branches must be finite at 0: a gradient of 0 * inf would be NaN on JAX and torch.
    return ops.where(zero, 0.0, ops.sqrt(ops.where(zero, 1.0, squares)))


def by_ring(values: Tensor, shape: Shape, groups: str, reduce: Callable[..., Tensor]) -> Tensor:
    """Reduce (positions, ...) over the positions of each ring to (groups, ...), G_1's ring first.

    Example:
        >>> np.array(by_ring(ops.ones((9, 1)), (3, 3), "half_ring", ops.sum))[:, 0].tolist()
        [5.0, 3.0, 1.0]
    """
    return ops.stack([reduce(part, axis=0) for part in ring_parts(values, shape, groups)])


def ring_squares(blocks: Tensor, shape: Shape, groups: str) -> Tensor:
    """The squared l2 norm of each ring of each kernel, (rings, kernels), the ring of G_1 first.

    Example:
        >>> blocks, shape = to_blocks(np.ones((3, 3, 2, 1), "float32"))
        >>> np.array(ring_squares(blocks, shape, "half_ring"))[:, 0].tolist()
        [10.0, 6.0, 2.0]
    """
    rings = np.arange(len(masks(shape, groups)))[:, None] == ring_index(shape, groups)
    # Not a matmul, which would round to TF32 on GPUs.
    inside = constant(rings[:, :, None].astype("float32"), like=blocks)
    return ops.sum(inside * ops.sum(ops.square(blocks), axis=1)[None], axis=1)


def nested_norms(squares: Tensor) -> Tensor:
    """The l2 norm of each group from the squared norms of the rings, both (groups, kernels)."""
    return safe_sqrt(ops.cumsum(squares, axis=0))


def ring_parts(values: Tensor, shape: Shape, groups: str) -> list[Tensor]:
    """Split (positions, ...) into one tensor per ring, the ring of `G_1` first."""
    ring = ring_index(shape, groups)
    ends = np.cumsum(np.bincount(ring)).tolist()
    ordered = ops.take(values, np.argsort(ring, kind="stable"), axis=0)
    return [ordered[start:end] for start, end in zip((0, *ends[:-1]), ends, strict=True)]


def running_max(rings: Tensor) -> tuple[Tensor, Tensor]:
    """Maxima over the rings of each group, from non-negative (rings, kernels).

    Returns the maxima (groups, kernels), and the (groups, rings, kernels) they are taken over.
    """
    # Not a chain of `maximum`, whose gradient at a tie differs between backends.
    inside = np.tri(rings.shape[0], dtype=bool)[:, :, None]
    # Below all magnitudes, so that rings outside a group of zeros do not tie with its rings.
    candidates = ops.where(inside, rings[None], -1.0)
    return ops.max(candidates, axis=1), candidates


def group_norms(kernel: Tensor, groups: str = "half_ring", norm: str = "l2") -> Tensor:
    """The norm of every group of every kernel: `|k_ij(G_n)|` of equations (12) and (21).

    Args:
        kernel: Variable, tensor or array (*spatial, in, out); (in, out) for Dense.
        groups: `"half_ring"`, `"ring"` or `"kernel"`.
        norm: `"l2"`, `"group_normalized"` (25), `"group_scaled"` (29) or `"linf"`.

    Returns:
        Tensor (groups, kernels), `G_1` first; float64 if the kernel is and float32 otherwise.
        Its gradient at a group of zeros is 0.

    Raises:
        ValueError: If `groups` or `norm` is unknown or the kernel has less than two axes.

    Example:
        >>> kernel = np.zeros((3, 3, 1, 1), "float32")
        >>> kernel[1, 1] = 3.0
        >>> kernel[1, 2] = 4.0
        >>> np.array(group_norms(kernel))[:, 0].tolist()
        [0.0, 4.0, 5.0]
    """
    blocks, shape = to_blocks(kernel)
    factors = norm_factors(shape, groups, blocks.shape[1], norm)
    if norm == "linf":
        # Not `abs`, whose derivative at 0 is 1 on JAX.
        channel_max = ops.max(blocks * ops.sign(blocks), axis=1)
        return running_max(by_ring(channel_max, shape, groups, ops.max))[0]
    squares = ring_squares(blocks, shape, groups)
    return nested_norms(squares) * constant(factors, like=squares)
