"""For inference: fold batch normalisations into convolutions, and remove redundant ReLUs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import activations, layers

from keras_structsparse._typing import Array
from keras_structsparse.graph import functional_graph
from keras_structsparse.graph.batch_norm_affine import KERNELS, Affine, ahead, behind, normalization
from keras_structsparse.graph.cloning import copy_model
from keras_structsparse.graph.data_format import channel_axis
from keras_structsparse.graph.functional_graph import Call, Graph
from keras_structsparse.graph.rebuilding import Rebuilder, rebuild

Into = Callable[[keras.Layer, Affine], Sequence[Array] | None]


@dataclass(frozen=True)
class Fold:
    """A batch normalisation to remove, and the layer that it is folded into.

    Attributes:
        norm: The batch normalisation.
        layer: The convolution or dense layer directly before or after it.
        weights: The layer's new kernels and bias.
    """

    norm: keras.Layer
    layer: keras.Layer
    weights: Sequence[Array]


def folded(model: keras.Model) -> keras.Model:
    """Fold batch normalisations into their neighbours, for inference.

    A normalisation is folded if it is the only reader of a convolution or dense layer without
    activation, or of several of them that are concatenated; or if such a layer, with any
    activation, is its only reader and padding makes no difference. Its gain
    ``gamma / sqrt(variance + epsilon)`` is multiplied into the kernel, and its shift added to the
    bias. Layers called several times are included if all calls agree. A ReLU directly after another
    one, as behind a residual branch that surgery removed, is removed. Everything else is kept.

    Args:
        model: A functional or built Sequential model; it is not changed.

    Returns:
        A plain, uncompiled Keras model that needs only Keras to load. Layers keep their names. If
        anything is folded, layers of a nested model ``a`` are named ``a_...``, as after
        :func:`keras_structsparse.prune`. It is for inference: it cannot learn statistics.

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
    while folds or idle:  # each round folds one of several consecutive normalisations
        network = functional_graph.read(rebuild(network, _rebuilder(network, folds, idle)))
        folds, idle = find_folds(network), find_idle(network)
    return network.model


def find_folds(network: Graph) -> list[Fold]:
    """The batch normalisations that can be folded, each into another layer.

    Args:
        network: The graph.

    Returns:
        One fold for each, in topological order; no layer is in two folds.
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
    """The ReLUs that have no effect, because another ReLU computes their input.

    Args:
        network: The graph.

    Returns:
        The layers; if one is called several times, this holds for all calls.
    """
    makers = _makers(network)

    def is_idle(call: Call) -> bool:
        maker = makers.get(call.inputs[0])
        kept = network.dtypes[call.inputs[0]] == network.dtypes[call.outputs[0]]
        return maker is not None and kept and _is_simple(call) and _rectifies(maker.operation)

    relus = {id(call.operation): call.operation for call in network.layers() if _is_relu(call)}
    return [relu for key, relu in relus.items() if all(map(is_idle, network.calls_of[key]))]


def _makers(network: Graph) -> dict[int, Call]:
    """The call that computes each tensor."""
    return {output: call for call in network.calls for output in call.outputs}


def _is_relu(call: Call) -> bool:
    """Whether a call only sets negative values to zero."""
    return type(call.operation) not in KERNELS and _rectifies(call.operation)


def _rectifies(layer: keras.Operation) -> bool:
    """Whether a layer sets negative values of its output to zero."""
    if type(layer) is layers.ReLU:
        return (layer.max_value, layer.negative_slope, layer.threshold) == (None, 0.0, 0.0)
    known = layers.Activation, *KERNELS
    return type(layer) in known and layer.activation is activations.relu


def _folds(network: Graph, makers: Mapping[int, Call], norm: Call) -> Sequence[Fold]:
    """The folds of a normalisation: into one layer, or into all parts of a concatenation."""
    maker, readers = makers.get(norm.inputs[0]), network.readers.get(norm.outputs[0], ())
    fold = _behind(network, maker, norm) or _ahead(network, norm, readers)
    if fold is not None:
        return (fold,)
    return _behind_parts(network, makers, maker, norm)


def _behind(network: Graph, maker: Call | None, norm: Call) -> Fold | None:
    """The fold into the layer before, if that has no activation."""
    if maker is None or not _fits(network, norm, maker, norm):
        return None
    if maker.operation.activation is not activations.linear:
        return None
    return _fold(norm.operation, maker.operation, behind)


def _behind_parts(
    network: Graph, makers: Mapping[int, Call], join: Call | None, norm: Call
) -> Sequence[Fold]:
    """The folds into all layers concatenated before it, if each is read only there."""
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
    """Whether a call concatenates channels and is read by this normalisation only."""
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
    """Whether a normalisation can be folded into this part of a concatenation."""
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
    """Whether an operation is called only once and read by this reader only."""
    return (
        len(network.calls_of[id(call.operation)]) == 1
        and [id(other) for other in network.readers.get(call.outputs[0], ())] == [id(reader)]
        and call.outputs[0] not in network.outputs
    )


def _ahead(network: Graph, norm: Call, readers: Sequence[Call]) -> Fold | None:
    """The fold into the layer after, if padding makes no difference."""
    if len(readers) != 1 or not _fits(network, norm, norm, readers[0]):
        return None
    return _fold(norm.operation, readers[0].operation, ahead)


def _fold(norm: keras.Layer, layer: keras.Layer, into: Into) -> Fold | None:
    affine = normalization(norm)
    weights = into(layer, affine) if affine.is_finite else None
    return None if weights is None else Fold(norm, layer, weights)


def _fits(network: Graph, norm: Call, first: Call, second: Call) -> bool:
    """Whether the layer beside a normalisation can be changed and nothing else reads either."""
    layer = (second if norm is first else first).operation
    return (
        _can_change(layer, norm.operation)
        and network.dtypes[norm.inputs[0]] == network.dtypes[norm.outputs[0]]
        and _is_of_channels(network, norm, layer)
        and _are_alone(network, first.operation, second.operation)
    )


def _can_change(layer: keras.Operation, norm: keras.Layer) -> bool:
    """Whether a layer computes with its kernel as it is, in the dtype of the normalisation."""
    return (
        type(layer) in KERNELS
        and not getattr(layer, "lora_enabled", False)
        and not getattr(layer, "quantization_mode", None)
        and layer.compute_dtype == norm.compute_dtype
    )


def _is_of_channels(network: Graph, norm: Call, layer: keras.Layer) -> bool:
    return (norm.operation.axis - channel_axis(layer)) % len(network.shapes[norm.inputs[0]]) == 0


def _are_alone(network: Graph, first: keras.Layer, second: keras.Layer) -> bool:
    """Whether a second layer alone reads the outputs of the first, and reads nothing else."""
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
    """Whether one tensor is the only argument of a call: no mask, no training mode."""
    args, kwargs = call.arguments([None] * len(call.inputs))
    return len(call.inputs) == len(args) == 1 and not any(kwargs.values())


def _rebuilder(network: Graph, folds: Sequence[Fold], idle: Sequence[Any]) -> Rebuilder:
    gone = [*(fold.norm for fold in folds), *idle]
    return Rebuilder(network, gone, {id(fold.layer): fold.weights for fold in folds})
