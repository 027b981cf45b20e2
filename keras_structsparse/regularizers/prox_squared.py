"""The exact proximal step of the squared penalties (32) and (33), by root finding.

Shapes are those of `penalties`.
"""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
from keras import ops

from keras_structsparse._typing import Tensor
from keras_structsparse.regularizers.group_norms import (
    constant,
    group_norms,
    nonzero,
    safe_sqrt,
    smaller,
    to_blocks,
)
from keras_structsparse.regularizers.nested_groups import norm_factors
from keras_structsparse.regularizers.penalties import prox_chain, relaxed

MOST_STEPS = 80
"""Of the root finding in `prox_squared`; with ordinary steps it needs about 6."""


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

    Examples:
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
    levels = ops.where(steps[-1] > 0, sums / nonzero(steps[-1]), np.inf)
    return ops.max(levels, keepdims=True) if per == "layer" else levels


def _fixed_point(falling: Callable[[Tensor], Tensor], at_zero: Tensor, reach: Tensor) -> Tensor:
    """Solve falling(u) = u, given falling(0) and falling(reach) = 0."""
    high = smaller(at_zero, reach)
    start = ops.stack([ops.zeros_like(high), at_zero, high, falling(high) - high])
    tolerance = 4 * np.finfo(keras.backend.standardize_dtype(high.dtype)).eps

    def unsettled(_: Tensor, bracket: Tensor) -> Tensor:
        # falling(u) - u falls at least as fast as u rises: its size bounds the error of u.
        return ops.any(smaller(bracket[1], -bracket[3]) > tolerance * bracket[2])

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
    return low + (high - low) * (above / nonzero(above - below))
