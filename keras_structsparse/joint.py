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
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_structsparse import groups as grouping
from keras_structsparse import penalties
from keras_structsparse.norms import (
    Tensor,
    constant,
    nested_norms,
    nonzero,
    outward_sum,
    ring_squares,
    safe_sqrt,
    to_blocks,
)
from keras_structsparse.structured import Structured

Change = tuple[Tensor, Tensor | None]


@dataclass(frozen=True)
class Target:
    """A regularized kernel.

    Attributes:
        regularizer: Its regularizer.
        kernel: The kernel (*spatial, in, out).
        gamma: The scale (out,) of the batch normalisation that it is paired with, if any.
    """

    regularizer: Structured
    kernel: keras.Variable
    gamma: keras.Variable | None


def subgradients(targets: Sequence[Target]) -> list[Change]:
    """The sub-gradients of the penalties of several layers.

    Args:
        targets: The regularized kernels.

    Returns:
        For each target the sub-gradient at its kernel, and at its gamma or None.
    """
    return _by_batch(targets, _joint_subgradients, _own_subgradient)


def proximal_steps(targets: Sequence[Target], steps: Sequence[Tensor]) -> list[Change]:
    """The proximal steps of several layers.

    Args:
        targets: The regularized kernels.
        steps: For each target the step length, scalar or (out,).

    Returns:
        For each target its new kernel, and its new gamma or None.
    """
    lengths = {id(target): step for target, step in zip(targets, steps, strict=True)}

    def joint(batch: Sequence[Target]) -> list[Change]:
        return _joint_steps(batch, [lengths[id(target)] for target in batch])

    def own(target: Target) -> Change:
        return _own_step(target, lengths[id(target)])

    return _by_batch(targets, joint, own)


def _by_batch(
    targets: Sequence[Target],
    joint: Callable[[Sequence[Target]], list[Change]],
    own: Callable[[Target], Change],
) -> list[Change]:
    """Serve what can be served together together; the results in the order of the targets."""
    results: dict[int, Change] = {}
    batches: dict[Any, list[Target]] = collections.defaultdict(list)
    for target in targets:
        if target.regularizer.norm == "linf" or target.regularizer.power != 1:
            results[id(target)] = own(target)
        else:
            batches[_key(target)].append(target)
    for batch in batches.values():
        results.update(zip(map(id, batch), joint(batch), strict=True))
    return [results[id(target)] for target in targets]


def _key(target: Target) -> tuple[int, bool, bool]:
    """Targets with the same key have ring norms that fit into one array."""
    wide = keras.backend.standardize_dtype(target.kernel.dtype) == "float64"
    return _rings(target), target.gamma is not None, wide


def _own_subgradient(target: Target) -> Change:
    if target.gamma is None:
        return target.regularizer.subgradient(target.kernel), None
    return target.regularizer.pair_subgradient(target.kernel, target.gamma)


def _own_step(target: Target, step: Tensor) -> Change:
    if target.gamma is None:
        return target.regularizer.prox(target.kernel, step), None
    return target.regularizer.pair_prox(target.kernel, target.gamma, step)


@dataclass(frozen=True)
class _Batch:
    """Several layers side by side.

    Attributes:
        squares: Squared ring norms (rings, kernels) of the kernels.
        lengths: Norms (kernels,) of the kernels.
        scale: gamma_j / |k_j| (kernels,), 1 for kernels without batch normalisation.
    """

    targets: Sequence[Target]
    squares: Tensor
    lengths: Tensor
    scale: Tensor

    @property
    def effective(self) -> Tensor:
        """Squared ring norms of the effective kernels."""
        return self.squares * ops.square(self.scale)

    @property
    def strengths(self) -> Tensor:
        """The weight of every group (rings, kernels): alpha, the layer's share, the norm's."""
        alphas = {id(t.regularizer.alpha): t.regularizer.alpha for t in self.targets}
        shares = [_shares(target) for target in self.targets]
        if len(alphas) == 1:
            (alpha,) = alphas.values()
            fixed = constant(np.concatenate(shares, axis=1), like=self.squares)
            return fixed * constant(ops.convert_to_tensor(alpha), like=self.squares)
        parts = [
            constant(share, like=self.squares)
            * constant(ops.convert_to_tensor(t.regularizer.alpha), like=self.squares)
            for t, share in zip(self.targets, shares, strict=True)
        ]
        return ops.concatenate(parts, axis=1)

    @property
    def weights(self) -> Tensor:
        """Strengths times the weights of the reweighting."""
        if not any(target.regularizer.reweight for target in self.targets):
            return self.strengths
        norms = nested_norms(self.effective)
        parts = [
            penalties.reweighting(
                part * constant(_factors(target), like=part), target.regularizer.reweight
            )
            for target, part in zip(self.targets, _split(norms, self.targets), strict=True)
        ]
        return self.strengths * ops.concatenate(parts, axis=1)

    def multiplied(self, factors: Tensor) -> list[Tensor]:
        """Every kernel times the factors (rings, kernels) of its rings."""
        return [
            _multiplied(target, part)
            for target, part in zip(self.targets, _split(factors, self.targets), strict=True)
        ]

    def gammas(self, values: Tensor) -> list[Tensor | None]:
        """The entries (kernels,) of every layer, None where there is no batch normalisation."""
        parts = _split(values[None], self.targets)
        return [
            None if target.gamma is None else ops.cast(part[0], target.gamma.dtype)
            for target, part in zip(self.targets, parts, strict=True)
        ]


def _gather(targets: Sequence[Target]) -> _Batch:
    parts = [ring_squares(*to_blocks(t.kernel), t.regularizer.groups) for t in targets]
    squares = parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=1)
    lengths = safe_sqrt(ops.sum(squares, axis=0))
    return _Batch(targets, squares, lengths, _scales(targets, lengths))


def _scales(targets: Sequence[Target], lengths: Tensor) -> Tensor:
    if targets[0].gamma is None:
        return ops.ones_like(lengths)
    gammas = [ops.convert_to_tensor(target.gamma) for target in targets]
    gamma = constant(ops.concatenate(gammas), like=lengths)
    return ops.where(lengths > 0, gamma / nonzero(lengths), 0.0)


def _joint_subgradients(targets: Sequence[Target]) -> list[Change]:
    """Chain rule on ring norms: the sub-gradient is the kernel times a factor per ring."""
    batch = _gather(targets)
    norms = nested_norms(batch.effective)
    ratios = ops.where(norms > 0, batch.weights / nonzero(norms), 0.0)
    pulls = outward_sum(ratios)
    if targets[0].gamma is None:
        return [(kernel, None) for kernel in batch.multiplied(pulls)]
    along = batch.scale * ops.sum(pulls * batch.squares, axis=0) / nonzero(batch.lengths)
    radial = along / nonzero(batch.lengths)
    kernels = batch.multiplied(batch.scale * (batch.scale * pulls - radial))
    return list(zip(kernels, batch.gammas(along), strict=True))


def _joint_steps(targets: Sequence[Target], steps: Sequence[Tensor]) -> list[Change]:
    """Soft-thresholding on ring norms, then every kernel times a factor per ring."""
    batch = _gather(targets)
    lengths = [_per_kernel(step, t, batch) for step, t in zip(steps, targets, strict=True)]
    factors = penalties.shrinkage(batch.effective, batch.weights * ops.concatenate(lengths))
    if targets[0].gamma is None:
        return [(kernel, None) for kernel in batch.multiplied(factors)]
    # The kernel keeps its length; gamma takes the new length and keeps its sign.
    left = safe_sqrt(ops.sum(batch.squares * ops.square(factors), axis=0))
    alive = left * ops.abs(batch.scale) > 0
    turned = ops.where(alive, factors * (batch.lengths / nonzero(left)), 1.0)
    kernels = batch.multiplied(turned)
    return list(zip(kernels, batch.gammas(left * batch.scale), strict=True))


def _per_kernel(step: Tensor, target: Target, batch: _Batch) -> Tensor:
    like = batch.squares
    return constant(step, like=like) * ops.ones((target.kernel.shape[-1],), like.dtype)


def _split(array: Tensor, targets: Sequence[Target]) -> list[Tensor]:
    """Columns of an array (rings, kernels) by target."""
    if len(targets) == 1:
        return [array]
    ends = np.cumsum([target.kernel.shape[-1] for target in targets])[:-1]
    return list(ops.split(array, [int(end) for end in ends], axis=1))


def _multiplied(target: Target, factors: Tensor) -> Tensor:
    blocks, shape = to_blocks(target.kernel)
    spread = ops.take(factors, grouping.ring_index(shape, target.regularizer.groups), axis=0)
    return ops.cast(ops.reshape(blocks * spread[:, None], target.kernel.shape), target.kernel.dtype)


def _rings(target: Target) -> int:
    return len(grouping.masks(_shape(target), target.regularizer.groups))


def _shape(target: Target) -> tuple[int, ...]:
    return tuple(target.kernel.shape[:-2])


def _factors(target: Target) -> np.ndarray:
    """What the norm multiplies the l2 norm of each group by, (rings, 1)."""
    regularizer, channels = target.regularizer, target.kernel.shape[-2]
    return grouping.norm_factors(_shape(target), regularizer.groups, channels, regularizer.norm)


def _shares(target: Target) -> np.ndarray:
    """The constant part of the strengths, (rings, kernels)."""
    ones = np.ones((1, target.kernel.shape[-1]))
    return np.asarray(_factors(target) * target.regularizer.weight * ones)
