"""What single calls do to the numbers of channels."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from keras_structsparse._typing import Array
from keras_structsparse.graph.channels.probing import keeps_zeros
from keras_structsparse.graph.channels.propagation import Step
from keras_structsparse.graph.functional_graph import Call


@dataclass(frozen=True)
class ChannelStep:
    """What one call does to channel numbers.

    Attributes:
        call: The call.
        inputs: For each input tensor, the numbers of its channels (channels,).
        outputs: For each output tensor, the numbers of its channels (channels,).
        mixes: Whether every output channel depends on all input channels, of its group.
        joined: Arrays (channels,) of numbers that surgery keeps or removes together with the output
            channels at their indices. Empty if the call passes channels on.
        zeros: Whether every output channel is constant, and 0, if the channel of one input at its
            place is, whatever the others are: so it is for ReLU and products, not for sums.
        groups: The number of groups of neighbouring channels of a call that mixes: every output
            channel depends on the input channels of its own group alone.
    """

    call: Call
    inputs: tuple[Array, ...]
    outputs: tuple[Array, ...]
    mixes: bool
    joined: tuple[Array, ...]
    zeros: bool = False
    groups: int = 1

    @property
    def singles(self) -> bool:
        """Whether every output channel is computed from one input channel, by a kernel."""
        return self.mixes and len(self.inputs) == 1 and self.groups == len(self.inputs[0]) > 1

    @cached_property
    def alone(self) -> tuple[Array, ...]:
        """For each input, which of its channels (channels,) are not :attr:`joined`."""
        joined = np.concatenate(self.joined) if self.joined else np.zeros(0, int)
        return tuple(~np.isin(ids, joined) for ids in self.inputs)

    @cached_property
    def passes(self) -> bool:
        """Whether the output channels are channels of an input."""
        return any(np.isin(self.outputs[0], ids).all() for ids in self.inputs)

    @property
    def sources(self) -> Array:
        """For a call with :attr:`singles`, the number of the input of each output (channels,)."""
        return np.repeat(self.inputs[0], len(self.outputs[0]) // self.groups)

    @property
    def merged(self) -> tuple[Array, ...]:
        """Arrays (channels,) of numbers that the call merges, as a sum does.

        An output channel is constant if all of them are, at its index.
        """
        return () if self.mixes else self.joined


def channel_step(step: Step) -> ChannelStep:
    """What a step of a walk with no weight zero does to channel numbers."""
    inputs = tuple(side.ids for side in step.site.inputs)
    outputs = tuple(output.ids for output in step.outputs)
    own = step.flow.output.ids
    read = np.concatenate(inputs) if inputs else np.zeros(0, int)
    partners = [b if np.array_equal(a, own) else a for a, b in step.flow.joins if _has(a, b, own)]
    joined = tuple(p for p in partners if np.isin(p, read).all())
    passed = bool(np.isin(own, read).all())
    # Needed besides joined channels is, for example, a map that is broadcast over all channels.
    besides = [ids for ids in step.flow.needs(np.ones(len(own), bool)) if len(ids)]
    narrow = any(not np.isin(ids, [*own, *itertools.chain(*joined)]).all() for ids in besides)
    mixes = bool(step.rule is None or step.flow.reads or narrow or not (passed or joined))
    reads = step.flow.reads
    groups = reads[0].groups if mixes and step.rule is not None and len(reads) == 1 else 1
    zeros = not mixes and keeps_zeros(step)
    return ChannelStep(step.call, inputs, outputs, mixes, joined, zeros, groups)


def _has(left: Array, right: Array, own: Array) -> bool:
    return bool(np.array_equal(left, own) or np.array_equal(right, own))
