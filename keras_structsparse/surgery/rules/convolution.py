"""Convolutions: kernels removed, constants moved, supports cropped, sizes split."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from keras_structsparse import graph, groups
from keras_structsparse.surgery import linear
from keras_structsparse.surgery.channels import Flow, Piece, Rule, Shape, Site, emit
from keras_structsparse.surgery.costs import cut
from keras_structsparse.surgery.registry import register

Array = Any
Tensor = Any
Pads = list[tuple[int, int]]

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
    """The channels behind a convolution; kernels of equal size are best side by side."""
    found = linear.flow(site, _is_padded(site))
    sizes = _support_sizes(site.weights["kernel"])
    live, price = found.output.live, _price(site, len(site.inputs[0]))
    keys = sorted(sizes[live].tolist())
    apart = sum(price(keys[stop - 1], stop - start) for start, stop in cut(keys, price))
    together = price(max(keys, default=1), len(keys))
    return replace(found, sizes=sizes, gain=together - apart)


def build(site: Site, wanted: Array, pieces: Sequence[Piece | None]) -> Piece:
    """The convolution with the kept kernels over the kept channels.

    One convolution cropped to its largest kernel, or several followed by a concatenation where
    that costs less.
    """
    (piece,) = pieces
    assert piece is not None, "layout.choose leaves every layer something to read"
    kernel, bias = linear.shrunk(site, piece.order, wanted, _is_padded(site))
    sizes = _support_sizes(kernel)
    segments = cut(sizes.tolist(), _price(site, len(piece.order)))
    if len(segments) == 1:
        return Piece(_convolution(site, site.layer_name, kernel, bias, piece.tensor), wanted)
    parts = [
        _convolution(
            site,
            f"{site.layer_name}_part_{index}",
            kernel[..., start:stop],
            None if bias is None else bias[start:stop],
            piece.tensor,
        )
        for index, (start, stop) in enumerate(segments)
    ]
    policy = site.operation.dtype_policy
    join = keras.layers.Concatenate(dtype=policy, name=f"{site.layer_name}_parts")
    return Piece(join(parts), wanted)


def _convolution(
    site: Site, name: str, kernel: Array, bias: Array | None, tensor: Tensor
) -> Tensor:
    kernel, pads = _cropped(site, kernel)
    changes = {} if pads is None else {"padding": "valid"}
    layer = graph.clone(
        site.operation,
        name=name,
        filters=kernel.shape[-1],
        kernel_size=kernel.shape[:-2],
        use_bias=bias is not None,
        **changes,
    )
    tensor = tensor if pads is None else _padded(tensor, pads, name, layer.dtype_policy)
    return emit(layer, tensor, [kernel] if bias is None else [kernel, bias])


def _price(site: Site, inputs: int) -> Callable[[int, int], float]:
    """What a convolution of so many kernels, the largest of a given size, costs."""
    shape, places = site.operation.kernel_size, linear.positions(site)

    def price(size: int, kernels: int) -> float:
        area = math.prod(min(side, size) for side in shape)
        work = places * kernels * (inputs * area + site.costs.move)
        return work + site.costs.start

    return price


def refuses(site: Site) -> str | None:
    """Grouped and channels-first convolutions have their own order of channels."""
    layer = site.operation
    if layer.groups != 1:
        return "it is a grouped convolution"
    if layer.data_format != "channels_last":
        return "its data format is channels_first"
    extra = set(site.weights) - {"kernel", "bias"}
    return f"it has weights that the rule does not know: {sorted(extra)}" if extra else None


def _padded(tensor: Tensor, pads: Pads, name: str, policy: Any) -> Tensor:
    """The tensor with each spatial axis padded before and after; negative numbers crop."""
    grow = [(max(before, 0), max(after, 0)) for before, after in pads]
    cut = [(max(-before, 0), max(-after, 0)) for before, after in pads]
    for amounts, kinds, suffix in ((cut, CROPPINGS, "crop"), (grow, PADDINGS, "pad")):
        if np.any(amounts):
            argument = amounts[0] if len(amounts) == 1 else amounts
            layer = kinds[len(pads)](argument, name=f"{name}_explicit_{suffix}", dtype=policy)
            tensor = layer(tensor)
    return tensor


def _is_padded(site: Site) -> bool:
    layer = site.operation
    return layer.padding != "valid" and max(layer.kernel_size) > 1


def _cropped(site: Site, kernel: Array) -> tuple[Array, Pads | None]:
    """The kernel cropped to the support of its entries, and the explicit padding it needs.

    With k of K entries kept from ``a = (K - k + 1) // 2`` on and dilation d, the crop sees the
    same inputs at ``before = P_before(K) - a d``, ``after = P_after(K) - (K - a - k) d``. None
    stands for the layer's own padding, where that comes to the same.
    """
    layer, shape = site.operation, kernel.shape[:-2]
    size = int(_support_sizes(kernel).max())
    if size == max(shape):
        return kernel, None
    base = _same_pads(site.shapes[0], layer, shape) if layer.padding != "valid" else None
    if layer.padding != "valid" and base is None:
        return kernel, None
    inside = groups.support(shape, size)
    small = kernel[inside]
    base = base or [(0, 0)] * len(shape)
    pads = [
        (before - part.start * d, after - (full - part.stop) * d)
        for (before, after), part, full, d in zip(
            base, inside, shape, layer.dilation_rate, strict=True
        )
    ]
    if layer.padding == "same" and pads == _same_pads(site.shapes[0], layer, small.shape[:-2]):
        return small, None
    return small, pads


def _support_sizes(kernel: Array) -> Array:
    """For each kernel the least size whose support holds its entries; 1 for a kernel of zeros."""
    shape = kernel.shape[:-2]
    entries = (kernel != 0).any(axis=-2).reshape(-1, kernel.shape[-1])
    reached = (groups.masks(shape, "half_ring") @ entries) > 0
    return np.maximum(reached.sum(axis=0), 1)


def _same_pads(input_shape: Shape, layer: keras.Layer, shape: Sequence[int]) -> Pads | None:
    """The padding of a ``same`` or ``causal`` convolution; None where the input size decides."""
    pads = []
    for n, k, s, d in zip(
        input_shape[1:-1], shape, layer.strides, layer.dilation_rate, strict=True
    ):
        reach = (k - 1) * d
        if layer.padding == "causal":
            pads.append((reach, 0))
        elif s == 1:
            pads.append((reach // 2, reach - reach // 2))
        elif n is None:
            return None
        else:
            total = max((-(-n // s) - 1) * s + reach + 1 - n, 0)
            pads.append((total // 2, total - total // 2))
    return pads


register(
    Rule(flow, build, refuses, borders=True),
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
)
