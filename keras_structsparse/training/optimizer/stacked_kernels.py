"""The kernels of several layers side by side, as the squared norms of their rings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np
from keras import ops

from keras_structsparse._typing import Tensor
from keras_structsparse.graph import kernel_supports
from keras_structsparse.regularizers import nested_groups, penalties
from keras_structsparse.regularizers._ops import constant, safe_sqrt, zeros_to_ones
from keras_structsparse.regularizers.base import GroupSparsityRegularizer
from keras_structsparse.regularizers.group_norms import nested_norms, ring_squares, to_blocks


@dataclass(frozen=True)
class Target:
    """A regularized kernel.

    Attributes:
        regularizer: Its regularizer.
        kernel: The kernel (*spatial, in, out).
        gamma: The scale (out,) of the batch normalisation that it is paired with, if any.
        path: Path of the kernel's variable, by which other layers name it.
    """

    regularizer: GroupSparsityRegularizer
    kernel: keras.Variable
    gamma: keras.Variable | None
    path: str = ""


@dataclass(frozen=True)
class Batch:
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
                part * constant(norm_factors(target), like=part), target.regularizer.reweight
            )
            for target, part in zip(self.targets, self.split(norms), strict=True)
        ]
        return self.strengths * ops.concatenate(parts, axis=1)

    def split(self, array: Tensor) -> list[Tensor]:
        """The columns of an array (rings, kernels) by target."""
        if len(self.targets) == 1:
            return [array]
        ends = np.cumsum([target.kernel.shape[-1] for target in self.targets])[:-1]
        return list(ops.split(array, [int(end) for end in ends], axis=1))

    def spread(self, values: Sequence[Tensor]) -> Tensor:
        """Scalars or arrays (kernels,), one per target, side by side: (kernels,)."""
        ones = [ops.ones((t.kernel.shape[-1],), self.squares.dtype) for t in self.targets]
        parts = [constant(v, like=self.squares) * o for v, o in zip(values, ones, strict=True)]
        return ops.concatenate(parts)

    def multiplied(self, factors: Tensor) -> list[Tensor]:
        """Every kernel times the factors (rings, kernels) of its rings."""
        return [
            _multiplied(target, part)
            for target, part in zip(self.targets, self.split(factors), strict=True)
        ]

    def gammas(self, values: Tensor) -> list[Tensor | None]:
        """The entries (kernels,) of every layer, None where there is no batch normalisation."""
        parts = self.split(values[None])
        return [
            None if target.gamma is None else ops.cast(part[0], target.gamma.dtype)
            for target, part in zip(self.targets, parts, strict=True)
        ]


def gather(targets: Sequence[Target]) -> Batch:
    """Put targets with the same :func:`key` side by side."""
    parts = [ring_squares(*to_blocks(t.kernel), t.regularizer.groups) for t in targets]
    squares = parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=1)
    lengths = safe_sqrt(ops.sum(squares, axis=0))
    return Batch(targets, squares, lengths, _scales(targets, lengths))


def _scales(targets: Sequence[Target], lengths: Tensor) -> Tensor:
    if targets[0].gamma is None:
        return ops.ones_like(lengths)
    gammas = [ops.convert_to_tensor(target.gamma) for target in targets]
    gamma = constant(ops.concatenate(gammas), like=lengths)
    return ops.where(lengths > 0, gamma / zeros_to_ones(lengths), 0.0)


def key(target: Target) -> tuple[int, bool, bool]:
    """Targets with the same key have ring norms that fit into one array."""
    wide = keras.backend.standardize_dtype(target.kernel.dtype) == "float64"
    return _rings(target), target.gamma is not None, wide


def _multiplied(target: Target, factors: Tensor) -> Tensor:
    blocks, shape = to_blocks(target.kernel)
    spread = ops.take(factors, kernel_supports.ring_index(shape, target.regularizer.groups), axis=0)
    return ops.cast(ops.reshape(blocks * spread[:, None], target.kernel.shape), target.kernel.dtype)


def _rings(target: Target) -> int:
    return len(kernel_supports.masks(_shape(target), target.regularizer.groups))


def _shape(target: Target) -> tuple[int, ...]:
    return tuple(target.kernel.shape[:-2])


def norm_factors(target: Target) -> np.ndarray:
    """What the norm multiplies the l2 norm of each group by, (rings, 1)."""
    regularizer, channels = target.regularizer, target.kernel.shape[-2]
    return nested_groups.norm_factors(
        _shape(target), regularizer.groups, channels, regularizer.norm
    )


def _shares(target: Target) -> np.ndarray:
    """The constant part of the strengths, (rings, kernels)."""
    ones = np.ones((1, target.kernel.shape[-1]))
    return np.asarray(norm_factors(target) * target.regularizer.weight * ones)
