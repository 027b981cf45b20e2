"""The norms of nested groups of kernel entries, as differentiable tensors.

Blocks are kernels with flattened spatial axes, (positions, in, kernels). The ring of a group is the
set of entries that the group adds to the next smaller one, so groups are unions of rings.
"""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
from keras import ops

from keras_structsparse._typing import SpatialShape, Tensor
from keras_structsparse.graph.nested_groups import masks, ring_index
from keras_structsparse.regularizers._ops import (
    constant,
    cumulative_sum,
    largest,
    safe_sqrt,
)
from keras_structsparse.regularizers.norm_factors import norm_factors

SAFE = (1e-16, 1e30)
"""Squared float32 norms between these bounds lose nothing that is above 1e-11 of a kernel."""

LEAST = 1e-32
"""Norms below count as zero for gradients, which would overflow in float32."""

MOST_ENTRIES = 4_000_000
"""Limit on the array (rings, positions, kernels) in `ring_squares`; larger ones are not formed."""


def to_blocks(kernel: Tensor) -> tuple[Tensor, SpatialShape]:
    """Flatten the spatial axes of a kernel, in the precision in which norms are computed.

    Args:
        kernel: Variable, tensor or array (*spatial, in, out); (in, out) for Dense.

    Returns:
        Tensor (positions, in, out), float64 if the kernel is and float32 otherwise, and the
        spatial shape.

    Raises:
        ValueError: If the kernel has fewer than two axes.
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


def reduce_rings(
    values: Tensor, shape: SpatialShape, groups: str, reduce: Callable[..., Tensor]
) -> Tensor:
    """Reduce (positions, ...) over each ring to (rings, ...), the ring of `G_1` first.

    Examples:
        >>> np.array(reduce_rings(ops.ones((9, 1)), (3, 3), "half_ring", ops.sum))[:, 0].tolist()
        [5.0, 3.0, 1.0]
    """
    return ops.stack([reduce(part, axis=0) for part in ring_parts(values, shape, groups)])


def ring_squares(blocks: Tensor, shape: SpatialShape, groups: str) -> tuple[Tensor, Tensor]:
    """Squared l2 norms of the rings of all kernels, in units of the kernel's scale.

    Squares of numbers beyond 1e19 or below 1e-19 are no float32 numbers. So every kernel is
    measured in units of its own size; what is 1e19 times smaller than that counts as zero.

    Returns:
        The squares (rings, kernels), the ring of `G_1` first, and the scales (kernels,): the norm
        of a ring is the root of its square times the scale. The scale is above 0, and the largest
        square at least 1 over the number of positions unless the kernel is zero.

    Examples:
        >>> blocks, shape = to_blocks(np.full((3, 3, 1, 1), 2e-30, "float32"))
        >>> squares, scale = ring_squares(blocks, shape, "half_ring")
        >>> np.array(squares)[:, 0].round(3).tolist(), round(float(scale[0]) / 2e-30, 3)
        ([5.0, 3.0, 1.0], 1.0)
    """
    norms = position_norms(blocks)
    scale = largest(norms, axis=0)
    squares = ops.square(norms / scale)
    mask = masks(shape, groups)
    if mask.size * squares.shape[-1] > MOST_ENTRIES:
        return reduce_rings(squares, shape, groups, ops.sum), scale
    rings = np.arange(len(mask))[:, None] == ring_index(shape, groups)
    # Not a matmul, which would round to TF32 on GPUs.
    inside = constant(rings[:, :, None].astype("float32"), like=blocks)
    return ops.sum(inside * squares[None], axis=1), scale


@ops.custom_gradient
def position_norms(blocks: Tensor) -> tuple[Tensor, Callable[..., Tensor]]:
    """l2 norms over the input channels: (positions, in, kernels) to (positions, kernels)."""
    squares = ops.sum(ops.square(blocks), axis=1)
    norms = ops.sqrt(squares)
    if keras.backend.standardize_dtype(blocks.dtype) != "float64":
        totals = ops.sum(squares, axis=0)
        # Squares of such numbers are exact enough: a second pass over the kernels is rare.
        usual = ops.logical_and(totals > SAFE[0], totals < SAFE[1])
        norms = ops.cond(ops.all(usual), lambda: norms, lambda: _in_range(blocks, totals))

    # One pass; automatic differentiation of square and sum needs three more over such an array.
    def gradient(*arguments: Tensor, upstream: Tensor | None = None) -> Tensor:
        outer = arguments[0] if upstream is None else upstream
        seen = norms > LEAST
        return blocks * ops.where(seen, outer / ops.where(seen, norms, 1.0), 0.0)[:, None]

    return norms, gradient


def _in_range(blocks: Tensor, totals: Tensor) -> Tensor:
    """:func:`position_norms` of float32 kernels whose squares are too small or too large."""
    factors = ops.where(totals < SAFE[0], 1e20, ops.where(totals < SAFE[1], 1.0, 1e-20))
    return ops.sqrt(ops.sum(ops.square(blocks * factors), axis=1)) / factors


def nested_norms(squares: Tensor) -> Tensor:
    """l2 norms (groups, kernels) of nested groups, from the squared norms of their rings.

    In the same units, those of :func:`ring_squares`.
    """
    return safe_sqrt(cumulative_sum(squares))


def ring_parts(values: Tensor, shape: SpatialShape, groups: str) -> list[Tensor]:
    """Split (positions, ...) into one tensor per ring, the ring of `G_1` first."""
    ring = ring_index(shape, groups)
    ends = np.cumsum(np.bincount(ring)).tolist()
    ordered = ops.take(values, np.argsort(ring, kind="stable"), axis=0)
    return [ordered[start:end] for start, end in zip((0, *ends[:-1]), ends, strict=True)]


def rings_to_positions(rings: Tensor, shape: SpatialShape, groups: str) -> Tensor:
    """Give every position the value of its ring: (rings, kernels) to (positions, 1, kernels)."""
    return ops.take(rings, ring_index(shape, groups), axis=0)[:, None]


def nested_maxima(rings: Tensor) -> tuple[Tensor, Tensor]:
    """Maxima over the rings of each group, from non-negative (rings, kernels).

    Returns the maxima (groups, kernels) and the candidates (groups, rings, kernels).
    """
    # Not a chain of `maximum`, whose gradient at a tie differs between backends.
    inside = np.tri(rings.shape[0], dtype=bool)[:, :, None]
    # Less than any magnitude, so that rings outside a group of zeros do not tie with its rings.
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
        ValueError: If `groups` or `norm` is unknown or the kernel has fewer than two axes.

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
        return nested_maxima(reduce_rings(channel_max, shape, groups, ops.max))[0]
    squares, scale = ring_squares(blocks, shape, groups)
    return nested_norms(squares) * (scale * constant(factors, like=squares))
