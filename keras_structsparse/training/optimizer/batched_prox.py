"""What the regularizers do to single kernels, done to all layers of a network at once.

The l2 norms of nested groups depend on a kernel only through the squared norms of its rings, a
small array (rings, kernels). Those of all layers stand side by side in one array, the penalty acts
on that, and every kernel is multiplied once, ring by ring: a network of twenty layers costs little
more than one. Regularizers of other norms or powers are served one by one.

A kernel paired with a batch normalisation acts through ``v_j = gamma_j k_j / |k_j|``, whose ring
norms are those of k_j times ``gamma_j / |k_j|``: no effective kernel is ever formed.
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
from keras_structsparse.regularizers.group_norms import nested_norms
from keras_structsparse.regularizers.prox import chain_shrinkage
from keras_structsparse.training.optimizer.coupled_penalties import Network, is_coupled
from keras_structsparse.training.optimizer.stacked_kernels import Batch, Target, gather, key

__all__ = ["Target", "proximal_steps", "subgradients"]

Change = tuple[Tensor, Tensor | None]


def subgradients(targets: Sequence[Target]) -> list[Change]:
    """The sub-gradients of the penalties of several layers.

    Args:
        targets: The regularized kernels.

    Returns:
        For each target the sub-gradient at its kernel, and at its gamma or None.
    """
    return _serve(targets, _joint_subgradients, _own_subgradient)


def proximal_steps(targets: Sequence[Target], steps: Sequence[Tensor]) -> list[Change]:
    """The proximal steps of several layers.

    Args:
        targets: The regularized kernels.
        steps: For each target the step length, scalar or (out,).

    Returns:
        For each target its new kernel, and its new gamma or None.
    """
    lengths = {id(target): step for target, step in zip(targets, steps, strict=True)}

    def joint(batches: Sequence[Batch]) -> list[list[Change]]:
        spread = [batch.spread([lengths[id(t)] for t in batch.targets]) for batch in batches]
        return _joint_steps(batches, spread)

    def own(target: Target) -> Change:
        return _own_step(target, lengths[id(target)])

    return _serve(targets, joint, own)


def _serve(
    targets: Sequence[Target],
    joint: Callable[[Sequence[Batch]], list[list[Change]]],
    own: Callable[[Target], Change],
) -> list[Change]:
    """Serve what can be served together together; the results in the order of the targets."""
    results: dict[int, Change] = {}
    groups: dict[Any, list[Target]] = collections.defaultdict(list)
    for target in targets:
        if target.regularizer.norm == "linf" or target.regularizer.power != 1:
            results[id(target)] = own(target)
        else:
            groups[key(target)].append(target)
    batches = [gather(group) for group in groups.values()]
    for batch, changes in zip(batches, joint(batches), strict=True):
        results.update(zip(map(id, batch.targets), changes, strict=True))
    return [results[id(target)] for target in targets]


def _own_subgradient(target: Target) -> Change:
    if target.gamma is None:
        return target.regularizer.subgradient(target.kernel), None
    return target.regularizer.pair_subgradient(target.kernel, target.gamma)


def _own_step(target: Target, step: Tensor) -> Change:
    if target.gamma is None:
        return target.regularizer.prox(target.kernel, step), None
    return target.regularizer.pair_prox(target.kernel, target.gamma, step)


def _joint_subgradients(batches: Sequence[Batch]) -> list[list[Change]]:
    coupled = is_coupled(batches)
    slopes = Network(batches).slopes() if coupled else [batch.weights for batch in batches]
    return [_pulled_back(batch, slope) for batch, slope in zip(batches, slopes, strict=True)]


def _pulled_back(batch: Batch, slopes: Tensor) -> list[Change]:
    """Chain rule on ring norms: the sub-gradient is the kernel times a factor per ring."""
    norms = nested_norms(batch.effective)
    ratios = ops.where(norms > 0, slopes / zeros_to_ones(norms), 0.0)
    pulls = reverse_cumulative_sum(ratios)
    if batch.targets[0].gamma is None:
        return [(kernel, None) for kernel in batch.multiplied(pulls)]
    along = batch.scale * ops.sum(pulls * batch.squares, axis=0) / zeros_to_ones(batch.lengths)
    radial = along / zeros_to_ones(batch.lengths)
    kernels = batch.multiplied(batch.scale * (batch.scale * pulls - radial))
    return list(zip(kernels, batch.gammas(along), strict=True))


def _joint_steps(batches: Sequence[Batch], steps: Sequence[Tensor]) -> list[list[Change]]:
    """Soft-thresholding on ring norms, and on those of several layers together."""
    coupled = is_coupled(batches)
    weights = Network(batches).weights() if coupled else [batch.weights for batch in batches]
    factors = [
        chain_shrinkage(batch.effective, weight * step)
        for batch, weight, step in zip(batches, weights, steps, strict=True)
    ]
    if coupled:
        factors = Network(batches).joint_steps(factors, steps)
    return [_shrunk(batch, factor) for batch, factor in zip(batches, factors, strict=True)]


def _shrunk(batch: Batch, factors: Tensor) -> list[Change]:
    """Every effective kernel times a factor per ring (rings, kernels), written back."""
    if batch.targets[0].gamma is None:
        return [(kernel, None) for kernel in batch.multiplied(factors)]
    # The kernel keeps its length; gamma takes the new length and keeps its sign.
    left = safe_sqrt(ops.sum(batch.squares * ops.square(factors), axis=0))
    alive = left * ops.abs(batch.scale) > 0
    turned = ops.where(alive, factors * (batch.lengths / zeros_to_ones(left)), 1.0)
    kernels = batch.multiplied(turned)
    return list(zip(kernels, batch.gammas(left * batch.scale), strict=True))
