"""The proximal step of one norm over kernels of several layers that move by different steps."""

from __future__ import annotations

from collections.abc import Sequence

from keras import ops

from keras_structsparse._typing import Tensor
from keras_structsparse.regularizers.group_norms import constant, safe_sqrt

NEWTON_STEPS = 12
"""Convergence is quadratic and from one side, as of the secular equation of trust regions."""


def shrink_jointly(lengths: Sequence[Tensor], thresholds: Sequence[Tensor]) -> list[Tensor]:
    """The proximal step of a norm over several vectors with a step length each.

    Minimises ``sum_w |z_w - u_w|^2 / (2 b_w) + |(z_1, z_2, ...)|``: every ``z_w`` is ``u_w`` times
    ``rho / (rho + b_w)``, where rho is the norm of the result and the root of
    ``sum_w |u_w|^2 / (rho + b_w)^2 = 1``. For equal thresholds this is block soft-thresholding.

    Args:
        lengths: For each vector ``|u_w|``, of any shape.
        thresholds: For each vector ``b_w``, of the same shape; positive, or all 0.

    Returns:
        For each vector its factor; 0 where all of them vanish.

    Examples:
        >>> factors = shrink_jointly([ops.array([3.0]), ops.array([4.0])], [ops.array([1.0])] * 2)
        >>> [round(float(factor[0]), 3) for factor in factors]
        [0.8, 0.8]
    """
    u, b = ops.stack(list(lengths)), ops.stack(list(thresholds))
    squares = ops.square(u)
    # Newton starts below the root, which is this for the longest threshold alone.
    rho = ops.relu(safe_sqrt(ops.sum(squares, axis=0)) - ops.max(b, axis=0))
    for _ in range(NEWTON_STEPS):
        rho = rho + _newton(squares, rho + b)
    tiny = constant(1e-18, like=u)
    dead = ops.sum(ops.square(u / ops.maximum(b, tiny)), axis=0) <= 1.0
    total = rho + b
    factors = ops.where(dead, 0.0, rho / ops.where(total > 0, total, 1.0))
    return [factors[w] for w in range(len(lengths))]


def _newton(squares: Tensor, total: Tensor) -> Tensor:
    """Newton's step for ``(sum_w squares_w / total_w^2) ** -0.5 = 1``, concave in rho."""
    total = ops.where(total > 0, total, 1.0)
    ratios = squares / ops.square(total)
    value, slope = ops.sum(ratios, axis=0), ops.sum(ratios / total, axis=0)
    step = value * (ops.sqrt(value) - 1.0) / ops.where(slope > 0, slope, 1.0)
    return ops.relu(step)
