"""The norms of nested groups of kernel entries, as differentiable tensors.

Blocks are kernels with flat positions (positions, in, kernels); the ring of a group holds what the
group adds to the one before it.
"""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
from keras import ops

from keras_structsparse._typing import SpatialShape, Tensor
from keras_structsparse.graph.kernel_supports import masks, ring_index
from keras_structsparse.regularizers.nested_groups import norm_factors

MOST_ENTRIES = 4_000_000
"""Of the array (rings, positions, kernels) in `ring_squares`; above it, ring by ring is lighter."""


def to_blocks(kernel: Tensor) -> tuple[Tensor, SpatialShape]:
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


def by_ring(
    values: Tensor, shape: SpatialShape, groups: str, reduce: Callable[..., Tensor]
) -> Tensor:
    """Reduce (positions, ...) over the positions of each ring to (groups, ...), G_1's ring first.

    Examples:
        >>> np.array(by_ring(ops.ones((9, 1)), (3, 3), "half_ring", ops.sum))[:, 0].tolist()
        [5.0, 3.0, 1.0]
    """
    return ops.stack([reduce(part, axis=0) for part in ring_parts(values, shape, groups)])


def ring_squares(blocks: Tensor, shape: SpatialShape, groups: str) -> Tensor:
    """The squared l2 norm of each ring of each kernel, (rings, kernels), the ring of G_1 first.

    Examples:
        >>> blocks, shape = to_blocks(np.ones((3, 3, 2, 1), "float32"))
        >>> np.array(ring_squares(blocks, shape, "half_ring"))[:, 0].tolist()
        [10.0, 6.0, 2.0]
    """
    squares = _sums_of_squares(blocks)
    mask = masks(shape, groups)
    if mask.size * squares.shape[-1] > MOST_ENTRIES:
        return by_ring(squares, shape, groups, ops.sum)
    rings = np.arange(len(mask))[:, None] == ring_index(shape, groups)
    # Not a matmul, which would round to TF32 on GPUs.
    inside = constant(rings[:, :, None].astype("float32"), like=blocks)
    return ops.sum(inside * squares[None], axis=1)


@ops.custom_gradient
def _sums_of_squares(blocks: Tensor) -> tuple[Tensor, Callable[..., Tensor]]:
    """Over the input channels: (positions, in, kernels) to (positions, kernels)."""

    # In one pass: the derivatives of square and sum take three more over arrays of this size.
    def gradient(*arguments: Tensor, upstream: Tensor | None = None) -> Tensor:
        outer = arguments[0] if upstream is None else upstream
        return blocks * (2.0 * outer)[:, None]

    return ops.sum(ops.square(blocks), axis=1), gradient


def nested_norms(squares: Tensor) -> Tensor:
    """The l2 norm of each group from the squared norms of the rings, both (groups, kernels)."""
    return safe_sqrt(running_sum(squares))


def ring_parts(values: Tensor, shape: SpatialShape, groups: str) -> list[Tensor]:
    """Split (positions, ...) into one tensor per ring, the ring of `G_1` first."""
    ring = ring_index(shape, groups)
    ends = np.cumsum(np.bincount(ring)).tolist()
    ordered = ops.take(values, np.argsort(ring, kind="stable"), axis=0)
    return [ordered[start:end] for start, end in zip((0, *ends[:-1]), ends, strict=True)]


def running_sum(values: Tensor) -> Tensor:
    """Cumulated sums over the first axis: over the rings of each group, from rings to groups."""
    # `ops.cumsum` rounds float64 to float32 on torch, whose tensors have their own.
    own = getattr(values, "cumsum", None)
    return ops.cumsum(values, axis=0) if own is None else own(0)


def outward_sum(values: Tensor) -> Tensor:
    """Sums over the groups that hold each ring, its own and all later ones: groups to rings."""
    return ops.flip(running_sum(ops.flip(values, axis=0)), axis=0)


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

    Examples:
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


def smaller(left: Tensor, right: Tensor) -> Tensor:
    """The entrywise minimum; a NaN on the left stays."""
    # Not `ops.minimum`, which rounds float64 to float32 on torch.
    return ops.where(left > right, right, left)


def nonzero(values: Tensor) -> Tensor:
    """Divisors: 1 in place of 0."""
    return ops.where(ops.equal(values, 0), 1.0, values)


def restore(blocks: Tensor, kernel: Tensor) -> Tensor:
    """Blocks in the shape and dtype of the kernel they come from."""
    return constant(ops.reshape(blocks, kernel.shape), like=kernel)
