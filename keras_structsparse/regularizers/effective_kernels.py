"""Effective kernels: convolution kernels as the batch normalisation after them scales them.

Batch normalisation divides out the length of a kernel, so only its direction and gamma matter.

Shapes: a kernel is (*spatial, in, out), gamma (out,).
"""

from __future__ import annotations

from keras import ops

from keras_structsparse._typing import Tensor
from keras_structsparse.regularizers._ops import constant, restore, safe_sqrt, zeros_to_ones
from keras_structsparse.regularizers.group_norms import group_norms, to_blocks


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
    blocks, _ = to_blocks(kernel)
    squares = ops.sum(ops.square(blocks), axis=(0, 1))
    ratios = ops.square(_scale(gamma, blocks)) / zeros_to_ones(squares)
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
    """Unit kernels (positions, in, kernels), 0 where the kernel is 0, and lengths (kernels,)."""
    lengths = safe_sqrt(ops.sum(ops.square(blocks), axis=(0, 1)))
    return ops.where(lengths > 0, blocks / zeros_to_ones(lengths), 0.0), lengths


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
    `gamma_j / |k_j| (g_j - u_j <g_j, u_j>)`, 0 where `k_j` is 0.

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
    ratios = ops.where(lengths > 0, _scale(gamma, blocks) / zeros_to_ones(lengths), 0.0)
    d_kernel = ratios * (gradient - directions * along)
    return restore(d_kernel, kernel), constant(along, like=gamma)
