"""Penalties on group norms, their sub-gradients and their exact proximal steps, on plain arrays.

Shapes: a kernel is (*spatial, in, out); norms, weights and steps are (groups, kernels), or anything
that broadcasts to it. `per` says which sum is relaxed, and squared when `power` is 2: `"layer"` for
the kernel count `d'_i` (12), `"kernel"` for the kernel size `s'_ij` (21).
"""

from __future__ import annotations

import itertools
import operator

import numpy as np
from keras import ops

from keras_structsparse._typing import SpatialShape, Tensor
from keras_structsparse.graph.kernel_supports import ring_index
from keras_structsparse.regularizers.group_norms import (
    by_ring,
    constant,
    nested_norms,
    nonzero,
    outward_sum,
    restore,
    ring_parts,
    ring_squares,
    running_max,
    running_sum,
    safe_sqrt,
    smaller,
    to_blocks,
)
from keras_structsparse.regularizers.nested_groups import norm_factors


def relaxed(norms: Tensor, weights: Tensor = 1.0, per: str = "kernel") -> Tensor:
    """The relaxed width `d'_i` (12) or the relaxed sizes `s'_ij` (21): weighted sums of norms.

    Args:
        norms: Group norms (groups, kernels).
        weights: Group weights that broadcast to `norms`.
        per: `"layer"` for one sum, `"kernel"` for one sum per kernel.

    Returns:
        Tensor (1,) or (kernels,).

    Examples:
        >>> np.array(relaxed(ops.array([[3.0, 0.0], [5.0, 1.0]]))).tolist()
        [8.0, 1.0]
    """
    norms = ops.convert_to_tensor(norms)
    sums = ops.sum(constant(weights, like=norms) * norms, axis=0)
    return ops.sum(sums, keepdims=True) if per == "layer" else sums


def value(norms: Tensor, weights: Tensor = 1.0, power: int = 1, per: str = "kernel") -> Tensor:
    """The penalty of one layer: its terms of (13), (22), or with `power=2` of (32), (33).

    Args:
        norms: Group norms (groups, kernels).
        weights: Group weights that broadcast to `norms`.
        power: 1 or 2, the power of each relaxed width or size.
        per: `"layer"` (kernel count) or `"kernel"` (kernel size).

    Returns:
        Scalar tensor.

    Examples:
        >>> norms = ops.array([[3.0, 0.0], [5.0, 1.0]])
        >>> float(value(norms)), float(value(norms, power=2)), float(value(norms, 1.0, 2, "layer"))
        (9.0, 65.0, 81.0)
    """
    terms = relaxed(norms, weights, per)
    return ops.sum(terms if power == 1 else ops.square(terms))


def slopes(norms: Tensor, weights: Tensor = 1.0, power: int = 1, per: str = "kernel") -> Tensor:
    """Derivative of `value` with respect to the norms, at fixed weights.

    Args:
        norms: Group norms (groups, kernels).
        weights: Group weights that broadcast to `norms`.
        power: 1 or 2.
        per: `"layer"` or `"kernel"`.

    Returns:
        Tensor (groups, kernels).

    Examples:
        >>> np.array(slopes(ops.array([[3.0, 0.0]]), power=2, per="layer")).tolist()
        [[6.0, 6.0]]
    """
    weights = constant(weights, like=norms) * ops.ones_like(norms)
    return weights if power == 1 else 2.0 * relaxed(norms, weights, per) * weights


def reweighting(norms: Tensor, eps: float) -> Tensor:
    """Group weights that spare the groups that stay: `eps m / (norm + eps m)`.

    A group of zeros weighs 1, a large one about `eps m / norm`, so large groups are hardly shrunk.
    The scale m is the mean over the layer's kernels of the norm of the whole kernel (the last
    group). Weights are constants: no gradient flows through them.

    Args:
        norms: Group norms (groups, kernels).
        eps: Positive number without unit; 0 switches reweighting off (all weights 1).

    Returns:
        Tensor (groups, kernels) of numbers from 0 to 1.

    Examples:
        >>> np.array(reweighting(ops.array([[0.0, 2.0]]), eps=2.0)).tolist()
        [[1.0, 0.5]]
    """
    if eps == 0:
        return ops.ones_like(norms)
    norms = ops.stop_gradient(ops.convert_to_tensor(norms))
    # Not `ops.mean`, which rounds to float32 on JAX.
    return _sparing(norms, eps * ops.sum(norms[-1]) / norms.shape[-1])


def counting(norms: Tensor, eps: float) -> Tensor:
    """Group weights that make norms count alike: `(1 + eps) m / (norm + eps m)`.

    A weighted norm is 0 where the norm is, m where it is m, and at most `(1 + eps) m`. The scale m
    is `sum |k|^2 / sum |k|` over the kernels, their mean norm where they are equally long; kernels
    of zeros have no part in it. Weights are constants: no gradient flows through them.

    Args:
        norms: Group norms (groups, kernels).
        eps: Positive number without unit; 0 switches the weights off (all are 1).

    Returns:
        Tensor (groups, kernels) of positive numbers.

    Examples:
        >>> np.array(counting(ops.array([[0.0, 2.0, 2.0]]), eps=0.5)).tolist()
        [[3.0, 1.0, 1.0]]
    """
    if eps == 0:
        return ops.ones_like(norms)
    norms = ops.stop_gradient(ops.convert_to_tensor(norms))
    scale = ops.sum(ops.square(norms[-1])) / nonzero(ops.sum(norms[-1]))
    return (1 + 1 / eps) * _sparing(norms, eps * scale)


def _sparing(norms: Tensor, scale: Tensor) -> Tensor:
    """`scale / (norm + scale)`."""
    # A layer of zeros has scale 0: its groups weigh 1 like every group of zeros.
    zero = ops.equal(norms + scale, 0)
    return ops.where(zero, 1.0, scale / ops.where(zero, 1.0, norms + scale))


def subgradient(kernel: Tensor, groups: str, norm: str, slope: Tensor) -> Tensor:
    """The kernel's sub-gradient, given the derivative with respect to its group norms.

    Equal to automatic differentiation of `group_norms`: 0 at groups of zeros, and split evenly
    among the entries that tie for a `"linf"` norm.

    Args:
        kernel: Kernel (*spatial, in, out).
        groups: `"half_ring"`, `"ring"` or `"kernel"`.
        norm: `"l2"`, `"group_normalized"`, `"group_scaled"` or `"linf"`.
        slope: Derivative (groups, kernels), as `slopes` gives it.

    Returns:
        Tensor of the kernel's shape and dtype.

    Examples:
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
    norms = nested_norms(ring_squares(blocks, shape, groups))
    ratios = ops.where(norms > 0, slope / nonzero(norms), 0.0)
    return blocks * _spread(outward_sum(ratios), shape, groups)


def _pull_back_linf(blocks: Tensor, shape: SpatialShape, groups: str, slope: Tensor) -> Tensor:
    magnitudes = ops.abs(blocks)
    by_position = ops.max(magnitudes, axis=1)
    by_rings = by_ring(by_position, shape, groups, ops.max)
    by_groups, candidates = running_max(by_rings)
    # Each maximum hands its share on, split evenly among ties: groups, rings, positions, entries.
    shares = ops.sum(_ties(candidates, by_groups[:, None], axis=1) * slope[:, None], axis=0)
    hits = ops.cast(ops.equal(by_position, _spread(by_rings, shape, groups)[:, 0]), blocks.dtype)
    shares = shares / nonzero(by_ring(hits, shape, groups, ops.sum))
    shares = _spread(shares, shape, groups) * hits[:, None]
    return shares * _ties(magnitudes, by_position[:, None], axis=1) * ops.sign(blocks)


def _ties(candidates: Tensor, maximum: Tensor, axis: int) -> Tensor:
    hits = ops.cast(ops.equal(candidates, maximum), candidates.dtype)
    # XLA may round the two sides differently, so that nothing is equal: no gradient, not NaN.
    return hits / nonzero(ops.sum(hits, axis=axis, keepdims=True))


def _spread(rings: Tensor, shape: SpatialShape, groups: str) -> Tensor:
    """From (rings, kernels) to (positions, 1, kernels)."""
    return ops.take(rings, ring_index(shape, groups), axis=0)[:, None]


def prox_chain(kernel: Tensor, groups: str, norm: str, steps: Tensor) -> Tensor:
    """Exact minimiser of `1/2 |z - k|^2 + sum_nj steps_nj norm_n(z_j(G_n))`.

    Nested groups form a chain, for which the proximal step is the composition of the proximal
    steps of the single groups, from `G_1` to the whole kernel (Jenatton, Mairal, Obozinski and
    Bach, ICML 2010 and JMLR 2011). For the l2 family these are block soft-thresholdings, for
    `"linf"` clippings at the level of the projection onto an l1 ball.

    Args:
        kernel: Kernel (*spatial, in, out).
        groups: `"half_ring"`, `"ring"` or `"kernel"`.
        norm: `"l2"`, `"group_normalized"`, `"group_scaled"` or `"linf"`.
        steps: Non-negative steps that broadcast to (groups, kernels).

    Returns:
        Tensor of the kernel's shape and dtype; removed groups are exactly 0.

    Examples:
        >>> kernel = np.array([[3.0, 0.3], [4.0, 0.4]])
        >>> np.abs(np.array(prox_chain(kernel, "kernel", "l2", 1.0))).round(2).tolist()
        [[2.4, 0.0], [3.2, 0.0]]
    """
    blocks, shape = to_blocks(kernel)
    factors = constant(norm_factors(shape, groups, blocks.shape[1], norm), like=blocks)
    steps = constant(steps, like=factors) * factors * ops.ones_like(blocks[0, :1])
    if norm == "linf":
        level = _spread(_clip_levels(ops.abs(blocks), shape, groups, steps), shape, groups)
        return restore(-smaller(-smaller(blocks, level), level), kernel)
    squares = ring_squares(blocks, shape, groups)
    return restore(blocks * _spread(shrinkage(squares, steps), shape, groups), kernel)


def shrinkage(squares: Tensor, steps: Tensor) -> Tensor:
    """What each ring is multiplied by, from the squared ring norms: no pass over the kernel."""
    inner = ops.zeros_like(squares[0])
    factors = []
    for n in range(squares.shape[0]):
        norm = safe_sqrt(ops.square(inner) + squares[n])
        # In this form a NaN stays a NaN.
        factors.append(ops.where(norm <= steps[n], 0.0, 1.0 - steps[n] / nonzero(norm)))
        inner = norm * factors[-1]
    return ops.stack([*itertools.accumulate(reversed(factors), operator.mul)][::-1])


def _clip_levels(magnitudes: Tensor, shape: SpatialShape, groups: str, steps: Tensor) -> Tensor:
    """The magnitude each ring is clipped to, from entries (positions, in, kernels)."""
    inner = magnitudes[:0, 0]
    levels = []
    for n, part in enumerate(ring_parts(magnitudes, shape, groups)):
        inner = ops.concatenate([inner, ops.reshape(part, (-1, part.shape[-1]))])
        levels.append(_l1_ball_level(inner, steps[n]))
        inner = smaller(inner, levels[-1])
    # A ring is clipped by its own group and by all later ones.
    return ops.stack([ops.min(ops.stack(levels[n:]), axis=0) for n in range(len(levels))])


def _l1_ball_level(magnitudes: Tensor, radius: Tensor) -> Tensor:
    """The level above which entries (entries, kernels) sum to the radius; 0 if all of them do."""
    descending = ops.flip(ops.sort(magnitudes, axis=0), axis=0)
    counts = constant(np.arange(1, magnitudes.shape[0] + 1)[:, None], like=magnitudes)
    # (sum of the k largest - radius) / k rises until k reaches the entries above the level.
    return ops.max(ops.relu((running_sum(descending) - radius) / counts), axis=0)
