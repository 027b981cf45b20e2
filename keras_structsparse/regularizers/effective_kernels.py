"""Effective kernels: convolution kernels as the batch normalisation after them scales them.

Batch normalisation divides out the length of a kernel, so only its direction and gamma matter.

Shapes: a kernel is (*spatial, in, out), gamma (out,).
"""

from __future__ import annotations

from keras import ops

from keras_structsparse._typing import Tensor
from keras_structsparse.regularizers._ops import (
    constant,
    largest,
    restore,
    safe_sqrt,
    zeros_to_ones,
)
from keras_structsparse.regularizers.group_norms import (
    group_norms,
    nested_norms,
    position_norms,
    ring_squares,
    to_blocks,
)
from keras_structsparse.regularizers.norm_factors import norm_factors

SHORTEST = 1e-6
"""Length of a kernel up to which sub-gradients do not turn it."""


def effective_kernel(kernel: Tensor, gamma: Tensor) -> Tensor:
    """The effective kernel before batch normalisation: `v_j = gamma_j k_j / |k_j|`.

    Args:
        kernel: Kernel (*spatial, in, out).
        gamma: Scale of the batch normalisation (kernels,).

    Returns:
        Tensor (*spatial, in, out), differentiable in both; 0 where `k_j` or `gamma_j` is 0.

    Raises:
        ValueError: If `gamma` does not have one entry per kernel.

    Examples:
        >>> import numpy as np
        >>> np.array(effective_kernel(np.array([[3.0], [4.0]]), np.array([-5.0]))
        ... ).round(2).tolist()
        [[-3.0], [-4.0]]
    """
    blocks, _ = to_blocks(kernel)
    directions, _ = _directions(blocks)
    effective = directions * _scale(gamma, blocks)
    return ops.reshape(effective, kernel.shape)


def effective_norms(kernel: Tensor, gamma: Tensor, groups: str, norm: str) -> Tensor:
    """Group norms of the effective kernel, without computing it.

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

    Examples:
        >>> import numpy as np
        >>> kernel, gamma = np.array([[3.0], [4.0]]), np.array([-2.0])
        >>> np.array(effective_norms(kernel, gamma, "kernel", "l2")).round(2).tolist()
        [[2.0]]
    """
    blocks, shape = to_blocks(kernel)
    squares, scale = ring_squares(blocks, shape, groups)
    lengths = safe_sqrt(ops.sum(squares, axis=0))
    if norm == "linf":
        norms = group_norms(kernel, groups, norm) / scale
    else:
        factors = norm_factors(shape, groups, blocks.shape[1], norm)
        norms = nested_norms(squares) * constant(factors, like=squares)
    ratios = norms / zeros_to_ones(lengths)
    ratios = ops.where(has_direction(lengths * scale), ratios, ops.stop_gradient(ratios))
    gamma = _scale(gamma, blocks)
    return ratios * (gamma * ops.sign(gamma))  # Not `abs`: its derivative at 0 is 1 on JAX.


def has_direction(lengths: Tensor) -> Tensor:
    """Whether kernels are long enough to be turned by a sub-gradient: their |k| is above 1e-6.

    The sub-gradient of the effective kernel at k_j grows as 1 / |k_j|, while the loss sees such a
    kernel less and less: the normalisation adds its epsilon to the variance. A step along it would
    throw the kernel away, so it counts as 0 there, as it does at a kernel of zeros.

    Args:
        lengths: The lengths |k_j| (kernels,).
    """
    return ops.stop_gradient(lengths) > SHORTEST


def _scale(gamma: Tensor, blocks: Tensor) -> Tensor:
    gamma = ops.convert_to_tensor(gamma)
    if tuple(gamma.shape) != (blocks.shape[-1],):
        raise ValueError(
            f"`gamma` must have one entry for each of the {blocks.shape[-1]} kernels. "
            f"Received shape: {tuple(gamma.shape)}"
        )
    return constant(gamma, like=blocks)


def _directions(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Unit kernels (positions, in, kernels), 0 where the kernel is 0, and lengths (kernels,)."""
    norms = position_norms(blocks)
    scale = largest(norms, axis=0)
    lengths = safe_sqrt(ops.sum(ops.square(norms / scale), axis=0))
    units = (blocks / scale) / zeros_to_ones(lengths)
    return ops.where(lengths > 0, units, 0.0), lengths * scale


def write_back(effective: Tensor, kernel: Tensor, gamma: Tensor) -> tuple[Tensor, Tensor]:
    """Kernel and gamma whose effective kernel is `v'`; the kernel keeps its length.

    `gamma_j = sign(gamma_j) |v'_j|` and `k_j = sign(gamma_j) |k_j| v'_j / |v'_j|`: gamma keeps its
    sign. A removed kernel (`v'_j = 0`) gets `gamma_j = 0` and keeps `k_j`.

    Args:
        effective: New effective kernel (*spatial, in, out); 0 wherever a whole `k_j` is 0.
        kernel: Kernel (*spatial, in, out).
        gamma: Scale of the batch normalisation (kernels,).

    Returns:
        The new kernel and gamma, with the shapes and dtypes of the old.

    Raises:
        ValueError: If `gamma` does not have one entry per kernel.

    Examples:
        >>> import numpy as np
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
    new_kernel = restore(ops.where(amounts > 0, turned, blocks), kernel)
    return new_kernel, constant(ops.where(negative, -amounts, amounts), like=gamma)


def pair_gradient(gradient: Tensor, kernel: Tensor, gamma: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients at kernel and gamma from the gradient at the effective kernel (chain rule).

    With `u_j = k_j / |k_j|`: `gamma_j` gets `<g_j, u_j>` and `k_j` gets
    `gamma_j / |k_j| (g_j - u_j <g_j, u_j>)`, 0 where `k_j` is too short (:func:`has_direction`).

    Args:
        gradient: Gradient (*spatial, in, out) with respect to `effective_kernel(kernel, gamma)`.
        kernel: Kernel (*spatial, in, out).
        gamma: Scale of the batch normalisation (kernels,).

    Returns:
        Gradients with the shapes and dtypes of `kernel` and `gamma`.

    Raises:
        ValueError: If `gamma` does not have one entry per kernel.

    Examples:
        >>> import numpy as np
        >>> kernel, gamma = np.array([[3.0], [4.0]]), np.array([2.0])
        >>> d_kernel, d_gamma = pair_gradient(np.array([[0.0], [1.0]]), kernel, gamma)
        >>> np.array(d_kernel).round(3).tolist(), np.array(d_gamma).round(3).tolist()
        ([[-0.192], [0.144]], [0.8])
    """
    blocks, _ = to_blocks(kernel)
    directions, lengths = _directions(blocks)
    gradient = constant(to_blocks(gradient)[0], like=blocks)
    along = ops.sum(gradient * directions, axis=(0, 1))
    long = has_direction(lengths)
    ratios = ops.where(long, _scale(gamma, blocks) / ops.where(long, lengths, 1.0), 0.0)
    d_kernel = ratios * (gradient - directions * along)
    return restore(d_kernel, kernel), constant(along, like=gamma)
