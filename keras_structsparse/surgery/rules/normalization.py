"""Layers with a gain and a shift per channel: normalisation at inference, scales, rescaling."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from numbers import Number
from typing import Any

import keras
import numpy as np
from keras import layers

from keras_structsparse._typing import Array
from keras_structsparse.graph.batch_norm_affine import Affine, normalization_affine
from keras_structsparse.graph.channels.constant_maps import always
from keras_structsparse.graph.channels.registry import register
from keras_structsparse.graph.channels.rule import Flow, Piece, Rule, Site, emit, only, unknown
from keras_structsparse.graph.cloning import clone, set_weights
from keras_structsparse.surgery.constant_propagation import settled


def flow(affine: Callable[[Site], Affine], site: Site) -> Flow:
    """A constant c becomes ``gain * c + shift``; a channel with gain 0 becomes the shift."""
    inputs = site.inputs[0]
    own = affine(site)
    live = inputs.live & (own.gain != 0)
    constant = np.where(inputs.live, 0.0, inputs.value)
    value = np.where(live, 0.0, own.gain * constant + own.shift)
    maps = {j: own.gain[j] * entries + own.shift[j] for j, entries in inputs.maps.items()}
    maps = {j: entries for j, entries in maps.items() if live[j]}
    return Flow(inputs.passed(live=live, value=value, maps=maps))


def build(
    changes: Callable[[Site, Array], dict[str, Any]],
    site: Site,
    wanted: Array,
    pieces: Sequence[Piece | None],
) -> Piece:
    """The layer over the kept channels, with their weights and statistics."""
    piece = only(pieces)
    layer = clone(site.operation, name=site.layer_name, **changes(site, piece.order))
    weights = [site.taken(name).along(0, piece.order) for name in site.weights]
    arguments = site.fill([piece.tensor])  # training=False must stay
    return Piece(emit(layer, piece.tensor, weights, arguments), piece.order)


def refuses(site: Site) -> str | None:
    """Refuse other axes than that of the channels."""
    rank = len(site.shapes[0])
    if (site.operation.axis - site.axis) % rank:
        return f"it normalises axis {site.operation.axis}, not that of the channels"
    return None


# --- batch normalisation ---


def _batch(site: Site) -> Affine:
    return normalization_affine(site.weights, site.operation.epsilon)


def _nothing(site: Site, order: Array) -> dict[str, Any]:
    return {}


# --- group normalisation ---


def _instance(site: Site) -> Affine:
    """Normalisation of single channels: a constant is its own mean, so beta is left."""
    gamma, beta = (site.weights.get(name) for name in ("gamma", "beta"))
    width = len(site.inputs[0])
    gain = np.where(site.inputs[0].live, 1.0 if gamma is None else gamma, 0.0)
    return Affine(gain, np.zeros(width) if beta is None else np.asarray(beta, np.float64))


def refuses_groups(site: Site) -> str | None:
    """Refuse groups of several channels, which mix them, and other axes."""
    if site.operation.groups != len(site.inputs[0]):
        return "it mixes the channels of each of its groups"
    return refuses(site)


# --- scales ---


def _scale(site: Site) -> Affine:
    (gamma,) = site.weights.values()
    return Affine(np.asarray(gamma, np.float64), np.zeros(len(gamma)))


def flow_rescaling(site: Site) -> Flow:
    """The layer itself is applied to the constants, since it rounds its numbers to float32."""
    live, value = settled(site, site.inputs[0].live)
    return Flow(site.inputs[0].passed(live=live, value=value))


def _rescaled(site: Site, order: Array) -> dict[str, Any]:
    """Options of the kept channels; their types are kept, as the layer rounds each differently."""
    values = {"scale": site.operation.scale, "offset": site.operation.offset}
    return {name: _some(value, order) for name, value in values.items() if np.size(value) > 1}


def _some(values: Any, order: Array) -> Any:
    if isinstance(values, np.ndarray):
        return keras.saving.serialize_keras_object(values[order])
    return [values[index] for index in order]


def refuses_rescaling(site: Site) -> str | None:
    """Refuse tensors, and shapes other than one number or one number per channel."""
    values = (site.operation.scale, site.operation.offset)
    if not all(isinstance(value, Number | list | tuple | np.ndarray) for value in values):
        return "its scale or offset is a tensor"
    shapes = set(map(np.shape, values)) - {(), (1,)}
    if shapes - {(len(site.inputs[0]),)}:
        return f"its scale and offset have the shapes {sorted(shapes)}"
    first = keras.config.image_data_format() == "channels_first"
    return "the image data format is channels_first" if shapes and first else None


# --- preprocessing ---


def flow_inputs(site: Site) -> Flow:
    """Preprocessing layers keep all channels."""
    inputs = site.inputs[0]
    notes = () if inputs.live.all() else ("it keeps all its channels",)
    return Flow(unknown(inputs.ids), keeps=(inputs.ids,), notes=notes)


def build_inputs(site: Site, wanted: Array, pieces: Sequence[Piece | None]) -> Piece:
    """A copy of the layer."""
    piece = only(pieces)
    layer = clone(site.operation, name=site.layer_name)
    output = layer(piece.tensor)
    set_weights(layer, list(site.weights.values()))
    return Piece(output, piece.order)


register(
    Rule(
        partial(flow, _batch), partial(build, _nothing), refuses, channels_first=True, maps=always
    ),
    layers.BatchNormalization,
)
register(
    Rule(
        partial(flow, _instance),
        partial(build, lambda site, order: {"groups": len(order)}),
        refuses_groups,
    ),
    layers.GroupNormalization,
)
register(
    Rule(partial(flow, _scale), partial(build, lambda site, order: {"projection_dim": len(order)})),
    # A layer of keras.applications that is not public.
    sys.modules[keras.applications.ConvNeXtTiny.__module__].LayerScale,
)
register(Rule(flow_rescaling, partial(build, _rescaled), refuses_rescaling), layers.Rescaling)
register(Rule(flow_inputs, build_inputs), layers.Normalization)
