"""The axes of channels and positions in the feature maps of a layer."""

from __future__ import annotations

import keras

from keras_structsparse._typing import Shape


def channel_axis(operation: keras.Operation) -> int:
    """The channel axis of the feature maps that an operation reads and computes.

    Args:
        operation: A layer or a bare operation.

    Returns:
        1 if its data format is "channels_first"; -1 otherwise, also without a data format.

    Examples:
        >>> channel_axis(keras.layers.Conv2D(2, 3, data_format="channels_first"))
        1
        >>> channel_axis(keras.layers.Dense(2))
        -1
    """
    return 1 if getattr(operation, "data_format", None) == "channels_first" else -1


def spatial_shape(operation: keras.Operation, shape: Shape) -> Shape:
    """The sizes of the axes of a feature map that are neither batch nor channels.

    Args:
        operation: The operation that reads or computes the map.
        shape: Shape of the map, batch axis first.

    Returns:
        The sizes; None for an open one.

    Examples:
        >>> spatial_shape(keras.layers.Conv2D(2, 3), (None, 8, None, 3))
        (8, None)
    """
    return shape[2:] if channel_axis(operation) == 1 else shape[1:-1]
