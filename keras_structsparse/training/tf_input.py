"""A faster start of ``fit`` on TensorFlow.

* :func:`fed`: each call of ``fit`` on arrays makes TensorFlow a pipeline that tunes itself, and
  often waits at its end until the tuning thread wakes up: on two cores up to 20 s after epochs of
  20 s. A pipeline without tuning, made once for several calls, has nothing to wait for.
* :func:`build_for_training`: TensorFlow traces a step that creates variables a second time. A
  training whose optimizer and metrics are built before starts in about half the time. The other
  backends create variables without running anything; on JAX, what is run here would be compiled
  first, operation by operation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from keras_structsparse._typing import Array
from keras_structsparse.training.optimizer.distribution import scope_of

LEFT_TO_KERAS = frozenset({"sample_weight", "steps_per_epoch", "validation_split"})
"""Arguments of ``fit`` that need the arrays."""

PARALLEL = 2
"""Batches that are gathered, and wait, at a time."""


def fed(
    model: keras.Model, x: Array, y: Array, options: Mapping[str, Any]
) -> tuple[Any, Any, dict[str, Any]]:
    """The arguments for several calls of ``model.fit``, with a data set in place of arrays.

    Args:
        model: The compiled model.
        x: As for ``model.fit``.
        y: Likewise.
        options: Other arguments of ``model.fit``.

    Returns:
        A ``tf.data.Dataset``, None and the options without those that the data set includes, if the
        backend is TensorFlow, the data are arrays and there is one replica; else the arguments.
    """
    replicas = getattr(getattr(model, "distribute_strategy", None), "num_replicas_in_sync", 1)
    given = {name for name, value in options.items() if value is not None}
    if keras.backend.backend() != "tensorflow" or replicas > 1 or given & LEFT_TO_KERAS:
        return x, y, dict(options)
    if not (are_arrays(x) and are_arrays(y)):
        return x, y, dict(options)
    rest = dict(options)
    size, shuffle = rest.pop("batch_size", None) or 32, rest.pop("shuffle", True)
    # The data set does it; Keras would warn that it cannot.
    return _dataset((x, y), size, shuffle), None, {**rest, "shuffle": False}


def build_for_training(model: keras.Model, x: Array, y: Array) -> None:
    """Build the optimizer and the metrics of a compiled model, as its first step would.

    Nothing else changes: no weight, no state of a metric, no random number is drawn. The first step
    builds them, as in Keras, where the data are not arrays, where there are several replicas, and
    on other backends than TensorFlow.

    Args:
        model: The compiled model.
        x: Inputs as for ``model.fit``, such as an array (examples, ...).
        y: Targets likewise.
    """
    replicas = getattr(getattr(model, "distribute_strategy", None), "num_replicas_in_sync", 1)
    if keras.backend.backend() != "tensorflow" or replicas > 1:
        return
    if not (are_arrays(x) and are_arrays(y)):
        return
    one_x, one_y = (keras.tree.map_structure(lambda each: each[:1], data) for data in (x, y))
    with scope_of(model):
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        model.compute_metrics(one_x, one_y, model(one_x, training=False))
        model.reset_metrics()


def are_arrays(data: Any) -> bool:
    """Whether data are arrays with examples, alone or nested."""
    flat = keras.tree.flatten(data)
    return bool(flat) and all(hasattr(a, "shape") and a.ndim and len(a) for a in flat)


def _dataset(data: Any, batch_size: int, shuffle: bool) -> Any:
    """Batches of all examples, in a new order every time it is gone through."""
    import tensorflow as tf

    floating = keras.backend.floatx()

    def tensor(array: Array) -> Any:
        found = tf.convert_to_tensor(array)
        return tf.cast(found, floating) if found.dtype.is_floating else found

    # Under a strategy of one device too, the examples stay in the host's memory, as with Keras.
    with tf.device("CPU:0"):
        tensors = keras.tree.map_structure(tensor, data)
    count = int(keras.tree.flatten(tensors)[0].shape[0])

    places = tf.data.Dataset.range(count)
    if shuffle:
        places = places.shuffle(count, reshuffle_each_iteration=True)

    def batch(chosen: Any) -> Any:
        return keras.tree.map_structure(lambda each: tf.gather(each, chosen), tensors)

    batches = places.batch(min(batch_size, count))  # It takes a time in proportion to the size.
    batches = batches.map(batch, num_parallel_calls=PARALLEL, deterministic=True)
    settings = tf.data.Options()
    settings.autotune.enabled = False
    return batches.prefetch(PARALLEL).with_options(settings)
