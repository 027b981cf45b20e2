"""Assignments, loss scales and scopes under a strategy of tf.distribute, and without one."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import keras

from keras_structsparse._typing import Tensor

Assignment = tuple[keras.Variable, Tensor]


def loss_share() -> float:
    """Weight of one replica's loss in the sum over replicas: 1 / number of replicas."""
    return 1.0 / _replicas()


def assign(assignments: Sequence[Assignment]) -> None:
    """Assign to each variable a value that is equal on all replicas."""
    if _replicas() > 1:
        _assign_replicas(assignments)
        return
    for variable, value in assignments:
        variable.assign(value)


def scope_of(model: keras.Model) -> AbstractContextManager[Any]:
    """The strategy scope of a model's variables; new variables of the model need it too."""
    strategy = getattr(model, "distribute_strategy", None)
    return nullcontext() if strategy is None else strategy.scope()


def _replicas() -> int:
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    return int(tf.distribute.get_strategy().num_replicas_in_sync)


def _assign_replicas(assignments: Sequence[Assignment]) -> None:
    import tensorflow as tf

    variables = [variable.value for variable, _ in assignments]

    # Every replica assigns its own value, so nothing has to be communicated.
    def update(strategy: Any, values: Sequence[Tensor]) -> None:
        for variable, value in zip(variables, values, strict=True):
            strategy.extended.update(
                variable, lambda local, new: local.assign(new), args=(value,), group=False
            )

    values = [tf.cast(value, variable.dtype) for variable, value in assignments]
    tf.distribute.get_replica_context().merge_call(update, args=(values,))
