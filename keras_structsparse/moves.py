"""How far optimizers move: the step lengths for which proximal steps solve the right problem."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

Tensor = Any
MoveOf = Callable[[keras.optimizers.Optimizer, Tensor, Tensor, keras.Variable], "Move"]


@dataclass(frozen=True)
class Move:
    """Where an optimizer has moved a variable, and how far a unit gradient would move it.

    Attributes:
        point: The point from which the proximal step starts, of the variable's shape.
        step: The step length, scalar or one per kernel.
    """

    point: Tensor
    step: Tensor


def momentum_move(
    optimizer: keras.optimizers.Optimizer, rate: Tensor, before: Tensor, variable: keras.Variable
) -> Move:
    """SGD: with (Nesterov) momentum m a constant gradient moves by ``rate / (1 - m)`` a step."""
    return Move(ops.convert_to_tensor(variable), rate / (1.0 - optimizer.momentum))


def adam_move(
    optimizer: keras.optimizers.Optimizer, rate: Tensor, before: Tensor, variable: keras.Variable
) -> Move:
    """Adam with one step length for each kernel: ``rate`` over its mean preconditioner.

    Adam moves every entry by its own ``rate / h``, but the proximal step shrinks a kernel as a
    whole. With different metrics for the two, a fixed point would solve another problem than (7):
    so the move along Adam's averaged gradient is made anew, with the mean of h over the kernel.
    """
    index = optimizer._get_variable_index(variable)
    second = optimizer._velocity_hats if optimizer.amsgrad else optimizer._velocities
    steps = ops.cast(optimizer.iterations, before.dtype)
    root = ops.sqrt(1.0 - ops.power(ops.cast(optimizer.beta_2, before.dtype), steps))
    preconditioner = (ops.sqrt(second[index]) + optimizer.epsilon) / root
    step = ops.cast(rate, before.dtype) / ops.mean(
        preconditioner, axis=tuple(range(len(variable.shape) - 1))
    )
    weight = 1.0 - ops.power(ops.cast(optimizer.beta_1, before.dtype), steps)
    decayed = before
    if optimizer.weight_decay and optimizer._use_weight_decay(variable):
        decayed = before * (1.0 - ops.cast(rate, before.dtype) * optimizer.weight_decay)
    return Move(decayed - step * optimizer._momentums[index] / weight, step)


MOVES: dict[type[keras.optimizers.Optimizer], MoveOf] = {
    keras.optimizers.SGD: momentum_move,
    keras.optimizers.Adam: adam_move,
    keras.optimizers.AdamW: adam_move,
}
