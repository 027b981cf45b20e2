"""Find in a graph what the penalties of its layers must know of each other."""

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
from keras_structsparse.graph.prunable_layers import PrunableLayers
from keras_structsparse.regularizers import nested_groups
from keras_structsparse.regularizers.coupling import (
    ChannelGroup,
    CouplingSpec,
    Writer,
    joint_weight,
)


@dataclass(frozen=True)
class PenalizedLayers:
    """A network and what of it is regularized.

    Attributes:
        found: The prunable layers of the network.
        layers: The layers, by name.
        norms: The batch normalisation paired with each layer that has one.
        shares: Each layer's share of alpha.
        norm: The norm of the regularizer.
    """

    found: PrunableLayers
    layers: Mapping[str, keras.Layer]
    norms: Mapping[str, keras.Layer]
    shares: Mapping[str, float]
    norm: str

    def writer(self, name: str, first: int) -> Writer:
        """The kernels of a layer from some number on."""
        norm = self.norms.get(name)
        scale = None if norm is None else norm.gamma.path
        return Writer(self.layers[name].kernel.path, scale, first)

    def variables(self) -> dict[str, Any]:
        """The kernels and scales that penalties may name, by path.

        Raises:
            ModelError: Two of them have the same path.
        """
        found: dict[str, Any] = {}
        for layer, norm in ((layer, self.norms.get(n)) for n, layer in self.layers.items()):
            for variable in (layer.kernel, *([] if norm is None else [norm.gamma])):
                if found.setdefault(variable.path, variable) is not variable:
                    raise ModelError(
                        f"Layer '{layer.name}': another variable is called '{variable.path}' too, "
                        "so penalties over several layers cannot tell them apart. Give layers of "
                        "nested models different names."
                    )
        return found


def no_links(site: PenalizedLayers) -> dict[str, CouplingSpec]:
    """Every layer is penalised by itself."""
    return {}


def joint_links(site: PenalizedLayers) -> dict[str, CouplingSpec]:
    """Join the kernels that write the same channels, as the last groups of their layers.

    A joint norm weighs what makes it equal the weighted norms of its kernels where these are all
    of the same length; the first of its layers pays for it.
    """
    joint, joined = collections.defaultdict(list), collections.defaultdict(list)
    for run in site.found.channels.joined(list(site.layers)):
        writers = tuple(site.writer(name, first) for name, first in run.first)
        weight = joint_weight([site.shares[name] * _factor(site, name) for name, _ in run.first])
        joint[run.first[0][0]].append(ChannelGroup(writers, run.width, weight))
        for name, first in run.first:
            joined[name].append((first, run.width))
    return {
        name: CouplingSpec(joint=tuple(joint[name]), joined=tuple(ranges))
        for name, ranges in joined.items()
    }


def complexity_links(site: PenalizedLayers) -> dict[str, CouplingSpec]:
    """What each layer reads, with the positions of its output map as weights (34)."""
    graph, order = site.found.graph, list(site.layers)
    written = site.found.channels.writers(order)
    links = {}
    for name, layer in site.layers.items():
        reads, constant = [], 0.0
        for call in graph.calls_of[id(layer)]:
            found, lasting = runs(written[call.inputs[0]], order)
            places = positions(graph, call)
            reads += [_read(site, run, places) for run in found]
            constant += places * lasting
        links[name] = CouplingSpec(reads=tuple(reads), constant=constant)
    return links


def _read(site: PenalizedLayers, run: KernelRun, places: float) -> ChannelGroup:
    # The root of the mean over the writers: a channel counts once, however many write it.
    weight = places * run.times / math.sqrt(len(run.first))
    return ChannelGroup(tuple(site.writer(*first) for first in run.first), run.width, weight)


def _factor(site: PenalizedLayers, name: str) -> float:
    *shape, channels, _ = site.layers[name].kernel.shape
    return float(nested_groups.norm_factors(tuple(shape), "kernel", channels, site.norm)[0, 0])


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
