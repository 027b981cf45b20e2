"""Convolutions: remove kernels, move constants, crop supports, and split by kernel size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial

import keras
import numpy as np

from keras_structsparse._typing import Array, Tensor
from keras_structsparse.graph.channels.constant_maps import computed
from keras_structsparse.graph.channels.registry import register
from keras_structsparse.graph.channels.rule import Flow, Piece, Rule, Site, emit, misplaced, only
from keras_structsparse.graph.channels.splitting import Segmentation, SegmentCost, one_segment
from keras_structsparse.graph.channels.weight_provenance import Taken
from keras_structsparse.graph.cloning import clone
from keras_structsparse.graph.onednn import overflows
from keras_structsparse.surgery import constant_maps, kernel_crops, linear_layers
from keras_structsparse.surgery.activation_functions import is_elementwise
from keras_structsparse.surgery.kernel_crops import support_sizes
from keras_structsparse.surgery.linear_layers import Bias
from keras_structsparse.surgery.onednn_workaround import picked
from keras_structsparse.surgery.rules.slicing import pick


def flow(site: Site) -> Flow:
    """As for any linear layer; kernels of equal size are preferred side by side."""
    found = linear_layers.flow(site, _is_padded(site))
    sizes = support_sizes(site.weights["kernel"])
    inputs = int(computed(site.inputs[0]).sum()) // linear_layers.groups_of(site)
    live, cost = found.output.live, _least_cost(site, inputs)
    keys = sorted(sizes[live].tolist())
    segments = _segmentation(site)(keys, cost)
    apart = sum(cost(keys[stop - 1], stop - start) for start, stop in segments)
    together = cost(max(keys, default=1), len(keys))
    notes = found.notes + kernel_crops.uncroppable(site, max(keys, default=1))
    return replace(found, sizes=sizes, gain=together - apart, notes=notes)


def build(site: Site, wanted: Array, pieces: Sequence[Piece | None]) -> Piece:
    """The convolution with the kept kernels over the kept channels.

    It is one convolution, cropped to its largest kernel, or, if that costs less, several and a
    concatenation.
    """
    piece = only(pieces)
    rows = linear_layers.read_rows(site, piece.order, wanted)
    offset = constant_maps.removed(site, rows, wanted)
    convolution = partial(_convolution, site, _picked(site, piece, rows), offset is not None)
    kernel, bias = linear_layers.shrunk(site, rows, wanted, _is_padded(site))
    sizes = support_sizes(kernel.values)
    segments = _segmentation(site)(sizes.tolist(), _least_cost(site, kernel.values.shape[-2]))
    if len(segments) == 1:
        tensor = convolution(site.layer_name, kernel, bias)
        return Piece(constant_maps.added(site, tensor, offset), wanted)
    parts = [
        convolution(
            site.derive(f"part_{index}"),
            kernel.along(-1, slice(start, stop)),
            _part(bias, slice(start, stop)),
        )
        for index, (start, stop) in enumerate(segments)
    ]
    policy = site.operation.dtype_policy
    join = keras.layers.Concatenate(site.axis, dtype=policy, name=site.derive("parts"))
    return Piece(constant_maps.added(site, join(parts), offset), wanted)


def _segmentation(site: Site) -> Segmentation:
    """How to split the kernels by size.

    The kernels of a group must stay side by side, and those that an activation may mix.
    """
    together = linear_layers.groups_of(site) > 1 or not is_elementwise(site.operation.activation)
    return one_segment if together else site.realize.segments


def _picked(site: Site, piece: Piece, rows: Array) -> Tensor:
    """The channels ``rows`` of a piece; its other channels belong to removed groups."""
    if linear_layers.groups_of(site) == 1:
        return piece.tensor
    places = {int(channel): place for place, channel in enumerate(piece.order)}
    return pick(piece.tensor, np.array([places[int(row)] for row in rows]), site.derive)


def _part(bias: Bias, part: slice) -> Bias:
    if isinstance(bias, Taken):
        return bias.along(0, part)
    return None if bias is None else bias[part]


def _convolution(
    site: Site, tensor: Tensor, linear: bool, name: str, kernel: Taken, bias: Bias
) -> Tensor:
    size = _window(site, kernel.values)
    tensor, kernel, changes = kernel_crops.cropped(site, tensor, kernel, size)
    changes |= {"activation": None} if linear else {}
    if _overflows_now(site, kernel.values.shape):
        tensor, changes = picked(site, tensor), {**changes, "strides": 1}
    layer = clone(
        site.operation,
        name=name,
        filters=kernel.values.shape[-1],
        groups=tensor.shape[site.axis] // kernel.values.shape[-2],
        kernel_size=kernel.values.shape[:-2],
        use_bias=bias is not None,
        **changes,
    )
    return emit(layer, tensor, [kernel] if bias is None else [kernel, bias])


def _overflows_now(site: Site, kernel: Sequence[int]) -> bool:
    """Whether the oneDNN bug affects the new kernel, but not the original one."""
    strides = site.operation.strides
    return overflows(kernel, strides) and not overflows(site.weights["kernel"].shape, strides)


def _window(site: Site, kernel: Array) -> int:
    """The cheapest size that holds all nonzero entries: a larger one may need no padding."""
    *_, inputs, kernels = kernel.shape
    sizes = kernel_crops.windows(site, int(support_sizes(kernel).max()))
    return min(sizes, key=lambda size: _cost(site, inputs, size)(kernels))


def _least_cost(site: Site, inputs: int) -> SegmentCost:
    """The least cost of a convolution, by the size of its largest kernel and their number."""

    @cache
    def windows(size: int) -> list[Callable[[int], float]]:
        return [_cost(site, inputs, window) for window in kernel_crops.windows(site, size)]

    def least(size: int, kernels: int) -> float:
        return min(cost(kernels) for cost in windows(size))

    return least


def _cost(site: Site, inputs: int, size: int) -> Callable[[int], float]:
    """The cost of a convolution with kernels of one size and its padding, by their number."""
    costs, output_places = site.realize.costs, linear_layers.positions(site)
    area, padding = kernel_crops.area(site, size), kernel_crops.padding_cost(site, inputs, size)
    return lambda kernels: costs.convolution(output_places, area, inputs, kernels) + padding


def refuses(site: Site) -> str | None:
    """Refuse grouped convolutions with channels first, and weights besides kernel and bias."""
    if linear_layers.groups_of(site) > 1 and site.axis != -1:
        return "it is a grouped convolution with channels first"
    return linear_layers.unknown_weights(site) or misplaced(site)


def _is_padded(site: Site) -> bool:
    """Whether the nonzero entries of the kernels read zero padding."""
    return kernel_crops.sees_padding(site, int(support_sizes(site.weights["kernel"]).max()))


register(
    Rule(flow, build, refuses, borders=True, channels_first=True, maps=constant_maps.addable),
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
)
