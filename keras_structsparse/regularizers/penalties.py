"""Penalties on group norms: value, slopes, sub-gradient and group weights, on plain arrays.

`per` says which sum is a relaxed count, and is squared when `power` is 2:

- `"layer"`: the width `d'_i = sum_j |k_ij|` (12), for the penalties (13) and (32);
- `"kernel"`: the kernel size `s'_ij = sum_n |k_ij(G_n)|` (21), for the penalties (22) and (33).

Shapes: a kernel is (*spatial, in, out); norms and weights are (groups, kernels), or anything that
broadcasts to it. The proximal operators of the same penalties are in `prox`.
"""

from __future__ import annotations

from keras import ops

from keras_structsparse._typing import SpatialShape, Tensor
from keras_structsparse.regularizers._ops import (
    constant,
    largest,
    restore,
    reverse_cumulative_sum,
    safe_sqrt,
    zeros_to_ones,
)
from keras_structsparse.regularizers.group_norms import (
    nested_maxima,
    nested_norms,
    reduce_rings,
    ring_squares,
    rings_to_positions,
    to_blocks,
)
from keras_structsparse.regularizers.norm_factors import norm_factors


def relaxed(norms: Tensor, weights: Tensor = 1.0, per: str = "kernel") -> Tensor:
    """The relaxed width `d'_i` (12) or the relaxed sizes `s'_ij` (21): weighted sums of norms.

    Args:
        norms: Group norms (groups, kernels).
        weights: Group weights that broadcast to `norms`.
        per: `"layer"` for one sum, `"kernel"` for one sum per kernel.

    Returns:
        Tensor (1,) or (kernels,).

    Examples:
        >>> import numpy as np
        >>> np.array(relaxed(ops.array([[3.0, 0.0], [5.0, 1.0]]))).tolist()
        [8.0, 1.0]
    """
    norms = ops.convert_to_tensor(norms)
    sums = ops.sum(constant(weights, like=norms) * norms, axis=0)
    return ops.sum(sums, keepdims=True) if per == "layer" else sums


def value(
    norms: Tensor,
    weights: Tensor = 1.0,
    power: int = 1,
    per: str = "kernel",
    strength: Tensor = 1.0,
) -> Tensor:
    """The penalty of one layer: its term of (13) or (22), or with `power=2` of (32) or (33).

    Args:
        norms: Group norms (groups, kernels).
        weights: Group weights that broadcast to `norms`.
        power: 1 or 2, the power of each relaxed width or size.
        per: `"layer"` (kernel count) or `"kernel"` (kernel size).
        strength: Factor >= 0 of the penalty.

    Returns:
        Scalar tensor.

    Examples:
        >>> norms = ops.array([[3.0, 0.0], [5.0, 1.0]])
        >>> float(value(norms)), float(value(norms, power=2)), float(value(norms, 1.0, 2, "layer"))
        (9.0, 65.0, 81.0)
    """
    terms = relaxed(norms, weights, per)
    strength = constant(strength, like=terms)
    if power == 1:
        return strength * ops.sum(terms)
    # In this order a strength of 0 gives 0, also where the square of a term is no number.
    return ops.sum(ops.square(safe_sqrt(strength) * terms))


def slopes(norms: Tensor, weights: Tensor = 1.0, power: int = 1, per: str = "kernel") -> Tensor:
    """Derivative of `value` with respect to the norms, with the weights held fixed.

    For `power=1` these are the weights; for `power=2` they are `2 u` times the weights, where u is
    the relaxed width (12) or size (21).

    Args:
        norms: Group norms (groups, kernels).
        weights: Group weights that broadcast to `norms`.
        power: 1 or 2.
        per: `"layer"` or `"kernel"`.

    Returns:
        Tensor (groups, kernels).

    Examples:
        >>> import numpy as np
        >>> np.array(slopes(ops.array([[3.0, 0.0]]), power=2, per="layer")).tolist()
        [[6.0, 6.0]]
    """
    weights = constant(weights, like=norms) * ops.ones_like(norms)
    return weights if power == 1 else 2.0 * relaxed(norms, weights, per) * weights


def reweighting(norms: Tensor, eps: float) -> Tensor:
    """Group weights that shrink large groups less: `eps m / (norm + eps m)`.

    A group of zeros has the weight 1, a large group about `eps m / norm`. The scale m is the mean
    norm of the layer's whole kernels (the last group). The weights are constants: no gradient flows
    through them.

    Args:
        norms: Group norms (groups, kernels).
        eps: Number >= 0 without unit; 0 switches the reweighting off (all weights are 1).

    Returns:
        Tensor (groups, kernels) of numbers from 0 to 1.

    Examples:
        >>> import numpy as np
        >>> np.array(reweighting(ops.array([[0.0, 2.0]]), eps=2.0)).tolist()
        [[1.0, 0.5]]
    """
    if eps == 0:
        return ops.ones_like(norms)
    norms = ops.stop_gradient(ops.convert_to_tensor(norms))
    # Not `ops.mean`, which rounds to float32 on JAX.
    return _decreasing_weights(norms, eps * ops.sum(norms[-1]) / norms.shape[-1])


def counting_weights(norms: Tensor, eps: float) -> Tensor:
    """Group weights that turn norms into counts: `(1 + eps) m / (norm + eps m)`.

    A weighted norm is 0 where the norm is 0, m where the norm is m, and at most `(1 + eps) m`. The
    scale m is `sum |k|^2 / sum |k|` over the kernels: their mean norm if all norms are equal, and
    independent of kernels of zeros. The weights are constants: no gradient flows through them.

    Args:
        norms: Group norms (groups, kernels).
        eps: Number >= 0 without unit; 0 switches the weights off (all are 1).

    Returns:
        Tensor (groups, kernels) of positive numbers.

    Examples:
        >>> import numpy as np
        >>> np.array(counting_weights(ops.array([[0.0, 2.0, 2.0]]), eps=0.5)).tolist()
        [[3.0, 1.0, 1.0]]
    """
    if eps == 0:
        return ops.ones_like(norms)
    norms = ops.stop_gradient(ops.convert_to_tensor(norms))
    unit = largest(norms[-1], axis=0)
    whole = norms[-1] / unit
    scale = unit * (ops.sum(ops.square(whole)) / zeros_to_ones(ops.sum(whole)))
    return (1 + 1 / eps) * _decreasing_weights(norms, eps * scale)


def _decreasing_weights(norms: Tensor, scale: Tensor) -> Tensor:
    """`scale / (norm + scale)`."""
    # A layer of zeros has scale 0: its groups have the weight 1, like every group of zeros.
    zero = ops.equal(norms + scale, 0)
    return ops.where(zero, 1.0, scale / ops.where(zero, 1.0, norms + scale))


def subgradient(kernel: Tensor, groups: str, norm: str, slope: Tensor) -> Tensor:
    """Sub-gradient at the kernel, given the derivative with respect to its group norms.

    Equal to automatic differentiation of `group_norms`: 0 at groups of zeros, and split evenly
    among the entries that tie for the maximum of a `"linf"` norm.

    Args:
        kernel: Kernel (*spatial, in, out).
        groups: `"half_ring"`, `"ring"` or `"kernel"`.
        norm: `"l2"`, `"group_normalized"`, `"group_scaled"` or `"linf"`.
        slope: Derivative (groups, kernels), as :func:`slopes` returns it.

    Returns:
        Tensor of the kernel's shape and dtype.

    Examples:
        >>> import numpy as np
        >>> kernel = np.array([[3.0, 0.0], [4.0, 0.0]])
        >>> np.array(subgradient(kernel, "kernel", "l2", np.ones((1, 2)))).round(2).tolist()
        [[0.6, 0.0], [0.8, 0.0]]
    """
    blocks, shape = to_blocks(kernel)
    pull_back = _pull_back_linf if norm == "linf" else _pull_back_l2
    factors = constant(norm_factors(shape, groups, blocks.shape[1], norm), like=blocks)
    slope = constant(slope, like=blocks) * factors
    return restore(pull_back(blocks, shape, groups, slope), kernel)


def _pull_back_l2(blocks: Tensor, shape: SpatialShape, groups: str, slope: Tensor) -> Tensor:
    squares, scale = ring_squares(blocks, shape, groups)
    norms = nested_norms(squares)
    ratios = ops.where(norms > 0, slope / zeros_to_ones(norms), 0.0)
    factors = rings_to_positions(reverse_cumulative_sum(ratios), shape, groups)
    return (blocks / scale) * factors


def _pull_back_linf(blocks: Tensor, shape: SpatialShape, groups: str, slope: Tensor) -> Tensor:
    magnitudes = ops.abs(blocks)
    by_position = ops.max(magnitudes, axis=1)
    by_rings = reduce_rings(by_position, shape, groups, ops.max)
    by_groups, candidates = nested_maxima(by_rings)
    # Each maximum passes its share on, split evenly among ties: groups, rings, positions, entries.
    shares = ops.sum(_ties(candidates, by_groups[:, None], axis=1) * slope[:, None], axis=0)
    ring_maxima = rings_to_positions(by_rings, shape, groups)[:, 0]
    hits = ops.cast(ops.equal(by_position, ring_maxima), blocks.dtype)
    shares = shares / zeros_to_ones(reduce_rings(hits, shape, groups, ops.sum))
    shares = rings_to_positions(shares, shape, groups) * hits[:, None]
    return shares * _ties(magnitudes, by_position[:, None], axis=1) * ops.sign(blocks)


def _ties(candidates: Tensor, maximum: Tensor, axis: int) -> Tensor:
    """1 over the number of candidates that equal the maximum, 0 for all others."""
    hits = ops.cast(ops.equal(candidates, maximum), candidates.dtype)
    # XLA may round the two sides differently, so that nothing is equal: no gradient, not NaN.
    return hits / zeros_to_ones(ops.sum(hits, axis=axis, keepdims=True))
