"""Which layers of a model have kernels that can be removed one by one, read once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import keras

from keras_structsparse.graph.channels.channel_groups import ChannelMap
from keras_structsparse.graph.data_format import channel_axis
from keras_structsparse.graph.functional_graph import Call, Graph, read

KERNEL_LAYERS = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D, keras.layers.Dense)
PADDINGS = (
    keras.layers.ZeroPadding1D,
    keras.layers.ZeroPadding2D,
    keras.layers.ZeroPadding3D,
)


@dataclass(frozen=True)
class PrunableLayers:
    """The prunable layers of a model, with all that penalties, plans and surgery read of it.

    Functions that take a model take this value as well: then they do not read the graph again. It
    describes the model's layers, not the values of their weights, so it holds while they train.

    Attributes:
        model: The model that was read.
        graph: Its graph.
        layers: The layers by name, in topological order: those of :func:`kernel_layers`.
        batch_norms: The batch normalisation paired with each layer that has one, by the layer's
            name: those of :func:`batch_norm_pairs`.

    Examples:
        >>> model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(4, 3, name="c")])
        >>> found = PrunableLayers.of(model)
        >>> list(found.layers), PrunableLayers.of(found) is found
        (['c'], True)
    """

    model: keras.Model
    graph: Graph
    layers: Mapping[str, keras.Layer]
    batch_norms: Mapping[str, keras.Layer]

    @classmethod
    def of(cls, model: keras.Model | PrunableLayers) -> PrunableLayers:
        """Read a model, unless it has been read already.

        Args:
            model: A functional or built Sequential model, or what this method returned.

        Returns:
            The model's prunable layers.

        Raises:
            ModelError: The model has no graph.
        """
        if isinstance(model, PrunableLayers):
            return model
        graph = read(model)
        return cls(model, graph, kernel_layers(graph), batch_norm_pairs(graph))

    @cached_property
    def channels(self) -> ChannelMap:
        """Which kernels write every channel, by the rules of surgery."""
        return ChannelMap.of(self.graph)

    @cached_property
    def scaled_norms(self) -> Mapping[str, keras.Layer]:
        """The paired batch normalisations that have a scale gamma, by name of the layer."""
        return {name: norm for name, norm in self.batch_norms.items() if norm.scale}

    @cached_property
    def convolutions(self) -> Mapping[str, keras.Layer]:
        """The convolutions among the layers, by name."""
        return {name: layer for name, layer in self.layers.items() if is_convolution(layer)}


ModelLike: TypeAlias = keras.Model | PrunableLayers
"""A model, or what has been read of it."""


def graph_of(model: ModelLike) -> Graph:
    """The graph of a model, which is not read again where it has been read.

    Raises:
        ModelError: The model has no graph.
    """
    return model.graph if isinstance(model, PrunableLayers) else read(model)


def is_convolution(operation: keras.Operation) -> bool:
    """Whether an operation is a plain convolution whose kernels can be chosen one by one."""
    return type(operation) in KERNEL_LAYERS[:3] and operation.groups == 1


def kernel_layers(graph: Graph) -> dict[str, keras.Layer]:
    """The layers of a graph whose kernels can be chosen one by one, by name.

    Args:
        graph: The graph.

    Returns:
        Ungrouped convolutions and dense layers in topological order. Types are compared exactly:
        what a subclass does with its kernel is not known. Nor are layers with low-rank adapters.
    """
    return {
        call.name: call.operation
        for call in graph.layers()
        if is_convolution(call.operation) or type(call.operation) is keras.layers.Dense
        if not getattr(call.operation, "lora_enabled", False)
    }


def batch_norm_pairs(graph: Graph) -> dict[str, keras.Layer]:
    """The batch normalisation that follows each convolution and nothing else does.

    Args:
        graph: The graph.

    Returns:
        By name of the convolution (or dense layer), the normalisation of its output channels:
        found where it is the only reader, directly or behind zero padding, both are called once,
        and the layer has no activation of its own.
    """
    layers, pairs = kernel_layers(graph), {}
    for call in graph.layers():
        if call.name in layers and call.operation.activation is keras.activations.linear:
            norm = _only_norm(graph, call, channel_axis(call.operation))
            if norm is not None:
                pairs[call.name] = norm
    return pairs


def _only_norm(graph: Graph, call: Call, axis: int) -> keras.Layer | None:
    """The normalisation of the channels, on some axis, that alone reads a call."""
    if graph.is_shared(call) or call.outputs[0] in graph.outputs:
        return None
    readers = graph.readers.get(call.outputs[0], ())
    if len(readers) != 1:
        return None
    (reader,) = readers
    if type(reader.operation) in PADDINGS:
        return _only_norm(graph, reader, axis)
    rank = len(graph.shapes[call.outputs[0]])
    if type(reader.operation) is not keras.layers.BatchNormalization or graph.is_shared(reader):
        return None
    return reader.operation if (reader.operation.axis - axis) % rank == 0 else None
