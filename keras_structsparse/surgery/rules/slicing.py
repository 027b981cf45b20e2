"""Slices, splits, and channels selected by index."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Integral
from types import EllipsisType
from typing import Any

import keras
import numpy as np

from keras_structsparse._typing import Array, Tensor
from keras_structsparse.graph.bare_operations import operation_type
from keras_structsparse.graph.channels.registry import arguments, register
from keras_structsparse.graph.channels.rule import Flow, Piece, Rule, Site, only
from keras_structsparse.surgery.rules import elementwise

Slice = operation_type(lambda x: x[..., :1])
Split = operation_type(lambda x: keras.ops.split(x, 1, axis=-1)[0])
Take = operation_type(lambda x: keras.ops.take(x, [0], axis=-1))


def pick(tensor: Tensor, places: Array, name: Callable[[str], str], axis: int = -1) -> Tensor:
    """Select channels of a tensor by index: with a slice if they are consecutive.

    Args:
        tensor: Tensor (..., channels), or (batch, channels, ...) with axis 1.
        places: The indices of the channels, in order.
        name: From a suffix to the name of the new operation.
        axis: The axis of the channels: -1 or 1.

    Returns:
        The tensor with these channels alone.
    """
    first, count = int(places[0]), len(places)
    if not np.array_equal(places, np.arange(first, first + count)):
        return Take(axis=axis, name=name("picked"))(tensor, [int(place) for place in places])
    if count == tensor.shape[axis]:
        return tensor
    part = slice(first, first + count)
    return Slice(name=name("picked"))(tensor, (slice(None), part) if axis == 1 else (..., part))


def flow_slice(site: Site) -> Flow:
    """The channels of the slice."""
    return Flow(site.inputs[0].part(_sliced(site)[1]))


def build_slice(site: Site, wanted: Array, pieces: Sequence[Piece | None]) -> Piece:
    """The same slice of the positions, or the kept channels of a slice of channels."""
    all_positions, channels = _sliced(site)
    if not all_positions:
        return elementwise.build(site, wanted, pieces)
    return _picked(site, channels, wanted, pieces)


def refuses_slice(site: Site) -> str | None:
    """Refuse indices that are tensors, and slices of positions and channels at once."""
    if not all(map(_is_plain, _key(site))):
        return "it is indexed by a tensor or an array"
    all_positions, channels = _sliced(site)
    if channels is None or not len(channels):
        return "it removes the channel axis"
    all_channels = np.array_equal(channels, np.arange(len(site.inputs[0])))
    return None if all_positions or all_channels else "it slices positions and channels at once"


def _is_plain(part: Any) -> bool:
    if isinstance(part, slice):
        return all(map(_is_number, (part.start, part.stop, part.step)))
    return isinstance(part, EllipsisType) or _is_number(part)


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, Integral) and not isinstance(value, bool))


def _key(site: Site) -> tuple[Any, ...]:
    key = arguments(site)["key"]
    return tuple(key) if isinstance(key, tuple | list) else (key,)


def _sliced(site: Site) -> tuple[bool, Array | None]:
    """Whether a slice keeps all positions, and its channels; None without them on the last axis.

    A slice of an axis of unknown size keeps all its positions only if it does at every size.
    """
    shape, key = site.shapes[0], list(_key(site))
    if Ellipsis not in key:
        key.append(Ellipsis)
    place, used = key.index(Ellipsis), sum(part not in (None, Ellipsis) for part in key)
    key[place : place + 1] = [slice(None)] * (len(shape) - used)
    *positions, channels = key
    if not isinstance(channels, slice):
        return False, None
    whole = len(key) == len(shape) and all(map(_is_whole, positions, shape))
    return whole, np.arange(len(site.inputs[0]))[channels]


def _is_whole(part: Any, size: int | None) -> bool:
    if not isinstance(part, slice):
        return False
    if size is None:
        return (part.start or 0, part.stop, part.step or 1) == (0, None, 1)
    return part.indices(size) == (0, size, 1)


def flow_take(site: Site) -> Flow:
    """The selected channels."""
    return Flow(site.inputs[0].part(_indices(site)))


def build_take(site: Site, wanted: Array, pieces: Sequence[Piece | None]) -> Piece:
    """The kept ones of the selected channels."""
    return _picked(site, _indices(site), wanted, pieces)


def refuses_take(site: Site) -> str | None:
    """Refuse indices that are tensors or that no channel has, and other axes than the last."""
    indices, width = arguments(site)["indices"], len(site.inputs[0])
    if len(site.inputs) > 1 or np.ndim(indices) != 1 or np.asarray(indices).dtype.kind not in "iu":
        return "its indices are not a list of whole numbers"
    if not np.all((-width <= np.asarray(indices)) & (np.asarray(indices) < width)):
        return f"its indices are not all from {-width} to {width - 1}"
    last = len(site.shapes[0]) - 1
    return None if site.operation.axis in (-1, last) else "it does not select along the last axis"


def _indices(site: Site) -> Array:
    return np.asarray(arguments(site)["indices"]) % len(site.inputs[0])


def _picked(site: Site, channels: Array, wanted: Array, pieces: Sequence[Piece | None]) -> Piece:
    piece = only(pieces)
    place = {int(channel): index for index, channel in enumerate(piece.order)}
    places = np.array([place[int(channel)] for channel in channels[wanted]])
    return Piece(pick(piece.tensor, places, site.derive), wanted)


def flow_split(site: Site) -> Flow:
    """Every output has consecutive channels."""
    inputs = site.inputs[0]
    return Flow(inputs, parts=tuple(_sections(site)))


def build_split(site: Site, wanted: Array, pieces: Sequence[Piece | None]) -> list[Piece | None]:
    """A slice for each output that keeps channels."""
    piece = only(pieces)
    results: list[Piece | None] = []
    for part in _sections(site):
        places = np.flatnonzero(np.isin(piece.order, part))
        order = piece.order[places] - part[:1]
        tensor = pick(piece.tensor, places, site.derive) if len(places) else None
        results.append(None if tensor is None else Piece(tensor, order))
    return results


def refuses_split(site: Site) -> str | None:
    """Refuse other axes than the last."""
    last = len(site.shapes[0]) - 1
    return None if site.operation.axis in (-1, last) else "it does not split the last axis"


def _sections(site: Site) -> list[Array]:
    return np.split(np.arange(len(site.inputs[0])), site.operation.indices_or_sections)


register(Rule(flow_slice, build_slice, refuses_slice), Slice, understands=("key",))
register(Rule(flow_take, build_take, refuses_take), Take, understands=("axis", "indices"))
register(
    Rule(flow_split, build_split, refuses_split, splits=True),
    Split,
    understands=("indices_or_sections", "axis"),
)
