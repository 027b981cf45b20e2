"""A workaround for a bug of oneDNN in strided 1x1 convolutions with few input channels.

TensorFlow and PyTorch use oneDNN on x86 CPUs. Its gradient of such a kernel writes out of bounds if
there are fewer input channels than a register holds (oneDNN issue 6035; fewer than 16 with
AVX-512): the process crashes, or the numbers are wrong. Surgery replaces the strides by a pooling
of size 1, which selects the same positions, before a convolution without strides.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras

from keras_structsparse._typing import Tensor
from keras_structsparse.graph.channels.rule import Site

REGISTER = 16
"""Number of float32 values in the largest register."""

POOLINGS: dict[int, type[keras.layers.Layer]] = {
    1: keras.layers.AveragePooling1D,
    2: keras.layers.AveragePooling2D,
}


def overflows(kernel: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether the gradient of a kernel may be written out of bounds.

    Args:
        kernel: Shape of the kernel (*spatial, in, out).
        strides: Strides of the convolution, one per spatial axis.

    Examples:
        >>> overflows((1, 1, 11, 16), (2, 2)), overflows((1, 1, 16, 11), (2, 2))
        (True, False)
    """
    *sizes, inputs, _ = kernel
    return max(sizes) == 1 < max(strides) and inputs < REGISTER and len(sizes) in POOLINGS


def picked(site: Site, tensor: Tensor) -> Tensor:
    """Select the positions that a 1x1 convolution with the strides of the site reads.

    Args:
        site: The call site of a strided convolution.
        tensor: Its input.

    Returns:
        The output of a pooling of size 1 with these strides.
    """
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
