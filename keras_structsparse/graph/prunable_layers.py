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


SUMS = (
    keras.layers.Add,
    keras.layers.Average,
    keras.layers.Concatenate,
    keras.layers.Subtract,
)
"""Layers of several inputs that are no products: without others, no channel has to be followed."""


@dataclass(frozen=True)
class PrunableLayers:
    """The prunable layers of a model, with its graph and its channels.

    Functions that take a ``ModelLike`` take this value in place of a model, and then do not read
    the graph again. It does not depend on the values of the weights, so it stays valid in training.

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
    def gated_norms(self) -> Mapping[str, keras.Layer]:
        """Those of the scaled normalisations whose channels a product removes if they are 0.

        Behind them may be an activation that keeps zeros, as in squeeze-and-excite blocks.
        """
        makers = {c.name: c.outputs[0] for c in self.graph.layers() if len(c.outputs) == 1}
        tensors = {id(c.operation): makers[c.name] for c in self.graph.layers() if c.name in makers}
        found = {name: norm for name, norm in self.scaled_norms.items() if norm.center}
        merging = any(
            len(call.inputs) > 1 and type(call.operation) not in SUMS for call in self.graph.calls
        )
        return {
            name: norm
            for name, norm in found.items()
            if merging and self.channels.is_gated(tensors[id(norm)])
        }

    @cached_property
    def convolutions(self) -> Mapping[str, keras.Layer]:
        """The convolutions among the layers, by name."""
        return {n: layer for n, layer in self.layers.items() if type(layer) is not layers.Dense}

    @cached_property
    def regularizable(self) -> Mapping[str, keras.Layer]:
        """The layers that penalties on the model can serve, by name: all but transposed ones."""
        return {n: layer for n, layer in self.layers.items() if not axes_of(layer).transposed}


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
    adapted = getattr(operation, "lora_enabled", False)
    return known and not adapted and not getattr(operation, "quantization_mode", None)


def kernel_layers(graph: Graph) -> dict[str, keras.Layer]:
    """The layers of a graph whose kernels can be removed one by one.

    Args:
        graph: The graph.

    Returns:
        By name, the ungrouped, depthwise, transposed and separable convolutions and the dense
        layers, in topological order. Subclasses are left out, as they may use their kernel in any
        way, and so are layers with low-rank adapters, quantised ones, and layers that a wrapper or
        another closed layer calls as well.
    """
    return {
        call.name: call.operation
        for call in graph.layers()
        if has_kernels(call.operation) and id(call.operation) not in graph.hidden
    }


def quantized_layers(graph: Graph) -> str:
    """Which layers of a graph are quantised, in words; empty if none is.

    Args:
        graph: The graph.

    Returns:
        The first three of them, and how they are quantised.
    """
    modes = {
        call.name: getattr(call.operation, "quantization_mode", None) for call in graph.layers()
    }
    found = [f"'{name}' ({mode})" for name, mode in modes.items() if mode]
    more = f" and {len(found) - 3} others" * (len(found) > 3)
    return f"quantised layers {', '.join(found[:3])}{more}" * bool(found)


def batch_norm_pairs(graph: Graph) -> dict[str, keras.Layer]:
    """The batch normalisation paired with each prunable layer that has one.

    A layer and a normalisation of its output channels are a pair if the normalisation is the only
    reader of the layer and both are called once. Between them may be what treats every channel by
    itself: the layer's activation, activation layers, pooling, padding, dropout and whatever else
    passes channels on by its rule. Then gamma is the scale of the channel, and the channel is
    constant where gamma is 0.

    Args:
        graph: The graph.

    Returns:
        The normalisations by name of the convolution or dense layer.
    """
    layers, pairs = kernel_layers(graph), {}
    channels: list[ChannelMap] = []
    for call in graph.layers():
        if call.name not in layers or graph.is_shared(call):
            continue
        way = way_to_norm(graph, call)
        if way is None:
            continue
        norm = way[-1].operation
        if not _is_plain_way(call, way):
            channels = channels or [ChannelMap.of(graph)]
            if _passes_channels(channels[0], way):
                pairs[call.name] = norm
        elif (norm.axis - channel_axis(call.operation)) % len(graph.shapes[call.outputs[0]]) == 0:
            pairs[call.name] = norm
    return pairs


def way_to_norm(graph: Graph, call: Call) -> list[Call] | None:
    """The calls from a layer to a batch normalisation, each the only reader of the one before."""
    way: list[Call] = []
    while True:
        (tensor, *others) = call.outputs
        readers = graph.readers.get(tensor, ())
        if others or tensor in graph.outputs or len(readers) != 1:
            return None
        (call,) = readers
        if len(call.inputs) != 1 or graph.is_shared(call) or id(call.operation) in graph.hidden:
            return None
        way.append(call)
        if type(call.operation) is keras.layers.BatchNormalization:
            return way
        if getattr(call.operation, "kernel", None) is not None:
            return None  # the normalisation hides the scale of that kernel, too


def _is_plain_way(call: Call, way: list[Call]) -> bool:
    """Whether nothing but zero padding is between a layer and its normalisation."""
    linear = call.operation.activation is keras.activations.linear
    return linear and all(type(each.operation) in PADDINGS for each in way[:-1])


def _passes_channels(channels: ChannelMap, way: list[Call]) -> bool:
    """Whether the channels of a layer are those of its normalisation."""
    first, last = channels.channels[way[0].inputs[0]], channels.channels[way[-1].outputs[0]]
    return len(first) == len(last) and not channels.kept[first].any() and (first == last).all()
