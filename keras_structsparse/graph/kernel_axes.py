"""Where each type of layer keeps the kernels that can be removed one by one, and on which axes.

One table. In the plain order of axes, kernels are arrays (*spatial, in, out).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import keras
import numpy as np
from keras import layers

from keras_structsparse._typing import Array


@dataclass(frozen=True)
class KernelAxes:
    """How a type of layer keeps its kernels.

    Attributes:
        weight: The attribute with the variable.
        regularizer: The attribute with the regularizer of the variable.
        swapped: Whether the variable is (*spatial, out, in).
        sized: Whether kernels can become smaller; otherwise they are kept whole or removed.
    """

    weight: str = "kernel"
    regularizer: str = "kernel_regularizer"
    swapped: bool = False
    sized: bool = True

    def plain(self, values: Array) -> Array:
        """Values of the variable as an array (*spatial, in, out), or such an array back."""
        return np.swapaxes(values, -1, -2) if self.swapped else values


_PLAIN = KernelAxes()
_TRANSPOSED = KernelAxes(swapped=True, sized=False)
_POINTWISE = KernelAxes("pointwise_kernel", "pointwise_regularizer")

KERNELS: Mapping[type[keras.Layer], KernelAxes] = MappingProxyType(
    {
        layers.Conv1D: _PLAIN,
        layers.Conv2D: _PLAIN,
        layers.Conv3D: _PLAIN,
        layers.Dense: _PLAIN,
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


def plain_shape(layer: keras.Layer) -> tuple[int, ...]:
    """The shape (*spatial, in, out) of the kernels of a layer.

    Examples:
        >>> layer = layers.Conv2DTranspose(4, 3)
        >>> layer.build((None, 8, 8, 2))
        >>> tuple(layer.kernel.shape), plain_shape(layer)
        ((3, 3, 4, 2), (3, 3, 2, 4))
    """
    *spatial, first, last = kernel_of(layer).shape
    return (*spatial, last, first) if axes_of(layer).swapped else (*spatial, first, last)


def base_size(layer: keras.Layer) -> int:
    """The size of a whole kernel of a layer."""
    return max(plain_shape(layer)[:-2], default=1)


def groups_of(layer: keras.Layer, groups: str) -> str:
    """The kind of groups that plans for a layer can have.

    Args:
        layer: The layer.
        groups: The kind that is wanted: "half_ring" or "ring".

    Returns:
        That kind, or "kernel" if the kernels of the layer are kept whole or removed.
    """
    return groups if axes_of(layer).sized else "kernel"


def other_entries(layer: keras.Layer) -> int:
    """Entries of other kernels of a layer that work beside these: depthwise ones."""
    depthwise = getattr(layer, "depthwise_kernel", None) if type(layer) in KERNELS else None
    return 0 if depthwise is None else math.prod(depthwise.shape)
