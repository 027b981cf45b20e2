"""What operations make of tensors whose channels are constant."""

from __future__ import annotations

import keras
import numpy as np

from keras_structsparse._typing import Array
from keras_structsparse.graph.channels.rule import Site


def through(site: Site) -> Array:
    """The values that an operation, which treats every position alike, makes of constants.

    The operation itself is called, on one position; channels that are live count as 1.

    Args:
        site: The call.

    Returns:
        A value for each channel of the output, in float64; meaningless where an input is live.
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
    """Which output channels are live, and the values of the others.

    A value that is not finite could not be moved into a bias; it counts as live.

    Args:
        site: The call.
        live: Whether each output channel depends on a live one.
    """
    values = through(site)
    live = live | ~np.isfinite(values)
    return live, np.where(live, 0.0, values)
