"""Layers that merge tensors: Add and Concatenate.

All summands must have the same channels in the same order. A summand with fewer live channels than
the sum either keeps the missing ones as constants, which the layer before it computes, or it is
spread over the channels of the sum by a 1x1 convolution of zeros and ones, with the constants in
its bias: whichever costs less.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from numbers import Number

import keras
import numpy as np
from keras import layers

from keras_structsparse import _keras_compat
from keras_structsparse._typing import Array, Tensor
from keras_structsparse.graph.bare_operations import operation_type
from keras_structsparse.graph.channels.costs import filled
from keras_structsparse.graph.channels.registry import register
from keras_structsparse.graph.channels.rule import Channels, Flow, Piece, Rule, Site
from keras_structsparse.graph.cloning import clone
from keras_structsparse.surgery.rules import arithmetic, array_sums
from keras_structsparse.surgery.rules.arithmetic import arranged, policy

Product = operation_type(keras.ops.multiply, 2)


def flow_add(site: Site) -> Flow:
    """A channel of a sum is live if it is live in any summand; else it is the sum of constants."""
    if array_sums.is_array_sum(site):
        return array_sums.flow(site)
    return _flow_sum(site) if _is_sum(site) else arithmetic.flow(site)


def build_add(site: Site, wanted: Array, pieces: Sequence[Piece | None]) -> Piece:
    """The sum of the summands that keep channels, plus the constants of the others."""
    if array_sums.is_array_sum(site):
        return array_sums.build(site, wanted, pieces)
    return (_build_sum if _is_sum(site) else _build_broadcast)(site, wanted, pieces)


def refuses_add(site: Site) -> str | None:
    """Refuse sums with other arrays, and what does not match."""
    return None if array_sums.is_array_sum(site) else arithmetic.refuses(site)


def _is_sum(site: Site) -> bool:
    """Whether tensors of one shape are added: without broadcasting, and no number is added.

    A summand of size 1 at an open axis would be broadcast too, and lose its shape with the others.
    """
    return len(site.shapes) > 1 and len(set(site.shapes)) == 1 and site.same_shape()


def _flow_sum(site: Site) -> Flow:
    live = np.any([summand.live for summand in site.inputs], axis=0)
    constants = [np.where(summand.live, 0.0, summand.value) for summand in site.inputs]
    joined = [summand for summand in site.inputs if not _spreads(site, summand, live)]
    output = Channels(
        ids=site.fresh(len(live)),
        live=live,
        value=np.where(live, 0.0, np.sum(constants, axis=0)),
        cost=np.sum([summand.cost for summand in joined], axis=0) + np.zeros(len(live)),
    )

    def needs(needed: Array) -> tuple[Array, ...]:
        return tuple(summand.ids[summand.live & needed] for summand in site.inputs)

    return Flow(output, joins=tuple((output.ids, summand.ids) for summand in joined), needs=needs)


def _build_sum(site: Site, wanted: Array, pieces: Sequence[Piece | None]) -> Piece:
    live = np.any([summand.live for summand in site.inputs], axis=0)
    joined = [
        piece
        for summand, piece in zip(site.inputs, pieces, strict=True)
        if not _spreads(site, summand, live)
    ]
    order = _common_order(wanted, joined)
    whole = [p.tensor for p in pieces if p is not None and np.array_equal(p.order, order)]
    partial = [p for p in pieces if p is not None and not np.array_equal(p.order, order)]
    offset = _lost_constants(site, pieces)[order]
    for index, piece in enumerate(partial):
        whole.append(arranged(site, index, piece, order, offset if np.any(offset) else None))
        offset = np.zeros_like(offset)
    if np.any(offset):
        name, rank = site.derive("offset"), len(site.shapes[0])
        offset = offset if site.axis == -1 else offset.reshape(-1, *[1] * (rank - 2))
        whole[0] = layers.Rescaling(1.0, offset, dtype=policy(site), name=name)(whole[0])
    if len(whole) == 1:
        return Piece(whole[0], order)
    if len(whole) == 2 and _drops_masks(site, whole):
        return Piece(clone(site.operation, name=site.layer_name)(*whole), order)
    return Piece(layers.Add(dtype=policy(site), name=site.layer_name)(whole), order)


def _drops_masks(site: Site, tensors: Sequence[Tensor]) -> bool:
    """Whether a bare addition drops masks, which a layer would hand on."""
    bare = not isinstance(site.operation, keras.Layer)
    return bare and any(_keras_compat.mask_of(tensor) is not None for tensor in tensors)


def _build_broadcast(site: Site, wanted: Array, pieces: Sequence[Piece | None]) -> Piece:
    """The sum over the kept channels, with the broadcast summands first.

    Keras on TensorFlow treats a second summand of shape (batch, 1, 1) as a bias and adds it along
    the wrong axis if the sizes allow it; a summand that keeps one channel may get this shape.
    """
    sizes = [math.prod(size or sys.maxsize for size in shape[1:]) for shape in site.shapes]
    turn = sorted(range(len(sizes)), key=sizes.__getitem__)
    inputs, shapes = [site.inputs[i] for i in turn], [site.shapes[i] for i in turn]
    site = replace(site, inputs=tuple(inputs), shapes=tuple(shapes))
    return arithmetic.build(site, wanted, [pieces[i] for i in turn])


def _common_order(wanted: Array, pieces: Sequence[Piece | None]) -> Array:
    """The order of a summand with all channels of the sum, so that it needs no sorting."""
    for piece in pieces:
        if piece is not None and np.array_equal(np.sort(piece.order), np.sort(wanted)):
            return piece.order
    return wanted


def _lost_constants(site: Site, pieces: Sequence[Piece | None]) -> Array:
    """The sum of the constants that the pieces do not hold, for every original channel."""
    width = len(site.inputs[0])
    total = np.zeros(width)
    for summand, piece in zip(site.inputs, pieces, strict=True):
        held = np.zeros(width, bool) if piece is None else piece.mask(width)
        total += np.where(held, 0.0, summand.value)
    return total


def _spreads(site: Site, summand: Channels, live: Array) -> bool:
    """Whether to spread a narrow summand rather than compute the constants that it lacks."""
    missing = live & ~summand.live
    places = math.prod(size or 1 for size in site.shapes[0][1:-1])
    width, have = int(live.sum()), int(summand.live.sum())
    if not missing.any() or not have:
        return bool(missing.any())  # A summand without live channels is always removed.
    costs = site.realize.costs
    more = filled(width, costs.block) - filled(have, costs.block)
    return float(summand.cost[missing].mean()) * more > costs.convolution(places, 1, have, width)


def flow_scaled(site: Site) -> Flow:
    """``x + scale * y`` is the sum of x and of y with scaled constants."""
    return _flow_sum(_with_scale(site))


def build_scaled(site: Site, wanted: Array, pieces: Sequence[Piece | None]) -> Piece:
    """A multiplication by the scale, then the sum."""
    left, right = pieces
    if right is not None:
        # Not a Rescaling, which rounds the scale to float32.
        tensor = Product(name=site.derive("scaled"))(right.tensor, site.operation.scale)
        right = Piece(tensor, right.order)
    return _build_sum(_with_scale(site), wanted, [left, right])


def _with_scale(site: Site) -> Site:
    left, right = site.inputs
    return replace(site, inputs=(left, right.passed(value=right.value * site.operation.scale)))


def refuses_scaled(site: Site) -> str | None:
    """Refuse scales that are not one number, and inputs of different shapes."""
    if not isinstance(site.operation.scale, Number):
        return "its scale is not a number"
    return None if _is_sum(site) else f"the shapes of its inputs differ: {site.shapes}"


def flow_concatenate(site: Site) -> Flow:
    """The channels of all inputs, one after the other."""
    parts = site.inputs
    return Flow(
        Channels(
            ids=np.concatenate([part.ids for part in parts]),
            live=np.concatenate([part.live for part in parts]),
            value=np.concatenate([part.value for part in parts]),
            cost=np.concatenate([part.cost for part in parts]),
        )
    )


def build_concatenate(site: Site, wanted: Array, pieces: Sequence[Piece | None]) -> Piece:
    """The concatenation of the inputs that keep channels."""
    starts = np.cumsum([0] + [len(own) for own in site.inputs[:-1]])
    left = [(start, p) for start, p in zip(starts, pieces, strict=True) if p is not None]
    order = np.concatenate([start + piece.order for start, piece in left])
    tensors = [piece.tensor for _, piece in left]
    if len(tensors) == 1:
        return Piece(tensors[0], order)
    return Piece(clone(site.operation, name=site.layer_name)(tensors), order)


def refuses_concatenate(site: Site) -> str | None:
    """Refuse other axes than that of the channels."""
    if (site.operation.axis - site.axis) % len(site.shapes[0]):
        return f"it concatenates along axis {site.operation.axis}, not along the channels"
    return None


register(
    Rule(flow_add, build_add, arithmetic.refuses, channels_first=True),
    layers.Add,
)
register(
    Rule(flow_add, build_add, refuses_add, channels_first=True, maps=array_sums.is_array_sum),
    operation_type(keras.ops.add, 2),
    understands=arithmetic.BOTH,
)
register(
    Rule(flow_concatenate, build_concatenate, refuses_concatenate, channels_first=True),
    layers.Concatenate,
)
register(
    Rule(flow_scaled, build_scaled, refuses_scaled),
    # A layer of keras.applications that is not public.
    sys.modules[keras.applications.InceptionResNetV2.__module__].CustomScaleLayer,
)
register(
    Rule(flow_concatenate, build_concatenate, refuses_concatenate),
    operation_type(lambda *tensors: keras.ops.concatenate(tensors, axis=-1), 2),
    understands=("axis",),
)
