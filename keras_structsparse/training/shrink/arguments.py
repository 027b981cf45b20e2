"""Check what :func:`keras_structsparse.shrink` is given, before anything is computed or written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras

from keras_structsparse.graph.scope_names import check_names
from keras_structsparse.training.shrink.method import ShrinkMethod
from keras_structsparse.training.shrink.stages import compile_options
from keras_structsparse.training.shrinking import own_training
from keras_structsparse.training.training_data import TrainingData

UNKNOWN = -2
"""What a ``tf.data.Dataset`` says if only iterating tells the number of its batches."""


def check_model(model: Any) -> None:
    """Fail unless a model is compiled with a loss, and trains as Keras does.

    Args:
        model: The model.

    Raises:
        ModelError: TensorFlow cannot scope the name of a layer.
        ValueError: It is not.
    """
    if not isinstance(model, keras.Model):
        raise ValueError(f"model: expected a Keras model. Received: {type(model).__name__}")
    if getattr(model, "optimizer", None) is None or model.loss is None:
        raise ValueError(
            "model: expected a compiled model, whose loss and metrics are those of the training. "
            "Received: one without; call model.compile(loss=..., metrics=[...])"
        )
    if own := own_training(model):
        raise ValueError(
            f"model: expected one that trains as Keras does. Received: {type(model).__name__} with "
            f"its own {own}, which the smaller model would lose"
        )
    if getattr(getattr(model, "distribute_strategy", None), "num_replicas_in_sync", 1) > 1:
        raise ValueError("model: expected a model on one device. Received: one with replicas")
    compile_options(model)
    check_names(model, "model")


def check_settings(optimizer: Any, method: Any, callbacks: Any, workdir: Any) -> None:
    """Fail unless these are of the types that they should be.

    Args:
        optimizer: An optimizer or None.
        method: A :class:`ShrinkMethod`.
        callbacks: A sequence of callbacks.
        workdir: A path or None.

    Raises:
        ValueError: One is not.
    """
    if not isinstance(optimizer, keras.optimizers.Optimizer | None):
        raise ValueError(f"optimizer: expected a Keras optimizer or None. Received: {optimizer!r}")
    if not isinstance(method, ShrinkMethod):
        raise ValueError(f"method: expected a ShrinkMethod or None. Received: {method!r}")
    kind = keras.callbacks.Callback
    if not isinstance(callbacks, list | tuple) or not all(isinstance(x, kind) for x in callbacks):
        raise ValueError(f"callbacks: expected a list of Keras callbacks. Received: {callbacks!r}")
    if not isinstance(workdir, str | Path | None):
        raise ValueError(f"workdir: expected a path or None. Received: {workdir!r}")


def checked_validation(validation: Any, batch_size: int) -> Any:
    """The validation data, with arrays as a tuple.

    Args:
        validation: As for :func:`keras_structsparse.shrink`.
        batch_size: Examples per step, for arrays.

    Raises:
        ValueError: They are no data, or have no end.
    """
    if validation is None:
        return None
    if hasattr(validation, "cardinality") and int(validation.cardinality()) == UNKNOWN:
        return validation
    try:
        TrainingData.of(validation, batch_size)
    except ValueError as error:
        raise ValueError(f"validation{str(error).removeprefix('train')}") from error
    return tuple(validation) if isinstance(validation, list) else validation
