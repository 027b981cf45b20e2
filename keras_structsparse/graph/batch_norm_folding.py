"""For inference: batch normalisations folded into convolutions beside them, no idle ReLUs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import activations, layers

from keras_structsparse._typing import Array, Tensor
from keras_structsparse.graph import functional_graph
from keras_structsparse.graph.batch_norm_affine import KERNELS, Affine, ahead, behind, normalization
from keras_structsparse.graph.cloning import clone, copy_model, set_weights
from keras_structsparse.graph.data_format import channel_axis
from keras_structsparse.graph.functional_graph import Call, Graph

Into = Callable[[keras.Layer, Affine], Sequence[Array] | None]


@dataclass(frozen=True)
class Fold:
    """A batch normalisation that goes, and the layer that does its work.

    Attributes:
        norm: The batch normalisation.
        layer: The convolution or dense layer beside it.
        weights: The layer's new kernels and bias.
    """

    norm: keras.Layer
    layer: keras.Layer
    weights: Sequence[Array]


def folded(model: keras.Model) -> keras.Model:
    """The same network at inference, with fewer batch normalisations and activations.

    A normalisation goes where it alone reads a convolution or dense layer without activation, or
    several of them side by side, or where such a layer, with any activation, alone reads it and no
    border makes a difference. Its gain ``gamma / sqrt(variance + epsilon)`` goes into the kernel,
    the rest into the bias. Grouped, transposed, depthwise and separable convolutions count, and so
    do layers that are called several times, if all calls agree. A ReLU goes where it follows
    another one, as behind a residual branch that surgery has removed. Everything else stays.

    Args:
        model: A functional or built Sequential model; it is not changed.

    Returns:
        A plain, uncompiled Keras model that needs only Keras to load. Layers keep their names;
        where anything is folded, those of a nested model ``a`` are named ``a_...``, as after
        :func:`keras_structsparse.prune`. It is made for inference: nothing in it learns
        statistics any more where a normalisation was.

    Raises:
        ModelError: The model has no graph, or a layer cannot be copied.

    Examples:
        >>> stack = [keras.layers.Conv2D(4, 3, name="conv"), keras.layers.BatchNormalization()]
        >>> model = keras.Sequential([keras.Input((8, 8, 1)), *stack, keras.layers.ReLU()])
        >>> [type(layer).__name__ for layer in folded(model).layers]
        ['InputLayer', 'Conv2D', 'ReLU']
    """
    network = functional_graph.read(model)
    folds, idle = find_folds(network), find_idle(network)
    if not folds and not idle:
        return copy_model(model)
    while folds or idle:  # in a row of normalisations, each round takes one
        network = functional_graph.read(
            functional_graph.rebuild(network, _Builder(network.calls, folds, idle))
        )
        folds, idle = find_folds(network), find_idle(network)
    return network.model


def find_folds(network: Graph) -> list[Fold]:
    """The batch normalisations that can go, each with another layer.

    Args:
        network: The graph.

    Returns:
        One fold for each, in topological order; no layer takes part in two.
    """
    makers = _makers(network)
    found: dict[int, Fold] = {}
    for call in network.layers():
        if type(call.operation) is layers.BatchNormalization and len(call.inputs) == 1:
            folds = _folds(network, makers, call)
            if not any(id(fold.layer) in found for fold in folds):
                found |= {id(fold.layer): fold for fold in folds}
    return list(found.values())


def find_idle(network: Graph) -> list[keras.Operation]:
    """The ReLUs whose inputs have none below zero, since a ReLU made them.

    Args:
        network: The graph.

    Returns:
        The layers; where one is called several times, this holds for all calls.
    """
    makers = _makers(network)

    def is_idle(call: Call) -> bool:
        maker = makers.get(call.inputs[0])
        kept = network.dtypes[call.inputs[0]] == network.dtypes[call.outputs[0]]
        return maker is not None and kept and _is_simple(call) and _rectifies(maker.operation)

    relus = {id(call.operation): call.operation for call in network.layers() if _is_relu(call)}
    return [relu for key, relu in relus.items() if all(map(is_idle, network.calls_of[key]))]


def _makers(network: Graph) -> dict[int, Call]:
    """The call that makes each tensor."""
    return {output: call for call in network.calls for output in call.outputs}


def _is_relu(call: Call) -> bool:
    """Whether a call does nothing but cut off what is below zero."""
    return type(call.operation) not in KERNELS and _rectifies(call.operation)


def _rectifies(layer: keras.Operation) -> bool:
    """Whether the last thing that a layer does is to cut off what is below zero."""
    if type(layer) is layers.ReLU:
        return (layer.max_value, layer.negative_slope, layer.threshold) == (None, 0.0, 0.0)
    known = layers.Activation, *KERNELS
    return type(layer) in known and layer.activation is activations.relu


def _folds(network: Graph, makers: Mapping[int, Call], norm: Call) -> Sequence[Fold]:
    """What a normalisation goes into: one layer, or all parts of a concatenation; nothing else."""
    maker, readers = makers.get(norm.inputs[0]), network.readers.get(norm.outputs[0], ())
    fold = _behind(network, maker, norm) or _ahead(network, norm, readers)
    if fold is not None:
        return (fold,)
    return _behind_parts(network, makers, maker, norm)


def _behind(network: Graph, maker: Call | None, norm: Call) -> Fold | None:
    """Into the layer before, if its only activation is that of the normalisation."""
    if maker is None or not _fits(network, norm, maker, norm):
        return None
    if maker.operation.activation is not activations.linear:
        return None
    return _fold(norm.operation, maker.operation, behind)


def _behind_parts(
    network: Graph, makers: Mapping[int, Call], join: Call | None, norm: Call
) -> Sequence[Fold]:
    """Into all layers whose outputs are concatenated before it, each of them read only there."""
    if join is None or not _is_join(network, join, norm):
        return ()
    parts = [makers.get(tensor) for tensor in join.inputs]
    if not all(part is not None and _is_part(network, part, join, norm) for part in parts):
        return ()
    axis = norm.operation.axis
    stops = np.cumsum([network.shapes[tensor][axis] for tensor in join.inputs])
    affine = normalization(norm.operation)
    if not affine.is_finite:
        return ()
    return [
        Fold(norm.operation, part.operation, behind(part.operation, affine.part(start, stop)))
        for part, start, stop in zip(parts, (0, *stops), stops, strict=False)
        if part is not None
    ]


def _is_join(network: Graph, join: Call, norm: Call) -> bool:
    """Whether a call concatenates channels, for this normalisation only."""
    rank = len(network.shapes[norm.inputs[0]])
    return (
        type(join.operation) is layers.Concatenate
        and (join.operation.axis - norm.operation.axis) % rank == 0
        and _is_read_by(network, join, norm)
        and len(network.calls_of[id(norm.operation)]) == 1
        and _is_simple(norm)
        and network.dtypes[norm.inputs[0]] == network.dtypes[norm.outputs[0]]
    )


def _is_part(network: Graph, part: Call, join: Call, norm: Call) -> bool:
    """Whether a layer can do a normalisation's work on its part of a concatenation."""
    layer = part.operation
    return (
        _can_change(layer, norm.operation)
        and layer.activation is activations.linear
        and join.inputs.count(part.outputs[0]) == 1
        and _is_of_channels(network, norm, layer)
        and _is_read_by(network, part, join)
        and _is_simple(part)
    )


def _is_read_by(network: Graph, call: Call, reader: Call) -> bool:
    """Whether an operation is called only once, for this reader only."""
    return (
        len(network.calls_of[id(call.operation)]) == 1
        and [id(other) for other in network.readers.get(call.outputs[0], ())] == [id(reader)]
        and call.outputs[0] not in network.outputs
    )


def _ahead(network: Graph, norm: Call, readers: Sequence[Call]) -> Fold | None:
    """Into the layer after, if it sees no border."""
    if len(readers) != 1 or not _fits(network, norm, norm, readers[0]):
        return None
    return _fold(norm.operation, readers[0].operation, ahead)


def _fold(norm: keras.Layer, layer: keras.Layer, into: Into) -> Fold | None:
    affine = normalization(norm)
    weights = into(layer, affine) if affine.is_finite else None
    return None if weights is None else Fold(norm, layer, weights)


def _fits(network: Graph, norm: Call, first: Call, second: Call) -> bool:
    """Whether the layer beside a normalisation can be changed, and is all that sees it."""
    layer = (second if norm is first else first).operation
    return (
        _can_change(layer, norm.operation)
        and network.dtypes[norm.inputs[0]] == network.dtypes[norm.outputs[0]]
        and _is_of_channels(network, norm, layer)
        and _are_alone(network, first.operation, second.operation)
    )


def _can_change(layer: keras.Operation, norm: keras.Layer) -> bool:
    """Whether a layer's kernel is known, and computed with as it is."""
    return (
        type(layer) in KERNELS
        and not getattr(layer, "lora_enabled", False)
        and not getattr(layer, "quantization_mode", None)
        and layer.compute_dtype == norm.compute_dtype
    )


def _is_of_channels(network: Graph, norm: Call, layer: keras.Layer) -> bool:
    return (norm.operation.axis - channel_axis(layer)) % len(network.shapes[norm.inputs[0]]) == 0


def _are_alone(network: Graph, first: keras.Layer, second: keras.Layer) -> bool:
    """Whether all that a layer makes goes to another one, which reads nothing else."""
    calls, readers = network.calls_of[id(first)], network.calls_of[id(second)]
    made = {call.outputs[0] for call in calls}
    reading = {id(call) for tensor in made for call in network.readers.get(tensor, ())}
    return (
        all(map(_is_simple, (*calls, *readers)))
        and {call.inputs[0] for call in readers} == made
        and reading == {id(call) for call in readers}
        and not made.intersection(network.outputs)
    )


def _is_simple(call: Call) -> bool:
    """Whether a call is that of one tensor and nothing else: no mask, not in training."""
    args, kwargs = call.arguments([None] * len(call.inputs))
    return len(call.inputs) == len(args) == 1 and not any(kwargs.values())


class _Builder:
    """Makes the outputs of each call anew; remembers copies of layers that are shared."""

    def __init__(self, calls: Sequence[Call], folds: Sequence[Fold], idle: Sequence[Any]) -> None:
        self.gone = {id(layer) for layer in (*(fold.norm for fold in folds), *idle)}
        self.weights = {id(fold.layer): fold.weights for fold in folds}
        self.names = _names(call for call in calls if id(call.operation) not in self.gone)
        self.copies: dict[int, keras.Operation] = {}

    def __call__(self, call: Call, tensors: list[Tensor | None]) -> Sequence[Tensor | None]:
        operation, key = call.operation, id(call.operation)
        if key in self.gone:
            return tensors
        args, kwargs = call.arguments(tensors)
        if key in self.copies:
            return keras.tree.flatten(self.copies[key](*args, **kwargs))
        changes = {"use_bias": True} if key in self.weights else {}
        twin = self.copies[key] = clone(operation, name=self.names[key], **changes)
        outputs = keras.tree.flatten(twin(*args, **kwargs))
        if weights := getattr(operation, "weights", ()):
            # As arrays: JAX gives away the memory of a variable that is trained.
            values = [keras.ops.convert_to_numpy(weight) for weight in weights]
            set_weights(twin, self.weights.get(key, values))
        return outputs


def _names(calls: Iterable[Call]) -> Mapping[int, str]:
    """A name for each operation, by ``id``: its own, unless another one has it."""
    names: dict[int, str] = {}
    # Names without a slash first: those of the model's own layers never change.
    for call in sorted(calls, key=lambda call: "/" in call.name):
        name = call.name.replace("/", "_")
        while id(call.operation) not in names and name in names.values():
            name += "_"
        names.setdefault(id(call.operation), name)
    return names
