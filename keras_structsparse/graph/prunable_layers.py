"""The layers of a model whose kernels can be removed one by one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import keras
from keras import layers

from keras_structsparse.graph.channels.channel_groups import ChannelMap
from keras_structsparse.graph.data_format import channel_axis
from keras_structsparse.graph.functional_graph import Call, Graph, read
from keras_structsparse.graph.kernel_axes import KERNELS, axes_of

PADDINGS = (
    keras.layers.ZeroPadding1D,
    keras.layers.ZeroPadding2D,
    keras.layers.ZeroPadding3D,
)


@dataclass(frozen=True)
class PrunableLayers:
    """The prunable layers of a model, with its graph and its channels.

    Functions of this library that take a model take this value as well, and then do not read the
    graph again. It does not depend on the values of the weights, so it stays valid in training.

    Attributes:
        model: The model.
        graph: Its graph.
        layers: The layers by name, in topological order: those of :func:`kernel_layers`.
        batch_norms: The paired batch normalisations, by name of the layer: those of
            :func:`batch_norm_pairs`.

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
        """Read the graph of a model, unless that has been done.

        Args:
            model: A functional or built Sequential model, or the result of this method.

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
        """The channels of all tensors and the kernels that write them."""
        return ChannelMap.of(self.graph)

    @cached_property
    def scaled_norms(self) -> Mapping[str, keras.Layer]:
        """The paired batch normalisations that have a scale gamma, by name of the layer."""
        return {name: norm for name, norm in self.batch_norms.items() if norm.scale}

    @cached_property
    def convolutions(self) -> Mapping[str, keras.Layer]:
        """The convolutions among the layers, by name."""
        return {n: layer for n, layer in self.layers.items() if type(layer) is not layers.Dense}

    @cached_property
    def regularizable(self) -> Mapping[str, keras.Layer]:
        """The layers that penalties on the model can serve, by name: all but transposed ones."""
        return {n: layer for n, layer in self.layers.items() if not axes_of(layer).swapped}


ModelLike: TypeAlias = keras.Model | PrunableLayers
"""A model, or its prunable layers."""


def graph_of(model: ModelLike) -> Graph:
    """The graph of a model; prunable layers hold it already.

    Args:
        model: A functional or built Sequential model, or its prunable layers.

    Raises:
        ModelError: The model has no graph.
    """
    return model.graph if isinstance(model, PrunableLayers) else read(model)


def has_kernels(operation: keras.Operation) -> bool:
    """Whether an operation is a layer whose kernels can be removed one by one."""
    known = type(operation) in KERNELS and getattr(operation, "groups", 1) == 1
    return known and not getattr(operation, "lora_enabled", False)


def kernel_layers(graph: Graph) -> dict[str, keras.Layer]:
    """The layers of a graph whose kernels can be removed one by one.

    Args:
        graph: The graph.

    Returns:
        By name, the ungrouped, transposed and separable convolutions and the dense layers, in
        topological order. Subclasses are left out, as they may use their kernel in any way, and so
        are layers with low-rank adapters.
    """
    return {call.name: call.operation for call in graph.layers() if has_kernels(call.operation)}


def batch_norm_pairs(graph: Graph) -> dict[str, keras.Layer]:
    """The batch normalisation paired with each prunable layer that has one.

    A layer and a normalisation of its output channels are a pair if the normalisation is the only
    reader of the layer, directly or behind zero padding, both are called once, and the layer has no
    activation.

    Args:
        graph: The graph.

    Returns:
        The normalisations by name of the convolution or dense layer.
    """
    found, pairs = kernel_layers(graph), {}
    for call in graph.layers():
        if call.name in found and call.operation.activation is keras.activations.linear:
            norm = _only_norm(graph, call, channel_axis(call.operation))
            if norm is not None:
                pairs[call.name] = norm
    return pairs


def _only_norm(graph: Graph, call: Call, axis: int) -> keras.Layer | None:
    """The normalisation of the channels on an axis, if it is the only reader of a call."""
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
