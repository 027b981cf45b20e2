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
from keras_structsparse.graph.channels.channel_steps import ChannelStep
from keras_structsparse.graph.channels.splitting import REALIZE
from keras_structsparse.graph.functional_graph import Call
from keras_structsparse.graph.kernel_axes import axes_of, other_entries, plain_shape
from keras_structsparse.graph.prunable_layers import ModelLike, PrunableLayers
from keras_structsparse.profiling.channel_classes import kernel_classes
from keras_structsparse.profiling.kept_channels import kept_channels, live_channels
from keras_structsparse.profiling.multiply_adds import multiply_adds
from keras_structsparse.profiling.remnants import Remnants

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
        remnants: What becomes of the constants that removed channels leave.
    """

    found: PrunableLayers
    work: tuple[_Work, ...]
    realize: str
    remnants: Remnants

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
        return cls(found, work, realize, Remnants.of(found))

    def remaining(self, sizes: Sizes) -> dict[str, int]:
        """The multiply-adds, or the parameters, of each layer after surgery.

        Args:
            sizes: The sizes of the kernels, by layer; layers that are not named do not change.

        Returns:
            The cost for one example by name of the layer; layers without any are left out.
        """
        found: dict[str, int] = {}
        for work, entries, beside in _parts(self._state(sizes)):
            name = work.call.name
            found[name] = found.get(name, 0) + round(entries) + round(beside)
        return {name: left for name, left in found.items() if left}

    def layer(self, name: str, sizes: Sizes) -> LayerWork:
        """What is left of one layer.

        Args:
            name: The layer.
            sizes: As for :meth:`remaining`.
        """
        state = self._state(sizes)
        parts = [(work.call.name, round(entries), round(x)) for work, entries, x in _parts(state)]
        work, own = next(
            each for each in zip(self.work, state.kernels, strict=True) if each[0].call.name == name
        )
        outputs = work.step.outputs[0]
        return LayerWork(
            whole=sum(entries + beside for _, entries, beside in parts),
            entries=sum(entries for each, entries, _ in parts if each == name),
            present=(state.kept & state.live)[outputs],
            copies=len(outputs) // work.step.groups if work.step.singles else 1,
            siblings=_siblings(work, own) if work.step.singles else np.zeros(len(outputs), int),
            classes=kernel_classes(self._steps, state.kernels, state.live, self.remnants)[outputs],
        )

    @property
    def _steps(self) -> list[ChannelStep]:
        return [work.step for work in self.work]

    def _state(self, sizes: Sizes) -> _State:
        kernels = [_sizes(work, sizes) for work in self.work]
        live = live_channels(self.found, self._steps, kernels, self.remnants)
        kept = kept_channels(self.found, self._steps, live)
        return _State(self, kernels, live, kept)


@dataclass(frozen=True)
class LayerWork:
    """What is left of one layer after surgery.

    Attributes:
        whole: The cost of the whole network.
        entries: The cost of the kernel entries of the layer, without its bias.
        present: Which kernels (kernels,) surgery leaves: not those of size 0, and not those that
            read or compute only channels that are removed.
        copies: The number of depthwise kernels of each input channel; 1 for other layers.
        siblings: The largest size (kernels,) of the other depthwise kernels of the same input
            channel, which are kept or removed together, in one size.
        classes: A number for each kernel (kernels,); those with equal ones save equally much when
            they are removed, beside their own work.
    """

    whole: int
    entries: int
    present: Array
    copies: int
    siblings: Array
    classes: Array


@dataclass(frozen=True)
class _State:
    """The kernels of the calls with some sizes, and which channels are live and kept."""

    estimate: Estimate
    kernels: Sequence[Array | None]
    live: Array
    kept: Array


def _parts(state: _State) -> Iterator[tuple[_Work, float, float]]:
    """The calls with the cost that remains: of kernel entries, and beside them."""
    for work, own in zip(state.estimate.work, state.kernels, strict=True):
        if work.whole:
            share = _share(work, state.kept, own, state.estimate.realize)
            entries = (work.whole - work.beside) * share
            beside = float(state.kept[work.step.outputs[0]].mean()) if entries else 0.0
            yield work, entries, work.beside * beside


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


def _siblings(work: _Work, sizes: Array | None) -> Array:
    each = np.zeros(len(work.step.outputs[0]), int) if sizes is None else sizes
    each = each.reshape(work.step.groups, -1)
    copies = np.arange(each.shape[1])
    others = [each[:, copies != copy].max(axis=1, initial=0) for copy in copies]
    return np.stack(others, axis=1).ravel()


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
    read = int(inputs.sum())
    if work.step.singles:  # The copies of a channel are kept together, in one layer.
        copies = len(outputs) // work.step.groups
        outputs = np.repeat(outputs.reshape(-1, copies).any(axis=1), copies)
        sizes, read = np.repeat(sizes.reshape(-1, copies).max(axis=1), copies), 1
    if beside := other_entries(layer):
        entries = math.prod(work.kernel)
        columns = beside + entries * float(outputs.mean())
        return float(inputs.mean()) * columns / (beside + entries)
    least = 1 if axes_of(layer).sized else max(work.kernel[:-2])
    left = np.maximum(np.sort(sizes[outputs]), least)
    found = _entries(work.kernel[:-2], read, left, work.places, realize)
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
