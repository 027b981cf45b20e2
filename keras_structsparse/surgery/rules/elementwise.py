"""Elementwise layers: activations, dropout and noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from numbers import Number

import numpy as np
from keras import activations, layers, ops

from keras_structsparse._typing import Array
from keras_structsparse.graph.bare_operations import operation_type
from keras_structsparse.graph.channels.constant_maps import always
from keras_structsparse.graph.channels.registry import Hole, arguments, register
from keras_structsparse.graph.channels.rule import Flow, Piece, Rule, Site, emit, only
from keras_structsparse.graph.cloning import clone
from keras_structsparse.surgery import constant_maps
from keras_structsparse.surgery.activation_functions import (
    OPERATIONS,
    activation_reason,
    is_elementwise,
)
from keras_structsparse.surgery.constant_propagation import settled


def flow_activation(site: Site) -> Flow:
    """A constant c becomes the constant f(c)."""
    inputs = site.inputs[0]
    live, value = settled(site, inputs.live)
    return Flow(inputs.passed(live=live, value=value, maps=constant_maps.through(site)))


def flow_identity(site: Site) -> Flow:
    """At inference the layer is the identity."""
    return Flow(site.inputs[0])


def build(site: Site, wanted: Array, pieces: Sequence[Piece | None]) -> Piece:
    """The same layer on fewer channels."""
    piece = only(pieces)
    args, kwargs = site.fill([piece.tensor])
    return Piece(clone(site.operation, name=site.layer_name)(*args, **kwargs), piece.order)


def build_dropout(site: Site, wanted: Array, pieces: Sequence[Piece | None]) -> Piece:
    """Dropout on fewer channels; the shape of its noise may say how many there are."""
    piece, shape = only(pieces), site.operation.noise_shape
    changes = {}
    if shape is not None and shape[site.axis] == len(site.inputs[0]):
        changes = {"noise_shape": list(shape)}
        changes["noise_shape"][site.axis] = len(piece.order)
    args, kwargs = site.fill([piece.tensor])
    layer = clone(site.operation, name=site.layer_name, **changes)
    return Piece(layer(*args, **kwargs), piece.order)


def mixes(site: Site) -> str | None:
    """Refuse activations that mix channels, such as softmax, and unknown functions."""
    activation = site.operation.activation
    return None if is_elementwise(activation) else activation_reason(activation)


def has_arrays(site: Site) -> str | None:
    """Refuse arguments that are arrays: they may differ between channels and positions."""
    if len(site.inputs) > 1:
        return "tensors are among its arguments"
    given = arguments(site).values()
    numbers = all(isinstance(value, Hole | Number | str | None) for value in given)
    return None if numbers else "arrays are among its arguments"


def flow_prelu(site: Site) -> Flow:
    """If the slope depends on the position, a negative constant becomes a spatial pattern."""
    inputs, slope = site.inputs[0], np.asarray(site.weights["alpha"], np.float64)
    uniform = math.prod(slope.shape[:-1]) == 1
    live = inputs.live | (inputs.offset & (inputs.value < 0) & (not uniform))
    factor = np.where(inputs.value < 0, slope.reshape(-1, slope.shape[-1])[0], 1.0)
    return Flow(inputs.passed(live=live, value=np.where(live, 0.0, factor * inputs.value)))


def build_prelu(site: Site, wanted: Array, pieces: Sequence[Piece | None]) -> Piece:
    """The layer with the slopes of the kept channels; all channels may share one slope."""
    piece = only(pieces)
    slope = site.taken("alpha")
    if slope.values.shape[-1] == len(site.inputs[0]):
        slope = slope.along(-1, piece.order)
    layer = clone(site.operation, name=site.layer_name)
    return Piece(emit(layer, piece.tensor, [slope]), piece.order)


FUNCTIONS = (
    activations.relu,
    *OPERATIONS,
    lambda x: ops.threshold(x, 0.0, 0.0),
    lambda x: ops.cast(x, "float16"),
)
"""Elementwise operations of one tensor, as functions."""

ACTIVATION = Rule(flow_activation, build, channels_first=True, maps=always)

register(ACTIVATION, layers.ReLU, layers.LeakyReLU, layers.ELU)
register(
    replace(ACTIVATION, refuses=has_arrays),
    *dict.fromkeys(map(operation_type, FUNCTIONS)),
    # The operation itself is applied to constants, so numbers of any meaning are right.
    understands=(
        *("negative_slope", "max_value", "threshold", "default_value", "alpha", "approximate"),
        *("b", "decimals", "dtype"),
    ),
)
register(replace(ACTIVATION, refuses=mixes), layers.Activation)
register(
    Rule(flow_activation, build, has_arrays, maps=always),
    operation_type(lambda x: ops.clip(x, 0, 1)),
    understands=("x_min", "x_max"),
)
register(Rule(flow_prelu, build_prelu), layers.PReLU)
IDENTITY = Rule(flow_identity, build, borders=True, channels_first=True, maps=always)

register(replace(IDENTITY, build=build_dropout), layers.Dropout, layers.AlphaDropout)
register(
    IDENTITY,
    layers.SpatialDropout1D,
    layers.SpatialDropout2D,
    layers.SpatialDropout3D,
    layers.GaussianNoise,
    layers.GaussianDropout,
    layers.ActivityRegularization,
    layers.Identity,
    operation_type(ops.stop_gradient),
)
