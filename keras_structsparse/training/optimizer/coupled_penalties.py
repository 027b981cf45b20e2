"""Penalties that depend on the kernels of several layers: their slopes and their joint steps."""

from __future__ import annotations

import collections
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from keras import ops

from keras_structsparse._typing import Tensor
from keras_structsparse.regularizers import nested_groups
from keras_structsparse.regularizers._ops import constant, safe_sqrt
from keras_structsparse.regularizers.coupling import NormOf, Stream, Writer
from keras_structsparse.regularizers.group_norms import nested_norms
from keras_structsparse.regularizers.prox import joint_shrinkage
from keras_structsparse.training.optimizer.stacked_kernels import Batch, Target, norm_factors


def is_coupled(batches: Sequence[Batch]) -> bool:
    """Whether any penalty depends on more than its own kernel."""
    return any(t.regularizer.links is not None for batch in batches for t in batch.targets)


@dataclass(frozen=True)
class Network:
    """The kernels of all layers, batch by batch."""

    batches: Sequence[Batch]

    def slopes(self) -> list[Tensor]:
        """For each batch the derivative (rings, kernels) of the penalties in the l2 norms."""
        return self._own_and(*self._reads(), *self._joint())

    def weights(self) -> list[Tensor]:
        """The slopes without those of joint penalties, which have proximal steps of their own."""
        return self._own_and(*self._reads())

    def joint_steps(self, factors: Sequence[Tensor], steps: Sequence[Tensor]) -> list[Tensor]:
        """The proximal steps of the joint penalties, after those of each kernel's own groups.

        Args:
            factors: For each batch what every ring (rings, kernels) has been multiplied by.
            steps: For each batch the step lengths (kernels,).

        Returns:
            For each batch what every ring is multiplied by in all.
        """
        left = self._after(factors)
        lengths = {t.path: part[0] for t, part in self._by_target([s[None] for s in steps])}
        found: dict[str, list[Tensor]] = collections.defaultdict(list)
        for _, norm, stream, weights in self._joint():
            assert norm == "l2"
            parts = stream.parts(lambda w: left[w.kernel])
            thresholds = [weights * step for step in stream.parts(lambda w: lengths[w.kernel])]
            for writer, factor in zip(
                stream.writers, joint_shrinkage(parts, thresholds), strict=True
            ):
                found[writer.kernel].append(_padded(factor, writer.first, left[writer.kernel]))
        joint = {id(t): sum(found[t.path], t.regularizer.alone(n)[-1:]) for t, n in self._norms}
        return [f * j for f, j in zip(factors, self._by_batch(joint), strict=True)]

    @cached_property
    def _norms(self) -> list[tuple[Target, Tensor]]:
        """The l2 norms (rings, kernels) of the effective kernels."""
        return self._by_target([nested_norms(batch.effective) for batch in self.batches])

    def _after(self, factors: Sequence[Tensor]) -> dict[str, Tensor]:
        """The norms (kernels,) of the effective kernels, with every ring multiplied by a factor."""
        squares = [
            ops.sum(batch.effective * ops.square(f), axis=0, keepdims=True)
            for batch, f in zip(self.batches, factors, strict=True)
        ]
        return {t.path: safe_sqrt(part[0]) for t, part in self._by_target(squares)}

    def _by_target(self, arrays: Sequence[Tensor]) -> list[tuple[Target, Tensor]]:
        """From one array per batch to the columns of every target."""
        return [
            (target, part)
            for batch, array in zip(self.batches, arrays, strict=True)
            for target, part in zip(batch.targets, batch.split(array), strict=True)
        ]

    def _by_batch(self, parts: Mapping[int, Tensor]) -> list[Tensor]:
        """From the columns, by ``id`` of the target, to one array per batch."""
        return [ops.concatenate([parts[id(t)] for t in b.targets], axis=1) for b in self.batches]

    def _norm_of(self, target: Target, norm: str) -> NormOf:
        """The norms of whole kernels, as the penalty of one target sees them."""
        known = {other.path: (other, norms[-1]) for other, norms in self._norms}

        def norm_of(writer: Writer) -> Tensor:
            if writer.kernel not in known:
                return target.regularizer.whole_norms(writer, norm)
            other, norms = known[writer.kernel]
            return norms * _factor(other, norm)

        return norm_of

    def _reads(self) -> Iterator[tuple[Target, str, Stream, Tensor]]:
        """The streams that layers read: (reader, norm, stream, what each of its norms weighs)."""
        for target, norms in self._norms:
            norm, scaled = target.regularizer.norm, norms * constant(norm_factors(target), norms)
            norm_of = self._norm_of(target, norm)
            for stream, weights in target.regularizer.read_weights(scaled, norm_of):
                yield target, norm, stream, weights

    def _joint(self) -> Iterator[tuple[Target, str, Stream, Tensor]]:
        """The streams with a joint penalty: (payer, norm, stream, the weights of its norms)."""
        for target, norms in self._norms:
            norm_of = self._norm_of(target, "l2")
            for stream, weights in target.regularizer.joint_weights(norm_of, norms):
                yield target, "l2", stream, weights

    def _own_and(self, *streams: tuple[Target, str, Stream, Tensor]) -> list[Tensor]:
        """For each batch the slopes of the layers' own norms, and those of some streams."""
        pulls: dict[str, list[Tensor]] = collections.defaultdict(list)
        targets = {target.path: target for target, _ in self._norms}
        for target, norm, stream, weights in streams:
            found = stream.pulls(self._norm_of(target, norm), weights)
            for writer, pull in zip(stream.writers, found, strict=True):
                if (other := targets.get(writer.kernel)) is not None:
                    pull = pull * _factor(other, norm)
                    pulls[other.path].append(_padded(pull, writer.first, other.kernel))
        return self._by_batch(
            {id(t): _plus(self._own(t, norms), pulls[t.path]) for t, norms in self._norms}
        )

    def _own(self, target: Target, norms: Tensor) -> Tensor:
        factors = constant(norm_factors(target), like=norms)
        norm_of = self._norm_of(target, target.regularizer.norm)
        return factors * target.regularizer.slopes(norms * factors, norm_of)


def _plus(slopes: Tensor, pulls: Sequence[Tensor]) -> Tensor:
    """Slopes (rings, kernels) with something added for the whole kernel, the last group."""
    if not pulls:
        return slopes
    last = slopes[-1:] + ops.cast(sum(pulls[1:], pulls[0]), slopes.dtype)
    return ops.concatenate([slopes[:-1], last], axis=0)


def _padded(values: Tensor, first: int, like: Tensor) -> Tensor:
    """Values (width,) from some kernel on as (1, kernels), 0 for the others."""
    return ops.pad(values, [[first, like.shape[-1] - first - values.shape[0]]])[None]


def _factor(target: Target, norm: str) -> float:
    """What a norm multiplies the l2 norm of the target's whole kernels by."""
    *shape, channels, _ = target.kernel.shape
    return float(nested_groups.norm_factors(tuple(shape), "kernel", channels, norm)[0, 0])
