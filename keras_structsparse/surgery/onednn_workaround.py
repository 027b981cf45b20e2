"""A workaround for a bug of oneDNN in strided 1x1 convolutions with few input channels.

See :mod:`keras_structsparse.graph.onednn`. Surgery replaces the strides by a pooling of size 1,
which selects the same positions, before a convolution without strides.
"""

from __future__ import annotations

import keras

from keras_structsparse._typing import Tensor
from keras_structsparse.graph.channels.rule import Site

POOLINGS: dict[int, type[keras.layers.Layer]] = {
    1: keras.layers.AveragePooling1D,
    2: keras.layers.AveragePooling2D,
}


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
