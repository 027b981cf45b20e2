"""Which kernels write the channels that a layer reads, and which share a residual stream."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import keras
from keras import layers as kl

from keras_structsparse.graph.functional_graph import Call, Graph

Kernel = tuple[str, int]
"""Name of a layer and number of its kernel."""

Channel = frozenset[Kernel] | None
"""The kernels without which a channel would be constant; None if it never would."""


@dataclass(frozen=True)
class Channels:
    """The channels of one tensor.

    Attributes:
        axis: The axis that counts them, from the front.
        members: For each channel its kernels.
    """

    axis: int
    members: tuple[Channel, ...]


@dataclass(frozen=True)
class Run:
    """Consecutive kernels of several layers that share channels.

    Attributes:
        first: By name of the layer, the number of its first kernel; a layer may come twice.
        width: How many of each.
        times: How often each channel occurs.
    """

    first: tuple[Kernel, ...]
    width: int
    times: int = 1


Rule = Callable[[Call, Sequence[Channels], Graph], Channels | None]
"""From a call and the channels of its inputs to those of its output; None if it mixes them."""


def channels(graph: Graph, writers: Collection[str]) -> dict[int, Channels]:
    """Follow the outputs of some layers through a graph.

    Args:
        graph: The graph.
        writers: Names of layers whose kernels may vanish.

    Returns:
        For each tensor its channels. A sum holds the kernels of all its sides.
    """
    found = {tensor: _lasting(graph, tensor) for tensor in graph.inputs}
    for call in graph.calls:
        rule = _written if call.name in writers else RULES.get(type(call.operation), _mixed)
        result = rule(call, [found[i] for i in call.inputs], graph)
        for tensor in call.outputs:
            fits = result is not None and len(result.members) == graph.shapes[tensor][result.axis]
            found[tensor] = result if result is not None and fits else _lasting(graph, tensor)
    return found


def reads(found: Channels, order: Sequence[str]) -> tuple[list[Run], int]:
    """What a layer reads: runs of channels that kernels write, and the number of all others.

    Args:
        found: The channels of the tensor that it reads.
        order: The names of all layers, for the order within a run.

    Returns:
        The runs, and the number of channels that never vanish.
    """
    counts: dict[frozenset[Kernel], int] = {}
    for member in found.members:
        if member is not None:
            counts[member] = counts.get(member, 0) + 1
    runs = list(_runs(counts.items(), order))
    return runs, len(found.members) - sum(run.width * run.times for run in runs)


def joined(found: Mapping[int, Channels], order: Sequence[str]) -> list[Run]:
    """The kernels of different layers that write the same channels, directly or by a chain of sums.

    Args:
        found: The channels of all tensors.
        order: The names of all layers, for the order within a run.

    Returns:
        Runs of two or more layers, each kernel in one at most. Channels that never vanish join
        nothing.
    """
    group: dict[Kernel, set[Kernel]] = {}
    for member in {m for tensor in found.values() for m in tensor.members if m and len(m) > 1}:
        whole = set().union(*(group.get(kernel, {kernel}) for kernel in member))
        group.update(dict.fromkeys(whole, whole))
    rank = {name: i for i, name in enumerate(order)}
    unique = {id(kernels): frozenset(kernels) for kernels in group.values()}.values()
    first = {kernels: min((rank[name], j) for name, j in kernels) for kernels in unique}
    return list(_runs(((k, 1) for k in sorted(unique, key=first.__getitem__)), order))


def _runs(members: Iterable[tuple[frozenset[Kernel], int]], order: Sequence[str]) -> Iterator[Run]:
    """Put members together whose kernels are numbered consecutively in every layer."""
    rank = {name: i for i, name in enumerate(order)}
    ordered = [(sorted(m, key=lambda k: (rank[k[0]], k[1])), times) for m, times in members]
    numbered = enumerate(ordered)
    for _, part in itertools.groupby(
        numbered, lambda x: ([(name, j - x[0]) for name, j in x[1][0]], x[1][1])
    ):
        run = [item for _, item in part]
        yield Run(tuple(run[0][0]), len(run), run[0][1])


def _lasting(graph: Graph, tensor: int) -> Channels:
    shape = graph.shapes[tensor]
    axis = len(shape) - 1
    return Channels(axis, (None,) * int(shape[axis] or 0))


def _channel_axis(call: Call, graph: Graph, tensor: int) -> int:
    first = getattr(call.operation, "data_format", None) == "channels_first"
    return 1 if first else len(graph.shapes[tensor]) - 1


# --- rules ---


def _mixed(call: Call, inputs: Sequence[Channels], graph: Graph) -> None:
    return None


def _written(call: Call, inputs: Sequence[Channels], graph: Graph) -> Channels | None:
    if getattr(call.operation, "activation", None) in MIXING:
        return None
    axis = _channel_axis(call, graph, call.outputs[0])
    width = graph.shapes[call.outputs[0]][axis] or 0
    return Channels(axis, tuple(frozenset([(call.name, j)]) for j in range(width)))


def _passed(call: Call, inputs: Sequence[Channels], graph: Graph) -> Channels:
    return inputs[0]


def _activated(call: Call, inputs: Sequence[Channels], graph: Graph) -> Channels | None:
    return None if call.operation.activation in MIXING else inputs[0]


def _normalized(call: Call, inputs: Sequence[Channels], graph: Graph) -> Channels | None:
    rank = len(graph.shapes[call.inputs[0]])
    return inputs[0] if call.operation.axis % rank == inputs[0].axis else None


def _moved(call: Call, inputs: Sequence[Channels], graph: Graph) -> Channels | None:
    """Padding, cropping and pooling leave channels alone, if they agree on where these are."""
    return inputs[0] if _channel_axis(call, graph, call.inputs[0]) == inputs[0].axis else None


def _pooled(call: Call, inputs: Sequence[Channels], graph: Graph) -> Channels | None:
    kept = _moved(call, inputs, graph)
    if kept is None or call.operation.keepdims:
        return kept
    return Channels(1, kept.members)


def _repeated(call: Call, inputs: Sequence[Channels], graph: Graph) -> Channels | None:
    """A depthwise convolution makes each channel into several."""
    kept = _moved(call, inputs, graph)
    if kept is None or call.operation.activation in MIXING:
        return None
    times = range(call.operation.depth_multiplier)
    return Channels(kept.axis, tuple(m for m in kept.members for _ in times))


def _flattened(call: Call, inputs: Sequence[Channels], graph: Graph) -> Channels | None:
    if _moved(call, inputs, graph) is None:
        return None
    sides = [n for i, n in enumerate(graph.shapes[call.inputs[0]]) if i not in (0, inputs[0].axis)]
    if None in sides:
        return None
    times = 1
    for side in sides:
        times *= int(side or 0)
    return Channels(1, inputs[0].members * times)


def _concatenated(call: Call, inputs: Sequence[Channels], graph: Graph) -> Channels | None:
    axis = call.operation.axis % len(graph.shapes[call.outputs[0]])
    if any(side.axis != axis for side in inputs):
        return None
    return Channels(axis, tuple(m for side in inputs for m in side.members))


def _merged(call: Call, inputs: Sequence[Channels], graph: Graph) -> Channels | None:
    """A channel of the result is constant if it is in all sides, and lasts if it does in one."""
    if len({(side.axis, len(side.members)) for side in inputs}) != 1:
        return None
    members = (_union(m) for m in zip(*(side.members for side in inputs), strict=True))
    return Channels(inputs[0].axis, tuple(members))


def _union(members: Iterable[Channel]) -> Channel:
    union: frozenset[Kernel] = frozenset()
    for member in members:
        if member is None:
            return None
        union |= member
    return union


MIXING = frozenset(
    {
        keras.activations.softmax,
        keras.activations.log_softmax,
        keras.activations.sparsemax,
        keras.activations.glu,
    }
)
"""Activations that are not of each entry by itself."""

_SPATIAL = ("ZeroPadding", "Cropping", "UpSampling", "MaxPooling", "AveragePooling")
_GLOBAL = ("GlobalMaxPooling", "GlobalAveragePooling")


def _families(names: Sequence[str]) -> list[type[keras.Layer]]:
    return [getattr(kl, f"{name}{rank}D") for name in names for rank in (1, 2, 3)]


_TYPES: dict[Rule, Sequence[type[keras.Layer]]] = {
    _passed: (
        *(kl.ReLU, kl.LeakyReLU, kl.ELU, kl.PReLU, kl.Identity, kl.Rescaling),
        *(kl.Dropout, kl.GaussianDropout, kl.GaussianNoise, kl.AlphaDropout),
        *_families(["SpatialDropout"]),
    ),
    _activated: (kl.Activation,),
    _normalized: (kl.BatchNormalization,),
    _moved: _families(_SPATIAL),
    _pooled: _families(_GLOBAL),
    _repeated: (kl.DepthwiseConv1D, kl.DepthwiseConv2D),
    _flattened: (kl.Flatten,),
    _concatenated: (kl.Concatenate,),
    _merged: (kl.Add, kl.Subtract, kl.Average, kl.Maximum, kl.Minimum, kl.Multiply),
}
RULES: Mapping[type[keras.Operation], Rule] = {t: rule for rule, ts in _TYPES.items() for t in ts}
"""The rule for each exact type of layer; all other operations are taken to mix channels."""
