"""Sums of a tensor and an array, such as surgery itself adds behind a layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_structsparse._typing import Array
from keras_structsparse.graph.channels.registry import Hole, arguments
from keras_structsparse.graph.channels.rule import Flow, Piece, Site, only
from keras_structsparse.graph.cloning import clone


def is_array_sum(site: Site) -> bool:
    """Whether an array is added that has a value for each entry of one example."""
    if len(site.inputs) != 1 or site.axis != -1 or len(site.shapes[0]) < 3:
        return False
    others = [value for value in arguments(site).values() if not isinstance(value, Hole)]
    shape = site.shapes[0][1:]
    fits = [isinstance(v, np.ndarray) and v.shape in (shape, (1, *shape)) for v in others]
    return fits == [True]


def flow(site: Site) -> Flow:
    """Constants become constant maps, or other constants; what depends on the input goes on so."""
    inputs = site.inputs[0]
    (array,) = [value for value in arguments(site).values() if isinstance(value, np.ndarray)]
    added = np.asarray(array, np.float64).reshape([size or 1 for size in site.shapes[0][1:]])
    first = added.reshape(-1, len(inputs))[0]
    same = (added == first).all(axis=tuple(range(added.ndim - 1)))
    constant = ~inputs.live & same
    value = np.where(constant, inputs.value + first, 0.0)
    maps = {j: entries + added[..., j] for j, entries in inputs.maps.items()}
    for channel in np.flatnonzero(~inputs.live & ~same).tolist():
        maps[channel] = inputs.value[channel] + added[..., channel]
    exact = maps if site.constants == "exact" else {}
    return Flow(inputs.passed(live=~constant, value=value, maps=exact))


def build(site: Site, wanted: Array, pieces: Sequence[Piece | None]) -> Piece:
    """The sum with the entries of the kept channels."""
    piece = only(pieces)
    args, kwargs = site.fill([piece.tensor])

    def kept(value: Any) -> Any:
        return np.take(value, piece.order, -1) if isinstance(value, np.ndarray) else value

    operation = clone(site.operation, name=site.layer_name)
    return Piece(
        operation(*map(kept, args), **{name: kept(value) for name, value in kwargs.items()}),
        piece.order,
    )
