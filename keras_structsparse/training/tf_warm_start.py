"""Create the variables of a compiled model before its first step.

TensorFlow traces a step that creates variables a second time, to have one that creates none. So a
training whose optimizer and metrics are built beforehand starts in about half the time. The other
backends create them without running anything; on JAX, what is run here would be compiled first,
operation by operation.
"""

from __future__ import annotations

import keras

from keras_structsparse._typing import Array
from keras_structsparse.training.optimizer.distribution import scope_of
from keras_structsparse.training.tf_input import are_arrays


def build_for_training(model: keras.Model, x: Array, y: Array) -> None:
    """Build the optimizer and the metrics of a compiled model, as its first step would.

    Nothing else changes: no weight, no state of a metric, no random number is drawn. Where this
    cannot be done, because the data are not arrays or there are several replicas, for which Keras
    does it itself, and where it would save nothing, the first step does it as ever.

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
