"""Arithmetic on tensors, channel by channel: layers, bare operations, and operations with numbers.

Inputs that are as wide as the output must keep the same channels in the same order. An input of one
channel, such as a spatial attention map, is broadcast over all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from numbers import Number
from typing import Any

import keras
import numpy as np
from keras import layers

from keras_structsparse._typing import Array, Tensor
from keras_structsparse.graph.bare_operations import operation_type
from keras_structsparse.graph.channels.registry import Hole, register
from keras_structsparse.graph.channels.rule import Channels, Flow, Piece, Rule, Site, emit
from keras_structsparse.graph.cloning import clone
from keras_structsparse.surgery.constant_propagation import settled

MIXERS: dict[int, type[keras.Layer]] = {
    2: layers.Dense,
    3: layers.Conv1D,
    4: layers.Conv2D,
    5: layers.Conv3D,
}


def flow(site: Site) -> Flow:
    """An output channel is live if it is live in any input; else the operation gives its value."""
    width = _width(site)
    live, value = settled(
        site, np.any([_wide(operand.live, width) for operand in site.inputs], axis=0)
    )
    output = Channels(
        ids=site.fresh(width),
        live=live,
        value=value,
        cost=np.sum([_wide(operand.cost, width) for operand in site.inputs], axis=0),
    )
    full = [operand for operand in site.inputs if len(operand) == width]
    narrow = tuple(operand.ids for operand in site.inputs if len(operand) < width)
    return Flow(
        output,
        joins=tuple((output.ids, operand.ids) for operand in full),
        needs=lambda needed: narrow if needed.any() else (),
    )


def flow_product(site: Site) -> Flow:
    """A product with a zero channel is zero, whatever the other factors are."""
    found, width = flow(site), _width(site)
    zero = np.any(
        [_wide(~operand.live & (operand.value == 0), width) for operand in site.inputs], axis=0
    )
    output = found.output
    value = np.where(zero, 0.0, output.value)
    return replace(found, output=output.passed(live=output.live & ~zero, value=value))


def build(site: Site, wanted: Array, pieces: Sequence[Piece | None]) -> Piece:
    """The operation on the kept channels."""
    width, held = _width(site), [piece for piece in pieces if piece is not None]
    assert len(held) == len(pieces), "all inputs have the channels of the output"
    operands = list(zip(site.inputs, held, strict=True))
    order = next(piece.order for operand, piece in operands if len(operand) == width)
    tensors = [
        piece.tensor if len(operand) < width else arranged(site, index, piece, order)
        for index, (operand, piece) in enumerate(operands)
    ]
    args, kwargs = site.fill(tensors)
    return Piece(clone(site.operation, name=site.layer_name)(*args, **kwargs), order)


def arranged(
    site: Site, index: int, piece: Piece, order: Array, offset: Array | None = None
) -> Tensor:
    """Spread the channels of a piece by a 1x1 convolution of zeros and ones.

    Args:
        site: The call site.
        index: The index of the input that the piece belongs to.
        piece: The piece.
        order: The original channels that the result has, in order (channels,).
        offset: Values that are added to the result (channels,), or None.

    Returns:
        The tensor; the one of the piece itself if there is nothing to do.
    """
    if offset is None and np.array_equal(piece.order, order):
        return piece.tensor
    rank = len(site.shapes[index])
    places = (piece.order[:, None] == order).astype(float)
    layer = MIXERS[rank](
        len(order),
        **({} if rank == 2 else {"kernel_size": 1, "data_format": site.data_format}),
        use_bias=offset is not None,
        trainable=False,
        dtype=policy(site),
        name=site.derive(f"spread_{index}"),
    )
    kernel = places.reshape((1,) * (rank - 2) + places.shape)
    return emit(layer, piece.tensor, [kernel] if offset is None else [kernel, offset])


def policy(site: Site) -> Any:
    """The dtype policy of a layer; for a bare operation the dtype of its output."""
    return getattr(site.operation, "dtype_policy", site.dtype)


def refuses(site: Site) -> str | None:
    """Refuse arrays as arguments, inputs of different ranks, and channels that do not match."""
    if not all(isinstance(value, Hole | Number | str | None) for value in _arguments(site)):
        return "an array or a variable is among its arguments"
    ranks = {len(shape) for shape in site.shapes}
    if len(ranks) > 1 or not ranks <= set(MIXERS):
        return f"its inputs are not all of one rank from 2 to 5: {site.shapes}"
    if {len(operand) for operand in site.inputs} - {1, _width(site)}:
        return f"the channels of its inputs do not match: {site.shapes}"
    return None


def _arguments(site: Site) -> Iterable[Any]:
    args, kwargs = site.fill([Hole() for _ in site.inputs])
    return [*keras.tree.flatten(args), *keras.tree.flatten(kwargs)]


def _width(site: Site) -> int:
    return max(len(operand) for operand in site.inputs)


def _wide(values: Array, width: int) -> Array:
    return np.broadcast_to(values, (width,))


BOTH = ("x1", "x2")

PRODUCTS = (layers.Multiply, operation_type(keras.ops.multiply, 2))
OTHERS = (
    layers.Subtract,
    layers.Average,
    layers.Maximum,
    layers.Minimum,
    operation_type(keras.ops.subtract, 2),
    operation_type(keras.ops.true_divide, 2),
    operation_type(keras.ops.divide, 2),
    operation_type(keras.ops.power, 2),
    operation_type(keras.ops.maximum, 2),
    operation_type(keras.ops.minimum, 2),
)

register(Rule(flow_product, build, refuses, channels_first=True), *PRODUCTS, understands=BOTH)
register(Rule(flow, build, refuses, channels_first=True), *OTHERS, understands=BOTH)
