"""Find the regularized kernels among the variables of a model, with their paired gammas."""

from __future__ import annotations

import collections
import copy
import dataclasses
from collections.abc import Mapping, Sequence

import keras
from keras import ops

from keras_structsparse._typing import Tensor
from keras_structsparse.regularizers.base import GroupSparsityRegularizer
from keras_structsparse.regularizers.kernel_layouts import LAYOUTS
from keras_structsparse.training.optimizer.stacked_kernels import RegularizedKernel


def regularized_kernels(variables: Sequence[keras.Variable]) -> list[RegularizedKernel]:
    """The regularized kernels among some variables, each with the gamma it is paired with.

    Binds the regularizers to the variables that their penalties depend on.

    Raises:
        ValueError: A variable that a penalty depends on is not among the variables.
    """
    known = _by_unique_path(variables)
    found = []
    for variable in variables:
        regularizer = variable.regularizer
        if isinstance(regularizer, GroupSparsityRegularizer):
            _bind(regularizer, known)
            gamma = None if regularizer.scale is None else known[regularizer.scale]
            found.append(RegularizedKernel(regularizer, variable, gamma, variable.path))
    return found


def stepped_variable(item: RegularizedKernel) -> keras.Variable:
    """The variable whose step length counts: gamma, through which a paired kernel shrinks."""
    return item.kernel if item.gamma is None else item.gamma


def with_stepped_value(item: RegularizedKernel, value: Tensor) -> RegularizedKernel:
    """The item with tensors for its variables; that of :func:`stepped_variable` is `value`.

    The result has the plain kernel layout (*spatial, in, out), in which kernels are stacked.
    """
    if item.gamma is None:
        return dataclasses.replace(item, regularizer=_plain(item.regularizer), kernel=value)
    return dataclasses.replace(item, kernel=ops.convert_to_tensor(item.kernel), gamma=value)


def current_values(item: RegularizedKernel) -> RegularizedKernel:
    """The item with tensors for its variables, the kernel in plain layout."""
    value = ops.convert_to_tensor(stepped_variable(item))
    return with_stepped_value(item, to_plain(item, value))


def to_plain(item: RegularizedKernel, values: Tensor) -> Tensor:
    """Bring a tensor from the layout of the item's kernel to (*spatial, in, out)."""
    return LAYOUTS[item.regularizer.layout].to_plain(values)


def from_plain(item: RegularizedKernel, values: Tensor) -> Tensor:
    """Bring a tensor (*spatial, in, out) to the layout of the item's kernel."""
    return LAYOUTS[item.regularizer.layout].from_plain(values, tuple(item.kernel.shape))


def _plain(regularizer: GroupSparsityRegularizer) -> GroupSparsityRegularizer:
    if regularizer.layout == "plain":
        return regularizer
    twin = copy.copy(regularizer)  # Shallow: alpha remains the same variable.
    twin.layout = "plain"
    return twin


def _by_unique_path(variables: Sequence[keras.Variable]) -> dict[str, keras.Variable]:
    """The variables by path, without those that share their path with another one."""
    counts = collections.Counter(variable.path for variable in variables)
    return {v.path: v for v in variables if counts[v.path] == 1}


def _bind(regularizer: GroupSparsityRegularizer, known: Mapping[str, keras.Variable]) -> None:
    missing = regularizer.required - known.keys()
    if missing:
        raise ValueError(
            f"Proximal: expected one trainable variable '{min(missing)}', the scale of the batch "
            "normalisation that a regularized kernel is paired with, or a kernel of the same "
            "joint group. Received none, or several. Call kss.attach on the model again."
        )
    regularizer.bind(known)
    if regularizer.unbound:
        raise ValueError(
            f"Proximal: expected the variable '{min(regularizer.unbound)}', of a layer that feeds "
            "a regularized layer, among the trainable variables. Received none. Call kss.attach "
            "on the model again."
        )
