"""Sub-gradients and proximal steps of the regularizers of all layers at once.

Kernels with l2 norms and ``power=1`` are stacked: the penalty acts on one small array of ring norms
(see `stacked_kernels`), and every kernel is multiplied once, ring by ring. A network of twenty
layers then costs little more than one layer. Regularizers with ``norm="linf"`` or ``power=2`` are
applied one by one.

A kernel paired with a batch normalisation acts through ``v_j = gamma_j k_j / |k_j|``. The ring
norms of v_j are those of k_j times ``gamma_j / |k_j|``, so v_j itself is never computed.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Sequence
from typing import Any

from keras import ops

from keras_structsparse._typing import Tensor
from keras_structsparse.regularizers._ops import (
    reverse_cumulative_sum,
    safe_sqrt,
    zeros_to_ones,
)
from keras_structsparse.regularizers.effective_kernels import has_direction
from keras_structsparse.regularizers.group_norms import nested_norms
from keras_structsparse.regularizers.prox import chain_shrinkage
from keras_structsparse.training.optimizer.coupled_penalties import CoupledKernels, is_coupled
from keras_structsparse.training.optimizer.stacked_kernels import (
    KernelStack,
    RegularizedKernel,
    stack_kernels,
    stacking_key,
)

__all__ = ["RegularizedKernel", "proximal_steps", "subgradients"]

Change = tuple[Tensor, Tensor | None]
"""Tensors for a kernel and for its gamma; None without batch normalisation."""


def subgradients(members: Sequence[RegularizedKernel]) -> list[Change]:
    """Sub-gradients of the penalties of several layers.

    Args:
        members: The regularized kernels.

    Returns:
        For each member the sub-gradient at its kernel, and at its gamma or None.
    """
    return _apply(members, _stacked_subgradients, _single_subgradient)


def proximal_steps(members: Sequence[RegularizedKernel], steps: Sequence[Tensor]) -> list[Change]:
    """Proximal steps of the penalties of several layers.

    Args:
        members: The regularized kernels.
        steps: For each member the step length, scalar or (out,).

    Returns:
        For each member its new kernel, and its new gamma or None.
    """
    step_of = {id(member): step for member, step in zip(members, steps, strict=True)}

    def stacked(stacks: Sequence[KernelStack]) -> list[list[Change]]:
        lengths = [stack.per_kernel([step_of[id(m)] for m in stack.members]) for stack in stacks]
        return _stacked_steps(stacks, lengths)

    def single(member: RegularizedKernel) -> Change:
        return _single_step(member, step_of[id(member)])

    return _apply(members, stacked, single)


def _apply(
    members: Sequence[RegularizedKernel],
    stacked: Callable[[Sequence[KernelStack]], list[list[Change]]],
    single: Callable[[RegularizedKernel], Change],
) -> list[Change]:
    """Apply `stacked` to all kernels that can be stacked and `single` to the others, in order."""
    results: dict[int, Change] = {}
    groups: dict[Any, list[RegularizedKernel]] = collections.defaultdict(list)
    for member in members:
        if member.regularizer.norm == "linf" or member.regularizer.power != 1:
            results[id(member)] = single(member)
        else:
            groups[stacking_key(member)].append(member)
    stacks = [stack_kernels(group) for group in groups.values()]
    for stack, changes in zip(stacks, stacked(stacks), strict=True):
        results.update(zip(map(id, stack.members), changes, strict=True))
    return [results[id(member)] for member in members]


def _single_subgradient(member: RegularizedKernel) -> Change:
    if member.gamma is None:
        return member.regularizer.subgradient(member.kernel), None
    return member.regularizer.pair_subgradient(member.kernel, member.gamma)


def _single_step(member: RegularizedKernel, step: Tensor) -> Change:
    if member.gamma is None:
        return member.regularizer.prox(member.kernel, step), None
    return member.regularizer.pair_prox(member.kernel, member.gamma, step)


def _stacked_subgradients(stacks: Sequence[KernelStack]) -> list[list[Change]]:
    coupled = is_coupled(stacks)
    slopes = CoupledKernels(stacks).slopes() if coupled else [stack.weights for stack in stacks]
    return [_pull_back(stack, slope) for stack, slope in zip(stacks, slopes, strict=True)]


def _pull_back(stack: KernelStack, slopes: Tensor) -> list[Change]:
    """From slopes (rings, kernels) in the group norms to sub-gradients, by the chain rule.

    At a kernel without batch normalisation it is the kernel times one factor per ring.
    """
    norms = nested_norms(stack.squares)
    ratios = ops.where(norms > 0, slopes / zeros_to_ones(norms), 0.0)
    if stack.members[0].gamma is None:
        factors = reverse_cumulative_sum(ratios)
        return [(kernel, None) for kernel in stack.multiply_rings(factors, in_units=True)]
    lengths = zeros_to_ones(stack.lengths)
    along = ops.sum(slopes * norms, axis=0) / lengths * ops.sign(stack.scale)
    # The whole kernel pulls at gamma alone: left out here, it leaves no rounding error at k.
    inner = ops.concatenate([ratios[:-1], ops.zeros_like(ratios[-1:])], axis=0)
    radial = ops.sum(slopes[:-1] * norms[:-1], axis=0) / ops.square(lengths)
    long = has_direction(stack.lengths * stack.unit)
    turn = ops.where(long, ops.abs(stack.scale) / ops.where(long, stack.unit, 1.0), 0.0)
    factors = turn * (reverse_cumulative_sum(inner) - radial)
    kernels = stack.multiply_rings(factors, in_units=True)
    return list(zip(kernels, stack.as_gammas(along), strict=True))


def _stacked_steps(stacks: Sequence[KernelStack], steps: Sequence[Tensor]) -> list[list[Change]]:
    """Soft-thresholding of the nested groups, then of the groups that several layers share."""
    coupled = is_coupled(stacks)
    weights = CoupledKernels(stacks).weights() if coupled else [stack.weights for stack in stacks]
    factors = [
        chain_shrinkage(stack.squares, stack.in_units(weight * step))
        for stack, weight, step in zip(stacks, weights, steps, strict=True)
    ]
    if coupled:
        factors = CoupledKernels(stacks).joint_steps(factors, steps)
    return [_shrink(stack, factor) for stack, factor in zip(stacks, factors, strict=True)]


def _shrink(stack: KernelStack, factors: Tensor) -> list[Change]:
    """Multiply the rings of every effective kernel by factors (rings, kernels).

    With batch normalisation, gamma takes the new length and keeps its sign; the kernel keeps its
    length.
    """
    if stack.members[0].gamma is None:
        return [(kernel, None) for kernel in stack.multiply_rings(factors)]
    left = safe_sqrt(ops.sum(stack.squares * ops.square(factors), axis=0))
    alive = left * ops.abs(stack.scale) > 0
    turned = ops.where(alive, factors * (stack.lengths / zeros_to_ones(left)), 1.0)
    kernels = stack.multiply_rings(turned)
    return list(zip(kernels, stack.as_gammas(left * stack.scale), strict=True))
