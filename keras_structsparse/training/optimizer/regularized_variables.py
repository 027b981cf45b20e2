"""The regularized kernels among the variables of a model, and the gammas they are paired with."""

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
from keras_structsparse.training.optimizer.stacked_kernels import Target


def targets_of(variables: Sequence[keras.Variable]) -> list[Target]:
    """The regularized kernels among some variables, each with the gamma it is paired with.

    Raises:
        ValueError: A variable that one of their penalties needs is not among them.
    """
    known = _by_path(variables)
    targets = []
    for variable in variables:
        regularizer = variable.regularizer
        if isinstance(regularizer, GroupSparsityRegularizer):
            _bind(regularizer, known)
            gamma = None if regularizer.scale is None else known[regularizer.scale]
            targets.append(Target(regularizer, variable, gamma, variable.path))
    return targets


def moved(target: Target) -> keras.Variable:
    """The variable whose step length counts: a paired kernel shrinks through its gamma."""
    return target.kernel if target.gamma is None else target.gamma


def moved_to(target: Target, point: Tensor) -> Target:
    """The target with tensors for its variables, that of :func:`moved` being ``point``.

    The kernel is that of plain layout, in which layers are served together.
    """
    if target.gamma is None:
        return dataclasses.replace(target, regularizer=_plain(target.regularizer), kernel=point)
    return dataclasses.replace(target, kernel=ops.convert_to_tensor(target.kernel), gamma=point)


def values_of(target: Target) -> Target:
    """The target with tensors for its variables, the kernel in plain layout."""
    return moved_to(target, to_plain(target, ops.convert_to_tensor(moved(target))))


def to_plain(target: Target, values: Tensor) -> Tensor:
    """What has the layout of the target's kernel, in plain layout."""
    return LAYOUTS[target.regularizer.layout].to_plain(values)


def from_plain(target: Target, values: Tensor) -> Tensor:
    """What has plain layout, in that of the target's kernel."""
    return LAYOUTS[target.regularizer.layout].from_plain(values, tuple(target.kernel.shape))


def _plain(regularizer: GroupSparsityRegularizer) -> GroupSparsityRegularizer:
    if regularizer.layout == "plain":
        return regularizer
    twin = copy.copy(regularizer)  # Shallow: alpha stays the same variable.
    twin.layout = "plain"
    return twin


def _by_path(variables: Sequence[keras.Variable]) -> dict[str, keras.Variable]:
    """The variables whose path is no other's."""
    counts = collections.Counter(variable.path for variable in variables)
    return {v.path: v for v in variables if counts[v.path] == 1}


def _bind(regularizer: GroupSparsityRegularizer, known: Mapping[str, keras.Variable]) -> None:
    """Give a regularizer the variables that it needs; they must move together with its kernel."""
    missing = regularizer.required - known.keys()
    if missing:
        raise ValueError(
            f"Proximal: expected one trainable variable '{min(missing)}', the scale of the batch "
            "normalisation that a regularized kernel is paired with, or a kernel that it is joined "
            "with. Found none, or several. Attach the regularizer again."
        )
    regularizer.bind(known)
    if regularizer.unbound:
        raise ValueError(
            f"Proximal: the variable '{min(regularizer.unbound)}' of a layer that feeds a "
            "regularized one is not among the trainable variables. Attach the regularizer again."
        )
