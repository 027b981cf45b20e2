"""Some of the channels of a tensor: slices, splits, and channels picked by number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import EllipsisType
from typing import Any

import keras
import numpy as np

from keras_structsparse._typing import Array, Tensor
from keras_structsparse.graph.channels.registry import register
from keras_structsparse.graph.channels.rule import Flow, Piece, Rule, Site, only
from keras_structsparse.graph.functional_graph import operation_type
from keras_structsparse.surgery.rules import elementwise

Slice = operation_type(lambda x: x[..., :1])
Split = operation_type(lambda x: keras.ops.split(x, 1, axis=-1)[0])
Take = operation_type(lambda x: keras.ops.take(x, [0], axis=-1))


def pick(tensor: Tensor, places: Array, name: Callable[[str], str]) -> Tensor:
    """The channels at some places, in that order: as a slice where they are neighbours."""
    first, count = int(places[0]), len(places)
    if not np.array_equal(places, np.arange(first, first + count)):
        return Take(axis=-1, name=name("picked"))(tensor, [int(place) for place in places])
    if count == tensor.shape[-1]:
        return tensor
    return Slice(name=name("picked"))(tensor, (..., slice(first, first + count)))


def flow_slice(site: Site) -> Flow:
    """Positions or channels are left out."""
    return Flow(site.inputs[0].part(_sliced(site)[1]))


def build_slice(site: Site, wanted: Array, pieces: Sequence[Piece | None]) -> Piece:
    """The same slice of the positions, or those of its channels that stay."""
    whole, channels = _sliced(site)
    if not whole:
        return elementwise.build(site, wanted, pieces)
    return _picked(site, channels, wanted, pieces)


def refuses_slice(site: Site) -> str | None:
    """Positions and channels at once, and what is no slice."""
    if not all(isinstance(part, slice | int | EllipsisType | None) for part in _key(site)):
        return "it is indexed by a tensor"
    whole, channels = _sliced(site)
    if channels is None:
        return "it leaves no axis of channels"
    all_of_them = np.array_equal(channels, np.arange(len(site.inputs[0])))
    return None if whole or all_of_them else "it slices positions and channels at once"


def _key(site: Site) -> tuple[Any, ...]:
    args, kwargs = site.fill([None])
    key = kwargs.get("key", args[1] if len(args) > 1 else None)
    return tuple(key) if isinstance(key, tuple | list) else (key,)


def _sliced(site: Site) -> tuple[bool, Array | None]:
    """Whether all positions stay, and the channels that do; None where there are none."""
    shape = tuple(size or 8 for size in site.shapes[0])
    # Only the last axis of this view has strides, so that they show where it went.
    before = np.broadcast_to(np.arange(1, shape[-1] + 1), shape)
    after = before[_key(site)]
    if not after.ndim or any(after.strides[:-1]) or not (after.strides[-1] or shape[-1] == 1):
        return False, None
    return after.shape[:-1] == shape[:-1], after[(0,) * (after.ndim - 1)] - 1


def flow_take(site: Site) -> Flow:
    """Channels by number."""
    return Flow(site.inputs[0].part(_indices(site)))


def build_take(site: Site, wanted: Array, pieces: Sequence[Piece | None]) -> Piece:
    """Those that stay."""
    return _picked(site, _indices(site), wanted, pieces)


def refuses_take(site: Site) -> str | None:
    """Tensors of numbers, and other axes."""
    if len(site.inputs) > 1 or np.ndim(_indices(site)) != 1:
        return "its indices are no list"
    last = len(site.shapes[0]) - 1
    return None if site.operation.axis in (-1, last) else "it does not pick from the last axis"


def _indices(site: Site) -> Array:
    args, kwargs = site.fill([None] * len(site.inputs))
    indices = np.asarray(kwargs.get("indices", args[1] if len(args) > 1 else None))
    return indices % len(site.inputs[0]) if indices.ndim == 1 else indices


def _picked(site: Site, channels: Array, wanted: Array, pieces: Sequence[Piece | None]) -> Piece:
    piece = only(pieces)
    place = {int(channel): index for index, channel in enumerate(piece.order)}
    places = np.array([place[int(channel)] for channel in channels[wanted]])
    return Piece(pick(piece.tensor, places, site.derive), wanted)


def flow_split(site: Site) -> Flow:
    """Every output has some neighbouring channels."""
    inputs = site.inputs[0]
    return Flow(inputs, parts=tuple(_sections(site)))


def build_split(site: Site, wanted: Array, pieces: Sequence[Piece | None]) -> list[Piece | None]:
    """A slice for each output that has channels left."""
    piece = only(pieces)
    results: list[Piece | None] = []
    for part in _sections(site):
        places = np.flatnonzero(np.isin(piece.order, part))
        order = piece.order[places] - part[:1]
        tensor = pick(piece.tensor, places, site.derive) if len(places) else None
        results.append(None if tensor is None else Piece(tensor, order))
    return results


def refuses_split(site: Site) -> str | None:
    """Along another axis, every output has all channels."""
    last = len(site.shapes[0]) - 1
    return None if site.operation.axis in (-1, last) else "it does not split the last axis"


def _sections(site: Site) -> list[Array]:
    return np.split(np.arange(len(site.inputs[0])), site.operation.indices_or_sections)


register(Rule(flow_slice, build_slice, refuses_slice), Slice)
register(Rule(flow_take, build_take, refuses_take), Take)
register(Rule(flow_split, build_split, refuses_split, splits=True), Split)
