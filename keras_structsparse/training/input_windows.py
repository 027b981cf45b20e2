"""The windows that layers read, drawn from their inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_structsparse._typing import Array, Tensor
from keras_structsparse.graph.data_format import channel_axis
from keras_structsparse.graph.kernel_axes import plain_shape
from keras_structsparse.graph.prunable_layers import PrunableLayers
from keras_structsparse.training.measured_inputs import MeasuredInputs

EXAMPLES, WINDOWS = 32, 40
"""The number of examples of a batch, and of windows that are drawn from each."""


def window_moments(found: PrunableLayers, layers: Mapping[str, keras.Layer]) -> MeasuredInputs:
    """A network that computes the moments of the windows that some layers read.

    For each layer these are the mean (entries,) and the mean of products (entries, entries), with
    the entries in the order of a kernel (*spatial, in).

    Args:
        found: The prunable layers of a network.
        layers: Some of its dense and convolutional layers, by name.
    """

    def moments(drawn: Tensor) -> tuple[Tensor, Tensor]:
        count = ops.cast(ops.shape(drawn)[0], "float32")
        return ops.mean(drawn, axis=0), ops.matmul(ops.transpose(drawn), drawn) / count

    return _measured_windows(found, layers, moments, "window_moments")


def window_means(found: PrunableLayers, layers: Mapping[str, keras.Layer]) -> MeasuredInputs:
    """A network that computes the mean (entries,) of the windows that some layers read.

    Args:
        found: The prunable layers of a network.
        layers: Some of its dense and convolutional layers, by name.
    """

    def mean(drawn: Tensor) -> Tensor:
        return ops.mean(drawn, axis=0)

    return _measured_windows(found, layers, mean, "window_means")


def _measured_windows(
    found: PrunableLayers,
    layers: Mapping[str, keras.Layer],
    measure: Callable[[Tensor], Any],
    name: str,
) -> MeasuredInputs:
    """A network that measures windows: at random places of the first examples of a batch."""
    rng = np.random.default_rng(0)

    def of_layer(layer: keras.Layer) -> Callable[[Tensor], Any]:
        places = rng.random((WINDOWS, len(plain_shape(layer)) - 2), "float32")
        return lambda tensor: measure(
            windows(layer, ops.cast(tensor[:EXAMPLES], "float32"), places)
        )

    return MeasuredInputs(found, {key: of_layer(layer) for key, layer in layers.items()}, name)


def windows(layer: keras.Layer, tensor: Tensor, places: Array) -> Tensor:
    """The windows that a layer reads to compute some of its outputs.

    Args:
        layer: A dense layer or a convolution.
        tensor: What it reads.
        places: Of the outputs (windows, spatial axes), as parts of the sizes of the output, in
            [0, 1). A dense layer has no spatial axes; all its windows are taken.

    Returns:
        The windows (examples * windows, entries), the entries in the order (*spatial, in). What is
        outside of the map is 0.

    Examples:
        >>> layer = keras.layers.Conv1D(1, 3, padding="same")
        >>> layer.build((None, 4, 1))
        >>> signal = np.array([1.0, 2, 3, 4], "float32").reshape(1, 4, 1)
        >>> np.asarray(windows(layer, signal, np.array([[0.0], [0.5]]))).tolist()
        [[0.0, 1.0, 2.0], [2.0, 3.0, 4.0]]
    """
    tensor = ops.moveaxis(ops.convert_to_tensor(tensor), channel_axis(layer), -1)
    channels = tensor.shape[-1]
    if not places.shape[1]:
        return ops.reshape(tensor, (-1, channels))
    flat: Any = 0
    inside: Any = 1.0
    for axis, place in enumerate(places.T):
        size = ops.shape(tensor)[axis + 1]
        read = _positions(layer, axis, size, place)
        shape = [len(place), *([1] * places.shape[1])]
        shape[axis + 1] = -1
        within = ops.logical_and(read >= 0, read < size)
        flat = flat * size + ops.reshape(ops.clip(read, 0, size - 1), shape)
        inside = inside * ops.reshape(ops.cast(within, tensor.dtype), shape)
    maps = ops.reshape(tensor, (ops.shape(tensor)[0], -1, channels))
    taken = ops.take(maps, ops.reshape(flat, (-1,)), axis=1) * ops.reshape(inside, (1, -1, 1))
    entries = int(np.prod(plain_shape(layer)[:-1]))
    return ops.reshape(taken, (-1, entries))


def _positions(layer: keras.Layer, axis: int, size: Any, place: Array) -> Tensor:
    """The positions on an axis of the map that windows read (windows, positions of the kernel).

    Positions outside of the map are read as zeros.
    """
    kernel, stride = layer.kernel_size[axis], layer.strides[axis]
    dilation = layer.dilation_rate[axis]
    span = (kernel - 1) * dilation + 1
    if layer.padding == "valid":
        outputs, before = (size - span) // stride + 1, 0
    else:
        outputs = (size + stride - 1) // stride
        missing = ops.maximum((outputs - 1) * stride + span - size, 0)
        before = span - 1 if layer.padding == "causal" else missing // 2
    parts = ops.convert_to_tensor(place, "float32") * ops.cast(outputs, "float32")
    first = ops.cast(ops.floor(parts), "int32") * stride - before
    return first[:, None] + ops.arange(kernel, dtype="int32") * dilation
