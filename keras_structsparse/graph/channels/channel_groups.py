"""Channel groups: which kernels write every channel of a network.

One walk by the rules of surgery, with all weights nonzero, numbers the channels of all tensors.
Coupled groups, `MultiplyAdds`, thresholds and estimates use the result, so they follow channels
through every layer and bare operation that has a rule, including the rules of users.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import keras
import numpy as np

from keras_structsparse._typing import Array
from keras_structsparse.graph.channels.channel_steps import ChannelStep, channel_step
from keras_structsparse.graph.channels.propagation import walk
from keras_structsparse.graph.channels.registry import is_built_in, rule_for
from keras_structsparse.graph.channels.splitting import REALIZE
from keras_structsparse.graph.functional_graph import Graph

Kernel = tuple[str, int]
"""Name of a layer and index of one of its kernels."""

Writers = frozenset[Kernel] | None
"""The kernels that must all be zero for a channel to be constant; None if it is never constant."""


@dataclass(frozen=True)
class KernelRun:
    """Consecutive kernels of several layers that write the same channels.

    Attributes:
        first: The first kernel of each layer; a layer may occur twice.
        width: Number of kernels of each layer.
        times: How often each channel occurs in the tensor.
    """

    first: tuple[Kernel, ...]
    width: int
    times: int = 1


@dataclass(frozen=True)
class ChannelMap:
    """The channels of all tensors of a network, by number.

    Equal numbers in several tensors are the same channel, passed on by activations, pooling and
    the like.

    Attributes:
        graph: The network.
        steps: What its calls do to channels, in topological order.
        channels: For each tensor the numbers of its channels (channels,).
        kept: For each number, whether it is never removed: the channels of the model's inputs, and
            those that a layer without a rule reads or computes.
    """

    graph: Graph
    steps: tuple[ChannelStep, ...]
    channels: Mapping[int, Array]
    kept: Array

    @classmethod
    def of(cls, graph: Graph) -> ChannelMap:
        """Follow the channels of a network.

        Args:
            graph: The network.

        Returns:
            The channels. They do not depend on the values of the weights.

        Examples:
            >>> from keras_structsparse.graph.functional_graph import read
            >>> inputs = keras.Input((8, 8, 1))
            >>> a, b = (keras.layers.Conv2D(2, 3, name=n)(inputs) for n in ("a", "b"))
            >>> found = ChannelMap.of(read(keras.Model(inputs, keras.ops.relu(a + b))))
            >>> found.joined(["a", "b"])
            [KernelRun(first=(('a', 0), ('b', 0)), width=2, times=1)]
        """
        found = walk(graph, _without_zeros(graph), "exact", REALIZE["none"])
        kept = np.zeros(found.count, bool)
        for tensor in graph.inputs:
            kept[found.channels[tensor].ids] = True
        for step in found.steps:
            for ids in step.flow.keeps:
                kept[ids] = True
        channels = {tensor: own.ids for tensor, own in found.channels.items()}
        return cls(graph, tuple(map(channel_step, found.steps)), channels, kept)

    def writers(self, layers: Collection[str]) -> dict[int, tuple[Writers, ...]]:
        """The kernels that write each channel of each tensor.

        Args:
            layers: Names of the layers whose kernels can be removed.

        Returns:
            By tensor, one entry per channel. A channel of a sum has the kernels of all summands. A
            channel that anything else writes, or that is never removed, has None.
        """
        names = {id(call.operation): call.name for call in self.graph.layers()}
        found: list[Writers] = [None] * len(self.kept)
        for step in self.steps:
            name = names.get(id(step.call.operation))
            for number, own in _written(step, name if name in layers else None, found):
                found[number] = None if self.kept[number] else own
        return {tensor: tuple(found[i] for i in ids) for tensor, ids in self.channels.items()}

    def is_gated(self, tensor: int) -> bool:
        """Whether the channels of a tensor are removed by a product if they are 0.

        Args:
            tensor: The tensor. Behind it may be what keeps zeros, such as an activation.
        """
        zeros = {tensor}
        for step in self.steps:
            if step.zeros and zeros.intersection(step.call.inputs):
                if len(step.call.inputs) > 1 and step.merged:
                    return True
                zeros.update(step.call.outputs)
        return False

    def joined(self, layers: Sequence[str]) -> list[KernelRun]:
        """The coupled kernels: kernels of several layers that write the same channels of sums.

        Args:
            layers: Names of the layers whose kernels can be removed.

        Returns:
            Runs of two or more layers; each kernel is in at most one of them. Kernels are not
            coupled by channels that are never removed.
        """
        group: dict[Kernel, set[Kernel]] = {}
        found = self.writers(layers).values()
        for member in {own for tensor in found for own in tensor if own and len(own) > 1}:
            whole = set().union(*(group.get(kernel, {kernel}) for kernel in member))
            group.update(dict.fromkeys(whole, whole))
        rank = {name: i for i, name in enumerate(layers)}
        unique = {id(kernels): frozenset(kernels) for kernels in group.values()}.values()
        first = {kernels: min((rank[name], j) for name, j in kernels) for kernels in unique}
        return list(_runs(((k, 1) for k in sorted(unique, key=first.__getitem__)), layers))


def _without_zeros(graph: Graph) -> dict[int, dict[str, Array]]:
    """Weights without zeros for all layers, by ``id`` and name.

    For our own rules ones, broadcast, so they need no memory. A rule of a user may expect more of
    the weights, so it sees copies of the layer's own.
    """
    layers = {id(c.operation): c.operation for c in graph.calls if _weights(c.operation)}
    found: dict[int, dict[str, Array]] = {}
    for key, layer in layers.items():
        values = _ones_like if is_built_in(rule_for(layer)) else _nonzero_copy
        found[key] = {weight.name: values(weight) for weight in _weights(layer)}
    return found


def _ones_like(weight: keras.Variable) -> Array:
    return np.broadcast_to(np.float32(1), tuple(weight.shape))


def _nonzero_copy(weight: keras.Variable) -> Array:
    values = np.array(keras.ops.convert_to_numpy(weight))
    values[values == 0] = 1
    return values


def _weights(operation: keras.Operation) -> Sequence[keras.Variable]:
    return getattr(operation, "weights", ())


def _written(
    step: ChannelStep, layer: str | None, found: Sequence[Writers]
) -> Iterator[tuple[int, Writers]]:
    """The channels that a call computes or merges, with the kernels that write them.

    Args:
        step: The call.
        layer: The name of its layer, if its kernels can be removed; else None.
        found: The writers of all numbers, complete for the inputs of the call.
    """
    if step.singles and layer is None:
        for number, source in zip(step.outputs[0], step.sources, strict=True):
            yield int(number), found[source]
    elif step.mixes:
        for output in step.outputs:
            for j, number in enumerate(output):
                yield int(number), None if layer is None else frozenset([(layer, j)])
    elif step.merged:
        (output,) = step.outputs
        for number, *sides in zip(output, *step.merged, strict=True):
            passed = [found[number]] if number in step.inputs[0] else []
            yield int(number), _union([*passed, *(found[side] for side in sides)])


def _union(members: Iterable[Writers]) -> Writers:
    union: frozenset[Kernel] = frozenset()
    for member in members:
        if member is None:
            return None
        union |= member
    return union


def runs(members: Sequence[Writers], layers: Sequence[str]) -> tuple[list[KernelRun], int]:
    """Collect channels into runs of the kernels that write them.

    Args:
        members: For each channel the kernels that write it.
        layers: The names of all layers, in the order they have within a run.

    Returns:
        The runs, and the number of channels that are never removed.
    """
    counts: dict[frozenset[Kernel], int] = {}
    for member in members:
        if member is not None:
            counts[member] = counts.get(member, 0) + 1
    found = list(_runs(counts.items(), layers))
    return found, len(members) - sum(run.width * run.times for run in found)


def _runs(
    members: Iterable[tuple[frozenset[Kernel], int]], order: Sequence[str]
) -> Iterator[KernelRun]:
    """Join members whose kernels have consecutive indices in every layer."""
    rank = {name: i for i, name in enumerate(order)}
    ordered = [(sorted(m, key=lambda k: (rank[k[0]], k[1])), times) for m, times in members]
    numbered = enumerate(ordered)
    for _, part in itertools.groupby(
        numbered, lambda x: ([(name, j - x[0]) for name, j in x[1][0]], x[1][1])
    ):
        run = [item for _, item in part]
        yield KernelRun(tuple(run[0][0]), len(run), run[0][1])
