"""Exact proximal operators of the penalties on groups of kernel entries.

The proximal operator of a penalty Omega with step t maps a kernel k to the minimiser z of
`1/2 |z - k|^2 + t Omega(z)`. This module has one function for each form of the penalty:

- weighted sums of nested norms, equations (13) and (22): :func:`prox_chain`;
- their squares, equations (32) and (33): :func:`prox_squared`;
- one norm over the kernels of several layers, which may have different steps: the factors of
  :func:`joint_shrinkage`.

Shapes: a kernel is (*spatial, in, out); norms, weights and steps are (groups, kernels), or anything
that broadcasts to it. Values and slopes of the same penalties are in `penalties`.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Sequence

import keras
import numpy as np
from keras import ops

from keras_structsparse._typing import SpatialShape, Tensor
from keras_structsparse.regularizers._ops import (
    constant,
    cumulative_sum,
    largest,
    minimum,
    restore,
    safe_sqrt,
    zeros_to_ones,
)
from keras_structsparse.regularizers.group_norms import (
    group_norms,
    position_norms,
    ring_parts,
    ring_squares,
    rings_to_positions,
    to_blocks,
)
from keras_structsparse.regularizers.norm_factors import norm_factors
from keras_structsparse.regularizers.penalties import relaxed

MAX_BRACKETINGS = 80
"""Limit on the iterations of `prox_squared`; ordinary steps need about 6."""

NEWTON_STEPS = 12
"""Of `joint_shrinkage`: they converge quadratically and from below."""


def proximal_operator(
    kernel: Tensor,
    groups: str,
    norm: str,
    steps: Tensor,
    weights: Tensor = 1.0,
    power: int = 1,
    per: str = "kernel",
) -> Tensor:
    """Exact minimiser z of `1/2 |z - k|^2 + steps * value(norms(z), weights, power, per)`.

    Args:
        kernel: Kernel (*spatial, in, out).
        groups: `"half_ring"`, `"ring"` or `"kernel"`.
        norm: `"l2"`, `"group_normalized"` (25), `"group_scaled"` (29) or `"linf"`.
        steps: Non-negative scalar or (kernels,).
        weights: Group weights that broadcast to (groups, kernels).
        power: 1 for the penalties (13) and (22), 2 for (32) and (33).
        per: `"layer"` for the kernel count, `"kernel"` for the kernel size.

    Returns:
        Tensor of the kernel's shape and dtype; removed groups are exactly 0.

    Examples:
        >>> kernel = np.array([[3.0], [4.0]])
        >>> np.array(proximal_operator(kernel, "kernel", "l2", 1.0)).round(2).tolist()
        [[2.4], [3.2]]
    """
    if power == 1:
        return prox_chain(kernel, groups, norm, steps * weights)
    return prox_squared(kernel, groups, norm, steps, weights, per)


# --- equations (13) and (22): weighted sums of the norms of nested groups ---


def prox_chain(kernel: Tensor, groups: str, norm: str, steps: Tensor) -> Tensor:
    """Exact minimiser z of `1/2 |z - k|^2 + sum_nj steps_nj |z_j(G_n)|`.

    Nested groups form a chain. For a chain, the proximal operator is the composition of those of
    the single groups, from `G_1` to the whole kernel (Jenatton, Mairal, Obozinski and Bach, ICML
    2010 and JMLR 2011). In the l2 family each of them is block soft-thresholding; for `"linf"`
    it clips at the level of the projection onto an l1 ball.

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
        levels = _clip_levels(ops.abs(blocks), shape, groups, steps)
        level = rings_to_positions(levels, shape, groups)
        return restore(-minimum(-minimum(blocks, level), level), kernel)
    squares, scale = ring_squares(blocks, shape, groups)
    shrinkage = chain_shrinkage(squares, steps / scale)
    return restore(blocks * rings_to_positions(shrinkage, shape, groups), kernel)


def chain_shrinkage(squares: Tensor, steps: Tensor) -> Tensor:
    """Factors by which `prox_chain` multiplies the rings of kernels, for the l2 norms.

    Args:
        squares: Squared l2 norms of the rings (rings, kernels), the ring of `G_1` first.
        steps: Non-negative steps (groups, kernels), in the unit of the norms.

    Returns:
        Tensor (rings, kernels) of numbers from 0 to 1; the kernels themselves are not read.

    Examples:
        >>> np.array(chain_shrinkage(ops.array([[5.0], [4.0]]), ops.array([[0.0], [1.5]]))).tolist()
        [[0.5], [0.5]]
    """
    inner = ops.zeros_like(squares[0])
    factors = []
    for n in range(squares.shape[0]):
        norm = safe_sqrt(ops.square(inner) + squares[n])
        # Written so that a NaN is kept. A step of 0 changes nothing, however small the norm is.
        removed = ops.logical_and(norm <= steps[n], steps[n] > 0)
        factors.append(ops.where(removed, 0.0, 1.0 - steps[n] / zeros_to_ones(norm)))
        inner = norm * factors[-1]
    return ops.stack([*itertools.accumulate(reversed(factors), operator.mul)][::-1])


def _clip_levels(magnitudes: Tensor, shape: SpatialShape, groups: str, steps: Tensor) -> Tensor:
    """Levels (rings, kernels) at which the rings are clipped, from entries (positions, in, out)."""
    inner = magnitudes[:0, 0]
    levels = []
    for n, part in enumerate(ring_parts(magnitudes, shape, groups)):
        inner = ops.concatenate([inner, ops.reshape(part, (-1, part.shape[-1]))])
        levels.append(_l1_ball_level(inner, steps[n]))
        inner = minimum(inner, levels[-1])
    # A ring is clipped by its own group and by all larger ones.
    return ops.stack([ops.min(ops.stack(levels[n:]), axis=0) for n in range(len(levels))])


def _l1_ball_level(magnitudes: Tensor, radius: Tensor) -> Tensor:
    """Level (kernels,) above which entries (entries, kernels) add up to the radius, 0 if none."""
    descending = ops.flip(ops.sort(magnitudes, axis=0), axis=0)
    counts = constant(np.arange(1, magnitudes.shape[0] + 1)[:, None], like=magnitudes)
    # (sum of the k largest - radius) / k rises until k reaches the entries above the level.
    return ops.max(ops.relu((cumulative_sum(descending) - radius) / counts), axis=0)


# --- equations (32) and (33): squares of the relaxed width or sizes ---


def prox_squared(
    kernel: Tensor,
    groups: str,
    norm: str,
    steps: Tensor,
    weights: Tensor = 1.0,
    per: str = "kernel",
) -> Tensor:
    """Exact minimiser z of `1/2 |z - k|^2 + steps * value(norms(z), weights, power=2, per)`.

    At the minimum, z is `prox_chain` of k with the steps `2 u steps weights`, where u is the
    relaxed width (12) or size (21) of z itself. The relaxed width of `prox_chain` falls as u
    rises, so there is exactly one such u; it is found by bracketing.

    The arguments are those of :func:`proximal_operator`.

    Returns:
        Tensor of the kernel's shape and dtype.

    Examples:
        >>> kernel = np.array([[3.0], [4.0]])
        >>> np.array(prox_squared(kernel, "kernel", "l2", 0.5)).round(2).tolist()
        [[1.5], [2.0]]
    """
    twin, twin_norm, factors = _smallest_twin(kernel, groups, norm)
    steps, weights = constant(steps, like=twin), constant(weights, like=twin)

    def steps_at(level: Tensor) -> Tensor:
        return 2.0 * level * steps * weights

    def relaxed_after(level: Tensor) -> Tensor:
        after = prox_chain(twin, groups, twin_norm, steps_at(level) * factors)
        return relaxed(group_norms(after, groups, twin_norm) * factors, weights, per)

    upper = _removing_level(twin, steps_at(constant(1.0, like=twin)) * factors, per)
    level = _fixed_point(relaxed_after, relaxed_after(ops.zeros_like(factors[0])), upper)
    return prox_chain(kernel, groups, norm, steps_at(level))


def _smallest_twin(kernel: Tensor, groups: str, norm: str) -> tuple[Tensor, str, Tensor]:
    """The smallest kernel with the same norms after any `prox_chain`, its norm, and the factors.

    In the l2 family one input channel is enough: the l2 norms over the input channels.
    """
    blocks, shape = to_blocks(kernel)
    factors = constant(norm_factors(shape, groups, blocks.shape[1], norm), like=blocks)
    if norm != "linf":
        blocks = position_norms(blocks)[:, None]
    twin = ops.reshape(blocks, (*shape, *blocks.shape[1:]))
    return twin, "linf" if norm == "linf" else "l2", factors


def _removing_level(twin: Tensor, steps: Tensor, per: str) -> Tensor:
    """A level u that removes all kernels: the step of each whole kernel reaches its l1 norm."""
    sums = ops.sum(ops.abs(to_blocks(twin)[0]), axis=(0, 1))
    levels = ops.where(steps[-1] > 0, sums / zeros_to_ones(steps[-1]), np.inf)
    return ops.max(levels, keepdims=True) if per == "layer" else levels


def _fixed_point(falling: Callable[[Tensor], Tensor], at_zero: Tensor, upper: Tensor) -> Tensor:
    """Solve `falling(u) = u`, given `falling(0)` and a point `upper` where it is 0."""
    high = minimum(at_zero, upper)
    # Rows: lower end, excess there, upper end, excess there; the excess is falling(u) - u.
    start = ops.stack([ops.zeros_like(high), at_zero, high, falling(high) - high])
    tolerance = 4 * np.finfo(keras.backend.standardize_dtype(high.dtype)).eps

    def unsettled(_: Tensor, bracket: Tensor) -> Tensor:
        # The excess falls at least as fast as u rises, so its size bounds the error of u.
        return ops.any(minimum(bracket[1], -bracket[3]) > tolerance * bracket[2])

    def narrow(turn: Tensor, bracket: Tensor) -> tuple[Tensor, Tensor]:
        # Bisection in every other step moves both ends, so that the secant converges fast.
        guess = ops.where(turn, _secant(bracket), 0.5 * (bracket[0] + bracket[2]))
        excess = falling(guess) - guess
        # One choice for the whole bracket: XLA may compute, and round, a condition twice.
        raised = ops.stack([guess, excess, bracket[2], bracket[3]])
        lowered = ops.stack([bracket[0], bracket[1], guess, excess])
        return ops.logical_not(turn), ops.where(excess > 0, raised, lowered)

    state = (ops.convert_to_tensor(False), start)
    return _secant(ops.while_loop(unsettled, narrow, state, maximum_iterations=MAX_BRACKETINGS)[1])


def _secant(bracket: Tensor) -> Tensor:
    low, above, high, below = (bracket[i] for i in range(4))
    return low + (high - low) * (above / zeros_to_ones(above - below))


# --- one norm over the kernels of several layers ---


def joint_shrinkage(lengths: Sequence[Tensor], thresholds: Sequence[Tensor]) -> list[Tensor]:
    """Factors of the proximal operator of a norm over several vectors, each with its own step.

    Minimises `sum_w |z_w - u_w|^2 / (2 b_w) + |(z_1, z_2, ...)|`. Each `z_w` is `u_w` times
    `rho / (rho + b_w)`, where rho is the norm of the result and the root of
    `sum_w |u_w|^2 / (rho + b_w)^2 = 1`. For equal thresholds this is block soft-thresholding.

    Args:
        lengths: `|u_w|` of each vector, tensors of one shape.
        thresholds: `b_w` of each vector, of the same shape; positive, or all 0.

    Returns:
        The factor of each vector, of the same shape; 0 where the whole result vanishes.

    Examples:
        >>> factors = joint_shrinkage([ops.array([3.0]), ops.array([4.0])], [ops.array([1.0])] * 2)
        >>> [round(float(factor[0]), 3) for factor in factors]
        [0.8, 0.8]
    """
    u, b = ops.stack(list(lengths)), ops.stack(list(thresholds))
    # The factors do not change with the unit; squares of small or large numbers would be 0 or inf.
    unit = largest(u, axis=0)
    u, b, squares = u / unit, b / unit, ops.square(u / unit)
    # Newton starts below the root: this would be rho if all thresholds were the largest.
    rho = ops.relu(safe_sqrt(ops.sum(squares, axis=0)) - ops.max(b, axis=0))
    for _ in range(NEWTON_STEPS):
        rho = rho + _newton(squares, rho + b)
    tiny = constant(1e-18, like=u)
    removed = ops.sum(ops.square(u / ops.maximum(b, tiny)), axis=0) <= 1.0
    factors = ops.where(removed, 0.0, rho / zeros_to_ones(rho + b))
    return [factors[w] for w in range(len(lengths))]


def _newton(squares: Tensor, total: Tensor) -> Tensor:
    """Newton's step for `(sum_w squares_w / total_w^2) ** -0.5 = 1`, which is concave in rho."""
    total = ops.where(total > 0, total, 1.0)
    ratios = squares / ops.square(total)
    value, slope = ops.sum(ratios, axis=0), ops.sum(ratios / total, axis=0)
    return ops.relu(value * (ops.sqrt(value) - 1.0) / zeros_to_ones(slope))
