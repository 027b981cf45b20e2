"""Estimate the multiply-adds of the pruned network without building it.

Building the pruned network takes a quarter of a second or more, too long for a check every few
training steps. The estimate propagates only widths and sizes, which takes a few milliseconds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import keras
import numpy as np

from keras_structsparse._typing import Array
from keras_structsparse.graph.channels.channel_groups import ChannelStep
from keras_structsparse.graph.channels.splitting import REALIZE
from keras_structsparse.graph.functional_graph import Call
from keras_structsparse.graph.kernel_axes import axes_of, other_entries, plain_shape
from keras_structsparse.graph.prunable_layers import ModelLike, PrunableLayers
from keras_structsparse.profiling.multiply_adds import multiply_adds

Sizes = Mapping[str, Sequence[int]]


def remaining(model: ModelLike, sizes: Sizes, realize: str = "auto") -> dict[str, int]:
    """The multiply-adds of each layer after surgery, as :class:`Estimate` counts them.

    Args:
        model: A functional or built Sequential model, or its prunable layers.
        sizes: The sizes of the kernels, by layer; layers that are not named do not change.
        realize: As for :func:`keras_structsparse.prune`.

    Returns:
        Multiply-adds for one example by name of the layer; layers without any are left out.

    Raises:
        ModelError: The model has no graph, or the size of a map is open.

    Examples:
        >>> import keras
        >>> stack = [keras.layers.Conv2D(4, 3, padding="same", name=name) for name in ("a", "b")]
        >>> model = keras.Sequential([keras.Input((8, 8, 1)), *stack])
        >>> remaining(model, {"a": (3, 0, 2, 0)})
        {'a': 1152, 'b': 4608}
    """
    return Estimate.of(PrunableLayers.of(model), realize).remaining(sizes)


@dataclass(frozen=True)
class _Work:
    """A call of a layer that may have multiply-adds.

    Attributes:
        step: What the call does to channels.
        whole: Its cost before surgery: multiply-adds, or parameters.
        places: How often each entry of its kernel is used.
        beside: The part of the cost that goes with whole output channels: parameters of biases.
        kernel: Shape (*spatial, in, out) of its kernel, if the layer is prunable; else None.
        fixed: Whether the estimate keeps all its kernels: the layer is called more than once, or
            computes an output of the model.
    """

    step: ChannelStep
    whole: int
    beside: int
    places: int
    kernel: tuple[int, ...] | None
    fixed: bool

    @property
    def call(self) -> Call:
        return self.step.call


@dataclass(frozen=True)
class Estimate:
    """Estimates the multiply-adds (eq. 10) of each layer after surgery.

    A channel counts as live if a kept kernel that reads a live channel computes it; the rules of
    surgery say how calls pass channels on. All summands keep the channels of a sum. Layers are
    cropped to their largest kernels, or split if that costs less, as in
    :func:`keras_structsparse.prune`. Not counted are carrier channels, and larger windows that
    surgery keeps to avoid padding.

    Attributes:
        found: The prunable layers of the model.
        work: The calls of the model.
        realize: As for :func:`keras_structsparse.prune`.
    """

    found: PrunableLayers
    work: tuple[_Work, ...]
    realize: str

    @classmethod
    def of(cls, found: PrunableLayers, realize: str = "auto", unit: str = "multiply_adds") -> Self:
        """Prepare an estimate.

        Args:
            found: The prunable layers of the model.
            realize: As for :func:`keras_structsparse.prune`.
            unit: "multiply_adds" or "params", which are counted once for each layer.

        Raises:
            ModelError: The size of a map is open.
        """
        seen: set[int] = set()
        work = tuple(_work(found, step, unit, seen) for step in found.channels.steps)
        return cls(found, work, realize)

    def remaining(self, sizes: Sizes) -> dict[str, int]:
        """The multiply-adds, or the parameters, of each layer after surgery.

        Args:
            sizes: The sizes of the kernels, by layer; layers that are not named do not change.

        Returns:
            The cost for one example by name of the layer; layers without any are left out.
        """
        found: dict[str, int] = {}
        for work, entries, beside in self._parts(sizes):
            name = work.call.name
            found[name] = found.get(name, 0) + round(entries) + round(beside)
        return {name: left for name, left in found.items() if left}

    def entries(self, name: str, sizes: Sizes) -> int:
        """What the kernel entries of a layer cost after surgery, without its bias.

        Args:
            name: The layer.
            sizes: As for :meth:`remaining`.
        """
        parts = self._parts(sizes)
        return sum(round(entries) for work, entries, _ in parts if work.call.name == name)

    def _parts(self, sizes: Sizes) -> Iterator[tuple[_Work, float, float]]:
        """The calls with the cost that remains: of kernel entries, and beside them."""
        kernels = [_sizes(work, sizes) for work in self.work]
        kept = self._kept(self._live(kernels), kernels)
        for work, own in zip(self.work, kernels, strict=True):
            if work.whole:
                entries = (work.whole - work.beside) * _share(work, kept, own, self.realize)
                beside = float(kept[work.step.outputs[0]].mean()) if entries else 0.0
                yield work, entries, work.beside * beside

    def _live(self, kernels: Sequence[Array | None]) -> Array:
        """For each channel number, whether the channel depends on the input."""
        live = np.ones(len(self.found.channels.kept), bool)
        for work, sizes in zip(self.work, kernels, strict=True):
            step = work.step
            if sizes is not None:
                live[step.outputs[0]] = (sizes > 0) & live[step.inputs[0]].any()
            elif step.mixes:
                reads = any(live[ids].any() for ids in step.inputs)
                for ids in step.outputs:
                    live[ids] = reads
            elif step.merged:
                passed = [step.outputs[0]] if _passes(step) else []
                live[step.outputs[0]] = np.any([live[i] for i in (*passed, *step.merged)], axis=0)
        return live

    def _kept(self, live: Array, kernels: Sequence[Array | None]) -> Array:
        """The channels that surgery keeps: always, or because a kept channel depends on them."""
        kept = self.found.channels.kept.copy()
        for tensor in self.found.graph.outputs:
            ids = self.found.channels.channels[tensor]
            kept[ids] |= live[ids]
        before = -1
        while before < (before := int(kept.sum())):  # joined channels keep each other
            for work in reversed(self.work):
                _keep_inputs(work.step, live, kept)
        return kept


def _keep_inputs(step: ChannelStep, live: Array, kept: Array) -> None:
    """Keep what a call needs for its kept output channels; joined channels in both directions."""
    for ids in step.joined:
        # Surgery removes a summand whose channels are all constant.
        if live[ids].any():
            together = kept[step.outputs[0]] | kept[ids]
            kept[step.outputs[0]] = together
            kept[ids] |= together
    if step.mixes and any(kept[ids].any() for ids in step.outputs):
        joined = np.concatenate(step.joined) if step.joined else np.zeros(0, int)
        for ids in step.inputs:
            alone = ids[~np.isin(ids, joined)]
            kept[alone] |= live[alone]


def _work(found: PrunableLayers, step: ChannelStep, unit: str, seen: set[int]) -> _Work:
    call, graph = step.call, found.graph
    counted = getattr(call.operation, "weights", ())
    used = multiply_adds(call.operation, call, dict(enumerate(graph.shapes))) if counted else 0
    kernel = plain_shape(call.operation) if call.name in found.layers else None
    fixed = graph.is_shared(call) or call.outputs[0] in graph.outputs
    places = (used or 0) // math.prod(kernel) if kernel else 0
    if unit == "multiply_adds":
        return _Work(step, used or 0, 0, places, kernel, fixed)
    whole = _params(call.operation, seen)
    bias = getattr(call.operation, "bias", None) if kernel and whole else None
    beside = 0 if bias is None else math.prod(bias.shape)
    return _Work(step, whole, beside, places, kernel, fixed)


def _params(operation: keras.Operation, seen: set[int]) -> int:
    """The weights of an operation without those of the operations before it."""
    new = [w for w in getattr(operation, "weights", ()) if id(w) not in seen]
    seen.update(map(id, new))
    return sum(math.prod(w.shape) for w in new)


def _passes(step: ChannelStep) -> bool:
    return any(np.isin(step.outputs[0], ids).all() for ids in step.inputs)


def _sizes(work: _Work, sizes: Sizes) -> Array | None:
    """The sizes of the kernels of a layer (out,); None if the layer is not prunable."""
    if work.kernel is None:
        return None
    whole = np.full(work.kernel[-1], max(work.kernel[:-2], default=1))
    return whole if work.fixed else np.asarray(sizes.get(work.call.name, whole))


def _share(work: _Work, kept: Array, sizes: Array | None, realize: str) -> float:
    """The fraction of the kernel entries of a call that remains."""
    outputs = kept[work.step.outputs[0]]
    if not outputs.any():
        return 0.0
    if work.kernel is None or sizes is None:
        return float(outputs.mean())
    layer, inputs = work.call.operation, kept[work.step.inputs[0]]
    if beside := other_entries(layer):
        entries = math.prod(work.kernel)
        columns = beside + entries * float(outputs.mean())
        return float(inputs.mean()) * columns / (beside + entries)
    least = 1 if axes_of(layer).sized else max(work.kernel[:-2])
    left = np.maximum(np.sort(sizes[outputs]), least)
    found = _entries(work.kernel[:-2], int(inputs.sum()), left, work.places, realize)
    return found / math.prod(work.kernel)


def _entries(shape: Sequence[int], inputs: int, sizes: Array, places: int, realize: str) -> int:
    """The number of kernel entries of the pruned layer, which may be split by size."""
    realization = REALIZE[realize]

    def area(size: int) -> int:
        return math.prod(min(side, size) for side in shape)

    def cost(size: int, kernels: int) -> float:
        return realization.costs.convolution(places, area(size), inputs, kernels)

    segments = realization.segments(sizes.tolist(), cost) if len(sizes) else []
    return inputs * sum((stop - start) * area(int(sizes[stop - 1])) for start, stop in segments)
