"""Where each type of layer keeps the kernels that can be removed one by one, and on which axes.

One table. In the plain order of axes, kernels are arrays (*spatial, in, out). A depthwise kernel
(*spatial, in, copies) is in plain order an array (*spatial, 1, in * copies): every output channel
has a kernel with one input channel.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import keras
import numpy as np
from keras import layers

from keras_structsparse._typing import Array
from keras_structsparse._validation import MIXED


@dataclass(frozen=True)
class KernelAxes:
    """How a type of layer keeps its kernels.

    Attributes:
        weight: The attribute with the variable.
        regularizer: The attribute with the regularizer of the variable.
        layout: The order of the axes of the variable: "plain"; "transposed", (*spatial, out, in);
            or "depthwise", (*spatial, in, copies).
        sized: Whether kernels can become smaller; otherwise they are kept whole or removed.
    """

    weight: str = "kernel"
    regularizer: str = "kernel_regularizer"
    layout: str = "plain"
    sized: bool = True

    @property
    def transposed(self) -> bool:
        """Whether the variable is (*spatial, out, in)."""
        return self.layout == "transposed"

    def plain(self, values: Array) -> Array:
        """Values of the variable as an array (*spatial, in, out)."""
        if self.layout == "depthwise":
            return values.reshape(*values.shape[:-2], 1, -1)
        return np.swapaxes(values, -1, -2) if self.transposed else values

    def numbers(self, places: Sequence[Sequence[int]], shape: Sequence[int]) -> tuple[int, ...]:
        """The numbers of kernels.

        Args:
            places: For each axis of the variable the indices of the entries of the kernels.
            shape: The shape of the variable.
        """
        if self.layout == "depthwise":
            pairs = np.asarray(places[-2])[:, None] * shape[-1] + np.asarray(places[-1])
            return tuple(pairs.ravel().tolist())
        return tuple(places[-2 if self.transposed else -1])


_PLAIN = KernelAxes()
_TRANSPOSED = KernelAxes(layout="transposed", sized=False)
_DEPTHWISE = KernelAxes(regularizer="depthwise_regularizer", layout="depthwise")
_POINTWISE = KernelAxes("pointwise_kernel", "pointwise_regularizer")

KERNELS: Mapping[type[keras.Layer], KernelAxes] = MappingProxyType(
    {
        layers.Conv1D: _PLAIN,
        layers.Conv2D: _PLAIN,
        layers.Conv3D: _PLAIN,
        layers.Dense: _PLAIN,
        layers.DepthwiseConv1D: _DEPTHWISE,
        layers.DepthwiseConv2D: _DEPTHWISE,
        layers.Conv1DTranspose: _TRANSPOSED,
        layers.Conv2DTranspose: _TRANSPOSED,
        layers.Conv3DTranspose: _TRANSPOSED,
        layers.SeparableConv1D: _POINTWISE,
        layers.SeparableConv2D: _POINTWISE,
    }
)
"""The exact types of layers: a subclass may use its kernel in any way."""


def axes_of(layer: keras.Layer) -> KernelAxes:
    """The entry of a layer in the table; that of a plain kernel for other layers."""
    return KERNELS.get(type(layer), _PLAIN)


def kernel_of(layer: keras.Layer) -> keras.Variable:
    """The variable with the kernels of a layer.

    Examples:
        >>> layer = layers.SeparableConv2D(4, 3)
        >>> layer.build((None, 8, 8, 2))
        >>> tuple(kernel_of(layer).shape)
        (1, 1, 2, 4)
    """
    return getattr(layer, axes_of(layer).weight)


def plain_kernel(layer: keras.Layer) -> Array:
    """The kernels of a layer (*spatial, in, out). The array may share its memory with them."""
    return axes_of(layer).plain(keras.ops.convert_to_numpy(kernel_of(layer)))


def stored(layer: keras.Layer, values: Array) -> Array:
    """Kernels, or one number for each, in the order of axes of the variable of a layer.

    Args:
        layer: The layer.
        values: Array (*spatial, in, out), or one that is broadcast to it, such as (1, out).

    Examples:
        >>> layer = layers.DepthwiseConv2D(3, depth_multiplier=2)
        >>> layer.build((None, 8, 8, 2))
        >>> stored(layer, plain_kernel(layer)).shape, stored(layer, np.ones((1, 4))).shape
        ((3, 3, 2, 2), (2, 2))
    """
    axes = axes_of(layer)
    if axes.layout == "depthwise":
        return values.reshape(*values.shape[:-2], *kernel_of(layer).shape[-2:])
    return axes.plain(values)


def plain_shape(layer: keras.Layer) -> tuple[int, ...]:
    """The shape (*spatial, in, out) of the kernels of a layer.

    Examples:
        >>> layer = layers.Conv2DTranspose(4, 3)
        >>> layer.build((None, 8, 8, 2))
        >>> tuple(layer.kernel.shape), plain_shape(layer)
        ((3, 3, 4, 2), (3, 3, 2, 4))
    """
    *spatial, first, last = kernel_of(layer).shape
    if axes_of(layer).layout == "depthwise":
        return (*spatial, 1, first * last)
    return (*spatial, last, first) if axes_of(layer).transposed else (*spatial, first, last)


def base_size(layer: keras.Layer) -> int:
    """The size of a whole kernel of a layer."""
    return max(plain_shape(layer)[:-2], default=1)


def groups_of(layer: keras.Layer, groups: str) -> str:
    """The kind of groups that plans for a layer can have.

    Args:
        layer: The layer.
        groups: The kind that is wanted: "half_ring", "ring" or "kernel"; or "mixed": half-rings,
            but whole depthwise kernels.

    Returns:
        That kind, or "kernel" if the kernels of the layer are kept whole or removed.

    Examples:
        >>> [groups_of(layers.Conv2D(4, 3), "mixed"), groups_of(layers.DepthwiseConv2D(3), "mixed")]
        ['half_ring', 'kernel']
    """
    axes = axes_of(layer)
    if groups == MIXED:
        return "half_ring" if axes.sized and axes.layout != "depthwise" else "kernel"
    return groups if axes.sized else "kernel"


def other_entries(layer: keras.Layer) -> int:
    """Entries of other kernels of a layer that work beside these: depthwise ones."""
    depthwise = getattr(layer, "depthwise_kernel", None) if type(layer) in KERNELS else None
    return 0 if depthwise is None else math.prod(depthwise.shape)
