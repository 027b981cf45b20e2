"""How the penalties of the layers of a network depend on each other, read from its graph."""

from __future__ import annotations

import collections
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras

from keras_structsparse.errors import ModelError
from keras_structsparse.graph.channels.channel_groups import KernelRun, runs
from keras_structsparse.graph.data_format import spatial_shape
from keras_structsparse.graph.functional_graph import Call, Graph
from keras_structsparse.graph.kernel_axes import axes_of, kernel_of, plain_shape
from keras_structsparse.graph.prunable_layers import PrunableLayers
from keras_structsparse.regularizers import norm_factors
from keras_structsparse.regularizers.coupling import (
    ChannelGroup,
    CouplingSpec,
    Writer,
    joint_weight,
)


@dataclass(frozen=True)
class PenalizedLayers:
    """The layers of a network that get a regularizer.

    Attributes:
        found: The prunable layers of the network.
        layers: The layers with a regularizer, by name.
        norms: The batch normalisation paired with each layer that has one, by name of the layer.
        shares: The share of alpha of each layer.
        norm: The norm of the regularizer.
    """

    found: PrunableLayers
    layers: Mapping[str, keras.Layer]
    norms: Mapping[str, keras.Layer]
    shares: Mapping[str, float]
    norm: str

    def writer(self, name: str, first: int) -> Writer:
        """The kernels of a layer from number ``first`` on."""
        norm = self.norms.get(name)
        scale = None if norm is None else norm.gamma.path
        layer = self.layers[name]
        return Writer(kernel_of(layer).path, scale, first, axes_of(layer).layout)

    def variables(self) -> dict[str, Any]:
        """The kernels, batch-norm scales and variances of the layers, by path of the variable.

        Raises:
            ModelError: Two of them have the same path.
        """
        found: dict[str, Any] = {}
        for layer, norm in ((layer, self.norms.get(n)) for n, layer in self.layers.items()):
            scales = [] if norm is None else [norm.gamma, norm.moving_variance]
            for variable in (kernel_of(layer), *scales):
                if found.setdefault(variable.path, variable) is not variable:
                    raise ModelError(
                        f"Layer '{layer.name}': another variable is called '{variable.path}' too, "
                        "so penalties over several layers cannot tell them apart. Give layers of "
                        "nested models different names."
                    )
        return found


def no_specs(penalized: PenalizedLayers) -> dict[str, CouplingSpec]:
    """The penalty of every layer depends on that layer alone."""
    return {}


def joint_specs(penalized: PenalizedLayers) -> dict[str, CouplingSpec]:
    """Join the kernels that write the same channel into one group.

    The weight of a joint norm is such that it equals the sum of the weighted norms of its kernels
    if these all have the same length. The penalty of the joint group is part of its first layer's.
    """
    joint, joined = collections.defaultdict(list), collections.defaultdict(list)
    for run in penalized.found.channels.joined(list(penalized.layers)):
        writers = tuple(penalized.writer(name, first) for name, first in run.first)
        weight = joint_weight(
            [penalized.shares[name] * _factor(penalized, name) for name, _ in run.first]
        )
        joint[run.first[0][0]].append(ChannelGroup(writers, run.width, weight))
        for name, first in run.first:
            joined[name].append((first, run.width))
    return {
        name: CouplingSpec(joint=tuple(joint[name]), joined=tuple(ranges))
        for name, ranges in joined.items()
    }


def multiply_adds_specs(penalized: PenalizedLayers) -> dict[str, CouplingSpec]:
    """The channels that each layer reads, weighted by the positions of its output map (34)."""
    graph, order = penalized.found.graph, list(penalized.layers)
    written = penalized.found.channels.writers(order)
    singles = {id(step.call) for step in penalized.found.channels.steps if step.singles}
    links = {}
    for name, layer in penalized.layers.items():
        reads, constant = [], 0.0
        for call in graph.calls_of[id(layer)]:
            found, lasting = runs(written[call.inputs[0]], order)
            if id(call) in singles:  # Each kernel reads one channel.
                found, lasting = [], 1
            places = positions(graph, call)
            reads += [_read(penalized, run, places) for run in found]
            constant += places * lasting
        links[name] = CouplingSpec(reads=tuple(reads), constant=constant)
    return links


def _read(penalized: PenalizedLayers, run: KernelRun, places: float) -> ChannelGroup:
    # The root mean square over the writers: a channel counts once, however many layers write it.
    weight = places * run.times / math.sqrt(len(run.first))
    return ChannelGroup(tuple(penalized.writer(*first) for first in run.first), run.width, weight)


def _factor(penalized: PenalizedLayers, name: str) -> float:
    *shape, channels, _ = plain_shape(penalized.layers[name])
    return float(norm_factors.norm_factors(tuple(shape), "kernel", channels, penalized.norm)[0, 0])


def positions(graph: Graph, call: Call) -> float:
    """The number of positions of a layer's output map.

    Raises:
        ModelError: The size of the map is open.
    """
    shape = graph.shapes[call.outputs[0]]
    sizes = spatial_shape(call.operation, shape)
    if None in sizes and hasattr(call.operation, "kernel_size"):
        raise ModelError(
            f"Layer '{call.name}': the size of its output is not known ({sizes}), so its "
            "multiply-adds are not either. Give the model an input of fixed size, or choose "
            'weights="params".'
        )
    return float(math.prod(size or 1 for size in sizes))
