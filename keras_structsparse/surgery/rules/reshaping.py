"""Layers that flatten, reshape or transpose feature maps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from numbers import Integral
from typing import Any

import keras
import numpy as np
from keras import layers

from keras_structsparse._typing import Array
from keras_structsparse.graph.bare_operations import operation_type
from keras_structsparse.graph.channels.constant_maps import always
from keras_structsparse.graph.channels.registry import register
from keras_structsparse.graph.channels.rule import (
    Channels,
    Flow,
    Piece,
    Rule,
    Site,
    misplaced,
    only,
)
from keras_structsparse.surgery.rules.arithmetic import policy
from keras_structsparse.surgery.rules.elementwise import build

Reshape = operation_type(lambda x: keras.ops.reshape(x, (-1, 1)))

Refuses = Callable[[Site], str | None]


def flow_flatten(site: Site) -> Flow:
    """Each position has all channels, so the flat vector repeats their numbers."""
    inputs, positions = site.inputs[0], _positions(site)
    repeat = np.repeat if _by_channel(site) else np.tile
    live, value = repeat(inputs.live, positions), repeat(inputs.value, positions)
    for channel, entries in inputs.maps.items():  # never with channels first
        live[channel :: len(inputs)] = False
        value[channel :: len(inputs)] = entries.ravel()
    return Flow(
        Channels(
            ids=repeat(inputs.ids, positions),
            live=live,
            value=value,
            cost=repeat(inputs.cost / positions, positions),
        )
    )


def _by_channel(site: Site) -> bool:
    """Whether the flat vector has all positions of a channel side by side: channels first."""
    return site.axis != -1 and site.operation.data_format == "channels_last"


def build_flatten(site: Site, wanted: Array, pieces: Sequence[Piece | None]) -> Piece:
    """The layer on the kept channels; every position has them in the same order."""
    piece, width = build(site, wanted, pieces), len(site.inputs[0])
    places = np.arange(_positions(site))
    if _by_channel(site):
        return Piece(piece.tensor, (piece.order[:, None] * len(places) + places).ravel())
    return Piece(piece.tensor, (places[:, None] * width + piece.order).ravel())


def _positions(site: Site) -> int:
    return math.prod(size or 1 for size in site.shapes[0][1:-1])


def refuses(site: Site) -> str | None:
    """Refuse open sizes, and channels_first for an input with channels last."""
    if site.axis == -1 and (reason := misplaced(site)):
        return reason
    if None in site.shapes[0][1:]:
        return f"the size of its input is not known: {site.shapes[0]}"
    return None


def flow_reshape(site: Site) -> Flow:
    """Positions are rearranged and channels are not, or the layer flattens or makes maps."""
    if _keeps_channels(site):
        return Flow(site.inputs[0])
    return _flow_maps(site) if _makes_maps(site) else flow_flatten(site)


def _makes_maps(site: Site) -> bool:
    """Whether the layer makes maps of a flat vector."""
    return len(site.shapes[0]) == 2 and len(site.output_shape) > 2


def _flow_maps(site: Site) -> Flow:
    """A channel of the maps has one entry of the vector for each position.

    They are removed together. The channel is constant if its entries are the same constant, and a
    constant map if they are several.
    """
    inputs, width = site.inputs[0], site.output_shape[-1] or 1
    live, value = inputs.live.reshape(-1, width), inputs.value.reshape(-1, width)
    constant = ~live.any(axis=0) & (value == value[:1]).all(axis=0)
    output = Channels(
        ids=site.fresh(width),
        live=~constant,
        value=np.where(constant, value[0], 0.0),
        cost=inputs.cost.reshape(-1, width).sum(axis=0),
        maps={
            int(channel): value[:, channel].reshape(site.output_shape[1:-1])
            for channel in np.flatnonzero(~live.any(axis=0) & ~constant)
            if site.constants == "exact"
        },
    )
    entries = inputs.ids.reshape(-1, width)
    return Flow(
        output,
        joins=tuple((own, output.ids) for own in entries),
        needs=lambda needed: tuple(own[needed] for own in entries),
        ordered=True,
    )


def build_reshape(site: Site, wanted: Array, pieces: Sequence[Piece | None]) -> Piece:
    """The same operation, to the new number of channels."""
    piece = only(pieces)
    width, kept = len(site.inputs[0]), piece.order
    if _makes_maps(site) and not _keeps_channels(site):
        return _build_maps(site, piece)
    if not _keeps_channels(site):
        kept = (np.arange(_positions(site))[:, None] * width + kept).ravel()
    shape = (*_target(site)[:-1], len(kept))
    if isinstance(site.operation, keras.Layer):
        layer = layers.Reshape(shape[1:], dtype=policy(site), name=site.layer_name)
    else:
        layer = Reshape(shape, name=site.layer_name)
    return Piece(layer(piece.tensor), kept)


def _target(site: Site) -> tuple[Any, ...]:
    """The shape that is asked for, with the batch axis; one size may be -1."""
    if isinstance(site.operation, keras.Layer):
        return (-1, *site.operation.target_shape)
    shape = site.operation.newshape
    return (shape,) if isinstance(shape, int) else tuple(shape)


def _build_maps(site: Site, piece: Piece) -> Piece:
    """The maps of the kept entries; each position has them in the order of the first one."""
    positions = math.prod(size or 1 for size in site.output_shape[1:-1])
    first = np.arange(positions)[:, None] * (site.output_shape[-1] or 1)
    order = piece.order.reshape(positions, -1) - first
    assert (order == order[:1]).all(), "joined channels have one order"
    shape = (*site.output_shape[1:-1], order.shape[1])
    layer = layers.Reshape(shape, dtype=policy(site), name=site.layer_name)
    return Piece(layer(piece.tensor), order[0])


def _keeps_channels(site: Site) -> bool:
    """Whether the last axis stays as it is: then the others can be rearranged in any way.

    That holds for axes of unknown size, and for positions that move into the batch.
    """
    width, last = site.shapes[0][-1], _target(site)[-1]
    open_sizes = None in site.shapes[0][1:]
    found = isinstance(site.operation, keras.Layer) and not open_sizes and last == -1
    return bool((site.output_shape[-1] if found else last) == width)


def refuses_reshape(site: Site) -> str | None:
    """Refuse all shapes but those with the same last axis, and those of flattening a sample."""
    before, after, target = site.shapes[0], site.output_shape, _target(site)
    if not all(isinstance(size, Integral) for size in target):
        return f"its new shape is not made of numbers: {target}"
    if _keeps_channels(site):
        return None
    if None in before[1:] or None in after[1:]:
        return f"the size of its input or output is not known: {before}, {after}"
    if before[0] is not None or target[0] != -1:
        return "it gives the batch a fixed size"
    flattens = len(after) == 2 and math.prod(n or 1 for n in before[1:]) == after[1]
    unfolds = len(before) == 2 and math.prod(n or 1 for n in after[1:]) == before[1]
    if not flattens and not unfolds:
        return f"it moves the channels to another axis: {before}, {after}"
    return None


def flow_permute(site: Site) -> Flow:
    """Positions are rearranged."""
    return Flow(site.inputs[0])


def refuses_permute(site: Site) -> str | None:
    """Refuse to move the last axis."""
    last = len(site.shapes[0]) - 1
    return None if site.operation.dims[-1] == last else "it moves the channels to another axis"


def apart(axes: Callable[[Site], Iterable[int] | None], adds: bool = False) -> Refuses:
    """Refuse operations that change the last axis.

    Args:
        axes: From a site to the axes that the operation changes; None for all.
        adds: Whether the operation adds these axes, so that the numbers are those of the output.

    Returns:
        A function for :attr:`Rule.refuses`.
    """

    def refuses_last(site: Site) -> str | None:
        touched = axes(site)
        rank = len(site.output_shape if adds else site.shapes[0])
        if touched is None or any(axis % rank == rank - 1 for axis in touched):
            return f"it moves the channels to another axis: {site.shapes[0]}, {site.output_shape}"
        return None

    return refuses_last


def _axes(site: Site) -> Iterable[int] | None:
    axis = site.operation.axis
    return (axis,) if isinstance(axis, int) else axis


def _moved(site: Site) -> Iterable[int]:
    """The last axis, unless a transposition leaves it the last one."""
    axes, last = site.operation.axes, len(site.shapes[0]) - 1
    return () if axes is not None and axes[-1] % (last + 1) == last else (last,)


def _swapped(site: Site) -> Iterable[int]:
    return (site.operation.axis1, site.operation.axis2)


register(Rule(flow_permute, build), layers.RepeatVector)
register(
    Rule(flow_permute, build, apart(_moved)),
    operation_type(keras.ops.transpose),
    understands=("axes",),
)
register(
    Rule(flow_permute, build, apart(_swapped)),
    operation_type(lambda x: keras.ops.swapaxes(x, 0, 1)),
    understands=("axis1", "axis2"),
)
register(
    Rule(flow_permute, build, apart(_axes)),
    operation_type(lambda x: keras.ops.squeeze(x, 1)),
    operation_type(lambda x: keras.ops.flip(x, 0)),
    operation_type(lambda x: keras.ops.roll(x, 1, 0)),
    operation_type(lambda x: keras.ops.repeat(x, 2, 0)),
    understands=("axis", "shift", "repeats"),
)
register(
    Rule(flow_permute, build, apart(_axes, adds=True)),
    operation_type(lambda x: keras.ops.expand_dims(x, 1)),
    understands=("axis",),
)
register(
    Rule(flow_flatten, build_flatten, refuses, channels_first=True, maps=always), layers.Flatten
)
register(
    Rule(flow_reshape, build_reshape, refuses_reshape, maps=lambda site: not _keeps_channels(site)),
    layers.Reshape,
    Reshape,
    understands=("newshape",),
)
register(Rule(flow_permute, build, refuses_permute), layers.Permute)
