"""Penalties on group norms, their sub-gradients and their exact proximal steps, on plain arrays.

Shapes: a kernel is (*spatial, in, out); norms, weights and steps are (groups, kernels), or anything
that broadcasts to it. `per` says which sum is relaxed, and squared when `power` is 2: `"layer"` for
the kernel count `d'_i` (12), `"kernel"` for the kernel size `s'_ij` (21).
"""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
from keras import ops

from keras_structsparse.groups import (
    Shape,
    Tensor,
    by_ring,
    constant,
    group_norms,
    nested_norms,
    norm_factors,
    ring_index,
    ring_parts,
    ring_squares,
    running_max,
    safe_sqrt,
    to_blocks,
)

MOST_STEPS = 80
"""Of the root finding in `prox_squared`; with ordinary steps it needs about 6."""


def relaxed(norms: Tensor, weights: Tensor = 1.0, per: str = "kernel") -> Tensor:
    """The relaxed width `d'_i` (12) or the relaxed sizes `s'_ij` (21): weighted sums of norms.

    Args:
        norms: Group norms (groups, kernels).
        weights: Group weights that broadcast to `norms`.
        per: `"layer"` for one sum, `"kernel"` for one sum per kernel.

    Returns:
        Tensor (1,) or (kernels,).

    Example:
        >>> np.array(relaxed(ops.array([[3.0, 0.0], [5.0, 1.0]]))).tolist()
        [8.0, 1.0]
    """
    sums = ops.sum(weights * norms, axis=0)
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

    Example:
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

    Example:
        >>> np.array(slopes(ops.array([[3.0, 0.0]]), power=2, per="layer")).tolist()
        [[6.0, 6.0]]
    """
    weights = weights * ops.ones_like(norms)
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

    Example:
        >>> np.array(reweighting(ops.array([[0.0, 2.0]]), eps=2.0)).tolist()
        [[1.0, 0.5]]
    """
    if eps == 0:
        return ops.ones_like(norms)
    norms = ops.stop_gradient(norms)
    scale = eps * ops.mean(norms[-1])
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

    Example:
        >>> kernel = np.array([[3.0, 0.0], [4.0, 0.0]])
        >>> np.array(subgradient(kernel, "kernel", "l2", np.ones((1, 2)))).round(2).tolist()
        [[0.6, 0.0], [0.8, 0.0]]
    """
    blocks, shape = to_blocks(kernel)
    pull_back = _pull_back_linf if norm == "linf" else _pull_back_l2
    factors = constant(norm_factors(shape, groups, blocks.shape[1], norm), like=blocks)
    return _restore(pull_back(blocks, shape, groups, slope * factors), kernel)


def _pull_back_l2(blocks: Tensor, shape: Shape, groups: str, slope: Tensor) -> Tensor:
    norms = nested_norms(ring_squares(blocks, shape, groups))
    ratios = ops.where(norms > 0, slope / _nonzero(norms), 0.0)
    # A ring is in its own group and in all later ones.
    return blocks * _spread(_reverse(ops.cumsum, ratios), shape, groups)


def _pull_back_linf(blocks: Tensor, shape: Shape, groups: str, slope: Tensor) -> Tensor:
    magnitudes = ops.abs(blocks)
    by_position = ops.max(magnitudes, axis=1)
    by_rings = by_ring(by_position, shape, groups, ops.max)
    by_groups, candidates = running_max(by_rings)
    # Each maximum hands its share on, split evenly among ties: groups, rings, positions, entries.
    shares = ops.sum(_ties(candidates, by_groups[:, None], axis=1) * slope[:, None], axis=0)
    hits = ops.cast(ops.equal(by_position, _spread(by_rings, shape, groups)[:, 0]), blocks.dtype)
    shares = shares / _nonzero(by_ring(hits, shape, groups, ops.sum))
    shares = _spread(shares, shape, groups) * hits[:, None]
    return shares * _ties(magnitudes, by_position[:, None], axis=1) * ops.sign(blocks)


def _ties(candidates: Tensor, maximum: Tensor, axis: int) -> Tensor:
    hits = ops.cast(ops.equal(candidates, maximum), candidates.dtype)
    # XLA may round the two sides differently, so that nothing is equal: no gradient, not NaN.
    return hits / _nonzero(ops.sum(hits, axis=axis, keepdims=True))


def _reverse(scan: Callable[..., Tensor], rings: Tensor) -> Tensor:
    return ops.flip(scan(ops.flip(rings, axis=0), axis=0), axis=0)


def _nonzero(values: Tensor) -> Tensor:
    return ops.where(ops.equal(values, 0), 1.0, values)


def _spread(rings: Tensor, shape: Shape, groups: str) -> Tensor:
    """From (rings, kernels) to (positions, 1, kernels)."""
    return ops.take(rings, ring_index(shape, groups), axis=0)[:, None]


def _restore(blocks: Tensor, kernel: Tensor) -> Tensor:
    return constant(ops.reshape(blocks, kernel.shape), like=kernel)


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

    Example:
        >>> kernel = np.array([[3.0, 0.3], [4.0, 0.4]])
        >>> np.abs(np.array(prox_chain(kernel, "kernel", "l2", 1.0))).round(2).tolist()
        [[2.4, 0.0], [3.2, 0.0]]
    """
    blocks, shape = to_blocks(kernel)
    factors = constant(norm_factors(shape, groups, blocks.shape[1], norm), like=blocks)
    steps = constant(steps, like=factors) * factors * ops.ones_like(blocks[0, :1])
    if norm == "linf":
        level = _spread(_clip_levels(ops.abs(blocks), shape, groups, steps), shape, groups)
        return _restore(ops.maximum(ops.minimum(blocks, level), -level), kernel)
    squares = ring_squares(blocks, shape, groups)
    return _restore(blocks * _spread(shrinkage(squares, steps), shape, groups), kernel)


def shrinkage(squares: Tensor, steps: Tensor) -> Tensor:
    """What each ring is multiplied by, from the squared ring norms: no pass over the kernel."""
    inner = ops.zeros_like(squares[0])
    factors = []
    for n in range(squares.shape[0]):
        norm = safe_sqrt(ops.square(inner) + squares[n])
        # In this form a NaN stays a NaN.
        factors.append(ops.where(norm <= steps[n], 0.0, 1.0 - steps[n] / _nonzero(norm)))
        inner = norm * factors[-1]
    return _reverse(ops.cumprod, ops.stack(factors))


def _clip_levels(magnitudes: Tensor, shape: Shape, groups: str, steps: Tensor) -> Tensor:
    """The magnitude each ring is clipped to, from entries (positions, in, kernels)."""
    inner = magnitudes[:0, 0]
    levels = []
    for n, part in enumerate(ring_parts(magnitudes, shape, groups)):
        inner = ops.concatenate([inner, ops.reshape(part, (-1, part.shape[-1]))])
        levels.append(_l1_ball_level(inner, steps[n]))
        inner = ops.minimum(inner, levels[-1])
    # A ring is clipped by its own group and by all later ones.
    return ops.stack([ops.min(ops.stack(levels[n:]), axis=0) for n in range(len(levels))])


def _l1_ball_level(magnitudes: Tensor, radius: Tensor) -> Tensor:
    """The level above which entries (entries, kernels) sum to the radius; 0 if all of them do."""
    descending = ops.flip(ops.sort(magnitudes, axis=0), axis=0)
    counts = constant(np.arange(1, magnitudes.shape[0] + 1)[:, None], like=magnitudes)
    # (sum of the k largest - radius) / k rises until k reaches the entries above the level.
    return ops.max(ops.relu((ops.cumsum(descending, axis=0) - radius) / counts), axis=0)


def prox_squared(
    kernel: Tensor,
    groups: str,
    norm: str,
    steps: Tensor,
    weights: Tensor = 1.0,
    per: str = "kernel",
) -> Tensor:
    """Exact proximal step of the squared penalties (32) and (33).

    Minimises `1/2 |z - k|^2 + steps * value(norms(z), weights, power=2, per)`. At the minimum, z is
    the plain proximal step with the steps `2 u steps weights`, where u is the relaxed width or size
    of z itself; the left side falls as u rises, so root finding gives the one u that fits.

    Args:
        kernel: Kernel (*spatial, in, out).
        groups: `"half_ring"`, `"ring"` or `"kernel"`.
        norm: `"l2"`, `"group_normalized"`, `"group_scaled"` or `"linf"`.
        steps: Non-negative scalar or (kernels,).
        weights: Group weights that broadcast to (groups, kernels).
        per: `"layer"` or `"kernel"`.

    Returns:
        Tensor of the kernel's shape and dtype.

    Example:
        >>> kernel = np.array([[3.0], [4.0]])
        >>> np.array(prox_squared(kernel, "kernel", "l2", 0.5)).round(2).tolist()
        [[1.5], [2.0]]
    """
    twin, twin_norm, factors = _twin(kernel, groups, norm)
    steps, weights = constant(steps, like=twin), constant(weights, like=twin)

    def steps_at(level: Tensor) -> Tensor:
        return 2.0 * level * steps * weights

    def relaxed_after(level: Tensor) -> Tensor:
        after = prox_chain(twin, groups, twin_norm, steps_at(level) * factors)
        return relaxed(group_norms(after, groups, twin_norm) * factors, weights, per)

    reach = _removing_level(twin, steps_at(constant(1.0, like=twin)) * factors, per)
    level = _fixed_point(relaxed_after, relaxed_after(ops.zeros_like(factors[0])), reach)
    return prox_chain(kernel, groups, norm, steps_at(level))


def _twin(kernel: Tensor, groups: str, norm: str) -> tuple[Tensor, str, Tensor]:
    """The smallest kernel with the same norms after any prox, its norm, and its norms' factors."""
    blocks, shape = to_blocks(kernel)
    factors = constant(norm_factors(shape, groups, blocks.shape[1], norm), like=blocks)
    if norm != "linf":
        blocks = safe_sqrt(ops.sum(ops.square(blocks), axis=1, keepdims=True))
    twin = ops.reshape(blocks, (*shape, *blocks.shape[1:]))
    return twin, "linf" if norm == "linf" else "l2", factors


def _removing_level(twin: Tensor, steps: Tensor, per: str) -> Tensor:
    """A level whose steps remove every kernel: the whole kernel's step reaches its l1 norm."""
    sums = ops.sum(ops.abs(to_blocks(twin)[0]), axis=(0, 1))
    levels = ops.where(steps[-1] > 0, sums / _nonzero(steps[-1]), np.inf)
    return ops.max(levels, keepdims=True) if per == "layer" else levels


def _fixed_point(falling: Callable[[Tensor], Tensor], at_zero: Tensor, reach: Tensor) -> Tensor:
    """Solve falling(u) = u, given falling(0) and falling(reach) = 0."""
    high = ops.minimum(at_zero, reach)
    start = ops.stack([ops.zeros_like(high), at_zero, high, falling(high) - high])
    tolerance = 4 * np.finfo(keras.backend.standardize_dtype(high.dtype)).eps

    def unsettled(_: Tensor, bracket: Tensor) -> Tensor:
        # falling(u) - u falls at least as fast as u rises: its size bounds the error of u.
        return ops.any(ops.minimum(bracket[1], -bracket[3]) > tolerance * bracket[2])

    def narrow(turn: Tensor, bracket: Tensor) -> tuple[Tensor, Tensor]:
        # Bisection moves both ends in, so that the secant in between converges fast.
        guess = ops.where(turn, _secant(bracket), 0.5 * (bracket[0] + bracket[2]))
        excess = falling(guess) - guess
        # One choice for the whole bracket: XLA may compute, and round, a condition twice.
        rise = ops.stack([guess, excess, bracket[2], bracket[3]])
        fall = ops.stack([bracket[0], bracket[1], guess, excess])
        return ops.logical_not(turn), ops.where(excess > 0, rise, fall)

    state = (ops.convert_to_tensor(False), start)
    return _secant(ops.while_loop(unsettled, narrow, state, maximum_iterations=MOST_STEPS)[1])


def _secant(bracket: Tensor) -> Tensor:
    low, above, high, below = (bracket[i] for i in range(4))
    return low + (high - low) * (above / _nonzero(above - below))


def effective_kernel(kernel: Tensor, gamma: Tensor) -> Tensor:
    """The kernel that batch normalisation leaves effective: `v_j = gamma_j k_j / |k_j|`.

    Args:
        kernel: Kernel (*spatial, in, out).
        gamma: Scale of the batch normalisation (kernels,).

    Returns:
        Tensor (*spatial, in, out), differentiable in both; 0 where `k_j` or `gamma_j` is 0.

    Raises:
        ValueError: If `gamma` does not have one entry per kernel.

    Example:
        >>> np.array(effective_kernel(np.array([[3.0], [4.0]]), np.array([-5.0]))
        ... ).round(2).tolist()
        [[-3.0], [-4.0]]
    """
    blocks, _ = to_blocks(kernel)
    directions, _ = _directions(blocks)
    effective = directions * _scale(gamma, blocks)
    return ops.reshape(effective, kernel.shape)


def effective_norms(kernel: Tensor, gamma: Tensor, groups: str, norm: str) -> Tensor:
    """The group norms of the effective kernel, without forming it.

    Args:
        kernel: Kernel (*spatial, in, out).
        gamma: Scale of the batch normalisation (kernels,).
        groups: `"half_ring"`, `"ring"` or `"kernel"`.
        norm: `"l2"`, `"group_normalized"`, `"group_scaled"` or `"linf"`.

    Returns:
        Tensor (groups, kernels), `|gamma_j| / |k_j|` times the norms of the kernel;
        differentiable in both, with gradient 0 where the norms are 0.

    Raises:
        ValueError: If `gamma` does not have one entry per kernel.

    Example:
        >>> kernel, gamma = np.array([[3.0], [4.0]]), np.array([-2.0])
        >>> np.array(effective_norms(kernel, gamma, "kernel", "l2")).round(2).tolist()
        [[2.0]]
    """
    blocks, _ = to_blocks(kernel)
    squares = ops.sum(ops.square(blocks), axis=(0, 1))
    ratios = ops.square(_scale(gamma, blocks)) / _nonzero(squares)
    return group_norms(kernel, groups, norm) * safe_sqrt(ratios)


def _scale(gamma: Tensor, blocks: Tensor) -> Tensor:
    gamma = ops.convert_to_tensor(gamma)
    if tuple(gamma.shape) != (blocks.shape[-1],):
        raise ValueError(
            f"`gamma` must have one entry for each of the {blocks.shape[-1]} kernels. "
            f"Received shape: {tuple(gamma.shape)}"
        )
    return constant(gamma, like=blocks)


def _directions(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Unit kernels and lengths, (positions, in, kernels) and (kernels,); zeros stay zeros."""
    lengths = safe_sqrt(ops.sum(ops.square(blocks), axis=(0, 1)))
    return ops.where(lengths > 0, blocks / _nonzero(lengths), 0.0), lengths


def write_back(effective: Tensor, kernel: Tensor, gamma: Tensor) -> tuple[Tensor, Tensor]:
    """The kernel and gamma of a new effective kernel `v'`, with the kernel's length unchanged.

    `gamma_j = sign(gamma_j) |v'_j|` and `k_j = sign(gamma_j) |k_j| v'_j / |v'_j|`: the sign of
    gamma stays in gamma, so the effective kernel of the result is `v'`. A dead kernel (`v'_j = 0`)
    gets `gamma_j = 0` and keeps `k_j`.

    Args:
        effective: New effective kernel (*spatial, in, out); 0 wherever a whole `k_j` is 0.
        kernel: Kernel (*spatial, in, out).
        gamma: Scale of the batch normalisation (kernels,).

    Returns:
        The new kernel and gamma, with the shapes and dtypes of the old.

    Raises:
        ValueError: If `gamma` does not have one entry per kernel.

    Example:
        >>> kernel, gamma = np.array([[3.0], [4.0]]), np.array([-5.0])
        >>> kernel, gamma = write_back(0.5 * effective_kernel(kernel, gamma), kernel, gamma)
        >>> np.array(kernel).round(3).tolist(), np.array(gamma).round(3).tolist()
        ([[3.0], [4.0]], [-2.5])
    """
    blocks, _ = to_blocks(kernel)
    directions, amounts = _directions(to_blocks(effective)[0])
    directions, amounts = constant(directions, like=blocks), constant(amounts, like=blocks)
    negative = _scale(gamma, blocks) < 0
    lengths = _directions(blocks)[1]
    turned = directions * ops.where(negative, -lengths, lengths)
    new_kernel = _restore(ops.where(amounts > 0, turned, blocks), kernel)
    return new_kernel, constant(ops.where(negative, -amounts, amounts), like=gamma)


def pair_gradient(gradient: Tensor, kernel: Tensor, gamma: Tensor) -> tuple[Tensor, Tensor]:
    """From the gradient at the effective kernel to those at kernel and gamma, by the chain rule.

    With `u_j = k_j / |k_j|`: `gamma_j` gets `<g_j, u_j>` and `k_j` gets
    `gamma_j / |k_j| (g_j - u_j <g_j, u_j>)`, 0 where `k_j` is 0.

    Args:
        gradient: Gradient (*spatial, in, out) with respect to `effective_kernel(kernel, gamma)`.
        kernel: Kernel (*spatial, in, out).
        gamma: Scale of the batch normalisation (kernels,).

    Returns:
        Gradients with the shapes and dtypes of `kernel` and `gamma`.

    Raises:
        ValueError: If `gamma` does not have one entry per kernel.

    Example:
        >>> kernel, gamma = np.array([[3.0], [4.0]]), np.array([2.0])
        >>> d_kernel, d_gamma = pair_gradient(np.array([[0.0], [1.0]]), kernel, gamma)
        >>> np.array(d_kernel).round(3).tolist(), np.array(d_gamma).round(3).tolist()
        ([[-0.192], [0.144]], [0.8])
    """
    blocks, _ = to_blocks(kernel)
    directions, lengths = _directions(blocks)
    gradient = constant(to_blocks(gradient)[0], like=blocks)
    along = ops.sum(gradient * directions, axis=(0, 1))
    ratios = ops.where(lengths > 0, _scale(gamma, blocks) / _nonzero(lengths), 0.0)
    d_kernel = ratios * (gradient - directions * along)
    return _restore(d_kernel, kernel), constant(along, like=gamma)
