"""How far optimizers move: the step lengths for which proximal steps solve the right problem.

A proximal step of length t undoes, at a solution of (7), what t times the gradient of the mean loss
has moved. So t must be what a constant gradient of size 1 moves a weight by in this step: the
*travel* of the learning rate through the momentum, over the *preconditioner* h of that weight.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops
from keras import optimizers as O
from keras.optimizers import Optimizer

from keras_structsparse._typing import Tensor

Preconditioner = Callable[[Optimizer, int, Tensor], Tensor]


@dataclass(frozen=True)
class Move:
    """Where an optimizer has moved a variable, and how far a unit gradient would move it.

    Attributes:
        point: The point from which the proximal step starts, of the variable's shape.
        step: The step length, scalar or one per kernel.
    """

    point: Tensor
    step: Tensor


def kind_of(optimizer: Optimizer) -> type[Optimizer]:
    """The public class of an optimizer whose step length is known.

    Raises:
        ValueError: The step length is not known: for what reason, and for which it is.
    """
    kind: Any = _PUBLIC.get(type(optimizer))
    if kind in PRECONDITIONERS:
        return kind
    known = ", ".join(each.__name__ for each in PRECONDITIONERS)
    reason = REFUSED.get(kind, "its step length is not known")
    raise ValueError(
        f"optimizer: expected one of {known}, whose step length is known. "
        f"Received: {type(optimizer).__name__}; {reason}."
    )


def is_preconditioned(optimizer: Optimizer) -> bool:
    """Whether every weight moves by a step length of its own."""
    return PRECONDITIONERS[kind_of(optimizer)] is not None


def travel(optimizer: Optimizer, past: Tensor, rate: Tensor) -> tuple[Tensor, Tensor]:
    """How far a constant unit gradient moves a weight, before preconditioning.

    Heavy ball adds up old gradients with their old learning rates: after step k its buffer holds
    ``t_k = m t_{k-1} + rate_k`` times a constant gradient, which is ``rate / (1 - m)`` only when
    the rate has not changed for long. Nesterov moves by ``m t_k + rate_k``.

    Args:
        optimizer: An optimizer with or without ``momentum``.
        past: ``t_{k-1}``, 0 at first.
        rate: The learning rate of this step.

    Returns:
        ``t_k``, and how far this step moves.

    Examples:
        >>> sgd = keras.optimizers.SGD(0.1, momentum=0.5)
        >>> [round(float(t), 3) for t in travel(sgd, 0.1, 0.1)]
        [0.15, 0.15]
    """
    momentum = getattr(optimizer, "momentum", 0.0)
    now = momentum * past + rate
    return now, momentum * now + rate if getattr(optimizer, "nesterov", False) else now


def move(
    optimizer: Optimizer,
    rate: Tensor,
    step: Tensor,
    before: Tensor,
    variable: keras.Variable,
    plain: Callable[[Tensor], Tensor],
) -> Move:
    """The move that an optimizer has made, with one step length for each kernel.

    A preconditioned optimizer moves every entry by its own ``step / h``, but the proximal step
    shrinks a kernel as a whole. With different metrics for the two, a fixed point would solve
    another problem than (7): so the move is made anew with the mean of h over the kernel.

    Args:
        optimizer: The optimizer, after its step.
        rate: The learning rate of the step.
        step: How far a unit gradient moved, before preconditioning.
        before: The variable's value before the step; only read if preconditioned.
        variable: The variable.
        plain: Brings what has its shape into the layout (*spatial, in, out).

    Returns:
        The move, in that layout.
    """
    precondition = PRECONDITIONERS[kind_of(optimizer)]
    after = plain(ops.convert_to_tensor(variable))
    if precondition is None:
        return Move(after, step)
    start = _decayed(optimizer, rate, before, variable)
    h = plain(precondition(optimizer, optimizer._get_variable_index(variable), start))
    start, mean = plain(start), _kernel_means(h)
    return Move(start + (after - start) * (h / mean), ops.cast(step, h.dtype) / mean)


def _decayed(
    optimizer: Optimizer, rate: Tensor, before: Tensor, variable: keras.Variable
) -> Tensor:
    if optimizer.weight_decay and optimizer._use_weight_decay(variable):
        return before * (1.0 - ops.cast(rate, before.dtype) * optimizer.weight_decay)
    return before


def _kernel_means(values: Tensor) -> Tensor:
    # Not `ops.mean`, which rounds to float32 on JAX.
    return ops.sum(values, axis=tuple(range(len(values.shape) - 1))) / math.prod(values.shape[:-1])


def _rest(optimizer: Optimizer, decay: float, like: Tensor) -> Tensor:
    """``1 - decay^steps``, what a running average that starts at 0 has to be divided by."""
    steps = ops.cast(ops.maximum(optimizer.iterations, 1), like.dtype)
    return 1.0 - ops.power(ops.cast(decay, like.dtype), steps)


def _adam(optimizer: Optimizer, index: int, start: Tensor) -> Tensor:
    second = optimizer._velocity_hats if optimizer.amsgrad else optimizer._velocities
    root = ops.sqrt(_rest(optimizer, optimizer.beta_2, start))
    return (ops.sqrt(second[index]) + optimizer.epsilon) / root


def _nadam(optimizer: Optimizer, index: int, start: Tensor) -> Tensor:
    second = optimizer._velocities[index] / _rest(optimizer, optimizer.beta_2, start)
    return ops.sqrt(second) + optimizer.epsilon


def _adamax(optimizer: Optimizer, index: int, start: Tensor) -> Tensor:
    return optimizer._u[index] + optimizer.epsilon


def _rmsprop(optimizer: Optimizer, index: int, start: Tensor) -> Tensor:
    second = ops.convert_to_tensor(optimizer._velocities[index])
    if optimizer.centered:
        second = second - ops.square(optimizer._average_gradients[index])
    return ops.sqrt(second + optimizer.epsilon)


def _adagrad(optimizer: Optimizer, index: int, start: Tensor) -> Tensor:
    return ops.sqrt(optimizer._accumulators[index] + optimizer.epsilon)


def _lamb(optimizer: Optimizer, index: int, start: Tensor) -> Tensor:
    """Adam's, over the layer's trust ratio."""
    h = _nadam(optimizer, index, start)
    first = optimizer._momentums[index] / _rest(optimizer, optimizer.beta_1, start)
    weight, update = (ops.sqrt(ops.sum(ops.square(x))) for x in (start, first / h))
    trusted = ops.logical_and(weight > 0, update > 0)
    return h * ops.where(trusted, update, 1.0) / ops.where(trusted, weight, 1.0)


PRECONDITIONERS: dict[type[Optimizer], Preconditioner | None] = {
    O.SGD: None,
    O.RMSprop: _rmsprop,
    O.Adagrad: _adagrad,
    O.Adam: _adam,
    O.AdamW: _adam,
    O.Adamax: _adamax,
    O.Nadam: _nadam,
    O.Lamb: _lamb,
}
"""What each weight's move is divided by, after the step; None where all move alike."""

REFUSED: dict[type[Optimizer], str] = {
    O.LossScaleOptimizer: "put it around Proximal instead, as `compile` does under mixed_float16",
    O.Adadelta: "where gradients do not vanish, as behind a penalty, its steps grow for ever",
    O.Adafactor: "it clips its updates, so they have no step length",
    O.Ftrl: "it computes weights from sums of gradients, so a proximal step would be lost",
    O.Lion: "it moves by the signs of gradients, so its moves have no step length",
    O.Muon: "it moves by orthogonal matrices, so its moves have no step length",
}
"""Why others have none that would be right."""

# The constructors of torch's optimizers return classes of their own behind the public names.
_KINDS: tuple[Any, ...] = (*PRECONDITIONERS, *REFUSED)
_PUBLIC = {type(kind.__new__(kind)): kind for kind in _KINDS}
