"""Convolutions: remove kernels, move constants, crop supports, and split by kernel size."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any

import keras
import numpy as np

from keras_structsparse._typing import Array, Shape, Tensor
from keras_structsparse.graph import nested_groups
from keras_structsparse.graph.channels.constant_maps import computed
from keras_structsparse.graph.channels.registry import register
from keras_structsparse.graph.channels.rule import Flow, Piece, Rule, Site, emit, misplaced, only
from keras_structsparse.graph.channels.splitting import Segmentation, SegmentCost, one_segment
from keras_structsparse.graph.channels.weight_provenance import Taken
from keras_structsparse.graph.cloning import clone
from keras_structsparse.graph.onednn import overflows
from keras_structsparse.surgery import constant_maps, linear_layers
from keras_structsparse.surgery.activation_functions import is_elementwise
from keras_structsparse.surgery.linear_layers import Bias
from keras_structsparse.surgery.onednn_workaround import picked
from keras_structsparse.surgery.rules.slicing import pick

Pads = list[tuple[int, int]]
"""Zero padding before and after, for each spatial axis; negative numbers crop."""

Stage = tuple[dict[int, type[keras.Layer]], str, Pads]
"""Layer types by number of spatial axes, a suffix for the name, and amounts >= 0."""

PADDINGS: dict[int, type[keras.Layer]] = {
    1: keras.layers.ZeroPadding1D,
    2: keras.layers.ZeroPadding2D,
    3: keras.layers.ZeroPadding3D,
}
CROPPINGS: dict[int, type[keras.Layer]] = {
    1: keras.layers.Cropping1D,
    2: keras.layers.Cropping2D,
    3: keras.layers.Cropping3D,
}


def flow(site: Site) -> Flow:
    """As for any linear layer; kernels of equal size are preferred side by side."""
    found = linear_layers.flow(site, _is_padded(site))
    sizes = _support_sizes(site.weights["kernel"])
    inputs = int(computed(site.inputs[0]).sum()) // linear_layers.groups_of(site)
    live, cost = found.output.live, _least_cost(site, inputs)
    keys = sorted(sizes[live].tolist())
    segments = _segmentation(site)(keys, cost)
    apart = sum(cost(keys[stop - 1], stop - start) for start, stop in segments)
    together = cost(max(keys, default=1), len(keys))
    notes = found.notes + _uncroppable(site, max(keys, default=1))
    return replace(found, sizes=sizes, gain=together - apart, notes=notes)


def _uncroppable(site: Site, size: int) -> tuple[str, ...]:
    shape = site.operation.kernel_size
    if size == max(shape) or _pads(site, shape, size) is not None:
        return ()
    return (f"its kernels of size {size} cannot be cropped, as its padding is not known",)


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
    sizes = _support_sizes(kernel.values)
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
    pads = _explicit_pads(site, size)
    for axis, part in enumerate(nested_groups.support(kernel.values.shape[:-2], size)):
        kernel = kernel.along(axis, part)
    changes: dict[str, Any] = {} if pads is None else {"padding": "valid"}
    changes |= {"activation": None} if linear else {}
    tensor = tensor if pads is None else _padded(site, tensor, pads)
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
    sizes = _windows(site, int(_support_sizes(kernel).max()))
    return min(sizes, key=lambda size: _cost(site, inputs, size)(kernels))


def _windows(site: Site, least: int) -> list[int]:
    """The sizes, from ``least`` up, to which the kernels can be cropped."""
    shape = site.operation.kernel_size
    largest = max(shape)
    smaller = range(least, largest) if site.realize.crops and _can_pad(site) else ()
    return [*(size for size in smaller if _pads(site, shape, size) is not None), largest]


def _can_pad(site: Site) -> bool:
    """Whether Keras can pad and crop the input: not one spatial axis with channels first."""
    return site.axis == -1 or len(site.operation.kernel_size) > 1


def _least_cost(site: Site, inputs: int) -> SegmentCost:
    """The least cost of a convolution, by the size of its largest kernel and their number."""

    @cache
    def windows(size: int) -> list[Callable[[int], float]]:
        return [_cost(site, inputs, window) for window in _windows(site, size)]

    def least(size: int, kernels: int) -> float:
        return min(cost(kernels) for cost in windows(size))

    return least


def _cost(site: Site, inputs: int, size: int) -> Callable[[int], float]:
    """The cost of a convolution with kernels of one size and its padding, by their number."""
    costs, output_places = site.realize.costs, linear_layers.positions(site)
    area = math.prod(min(side, size) for side in site.operation.kernel_size)
    input_places = math.prod(side or 1 for side in site.shapes[0][1:-1])
    stages = len(_stages(_explicit_pads(site, size) or []))
    padding = stages * (input_places * inputs * costs.move + costs.start)
    return lambda kernels: costs.convolution(output_places, area, inputs, kernels) + padding


def refuses(site: Site) -> str | None:
    """Refuse grouped convolutions with channels first, and weights besides kernel and bias."""
    if linear_layers.groups_of(site) > 1 and site.axis != -1:
        return "it is a grouped convolution with channels first"
    return linear_layers.unknown_weights(site) or misplaced(site)


def _padded(site: Site, tensor: Tensor, pads: Pads) -> Tensor:
    """Pad each spatial axis of a tensor before and after; negative numbers crop."""
    options: dict[str, Any] = {"dtype": site.operation.dtype_policy}
    if len(pads) > 1:
        options["data_format"] = site.data_format
    for kinds, suffix, amounts in _stages(pads):
        argument = amounts[0] if len(amounts) == 1 else amounts
        name = site.derive(f"explicit_{suffix}")
        tensor = kinds[len(pads)](argument, name=name, **options)(tensor)
    return tensor


def _stages(pads: Pads) -> list[Stage]:
    """The layers that pad and then crop; cropping first could leave an empty map."""
    crop = [(max(-before, 0), max(-after, 0)) for before, after in pads]
    grow = [(max(before, 0), max(after, 0)) for before, after in pads]
    stages = [(PADDINGS, "pad", grow), (CROPPINGS, "crop", crop)]
    return [stage for stage in stages if np.any(stage[2])]


def _is_padded(site: Site) -> bool:
    """Whether the nonzero entries of the kernels read zero padding."""
    size = int(_support_sizes(site.weights["kernel"]).max())
    pads = _pads(site, site.operation.kernel_size, size)
    return pads is None or any(number > 0 for pair in pads for number in pair)


def _explicit_pads(site: Site, size: int) -> Pads | None:
    """The padding that cropped kernels need; None if the padding option of the layer gives it."""
    layer, shape = site.operation, site.operation.kernel_size
    pads = _pads(site, shape, size)
    small = [min(side, size) for side in shape]
    return None if pads == _own_pads(site.shapes[0], layer, small) else pads


def _pads(site: Site, shape: Sequence[int], size: int) -> Pads | None:
    """The padding with which cropped kernels read the same inputs; None if it is unknown.

    A kernel of K positions that keeps k of them, from position a on, with dilation d, needs
    ``before = P_before(K) - a d`` and ``after = P_after(K) - (K - a - k) d``.
    """
    layer = site.operation
    whole = _own_pads(site.shapes[0], layer, shape)
    if whole is None:
        return None
    return [
        (before - part.start * d, after - (full - part.stop) * d)
        for (before, after), part, full, d in zip(
            whole,
            nested_groups.support(tuple(shape), size),
            shape,
            layer.dilation_rate,
            strict=True,
        )
    ]


def _support_sizes(kernel: Array) -> Array:
    """The smallest size of each kernel that contains its nonzero entries (out,); at least 1."""
    shape = kernel.shape[:-2]
    if math.prod(shape) == 1:  # as most kernels of residual networks: nothing to look for
        return np.ones(kernel.shape[-1], int)
    entries = (kernel != 0).any(axis=-2).reshape(-1, kernel.shape[-1])
    reached = (nested_groups.masks(shape, "half_ring") @ entries) > 0
    return np.maximum(reached.sum(axis=0), 1)


def _own_pads(input_shape: Shape, layer: keras.Layer, shape: Sequence[int]) -> Pads | None:
    """The padding of the layer for a kernel of some shape; None if it is unknown.

    It is unknown if it depends on an open input size. It also is with three spatial axes if strides
    skip the last entries: there TensorFlow skips the first ones as well.
    """
    pads = []
    for n, k, s, d in zip(
        input_shape[1:-1], shape, layer.strides, layer.dilation_rate, strict=True
    ):
        reach = (k - 1) * d
        if layer.padding == "valid":
            pads.append((0, 0))
        elif layer.padding == "causal":
            pads.append((reach, 0))
        elif s == 1:
            pads.append((reach // 2, reach - reach // 2))
        elif n is None:
            return None
        else:
            missing = (-(-n // s) - 1) * s + reach + 1 - n
            if missing < 0 and len(shape) == 3:
                return None
            total = max(missing, 0)
            pads.append((total // 2, total - total // 2))
    return pads


register(
    Rule(flow, build, refuses, borders=True, channels_first=True, maps=constant_maps.addable),
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
)
