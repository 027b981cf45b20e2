"""Constant propagation: the outputs of operations on constant channels."""

from __future__ import annotations

import keras
import numpy as np

from keras_structsparse._typing import Array
from keras_structsparse.graph.channels.rule import Site


def through(site: Site) -> Array:
    """The output of an operation on constant channels.

    The operation must treat all positions alike: it is called on tensors of a single position. Live
    channels have the value 1 there.

    Args:
        site: The call site.

    Returns:
        The value of each output channel (channels,) in float64; meaningless where an input is live.
    """
    dtype = getattr(site.operation, "compute_dtype", "float64")
    tensors = []
    for channels, shape in zip(site.inputs, site.shapes, strict=True):
        values = np.where(channels.live, 1.0, channels.value)
        place = [1] * len(shape)
        place[channels.axis] = len(values)
        tensors.append(keras.ops.convert_to_tensor(values.reshape(place), dtype=dtype))
    args, kwargs = site.fill(tensors)
    result = keras.ops.convert_to_numpy(site.operation(*args, **kwargs))
    return np.asarray(result, np.float64).ravel()


def settled(site: Site, live: Array) -> tuple[Array, Array]:
    """The live output channels, and the values of the constant ones.

    A constant that is not finite cannot be moved into a bias, so its channel counts as live.

    Args:
        site: The call site.
        live: Whether each output channel depends on a live input channel (channels,).

    Returns:
        The live channels and the values (channels,); 0 where a channel is live.
    """
    values = through(site)
    live = live | ~np.isfinite(values)
    return live, np.where(live, 0.0, values)
