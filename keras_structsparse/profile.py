"""Multiply-adds and parameters of a network, layer by layer, and what surgery saved."""

from __future__ import annotations

import collections
import functools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import keras
from keras import layers as kl

from keras_structsparse import graph as graphs
from keras_structsparse.errors import ModelError
from keras_structsparse.graph import Call, Graph
from keras_structsparse.kernels import KERNEL_LAYERS

Shape = tuple[int | None, ...]
Pair = tuple[int, int]


@dataclass(frozen=True)
class LayerProfile:
    """What one layer costs.

    Attributes:
        name: Name of the layer; with the names of the nested models around it, joined by "/".
        kind: Its type.
        kernels: Number of kernels: its output channels; 0 for layers that have none.
        size: Sides of a kernel; empty for a dense layer.
        output_shape: Shape of its (first) output for one example, without the batch axis.
        multiply_adds: For one example, at all calls of the layer together.
        params: Number of weights, trainable or not, that no layer before has.
        counted: Whether the multiply-adds of this type of layer are known. If not they are 0.
    """

    name: str
    kind: str
    kernels: int
    size: tuple[int, ...]
    output_shape: Shape
    multiply_adds: int
    params: int
    counted: bool = True


@dataclass(frozen=True)
class Profile:
    """What a network costs for one example. ``str()`` gives a table.

    Attributes:
        layers: The layers with kernels or parameters, in topological order.
    """

    layers: tuple[LayerProfile, ...]

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds for one example (eq. 10)."""
        return sum(layer.multiply_adds for layer in self.layers)

    @property
    def params(self) -> int:
        """All weights of the network, trainable or not, each once."""
        return sum(layer.params for layer in self.layers)

    def to_json(self) -> str:
        """The profile as JSON text."""
        content = {
            "format": "keras_structsparse.profile/1",
            "multiply_adds": self.multiply_adds,
            "params": self.params,
            "layers": [asdict(layer) for layer in self.layers],
        }
        return json.dumps(content, indent=2) + "\n"

    def __str__(self) -> str:
        shown = [x for x in self.layers if x.kernels or not x.counted]
        others = [x for x in self.layers if not x.kernels and x.counted]
        rows = [["layer", "type", "kernels", "size", "output", "multiply-adds", "params"]]
        for x in shown:
            work = f"{x.multiply_adds:,}" if x.counted else "unknown"
            sides = (_sides(x.size), _sides(x.output_shape))
            rows.append([x.name, x.kind, str(x.kernels or "-"), *sides, work, f"{x.params:,}"])
        if others:
            params = sum(x.params for x in others)
            rows.append([f"{len(others)} other", *[""] * 4, "0", f"{params:,}"])
        rows.append(["total", *[""] * 4, f"{self.multiply_adds:,}", f"{self.params:,}"])
        return _table(rows)


@dataclass(frozen=True)
class LayerComparison:
    """One layer before and after; every pair is (before, after).

    Attributes:
        name: Name of the layer in the network that has it.
        kind: Its type.
        kernels: Number of kernels; 0 where the layer is not there.
        size: Sides of its kernels; empty for dense layers and where the layer is not there.
        multiply_adds: For one example.
        params: Number of weights.
    """

    name: str
    kind: str
    kernels: Pair
    size: tuple[tuple[int, ...], tuple[int, ...]]
    multiply_adds: Pair
    params: Pair


@dataclass(frozen=True)
class Comparison:
    """A network before and after surgery. ``str()`` gives a table.

    Attributes:
        layers: The layers of the network before, in topological order, then those that only the
            network after has; so the columns add up to the totals.
        notes: What was left as it was, and why.
    """

    layers: tuple[LayerComparison, ...]
    notes: tuple[str, ...] = ()

    @property
    def multiply_adds(self) -> Pair:
        """Multiply-adds for one example (eq. 10), before and after."""
        return _sums([layer.multiply_adds for layer in self.layers])

    @property
    def params(self) -> Pair:
        """All weights, before and after."""
        return _sums([layer.params for layer in self.layers])

    @property
    def multiply_adds_fraction(self) -> float:
        """Share of the multiply-adds that is left."""
        return _fraction(self.multiply_adds)

    @property
    def params_fraction(self) -> float:
        """Share of the weights that is left."""
        return _fraction(self.params)

    @property
    def removed(self) -> tuple[str, ...]:
        """Names of the layers with kernels that are gone."""
        return tuple(x.name for x in self.layers if x.kernels[0] and not x.kernels[1])

    def to_json(self) -> str:
        """The comparison as JSON text; every pair is [before, after]."""
        content = {
            "format": "keras_structsparse.comparison/1",
            "multiply_adds": self.multiply_adds,
            "multiply_adds_fraction": self.multiply_adds_fraction,
            "params": self.params,
            "params_fraction": self.params_fraction,
            "removed": self.removed,
            "notes": self.notes,
            "layers": [asdict(layer) for layer in self.layers],
        }
        return json.dumps(content, indent=2) + "\n"

    def __str__(self) -> str:
        shown = [layer for layer in self.layers if any(layer.kernels)]
        others = [layer for layer in self.layers if not any(layer.kernels)]
        rows = [_HEADER] + [
            [x.name, x.kind, *_texts(x.kernels), *map(_sides, x.size), *_costs([x])] for x in shown
        ]
        if others:
            rows.append([f"{len(others)} other", *[""] * 5, *_costs(others)])
        rows.append(["total", *[""] * 5, *_costs(self.layers)])
        gone = [f"removed: {', '.join(self.removed)}"] if self.removed else []
        return "\n".join([_table(rows), *gone, *(f"note: {note}" for note in self.notes)])


def profile(
    model: keras.Model, input_shape: Sequence[int] | Sequence[Sequence[int]] | None = None
) -> Profile:
    """Count the multiply-adds (eq. 10) and weights of a network.

    A convolution makes ``positions x inputs x kernels x size`` multiply-adds, with the positions
    of its OUTPUT map and, in a grouped layer, the inputs of one group; a transposed convolution
    the same with the positions of its INPUT map, whose every entry meets the whole kernel. Padding
    counts as if it were data; biases, activations and normalisations are not counted.

    Args:
        model: A functional or built Sequential model.
        input_shape: (height, width, channels) where the model leaves them open; for a model of
            several inputs one such shape for each, in the order of ``model.inputs``.

    Returns:
        The profile, per example: the batch axis does not count.

    Raises:
        ModelError: The model has no graph, a layer's size is open, or ``input_shape`` does not
            fit the model.

    Example:
        >>> inputs = keras.Input((8, 8, 3))
        >>> model = keras.Model(inputs, kl.Conv2D(8, 3, padding="same", name="conv")(inputs))
        >>> counted = profile(model)
        >>> counted.multiply_adds == 8 * 8 * 3 * 3 * 3 * 8, counted.params == 3 * 3 * 3 * 8 + 8
        (True, True)
    """
    network = graphs.read(model)
    shapes = _shapes(network, input_shape)
    seen: set[int] = set()
    found = [_layer_profile(network, call, shapes, seen) for call in network.layers()]
    return Profile(tuple(x for x in found if x.kernels or x.params or not x.counted))


def compare(
    model: keras.Model,
    pruned: keras.Model,
    notes: Sequence[str] | None = None,
    input_shape: Sequence[int] | Sequence[Sequence[int]] | None = None,
) -> Comparison:
    """Set the costs of a network before and after surgery side by side.

    Args:
        model: The network before.
        pruned: The network after; its layers are found by name, with "_" for "/".
        notes: Sentences to show with it.
        input_shape: As in :func:`profile`.

    Returns:
        The comparison.

    Raises:
        ModelError: As in :func:`profile`.

    Example:
        >>> inputs = keras.Input((8, 8, 3))
        >>> dense, small = (
        ...     keras.Model(inputs, kl.Conv2D(n, 3, name="conv")(inputs)) for n in (8, 2)
        ... )
        >>> compare(dense, small).multiply_adds_fraction
        0.25
    """
    after: dict[str, collections.deque[LayerProfile]] = collections.defaultdict(collections.deque)
    for layer in profile(pruned, input_shape).layers:
        after[layer.name.replace("/", "_")].append(layer)
    rows = []
    for layer in profile(model, input_shape).layers:
        match = after[layer.name.replace("/", "_")]
        rows.append(_change(layer, match.popleft() if match else _ABSENT))
    rows += [_change(_ABSENT, layer) for left in after.values() for layer in left]
    return Comparison(tuple(rows), tuple(notes or ()))


_ABSENT = LayerProfile("", "", 0, (), (), 0, 0)


def _change(before: LayerProfile, after: LayerProfile) -> LayerComparison:
    return LayerComparison(
        name=before.name or after.name,
        kind=before.kind or after.kind,
        kernels=(before.kernels, after.kernels),
        size=(before.size, after.size),
        multiply_adds=(before.multiply_adds, after.multiply_adds),
        params=(before.params, after.params),
    )


# --- counting ---


def _layer_profile(
    network: Graph, call: Call, shapes: Mapping[int, Shape], seen: set[int]
) -> LayerProfile:
    layer, shape = call.operation, shapes[call.outputs[0]]
    work = [_multiply_adds(layer, c, shapes) for c in network.calls_of[id(layer)]]
    own = [weight for weight in layer.weights if id(weight) not in seen]
    seen.update(map(id, own))
    return LayerProfile(
        name=call.name,
        kind=type(layer).__name__,
        kernels=int(shape[_channel_axis(layer)] or 0) if any(work) else 0,
        size=tuple(getattr(layer, "kernel_size", ())),
        output_shape=shape[1:],
        multiply_adds=sum(count or 0 for count in work),
        params=sum(math.prod(weight.shape) for weight in own),
        counted=None not in work,
    )


@functools.singledispatch
def _multiply_adds(layer: keras.Layer, call: Call, shapes: Mapping[int, Shape]) -> int | None:
    """Multiply-adds of one call; None for an unknown type that may hide a matrix product."""
    return None if any(len(weight.shape) > 1 for weight in layer.weights) else 0


def _nothing(layer: keras.Layer, call: Call, shapes: Mapping[int, Shape]) -> int:
    return 0


def _at_outputs(layer: keras.Layer, call: Call, shapes: Mapping[int, Shape]) -> int:
    return _places(call, shapes[call.outputs[0]]) * math.prod(layer.kernel.shape)


def _at_inputs(layer: keras.Layer, call: Call, shapes: Mapping[int, Shape]) -> int:
    return _places(call, shapes[call.inputs[0]]) * math.prod(layer.kernel.shape)


def _separable(layer: keras.Layer, call: Call, shapes: Mapping[int, Shape]) -> int:
    depthwise = math.prod(layer.depthwise_kernel.shape)
    pointwise = math.prod(layer.pointwise_kernel.shape)
    return _places(call, shapes[call.outputs[0]]) * (depthwise + pointwise)


_COUNTS = {
    _at_outputs: (*KERNEL_LAYERS, kl.DepthwiseConv1D, kl.DepthwiseConv2D),
    _at_inputs: (kl.Conv1DTranspose, kl.Conv2DTranspose, kl.Conv3DTranspose),
    _separable: (kl.SeparableConv1D, kl.SeparableConv2D),
    # Weights of two axes, but no matrix product.
    _nothing: (kl.Embedding, kl.PReLU, kl.BatchNormalization, kl.LayerNormalization),
}
for _count, _kinds in _COUNTS.items():
    for _kind in _kinds:
        _multiply_adds.register(_kind, _count)


def _channel_axis(layer: keras.Layer) -> int:
    return 1 if getattr(layer, "data_format", None) == "channels_first" else -1


def _places(call: Call, shape: Shape) -> int:
    """Number of positions of a map."""
    sides = shape[2:] if _channel_axis(call.operation) == 1 else shape[1:-1]
    if None in sides:
        raise ModelError(
            f"Layer '{call.name}': expected a map of known size. Received the shape {shape}. "
            "Pass input_shape=(height, width, channels)."
        )
    return math.prod(side or 0 for side in sides)


# --- shapes ---


def _shapes(network: Graph, input_shape: Sequence[Any] | None) -> Mapping[int, Shape]:
    """The shape of every tensor, batch axis first; derived anew from ``input_shape``."""
    if input_shape is None:
        return dict(enumerate(network.shapes))
    specs = {
        tensor: keras.KerasTensor((network.shapes[tensor][0], *shape), given.dtype)
        for tensor, shape, given in zip(
            network.inputs, _fitting(network, input_shape), network.model.inputs, strict=True
        )
    }
    for call in network.calls:
        args, kwargs = call.arguments([specs[i] for i in call.inputs])
        try:
            outputs = keras.tree.flatten(call.operation.compute_output_spec(*args, **kwargs))
        except ValueError as error:
            raise ModelError(
                f"Layer '{call.name}' does not take input_shape={input_shape!r}: {error}"
            ) from error
        specs.update(zip(call.outputs, outputs, strict=True))
    return {tensor: tuple(spec.shape) for tensor, spec in specs.items()}


def _fitting(network: Graph, input_shape: Sequence[Any]) -> list[tuple[int, ...]]:
    single = not any(isinstance(side, Sequence) for side in input_shape)
    given = [tuple(shape) for shape in ([input_shape] if single else input_shape)]
    known = [network.shapes[tensor][1:] for tensor in network.inputs]
    if list(map(len, given)) != list(map(len, known)) or not all(
        isinstance(side, int) and side > 0 and fixed in (None, side)
        for sides, shape in zip(given, known, strict=True)
        for side, fixed in zip(sides, shape, strict=True)
    ):
        raise ModelError(
            f"input_shape: expected {known if len(known) > 1 else known[0]} with a number for "
            f"each None. Received: {input_shape!r}"
        )
    return given


# --- tables ---

_HEADER = ["layer", "type", "kernels", "left", "size", "left"]
_HEADER += ["multiply-adds", "left", "", "params", "left", ""]


def _costs(rows: Sequence[LayerComparison]) -> list[str]:
    work, weights = _sums([x.multiply_adds for x in rows]), _sums([x.params for x in rows])
    return [*_texts(work), _percent(work), *_texts(weights), _percent(weights)]


def _sums(pairs: Sequence[Pair]) -> Pair:
    return sum(before for before, _ in pairs), sum(after for _, after in pairs)


def _fraction(pair: Pair) -> float:
    return pair[1] / pair[0] if pair[0] else 1.0


def _percent(pair: Pair) -> str:
    return f"{pair[1] / pair[0]:.1%}" if pair[0] else "-"


def _texts(pair: Pair) -> list[str]:
    return [f"{number:,}" for number in pair]


def _sides(shape: Sequence[int | None]) -> str:
    return "x".join("?" if side is None else str(side) for side in shape) or "-"


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Columns of text, the first two to the left and the others to the right; plain ASCII."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])
