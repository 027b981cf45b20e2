"""Compare two networks example by example, for the bound of a drop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_structsparse import _keras_compat
from keras_structsparse._typing import Array
from keras_structsparse.training.shrink.metrics import Judge

BATCHES = 20
"""The smallest number of batches that arrays are split into, where batches are compared."""

EQUAL = 1e-3
"""How far the mean of the examples may be from the metric, which is the same number."""


@dataclass(frozen=True, eq=False)
class Judged:
    """A network and what it was found to be worth.

    Attributes:
        model: The compiled network, which was evaluated.
        value: Its metric on the validation data.
    """

    model: keras.Model
    value: float


def drops_of(
    before: Judged, after: Judged, judge: Judge, validation: Any, batch_size: int
) -> tuple[Array, str]:
    """How much worse a network is on each example; or on each batch.

    Examples are compared where the metric is the mean of a function of targets and outputs, as
    accuracies and errors are; batches where it is not (AUC, IoU), where examples have weights or
    masks, and where the network has several outputs or is judged by its loss.

    Args:
        before: A network.
        after: Another one, compiled in the same way.
        judge: The metric.
        validation: Arrays (inputs, targets), a ``tf.data.Dataset`` or a ``keras.utils.PyDataset``.
        batch_size: Examples at a time, for arrays.

    Returns:
        The drops (count,), and "examples" or "batches".
    """
    pairs = [_by_example(each, judge.metric, validation, batch_size) for each in (before, after)]
    unit = "examples"
    if any(values is None for values in pairs):
        unit, size = "batches", _small(validation, batch_size)
        pairs = [_by_batch(each.model, judge.metric, validation, size) for each in (before, after)]
    first, second = (np.asarray(values, float) for values in pairs)
    return (first - second if judge.rises else second - first), unit


def _by_example(judged: Judged, name: str, data: Any, batch_size: int) -> Array | None:
    """The metric of each example; None where it is no mean of them."""
    metric = _metrics(judged.model).get(name)
    if not isinstance(metric, keras.metrics.MeanMetricWrapper):
        return None
    function, found = _keras_compat.metric_function(metric), []
    for x, y, *weights in _batches(data, batch_size):
        outputs = judged.model.predict_on_batch(x)
        if weights or keras.tree.is_nested(y) or keras.tree.is_nested(outputs):
            return None
        values = keras.ops.convert_to_numpy(function(_tensor(y), _tensor(outputs)))
        if values.shape[:1] != outputs.shape[:1]:
            return None
        found.append(values.reshape(len(values), -1).mean(axis=1))
    together = np.concatenate(found)
    off = abs(float(together.mean()) - judged.value)  # of masks, and of whatever else is weighted
    return together if off <= EQUAL * max(abs(judged.value), 1.0) else None


def _tensor(values: Any) -> Any:
    """Values as Keras' trainer hands them to a metric."""
    dtype = keras.config.floatx() if np.asarray(values).dtype.kind == "f" else None
    return keras.ops.convert_to_tensor(values, dtype)


def _by_batch(model: keras.Model, name: str, data: Any, batch_size: int) -> Array:
    """The metric of each batch."""
    found = []
    for batch in _batches(data, batch_size):
        model.reset_metrics()
        found.append(float(model.test_on_batch(*batch, return_dict=True)[name]))
    return np.array(found)


def _metrics(model: keras.Model) -> Mapping[str, keras.metrics.Metric]:
    """The metrics that a model was compiled with, by name."""
    return {m.name: m for group in model.metrics for m in getattr(group, "metrics", ())}


def _batches(data: Any, batch_size: int) -> Iterator[tuple[Any, ...]]:
    """Batches as arrays, all in the same order for both networks unless a data set shuffles."""
    if isinstance(data, tuple):
        count = len(keras.tree.flatten(data[0])[0])
        for start in range(0, count, batch_size):
            yield keras.tree.map_structure(lambda a, i=start: a[i : i + batch_size], data)
    elif isinstance(data, keras.utils.PyDataset):
        yield from (tuple(data[number]) for number in range(data.num_batches))
    else:
        yield from (keras.tree.map_structure(np.asarray, tuple(batch)) for batch in data)


def _small(data: Any, batch_size: int) -> int:
    """A size with which arrays have enough batches to see how much these differ."""
    if not isinstance(data, tuple):
        return batch_size
    return min(batch_size, max(len(keras.tree.flatten(data[0])[0]) // BATCHES, 1))
