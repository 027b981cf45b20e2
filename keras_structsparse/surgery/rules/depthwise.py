"""Depthwise convolutions: every output channel is computed from one input channel.

With zero padding, a constant becomes a spatial pattern that differs from channel to channel, so no
other channel can carry it: there nonzero constants count as live. A channel whose kernel is zero is
constant whatever it reads, so its input channel is removed if nothing else reads it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache

import numpy as np
from keras import layers

from keras_structsparse._typing import Array, Tensor
from keras_structsparse.graph.channels.registry import register
from keras_structsparse.graph.channels.rule import (
    Channels,
    Flow,
    LinearRead,
    Piece,
    Rule,
    Site,
    emit,
    misplaced,
    only,
)
from keras_structsparse.graph.channels.splitting import SegmentCost
from keras_structsparse.graph.channels.weight_provenance import Taken
from keras_structsparse.graph.cloning import clone
from keras_structsparse.surgery import kernel_crops, linear_layers
from keras_structsparse.surgery.activation_functions import activation_reason, is_elementwise
from keras_structsparse.surgery.linear_layers import Bias
from keras_structsparse.surgery.rules.slicing import pick


def flow(site: Site) -> Flow:
    """Each output channel needs the input channel that its kernel reads, and no other.

    It is live if its kernel is not zero and the input channel is live, or a constant with zeros
    around it. Kernels of equal size are preferred side by side. With a depth multiplier, the output
    channels of an input channel are removed together.
    """
    (inputs,), kernel = site.inputs, _matrix(site.weights["kernel"])
    sizes = _sizes(site)
    found, which = np.unique(sizes, return_inverse=True)
    sees = np.array([_sees_border(site, int(size)) for size in found])[which.reshape(sizes.shape)]
    active = inputs.live[:, None] | (inputs.offset[:, None] & sees)
    live = active & (kernel != 0).any(axis=0)
    sums = np.where(active, 0.0, inputs.value[:, None]) * kernel.sum(axis=0)
    output = _output(site, live.ravel(), sums.ravel())
    ids, used = output.ids.reshape(live.shape), live.any(axis=1)
    largest = sizes.max(axis=1)
    keys = np.sort(largest[used]).tolist()

    def needs(needed: Array) -> tuple[Array, ...]:
        return (inputs.ids[(needed.reshape(live.shape) & live).any(axis=1)],)

    return Flow(
        output,
        joins=tuple((ids[:, 0], ids[:, copy]) for copy in range(1, ids.shape[1])),
        needs=needs,
        reads=(LinearRead(inputs, output.ids, groups=len(inputs), singles=True),),
        blocks=True,
        sizes=np.repeat(largest, ids.shape[1]),
        gain=_gain(site, keys),
        notes=_notes(site, used) + kernel_crops.uncroppable(site, max(keys, default=1)),
    )


def _output(site: Site, live: Array, sums: Array) -> Channels:
    """The output channels; ``sums`` are the constants without the bias."""
    (inputs,), copies = site.inputs, len(live) // len(site.inputs[0])
    constants = sums + np.asarray(site.weights.get("bias", 0.0), np.float64)
    value = linear_layers.activated(site, np.where(live, 0.0, constants))
    work = linear_layers.positions(site) * math.prod(site.operation.kernel_size)
    return Channels(
        ids=site.fresh(len(live)),
        live=live,
        value=np.where(live, 0.0, value),
        cost=np.repeat(inputs.cost / copies, copies) + work,
    )


def _sees_border(site: Site, size: int) -> bool:
    """Whether kernels of one size read zeros around a constant."""
    return bool(site.inputs[0].border) or kernel_crops.sees_padding(site, size)


def _sizes(site: Site) -> Array:
    """The sizes of all kernels (in, copies); 1 for kernels of zeros."""
    kernel = site.weights["kernel"]
    sizes = kernel_crops.support_sizes(kernel.reshape(*kernel.shape[:-2], 1, -1))
    return np.asarray(sizes.reshape(kernel.shape[-2:]))


def _gain(site: Site, keys: list[int]) -> float:
    """What it saves to split the kernels, in order of their sizes."""
    cost = _least_cost(site)
    apart = sum(cost(keys[j - 1], j - i) for i, j in site.realize.segments(keys, cost))
    return cost(max(keys, default=1), len(keys)) - apart


def _notes(site: Site, active: Array) -> tuple[str, ...]:
    held = int((active & ~site.inputs[0].live).sum())
    return (f"{held} constant channels are kept: its padding changes each differently",) * bool(
        held
    )


def build(site: Site, wanted: Array, pieces: Sequence[Piece | None]) -> Piece:
    """The layer over the kept channels: one, cropped to its largest kernel, or one for each size.

    Every part of a split reads its own channels, and a concatenation joins the parts.
    """
    piece, copies = only(pieces), site.weights["kernel"].shape[-1]
    channels = wanted[wanted % copies == 0] // copies
    order, sizes = repeated(channels, copies), _sizes(site).max(axis=1)[channels]
    segments = site.realize.segments(sizes.tolist(), _least_cost(site))
    if len(segments) == 1:
        return Piece(_depthwise(site, piece, channels, site.layer_name), order)
    parts = [
        _depthwise(site, piece, channels[start:stop], site.derive(f"part_{index}"))
        for index, (start, stop) in enumerate(segments)
    ]
    policy = site.operation.dtype_policy
    join = layers.Concatenate(site.axis, dtype=policy, name=site.derive("parts"))
    return Piece(join(parts), order)


def _depthwise(site: Site, piece: Piece, channels: Array, name: str) -> Tensor:
    """A layer over some input channels, cropped to its largest kernel.

    Outputs whose input channel is removed are constant: their kernels of zeros read any channel.
    """
    place = {int(channel): index for index, channel in enumerate(piece.order)}
    places = np.array([place.get(int(channel), 0) for channel in channels])
    tensor = pick(piece.tensor, places, site.derive, site.axis)
    kernel, bias = _weights(site, channels, np.isin(channels, piece.order))
    sizes = kernel_crops.windows(site, int(_sizes(site)[channels].max()))
    size = min(sizes, key=lambda size: _cost(site, size)(len(channels)))
    tensor, kernel, changes = kernel_crops.cropped(site, tensor, kernel, size)
    changes |= {"kernel_size": kernel.values.shape[:-2], "use_bias": bias is not None}
    layer = clone(site.operation, name=name, **changes)
    return emit(layer, tensor, [kernel] if bias is None else [kernel, bias])


def _weights(site: Site, channels: Array, read: Array) -> tuple[Taken, Bias]:
    """The kernel and the bias over some input channels.

    Args:
        site: The call site.
        channels: The channels.
        read: Which of them the new layer reads; the others are constants, or have kernels of zeros.
    """
    (inputs,), kernel = site.inputs, site.taken("kernel").along(-2, channels)
    order = repeated(channels, kernel.values.shape[-1])
    bias = site.taken("bias").along(0, order) if "bias" in site.weights else None
    constants = np.where(read | inputs.live[channels], 0.0, inputs.value[channels])
    lost = (constants[:, None] * _matrix(kernel.values).sum(axis=0, dtype=np.float64)).ravel()
    kernel = kernel.holding(np.where(read[:, None], kernel.values, 0))
    if not lost.any():
        return kernel, bias
    return kernel, lost if bias is None else bias.holding(bias.values + lost)


def _least_cost(site: Site) -> SegmentCost:
    """The least cost of a part, by the size of its largest kernel and its number of channels."""

    @cache
    def windows(size: int) -> list[Callable[[int], float]]:
        return [_cost(site, window) for window in kernel_crops.windows(site, size)]

    def least(size: int, channels: int) -> float:
        return min(cost(channels) for cost in windows(size))

    return least


def _cost(site: Site, size: int) -> Callable[[int], float]:
    """The cost of a part with kernels of one size, its padding and picking, by its channels."""
    costs, places = site.realize.costs, linear_layers.positions(site)
    copies, area = site.weights["kernel"].shape[-1], kernel_crops.area(site, size)
    picking = math.prod(side or 1 for side in site.shapes[0][1:-1]) * costs.move
    start = kernel_crops.padding_cost(site, 0, size)
    padding = kernel_crops.padding_cost(site, 1, size) - start

    def cost(channels: int) -> float:
        work = costs.convolution(places, area, 1, channels * copies)
        return work + start + costs.start + (padding + picking) * channels

    return cost


def repeated(order: Array, copies: int) -> Array:
    """The output channels that are computed from some input channels.

    Args:
        order: The input channels (channels,).
        copies: The depth multiplier.

    Returns:
        The output channels (channels * copies,).
    """
    return np.asarray((order[:, None] * copies + np.arange(copies)).ravel())


def refuses(site: Site) -> str | None:
    """Refuse activations that may mix channels, unknown weights, and another data format."""
    if not is_elementwise(site.operation.activation):
        return activation_reason(site.operation.activation)
    known = {"kernel", "depthwise_kernel", "pointwise_kernel", "bias"}
    return linear_layers.unknown_weights(site, known) or misplaced(site)


def flow_separable(site: Site) -> Flow:
    """The product of the two kernels is the kernel of a convolution."""
    found = linear_layers.flow(joined := _as_convolution(site), padded=False)
    return replace(found, notes=found.notes + _notes(site, joined.inputs[0].live))


def build_separable(site: Site, wanted: Array, pieces: Sequence[Piece | None]) -> Piece:
    """Both kernels over the kept channels."""
    piece = only(pieces)
    bias = linear_layers.shrunk_bias(_as_convolution(site), piece.order, wanted, padded=False)
    depthwise = site.taken("depthwise_kernel").along(-2, piece.order)
    rows = repeated(piece.order, depthwise.values.shape[-1])
    pointwise = site.taken("pointwise_kernel").along(-2, rows).along(-1, wanted)
    layer = clone(
        site.operation, name=site.layer_name, filters=len(wanted), use_bias=bias is not None
    )
    weights = [depthwise, pointwise] if bias is None else [depthwise, pointwise, bias]
    return Piece(emit(layer, piece.tensor, weights), wanted)


def _as_convolution(site: Site) -> Site:
    """The site with one kernel (positions, in, out); constants behind padding count as live."""
    depthwise = _matrix(np.asarray(site.weights["depthwise_kernel"], np.float64))
    pointwise = np.asarray(site.weights["pointwise_kernel"], np.float64)
    pointwise = pointwise.reshape(*depthwise.shape[1:], -1)
    kernel = np.einsum("pik,iko->pio", depthwise, pointwise)
    bias = {name: value for name, value in site.weights.items() if name == "bias"}
    (inputs,) = site.inputs
    if _is_padded(site):
        inputs = inputs.passed(live=inputs.live | inputs.offset)
    return replace(site, weights={"kernel": kernel, **bias}, inputs=(inputs,))


def _matrix(kernel: Array) -> Array:
    """A depthwise kernel reshaped to (positions, in, copies)."""
    return kernel.reshape(-1, *kernel.shape[-2:])


def _is_padded(site: Site) -> bool:
    return site.operation.padding != "valid" and max(site.operation.kernel_size) > 1


register(
    Rule(flow, build, refuses, borders=True, channels_first=True),
    layers.DepthwiseConv1D,
    layers.DepthwiseConv2D,
)
register(
    Rule(flow_separable, build_separable, refuses, channels_first=True),
    layers.SeparableConv1D,
    layers.SeparableConv2D,
)
