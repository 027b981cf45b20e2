"""The kernels of several layers in one array, as the squared norms of their rings.

The l2 norms of nested groups depend on a kernel only through the squared norms of its rings, a
small array (rings, kernels). Those of several layers are concatenated along the kernels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np
from keras import ops

from keras_structsparse._typing import Tensor
from keras_structsparse.graph import nested_groups
from keras_structsparse.regularizers import norm_factors, penalties
from keras_structsparse.regularizers._ops import constant, safe_sqrt, zeros_to_ones
from keras_structsparse.regularizers.alpha import distinct_alphas
from keras_structsparse.regularizers.base import GroupSparsityRegularizer
from keras_structsparse.regularizers.group_norms import nested_norms, ring_squares, to_blocks


@dataclass(frozen=True)
class RegularizedKernel:
    """A kernel variable with its regularizer.

    Attributes:
        regularizer: The regularizer of the kernel.
        kernel: The kernel (*spatial, in, out), a variable or a tensor.
        gamma: Scale (out,) of the batch normalisation paired with the kernel, or None.
        path: Path of the kernel's variable, by which the penalties of other layers name it.
        fixed: Factors (out,) of a frozen batch normalisation behind the kernel, or None. The
            penalty is that of the kernel times these factors.
    """

    regularizer: GroupSparsityRegularizer
    kernel: keras.Variable
    gamma: keras.Variable | None
    path: str = ""
    fixed: Tensor | None = None


@dataclass(frozen=True)
class KernelStack:
    """The kernels of several layers, with their squared ring norms in one array.

    Attributes:
        members: The kernels, all with the same :func:`stacking_key`.
        unit: The units (kernels,) of the kernels, of their own magnitude, so that no square
            underflows or overflows.
        squares: Squared ring norms (rings, kernels) of the kernels in these units.
        lengths: Norms (kernels,) of the kernels in these units.
        scale: The factors (kernels,) from these units to effective kernels `gamma_j k_j / |k_j|`:
            `gamma_j / lengths_j`; without batch normalisation the unit itself.
    """

    members: Sequence[RegularizedKernel]
    unit: Tensor
    squares: Tensor
    lengths: Tensor
    scale: Tensor

    @property
    def norms(self) -> Tensor:
        """l2 norms (rings, kernels) of the nested groups of the effective kernels."""
        return nested_norms(self.squares) * ops.abs(self.scale)

    def in_units(self, steps: Tensor) -> Tensor:
        """Steps (rings, kernels) for effective kernels, as steps in the units of the kernels."""
        size = ops.abs(self.scale)
        return ops.where(size > 0, steps / ops.where(size > 0, size, 1.0), 0.0)

    @property
    def strengths(self) -> Tensor:
        """Penalty per unit of l2 norm (rings, kernels): alpha * the layer's share * norm factor."""
        alphas = distinct_alphas(m.regularizer for m in self.members)
        shares = [_shares(member) for member in self.members]
        if len(alphas) == 1:
            (alpha,) = alphas
            fixed = constant(np.concatenate(shares, axis=1), like=self.squares)
            return fixed * constant(ops.convert_to_tensor(alpha), like=self.squares)
        parts = [
            constant(share, like=self.squares)
            * constant(ops.convert_to_tensor(m.regularizer.alpha), like=self.squares)
            for m, share in zip(self.members, shares, strict=True)
        ]
        return ops.concatenate(parts, axis=1)

    @property
    def weights(self) -> Tensor:
        """Slopes (rings, kernels) of the penalties in the l2 norms: strengths * reweighting."""
        if not any(member.regularizer.reweight for member in self.members):
            return self.strengths
        norms = self.norms
        parts = [
            penalties.reweighting(
                part * constant(factors_of(member), like=part), member.regularizer.reweight
            )
            for member, part in zip(self.members, self.columns(norms), strict=True)
        ]
        return self.strengths * ops.concatenate(parts, axis=1)

    def columns(self, array: Tensor) -> list[Tensor]:
        """Split an array (rings, kernels) into the columns of each member."""
        if len(self.members) == 1:
            return [array]
        ends = np.cumsum([member.kernel.shape[-1] for member in self.members])[:-1]
        return list(ops.split(array, [int(end) for end in ends], axis=1))

    def per_kernel(self, values: Sequence[Tensor]) -> Tensor:
        """Concatenate scalars or arrays (out,), one per member, to (kernels,)."""
        ones = [ops.ones((m.kernel.shape[-1],), self.squares.dtype) for m in self.members]
        parts = [constant(v, like=self.squares) * o for v, o in zip(values, ones, strict=True)]
        return ops.concatenate(parts)

    def multiply_rings(self, factors: Tensor, in_units: bool = False) -> list[Tensor]:
        """Multiply the rings of every kernel by factors (rings, kernels).

        Args:
            factors: The factors.
            in_units: Whether the kernels are taken in their units.

        Returns:
            For each member a tensor of its kernel's shape and dtype.
        """
        parts, units = self.columns(factors), self.columns(self.unit[None])
        return [
            _multiply_rings(member, part, unit if in_units else None)
            for member, part, unit in zip(self.members, parts, units, strict=True)
        ]

    def as_gammas(self, values: Tensor) -> list[Tensor | None]:
        """Split values (kernels,) into one gamma per member, None for those without one."""
        parts = self.columns(values[None])
        return [
            None if member.gamma is None else ops.cast(part[0], member.gamma.dtype)
            for member, part in zip(self.members, parts, strict=True)
        ]


def stack_kernels(members: Sequence[RegularizedKernel]) -> KernelStack:
    """Stack kernels that have the same :func:`stacking_key`."""
    parts = [ring_squares(*to_blocks(m.kernel), m.regularizer.groups) for m in members]
    squares = _joined([own for own, _ in parts], axis=1)
    unit = _joined([own for _, own in parts], axis=0)
    lengths = safe_sqrt(ops.sum(squares, axis=0))
    paired = members[0].gamma is not None
    scale = _scales(members, lengths) if paired else unit
    return KernelStack(members, unit, squares, lengths, scale)


def _joined(parts: Sequence[Tensor], axis: int) -> Tensor:
    return parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=axis)


def stacking_key(member: RegularizedKernel) -> tuple[int, bool, bool]:
    """Number of rings, whether there is a gamma, whether the kernel is float64.

    Kernels with equal keys have ring norms that fit into one array.
    """
    wide = keras.backend.standardize_dtype(member.kernel.dtype) == "float64"
    rings = len(nested_groups.masks(_spatial_shape(member), member.regularizer.groups))
    return rings, member.gamma is not None, wide


def factors_of(member: RegularizedKernel) -> np.ndarray:
    """Factors (rings, 1) between the l2 norms of the groups and those of the regularizer."""
    regularizer, channels = member.regularizer, member.kernel.shape[-2]
    return norm_factors.norm_factors(
        _spatial_shape(member), regularizer.groups, channels, regularizer.norm
    )


def _scales(members: Sequence[RegularizedKernel], lengths: Tensor) -> Tensor:
    gammas = [ops.convert_to_tensor(member.gamma) for member in members]
    gamma = constant(ops.concatenate(gammas), like=lengths)
    return ops.where(lengths > 0, gamma / zeros_to_ones(lengths), 0.0)


def _multiply_rings(member: RegularizedKernel, factors: Tensor, unit: Tensor | None) -> Tensor:
    blocks, shape = to_blocks(member.kernel)
    blocks = blocks if unit is None else blocks / unit[0]
    spread = ops.take(factors, nested_groups.ring_index(shape, member.regularizer.groups), axis=0)
    return ops.cast(ops.reshape(blocks * spread[:, None], member.kernel.shape), member.kernel.dtype)


def _spatial_shape(member: RegularizedKernel) -> tuple[int, ...]:
    return tuple(member.kernel.shape[:-2])


def _shares(member: RegularizedKernel) -> np.ndarray:
    """The constant part (rings, kernels) of the strengths: all but alpha."""
    regularizer, ones = member.regularizer, np.ones((1, member.kernel.shape[-1]))
    weights = ones if regularizer.group_weights is None else regularizer.group_weights
    return np.asarray(factors_of(member) * regularizer.weight * weights)
