"""Recalibrate batch normalisations: estimate their statistics again, for example after surgery."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_structsparse._typing import Array, Tensor
from keras_structsparse._validation import positive_int
from keras_structsparse.errors import ModelError
from keras_structsparse.graph import functional_graph

Batches = Sequence[Tensor]


def reestimate_batch_norm(model: keras.Model, data: Any, batch_size: int = 256) -> keras.Model:
    """Estimate the moving mean and variance of every batch normalisation from data.

    In training, moving statistics lag behind the kernels, and after pruning they are those of the
    network before. This function sets them to the exact mean and variance of the inputs of each
    normalisation, over all examples and positions of ``data``, not to an average over batches. It
    makes one forward pass, layer by layer over all of ``data``, in inference mode and with the new
    statistics of the layers before. So the result does not depend on ``batch_size``, dropout is
    off, and nothing except these statistics changes.

    The statistics of constant channels are kept, since surgery may use them as carrier channels.
    So are those of normalisations that are frozen (``trainable=False``) or called more than once.

    Args:
        model: A functional or built Sequential model. Its statistics are changed in place.
        data: Training inputs: an array (examples, ...), or arrays nested as the model's inputs.
            The outputs of a layer for all of them are held in memory until they are read. Some
            hundreds to thousands of examples are enough.
        batch_size: Number of examples in a forward pass.

    Returns:
        The model.

    Raises:
        ModelError: The model has no graph, or a normalisation receives numbers that are not finite.
            Then all statistics are as before.
        ValueError: ``data`` holds no examples, not as many arrays as the model has inputs, or
            arrays of different lengths; or ``batch_size`` is no whole number >= 1.

    Examples:
        >>> norm = keras.layers.BatchNormalization()
        >>> model = keras.Sequential([keras.Input((2,)), norm])
        >>> x = np.array([[1.0, 5.0], [3.0, 5.0]])
        >>> _ = reestimate_batch_norm(model, x)
        >>> np.asarray(norm.moving_mean).tolist(), np.asarray(norm.moving_variance).tolist()
        ([2.0, 0.0], [1.0, 1.0])
    """
    network = functional_graph.read(model)
    batches = _batches(network, data, positive_int("batch_size", batch_size))
    before = [(norm, norm.get_weights()) for norm in _norms(network)]
    try:
        _walk(network, batches)
    except BaseException:
        for norm, weights in before:
            norm.set_weights(weights)
        raise
    return model


def _norms(network: functional_graph.Graph) -> list[keras.Layer]:
    return [call.operation for call in network.calls if _is_estimated(network, call)]


def _is_estimated(network: functional_graph.Graph, call: functional_graph.Call) -> bool:
    norm = isinstance(call.operation, keras.layers.BatchNormalization)
    return norm and call.operation.trainable and not network.is_shared(call)


def _batches(network: functional_graph.Graph, data: Any, size: int) -> list[Batches]:
    """The batches of every input."""
    arrays = [np.asarray(array) for array in keras.tree.flatten(data)]
    lengths = [array.shape[0] if array.ndim else 0 for array in arrays]
    if len(arrays) != len(network.inputs) or len(set(lengths)) != 1 or not lengths[0]:
        raise ValueError(
            "data: expected arrays with the same number of examples, above 0, for the "
            f"{len(network.inputs)} inputs of the model. Received {len(arrays)} of lengths "
            f"{lengths}"
        )
    return [
        [
            keras.ops.convert_to_tensor(array[start : start + size], network.dtypes[tensor])
            for start in range(0, len(array), size)
        ]
        for tensor, array in zip(network.inputs, arrays, strict=True)
    ]


def _walk(network: functional_graph.Graph, inputs: Sequence[Batches]) -> None:
    """Compute all batches layer by layer, up to the last normalisation."""
    places = [i for i, call in enumerate(network.calls) if _is_estimated(network, call)]
    needed = network.calls[: places[-1] + 1] if places else ()
    last = {tensor: call for call in needed for tensor in call.inputs}
    values = dict(zip(network.inputs, inputs, strict=True))
    for call in needed:
        batches = list(zip(*(values[tensor] for tensor in call.inputs), strict=True))
        if _is_estimated(network, call):
            _estimate(call, [batch[0] for batch in batches])
        results = zip(*(_run(call, batch) for batch in batches), strict=True)
        found = zip(call.outputs, map(list, results), strict=True)
        values.update({tensor: own for tensor, own in found if tensor in last})
        for tensor in set(call.inputs):
            if last[tensor] is call:
                del values[tensor]


def _run(call: functional_graph.Call, tensors: Sequence[Tensor]) -> list[Tensor]:
    args, kwargs = call.arguments(tensors)
    # Otherwise torch would keep all tensors for a backward pass.
    return [keras.ops.stop_gradient(t) for t in keras.tree.flatten(call.operation(*args, **kwargs))]


@dataclass(frozen=True)
class _Moments:
    """Statistics of one batch, by channel."""

    count: int
    mean: Array
    variance: Array
    least: Array
    most: Array


def _estimate(call: functional_graph.Call, batches: Batches) -> None:
    """Set the statistics of a normalisation to those of its inputs."""
    norm = call.operation
    parts = list(_moments(norm.axis, batches))
    counts = [part.count for part in parts]
    mean = np.average([part.mean for part in parts], axis=0, weights=counts)
    within = np.average([part.variance for part in parts], axis=0, weights=counts)
    between = np.average([(part.mean - mean) ** 2 for part in parts], axis=0, weights=counts)
    if not np.isfinite(mean + within + between).all():
        raise ModelError(
            f"layer '{call.name}': expected finite inputs to estimate statistics from. "
            "Received some that are not finite"
        )
    least = np.min([part.least for part in parts], axis=0)
    varies = least < np.max([part.most for part in parts], axis=0)
    _assign(norm.moving_mean, mean, varies)
    _assign(norm.moving_variance, within + between, varies)


def _moments(axis: int, batches: Batches) -> Iterator[_Moments]:
    for batch in batches:
        array = np.moveaxis(keras.ops.convert_to_numpy(batch), axis, -1).astype(np.float64)
        rows = array.reshape(-1, array.shape[-1])
        yield _Moments(len(rows), rows.mean(0), rows.var(0), rows.min(0), rows.max(0))


def _assign(variable: keras.Variable, values: Array, where: Array) -> None:
    variable.assign(np.where(where, values, keras.ops.convert_to_numpy(variable)))
