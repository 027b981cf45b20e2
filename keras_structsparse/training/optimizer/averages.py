"""Moving averages of weights that are sparse where the weights are."""

from __future__ import annotations

import keras
from keras import ops

from keras_structsparse import _keras_compat
from keras_structsparse._typing import Tensor
from keras_structsparse.training.optimizer import distribution


def update_averages(optimizer: keras.optimizers.Optimizer) -> None:
    """Update the averages; overwrite the weights every ``ema_overwrite_frequency`` steps.

    Args:
        optimizer: An optimizer with ``use_ema``, after its step.
    """
    steps = ops.convert_to_tensor(optimizer.iterations)
    later = ops.where(steps > 1, optimizer.ema_momentum, 0.0)
    pairs = [
        (variable, average, _averaged(average, variable, later))
        for variable, average in zip(
            _keras_compat.trained_variables(optimizer),
            _keras_compat.weight_averages(optimizer),
            strict=True,
        )
        if average is not None
    ]
    distribution.assign([(average, value) for _, average, value in pairs])
    if optimizer.ema_overwrite_frequency:
        due = ops.equal(steps % optimizer.ema_overwrite_frequency, 0)
        distribution.assign(
            [(v, ops.where(due, value, ops.convert_to_tensor(v))) for v, _, value in pairs]
        )


def _averaged(average: keras.Variable, variable: keras.Variable, momentum: Tensor) -> Tensor:
    """The moving average; 0 where the variable is 0, or no average would ever be sparse."""
    value = ops.convert_to_tensor(variable)
    momentum = ops.cast(momentum, value.dtype)
    mixed = momentum * ops.convert_to_tensor(average) + (1.0 - momentum) * value
    return ops.where(ops.equal(value, 0), ops.zeros_like(value), mixed)
