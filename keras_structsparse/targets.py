"""The regularized kernels among the variables of a model, and the gammas they are paired with."""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import ops

from keras_structsparse.joint import Target
from keras_structsparse.structured import Structured


def targets_of(variables: Sequence[keras.Variable]) -> list[Target]:
    """The regularized kernels among some variables, each with the gamma it is paired with."""
    targets = []
    for variable in variables:
        regularizer = variable.regularizer
        if isinstance(regularizer, Structured):
            gamma = None if regularizer.scale is None else _gamma(regularizer, variables)
            targets.append(Target(regularizer, variable, gamma))
    return targets


def moved(target: Target) -> keras.Variable:
    """The variable whose step length counts: a paired kernel shrinks through its gamma."""
    return target.kernel if target.gamma is None else target.gamma


def tensors_of(target: Target) -> Target:
    """The target with tensors for its variables."""
    gamma = None if target.gamma is None else ops.convert_to_tensor(target.gamma)
    return Target(target.regularizer, ops.convert_to_tensor(target.kernel), gamma)


def _gamma(regularizer: Structured, variables: Sequence[keras.Variable]) -> keras.Variable:
    found = [v for v in variables if v.path == regularizer.scale]
    if len(found) != 1:
        raise ValueError(
            f"Proximal: expected one trainable variable '{regularizer.scale}', the scale of the "
            f"batch normalisation that a regularized kernel is paired with. Found: {len(found)}. "
            "Attach the regularizer again."
        )
    regularizer.bind_scale(found[0])
    return found[0]
