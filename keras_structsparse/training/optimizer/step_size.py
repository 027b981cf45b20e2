"""Step lengths of the proximal step for each type of optimizer.

At a solution of (7), a proximal step of length t reverses the move of the wrapped optimizer. So t
must be the distance that a constant gradient of size 1 moves a weight in this step: the *travel*,
which is the learning rate accumulated by the momentum, divided by the *preconditioner* h of the
weight.
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

from keras_structsparse import _keras_compat
from keras_structsparse._typing import Tensor

Preconditioner = Callable[[Optimizer, int, Tensor], Tensor]


@dataclass(frozen=True)
class Move:
    """The point that an optimizer has moved a variable to, and the move of a unit gradient.

    Attributes:
        point: The point from which the proximal step starts, of the variable's shape.
        step: The step length, scalar or one per kernel.
    """

    point: Tensor
    step: Tensor


def public_class(optimizer: Optimizer) -> type[Optimizer]:
    """The public Keras class of an optimizer whose step length is known.

    Raises:
        ValueError: The step length is not known; the message says why, and lists the optimizers
            that can be wrapped.
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
    """Whether every weight has its own step length."""
    return PRECONDITIONERS[public_class(optimizer)] is not None


def travel(optimizer: Optimizer, past: Tensor, rate: Tensor) -> tuple[Tensor, Tensor]:
    """Distance that a constant unit gradient moves a weight, before preconditioning.

    Momentum (heavy ball) accumulates old gradients with their old learning rates: after step k the
    buffer is ``t_k = m t_{k-1} + rate_k`` times a constant gradient. That equals
    ``rate / (1 - m)`` only if the rate has been constant for a long time. Nesterov momentum moves
    by ``m t_k + rate_k``.

    Args:
        optimizer: An optimizer with or without ``momentum``.
        past: ``t_{k-1}``, 0 before the first step.
        rate: The learning rate of this step.

    Returns:
        ``t_k``, and the distance of this step.

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
    """The last move of an optimizer, with one step length for each kernel.

    A preconditioned optimizer moves every entry by its own ``step / h``, but the proximal step
    shrinks whole groups. With different metrics for the two, a fixed point would not solve (7).
    So the move is recomputed with the mean of h over each kernel.

    Args:
        optimizer: The optimizer, after its step.
        rate: The learning rate of the step.
        step: Distance that a unit gradient moved, before preconditioning.
        before: The variable's value before the step; read only if preconditioned.
        variable: The variable.
        plain: Brings tensors of the variable's shape to the layout (*spatial, in, out).

    Returns:
        The move, in that layout.
    """
    precondition = PRECONDITIONERS[public_class(optimizer)]
    after = plain(ops.convert_to_tensor(variable))
    if precondition is None:
        return Move(after, step)
    after = _wide(after)
    start = _decayed(optimizer, rate, _wide(before), variable)
    h = plain(precondition(optimizer, _keras_compat.variable_index(optimizer, variable), start))
    start, mean = plain(start), _kernel_means(h)
    return Move(start + (after - start) * (h / mean), ops.cast(step, h.dtype) / mean)


def _decayed(
    optimizer: Optimizer, rate: Tensor, before: Tensor, variable: keras.Variable
) -> Tensor:
    if optimizer.weight_decay and _keras_compat.uses_weight_decay(optimizer, variable):
        return before * (1.0 - ops.cast(rate, before.dtype) * optimizer.weight_decay)
    return before


def _kernel_means(values: Tensor) -> Tensor:
    # Not `ops.mean`, which rounds to float32 on JAX.
    return ops.sum(values, axis=tuple(range(len(values.shape) - 1))) / math.prod(values.shape[:-1])


def _wide(values: Any) -> Tensor:
    """A variable or tensor in the precision of norms, float32 at least.

    In half precision the epsilon of an optimizer is 0, or next to it, and so is a small moment.
    """
    values = ops.convert_to_tensor(values)
    half = keras.backend.standardize_dtype(values.dtype) in ("float16", "bfloat16")
    return ops.cast(values, "float32") if half else values


def _bias_correction(optimizer: Optimizer, decay: float, like: Tensor) -> Tensor:
    """Bias correction ``1 - decay^steps`` of a running average that starts at 0."""
    steps = ops.cast(ops.maximum(optimizer.iterations, 1), like.dtype)
    return 1.0 - ops.power(ops.cast(decay, like.dtype), steps)


def _adam(optimizer: Optimizer, index: int, start: Tensor) -> Tensor:
    maximal = optimizer.amsgrad
    moments = _keras_compat.largest_second_moments if maximal else _keras_compat.second_moments
    root = ops.sqrt(_bias_correction(optimizer, optimizer.beta_2, start))
    return (ops.sqrt(_wide(moments(optimizer)[index])) + optimizer.epsilon) / root


def _nadam(optimizer: Optimizer, index: int, start: Tensor) -> Tensor:
    moment = _wide(_keras_compat.second_moments(optimizer)[index])
    second = moment / _bias_correction(optimizer, optimizer.beta_2, start)
    return ops.sqrt(second) + optimizer.epsilon


def _adamax(optimizer: Optimizer, index: int, start: Tensor) -> Tensor:
    return _wide(_keras_compat.infinity_norms(optimizer)[index]) + optimizer.epsilon


def _rmsprop(optimizer: Optimizer, index: int, start: Tensor) -> Tensor:
    second = _wide(_keras_compat.second_moments(optimizer)[index])
    if optimizer.centered:
        second = second - ops.square(_wide(_keras_compat.mean_gradients(optimizer)[index]))
    return ops.sqrt(second + optimizer.epsilon)


def _adagrad(optimizer: Optimizer, index: int, start: Tensor) -> Tensor:
    return ops.sqrt(_wide(_keras_compat.summed_squares(optimizer)[index]) + optimizer.epsilon)


def _lamb(optimizer: Optimizer, index: int, start: Tensor) -> Tensor:
    """The preconditioner of Adam over the trust ratio of the layer."""
    h = _nadam(optimizer, index, start)
    moment = _wide(_keras_compat.first_moments(optimizer)[index])
    first = moment / _bias_correction(optimizer, optimizer.beta_1, start)
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
"""The preconditioner h after the step; None where all weights have the same step length."""

REFUSED: dict[type[Optimizer], str] = {
    O.LossScaleOptimizer: "wrap Proximal in it instead, as `compile` does under mixed_float16",
    O.Adadelta: "its steps grow without bound where gradients do not vanish, as with a penalty",
    O.Adafactor: "it clips its updates, so they have no step length",
    O.Ftrl: "it recomputes weights from sums of gradients, so a proximal step would be lost",
    O.Lion: "it moves by the signs of gradients, so its moves have no step length",
    O.Muon: "it moves by orthogonal matrices, so its moves have no step length",
}
"""Optimizers without a correct step length, and why."""

# On torch, the constructor of a public class returns an instance of a subclass.
_KINDS: tuple[Any, ...] = (*PRECONDITIONERS, *REFUSED)
_PUBLIC = {type(kind.__new__(kind)): kind for kind in _KINDS}
