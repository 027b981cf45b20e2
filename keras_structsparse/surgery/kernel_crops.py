"""Crop the supports of kernels, with padding that makes the cropped ones read the same inputs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_structsparse._typing import Array, Shape, Tensor
from keras_structsparse.graph import nested_groups
from keras_structsparse.graph.channels.rule import Site
from keras_structsparse.graph.channels.weight_provenance import Taken

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


def windows(site: Site, least: int) -> list[int]:
    """The sizes, from ``least`` up, to which the kernels can be cropped."""
    largest = max(site.operation.kernel_size)
    smaller = range(least, largest) if site.realize.crops and _can_pad(site) else ()
    return [*(size for size in smaller if needed_pads(site, size) is not None), largest]


def _can_pad(site: Site) -> bool:
    """Whether Keras can pad and crop the input: not one spatial axis with channels first."""
    return site.axis == -1 or len(site.operation.kernel_size) > 1


def padding_cost(site: Site, inputs: int, size: int) -> float:
    """What the padding of the input costs for kernels of one size.

    Args:
        site: The call site.
        inputs: The number of channels that are padded.
        size: The size.
    """
    costs, places = site.realize.costs, math.prod(side or 1 for side in site.shapes[0][1:-1])
    stages = len(_stages(explicit_pads(site, size) or []))
    return stages * (places * inputs * costs.move + costs.start)


def area(site: Site, size: int) -> int:
    """The number of positions of kernels of one size."""
    return math.prod(min(side, size) for side in site.operation.kernel_size)


def cropped(
    site: Site, tensor: Tensor, kernel: Taken, size: int
) -> tuple[Tensor, Taken, dict[str, Any]]:
    """Crop kernels.

    Args:
        site: The call site.
        tensor: The input of the new layer.
        kernel: The kernel (*spatial, in, out), or depthwise (*spatial, in, copies).
        size: The size to which it is cropped.

    Returns:
        The input with the padding that the cropped kernel needs, the cropped kernel, and the
        options of the layer that change.
    """
    pads = explicit_pads(site, size)
    for axis, part in enumerate(nested_groups.support(kernel.values.shape[:-2], size)):
        kernel = kernel.along(axis, part)
    if pads is None:
        return tensor, kernel, {}
    return _padded(site, tensor, pads), kernel, {"padding": "valid"}


def uncroppable(site: Site, size: int) -> tuple[str, ...]:
    """A note if kernels of one size cannot be cropped."""
    if size == max(site.operation.kernel_size) or needed_pads(site, size) is not None:
        return ()
    return (f"its kernels of size {size} cannot be cropped, as its padding is not known",)


def sees_padding(site: Site, size: int) -> bool:
    """Whether kernels of one size read zeros beyond the boundary of the map."""
    pads = needed_pads(site, size)
    return pads is None or any(number > 0 for pair in pads for number in pair)


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
    found: list[Stage] = [(PADDINGS, "pad", grow), (CROPPINGS, "crop", crop)]
    return [stage for stage in found if np.any(stage[2])]


def explicit_pads(site: Site, size: int) -> Pads | None:
    """The padding that cropped kernels need; None if the padding option of the layer gives it."""
    layer, shape = site.operation, site.operation.kernel_size
    pads = needed_pads(site, size)
    small = [min(side, size) for side in shape]
    return None if pads == _own_pads(site.shapes[0], layer, small) else pads


def needed_pads(site: Site, size: int) -> Pads | None:
    """The padding with which cropped kernels read the same inputs; None if it is unknown.

    A kernel of K positions that keeps k of them, from position a on, with dilation d, needs
    ``before = P_before(K) - a d`` and ``after = P_after(K) - (K - a - k) d``.
    """
    layer, shape = site.operation, site.operation.kernel_size
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


def support_sizes(kernel: Array) -> Array:
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
