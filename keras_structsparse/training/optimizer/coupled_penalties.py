"""Penalties that depend on the kernels of several layers: their slopes and proximal steps.

Two penalties couple layers. MultiplyAdds (34) multiplies the kernel sizes of a layer by the width
that the layer reads. A regularizer attached with ``coupled=True`` has one group for each channel of
a residual stream: the kernels of all layers that write the channel.
"""

from __future__ import annotations

import collections
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from keras import ops

from keras_structsparse._typing import Tensor
from keras_structsparse.regularizers import norm_factors
from keras_structsparse.regularizers._ops import constant, safe_sqrt
from keras_structsparse.regularizers.coupling import ChannelGroup, NormOf, Writer
from keras_structsparse.regularizers.prox import joint_shrinkage
from keras_structsparse.training.optimizer.stacked_kernels import (
    KernelStack,
    RegularizedKernel,
    factors_of,
)


def is_coupled(stacks: Sequence[KernelStack]) -> bool:
    """Whether any penalty depends on kernels of other layers."""
    return any(m.regularizer.links is not None for stack in stacks for m in stack.members)


class WeightedChannels(NamedTuple):
    """A term `sum_c weights_c |channel c|` of a penalty.

    Attributes:
        member: The kernel whose regularizer has the term.
        norm: The norm in which kernels are measured.
        channels: The channels.
        weights: Derivative (width,) of the penalty in the norm of each channel.
    """

    member: RegularizedKernel
    norm: str
    channels: ChannelGroup
    weights: Tensor


@dataclass(frozen=True)
class CoupledKernels:
    """The kernels of all layers, stack by stack, some of whose penalties are coupled."""

    stacks: Sequence[KernelStack]

    def slopes(self) -> list[Tensor]:
        """For each stack the derivative (rings, kernels) of the penalties in the l2 norms."""
        return self._slopes(*self._read_terms(), *self._joint_terms())

    def weights(self) -> list[Tensor]:
        """The slopes without those of joint groups, which have a proximal step of their own."""
        return self._slopes(*self._read_terms())

    def joint_steps(self, factors: Sequence[Tensor], steps: Sequence[Tensor]) -> list[Tensor]:
        """Proximal steps of the joint groups, after those of each kernel's own groups.

        Args:
            factors: For each stack the factors (rings, kernels) of the steps taken so far.
            steps: For each stack the step lengths (kernels,).

        Returns:
            For each stack the factors (rings, kernels) of all steps together.
        """
        left = self._lengths_after(factors)
        step_of = {m.path: part[0] for m, part in self._by_member([s[None] for s in steps])}
        found: dict[str, list[Tensor]] = collections.defaultdict(list)
        for _, norm, channels, weights in self._joint_terms():
            assert norm == "l2"
            parts = channels.parts(lambda w: left[w.kernel])
            thresholds = [weights * step for step in channels.parts(lambda w: step_of[w.kernel])]
            shrinkage = joint_shrinkage(parts, thresholds)
            for writer, factor in zip(channels.writers, shrinkage, strict=True):
                found[writer.kernel].append(_padded(factor, writer.first, left[writer.kernel]))
        joint = {id(m): sum(found[m.path], m.regularizer.not_joint(n)[-1:]) for m, n in self._norms}
        return [f * j for f, j in zip(factors, self._by_stack(joint), strict=True)]

    @cached_property
    def _norms(self) -> list[tuple[RegularizedKernel, Tensor]]:
        """For each member the l2 norms (rings, kernels) of its effective kernels."""
        return self._by_member([stack.norms for stack in self.stacks])

    def _lengths_after(self, factors: Sequence[Tensor]) -> dict[str, Tensor]:
        """Norms (kernels,) of the effective kernels with rings multiplied by factors, by path."""
        lengths = [
            safe_sqrt(ops.sum(stack.squares * ops.square(f), axis=0)) * ops.abs(stack.scale)
            for stack, f in zip(self.stacks, factors, strict=True)
        ]
        return {m.path: part[0] for m, part in self._by_member([own[None] for own in lengths])}

    def _by_member(self, arrays: Sequence[Tensor]) -> list[tuple[RegularizedKernel, Tensor]]:
        """From one array per stack to the columns of every member."""
        return [
            (member, part)
            for stack, array in zip(self.stacks, arrays, strict=True)
            for member, part in zip(stack.members, stack.columns(array), strict=True)
        ]

    def _by_stack(self, parts: Mapping[int, Tensor]) -> list[Tensor]:
        """From the columns, by `id` of the member, to one array per stack."""
        return [ops.concatenate([parts[id(m)] for m in s.members], axis=1) for s in self.stacks]

    def _norm_of(self, member: RegularizedKernel, norm: str) -> NormOf:
        """Norms of the whole kernels of other layers, for the regularizer of one member."""
        known = {other.path: (other, norms[-1]) for other, norms in self._norms}

        def norm_of(writer: Writer) -> Tensor:
            if writer.kernel not in known:
                return member.regularizer.whole_norms(writer, norm)
            other, norms = known[writer.kernel]
            return norms * _whole_factor(other, norm)

        return norm_of

    def _read_terms(self) -> Iterator[WeightedChannels]:
        """Terms of the channels that layers read, in MultiplyAdds (34)."""
        for member, norms in self._norms:
            norm, scaled = member.regularizer.norm, norms * constant(factors_of(member), norms)
            norm_of = self._norm_of(member, norm)
            for channels, weights in member.regularizer.read_weights(scaled, norm_of):
                yield WeightedChannels(member, norm, channels, weights)

    def _joint_terms(self) -> Iterator[WeightedChannels]:
        """Terms of the channels with a joint group."""
        for member, norms in self._norms:
            norm_of = self._norm_of(member, "l2")
            for channels, weights in member.regularizer.joint_weights(norm_of, norms):
                yield WeightedChannels(member, "l2", channels, weights)

    def _slopes(self, *terms: WeightedChannels) -> list[Tensor]:
        """For each stack the slopes of the layers' own groups and of some coupled terms."""
        added: dict[str, list[Tensor]] = collections.defaultdict(list)
        members = {member.path: member for member, _ in self._norms}
        for member, norm, channels, weights in terms:
            found = channels.slopes(self._norm_of(member, norm), weights)
            for writer, slope in zip(channels.writers, found, strict=True):
                if (other := members.get(writer.kernel)) is not None:
                    slope = slope * _whole_factor(other, norm)
                    added[other.path].append(_padded(slope, writer.first, other.kernel))
        return self._by_stack(
            {id(m): _add_to_last(self._own(m, norms), added[m.path]) for m, norms in self._norms}
        )

    def _own(self, member: RegularizedKernel, norms: Tensor) -> Tensor:
        """Slopes (rings, kernels) of a penalty in the l2 norms of its own groups."""
        factors = constant(factors_of(member), like=norms)
        norm_of = self._norm_of(member, member.regularizer.norm)
        return factors * member.regularizer.slopes(norms * factors, norm_of)


def _add_to_last(slopes: Tensor, added: Sequence[Tensor]) -> Tensor:
    """Slopes (rings, kernels) plus terms (1, kernels) of the last group, the whole kernel."""
    if not added:
        return slopes
    last = slopes[-1:] + ops.cast(sum(added[1:], added[0]), slopes.dtype)
    return ops.concatenate([slopes[:-1], last], axis=0)


def _padded(values: Tensor, first: int, like: Tensor) -> Tensor:
    """Values (width,) of the kernels from index `first` as (1, kernels), 0 for the others."""
    return ops.pad(values, [[first, like.shape[-1] - first - values.shape[0]]])[None]


def _whole_factor(member: RegularizedKernel, norm: str) -> float:
    """Factor between the l2 norm of the member's whole kernels and another norm (25), (29)."""
    *shape, channels, _ = member.kernel.shape
    return float(norm_factors.norm_factors(tuple(shape), "kernel", channels, norm)[0, 0])
