"""Constant maps through layers, and as arrays that are added behind the layers that read them.

A removed channel may be constant, but with another constant at each position: then it fits into no
bias. What a linear layer makes of it is an array over the positions of the output, which is added
behind the layer, before its activation.
"""

from __future__ import annotations

import math

import keras
import numpy as np

from keras_structsparse._typing import Array, Tensor
from keras_structsparse.graph.bare_operations import operation_type
from keras_structsparse.graph.channels.rule import Site
from keras_structsparse.graph.cloning import clone, set_weights, unset

Add = operation_type(keras.ops.add, 2)

LARGEST = 2**20
"""Entries of an array that is added. It is saved as text, about 20 MB for so many."""

DTYPES = ("float16", "float32", "float64")
"""The dtypes in which Keras saves arrays."""


def through(site: Site) -> dict[int, Array]:
    """The output of an operation that treats every channel alike and by itself, on constant maps.

    Args:
        site: The call site of an operation of one tensor, without weights.

    Returns:
        The constant maps (*spatial,) of the output by channel. Those with entries that are not
        finite are left out.
    """
    maps = site.inputs[0].maps
    if not maps:
        return {}
    dtype = getattr(site.operation, "compute_dtype", "float64")
    stacked = np.stack(list(maps.values()), axis=-1)[None]
    args, kwargs = site.fill([keras.ops.convert_to_tensor(stacked, dtype=dtype)])
    result = keras.ops.convert_to_numpy(site.operation(*args, **kwargs))[0].astype(np.float64)
    found = zip(maps, np.moveaxis(result, -1, 0), strict=True)
    return {channel: values for channel, values in found if np.isfinite(values).all()}


def addable(site: Site) -> bool:
    """Whether what a linear layer makes of constant maps can be added behind it.

    All sizes must be known, and the layer must run on every machine as it is.
    """
    layer, output = site.operation, site.output_shape[1:]
    known = None not in (*site.shapes[0][1:], *output)
    # TensorFlow runs some of the other convolutions on no CPU.
    plain = (
        getattr(layer, "groups", 1) == 1
        and np.max(getattr(layer, "dilation_rate", 1)) == 1
        and getattr(layer, "output_padding", None) is None
    )
    fits = known and math.prod(size or 1 for size in output) <= LARGEST
    return bool(fits and plain and site.axis == -1 and layer.compute_dtype in DTYPES)


def removed(site: Site, rows: Array, columns: Array, axis: int = -2) -> Array | None:
    """What a linear layer makes of the constant maps that are removed.

    Args:
        site: The call site.
        rows: The kept input channels.
        columns: The kept output channels.
        axis: The axis of the kernel with the input channels.

    Returns:
        The array (1, *spatial, columns) in float64; None if no constant map is removed.
    """
    kept = set(rows.tolist())
    maps = {j: values for j, values in site.inputs[0].maps.items() if j not in kept}
    if not maps:
        return None
    kernel = np.take(site.weights["kernel"], list(maps), axis)
    stacked = np.stack(list(maps.values()), axis=-1)[None]
    layer = clone(site.operation, dtype="float64", use_bias=False, activation=None)
    with unset(layer):
        layer.build(stacked.shape)
    set_weights(layer, [kernel])
    result = keras.ops.convert_to_numpy(layer(keras.ops.convert_to_tensor(stacked, "float64")))
    return np.asarray(np.take(result, columns, axis=-1), np.float64)


def linear(offset: Array | None) -> dict[str, None]:
    """The options of a layer in front of :func:`added`, which applies the activation."""
    return {} if offset is None else {"activation": None}


def added(site: Site, tensor: Tensor, offset: Array | None) -> Tensor:
    """Add an array to the output of a linear layer, then apply the activation of the layer.

    Args:
        site: The call site of the layer.
        tensor: The output of the new layer without activation.
        offset: The array (1, *spatial, channels). None: the new layer has its activation itself,
            and the tensor is returned as it is.
    """
    if offset is None:
        return tensor
    # Keras on TensorFlow may take a second summand for a bias.
    tensor = Add(name=site.derive("constants"))(offset.astype(site.operation.compute_dtype), tensor)
    activation = site.operation.activation
    if activation is keras.activations.linear:
        return tensor
    name, policy = site.derive("activation"), site.operation.dtype_policy
    if isinstance(activation, keras.Layer):
        return clone(activation, name=name)(tensor)
    return keras.layers.Activation(activation, dtype=policy, name=name)(tensor)
