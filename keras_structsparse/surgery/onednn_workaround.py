"""Strided convolutions of size 1 over few channels, which cannot be trained everywhere.

oneDNN, with which TensorFlow and torch compute on x86 CPUs, writes past its memory in the gradient
of such a kernel where it reads fewer channels than a register holds (oneDNN's issue 6035; with
AVX-512 fewer than 16): the process crashes, or computes something else. A pooling of size 1 picks
the same places, and leaves a convolution without strides behind it.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras

from keras_structsparse._typing import Tensor
from keras_structsparse.graph.channels.rule import Site

REGISTER = 16
"""Numbers of single precision in the largest register."""

POOLINGS: dict[int, type[keras.layers.Layer]] = {
    1: keras.layers.AveragePooling1D,
    2: keras.layers.AveragePooling2D,
}


def overflows(kernel: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether the gradient of a kernel is written past its memory.

    Args:
        kernel: Its shape (*spatial, in, out).
        strides: Of the convolution.

    Examples:
        >>> overflows((1, 1, 11, 16), (2, 2)), overflows((1, 1, 16, 11), (2, 2))
        (True, False)
    """
    *sizes, inputs, _ = kernel
    return max(sizes) == 1 < max(strides) and inputs < REGISTER and len(sizes) in POOLINGS


def picked(site: Site, tensor: Tensor) -> Tensor:
    """The places of a tensor that a convolution of size 1 reads with the strides of the site's."""
    strides = tuple(site.operation.strides)
    pooling = POOLINGS[len(strides)]
    layer = pooling(
        1,
        strides,
        data_format=site.data_format,
        dtype=site.operation.dtype_policy,
        name=site.derive("places"),
    )
    return layer(tensor)
