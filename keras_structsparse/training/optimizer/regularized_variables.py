"""Find the regularized kernels among the variables of a model, with their paired gammas."""

from __future__ import annotations

import collections
import copy
import dataclasses
from collections.abc import Mapping, Sequence

import keras
from keras import ops

from keras_structsparse._typing import Tensor
from keras_structsparse.regularizers._ops import constant, zeros_to_ones
from keras_structsparse.regularizers.base import GroupSparsityRegularizer
from keras_structsparse.regularizers.kernel_layouts import LAYOUTS
from keras_structsparse.regularizers.rebinding import bind_among, share_alphas
from keras_structsparse.training.optimizer.stacked_kernels import RegularizedKernel


def regularizers_among(variables: Sequence[keras.Variable]) -> list[GroupSparsityRegularizer]:
    """The regularizers of some variables, bound as far as these variables allow.

    Args:
        variables: Variables; those of frozen layers may be missing.
    """
    bind_among(variables)
    share_alphas(variables)
    found = [variable.regularizer for variable in variables]
    return [each for each in found if isinstance(each, GroupSparsityRegularizer)]


def regularized_kernels(variables: Sequence[keras.Variable]) -> list[RegularizedKernel]:
    """The regularized kernels among some variables, each with the gamma it is paired with.

    A gamma that is frozen is not among them: it is a fixed factor of the kernel.

    Raises:
        ValueError: A variable that a penalty depends on is not among the variables.
    """
    regularizers_among(variables)
    trained, paths = {id(v) for v in variables}, collections.Counter(v.path for v in variables)
    found = []
    for variable in variables:
        regularizer = variable.regularizer
        if isinstance(regularizer, GroupSparsityRegularizer):
            _check(regularizer, trained, paths)
            fixed = regularizer.fixed_scale
            gamma = regularizer.paired_gamma if fixed is None else None
            found.append(RegularizedKernel(regularizer, variable, gamma, variable.path, fixed))
    return found


def stepped_variable(item: RegularizedKernel) -> keras.Variable:
    """The variable whose step length counts: gamma, through which a paired kernel shrinks."""
    return item.kernel if item.gamma is None else item.gamma


def with_stepped_value(item: RegularizedKernel, value: Tensor) -> RegularizedKernel:
    """The item with tensors for its variables; that of :func:`stepped_variable` is `value`.

    The result has the plain kernel layout (*spatial, in, out), in which kernels are stacked. Behind
    a frozen normalisation it is the kernel times its factors.
    """
    regularizer = _plain(item.regularizer)
    if item.gamma is None:
        return dataclasses.replace(item, regularizer=regularizer, kernel=_times(item, value))
    kernel = LAYOUTS[item.regularizer.layout].to_plain(ops.convert_to_tensor(item.kernel))
    return dataclasses.replace(item, regularizer=regularizer, kernel=kernel, gamma=value)


def current_values(item: RegularizedKernel) -> RegularizedKernel:
    """The item with tensors for its variables, the kernel in plain layout."""
    value = ops.convert_to_tensor(stepped_variable(item))
    return with_stepped_value(item, to_plain(item, value))


def to_plain(item: RegularizedKernel, values: Tensor) -> Tensor:
    """Bring a tensor from the layout of the stepped variable to (*spatial, in, out), or (out,)."""
    return values if item.gamma is not None else LAYOUTS[item.regularizer.layout].to_plain(values)


def step_length(item: RegularizedKernel, step: Tensor) -> Tensor:
    """The step length for the result of :func:`with_stepped_value`.

    A step t of the kernel is one of `factor^2 t` for the kernel times a factor.
    """
    return step if item.fixed is None else step * ops.cast(ops.square(item.fixed), step.dtype)


def new_kernel(item: RegularizedKernel, values: Tensor) -> Tensor:
    """The value of the item's variable, from one in the form of :func:`with_stepped_value`."""
    if item.fixed is not None:
        scale = constant(item.fixed, like=values)
        unused = ops.equal(scale, 0)  # Such a kernel has no effect: it is left as it is.
        kernel = constant(LAYOUTS[item.regularizer.layout].to_plain(item.kernel), like=values)
        values = ops.where(unused, kernel, values / zeros_to_ones(scale))
    return LAYOUTS[item.regularizer.layout].from_plain(values, tuple(item.kernel.shape))


def constrained(variable: keras.Variable, value: Tensor) -> Tensor:
    """A new value of a variable, as the constraint of the variable allows it.

    The wrapped optimizer has applied the constraint, but before the proximal step.
    """
    return value if variable.constraint is None else variable.constraint(value)


def gradient_of_kernel(item: RegularizedKernel, gradient: Tensor) -> Tensor:
    """The gradient at the item's variable, from that at :func:`with_stepped_value`."""
    gradient = _times(item, gradient)
    return LAYOUTS[item.regularizer.layout].from_plain(gradient, tuple(item.kernel.shape))


def _times(item: RegularizedKernel, values: Tensor) -> Tensor:
    return values if item.fixed is None else values * constant(item.fixed, like=values)


def _plain(regularizer: GroupSparsityRegularizer) -> GroupSparsityRegularizer:
    if regularizer.layout == "plain":
        return regularizer
    twin = copy.copy(regularizer)  # Shallow: alpha remains the same variable.
    twin.layout = "plain"
    return twin


def _check(
    regularizer: GroupSparsityRegularizer, trained: set[int], paths: Mapping[str, int]
) -> None:
    """Check that what a penalty acts on is trained, and that the rest of it is known."""
    gamma = regularizer.paired_gamma
    acts_on_gamma = regularizer.scale is not None and (gamma is None or gamma.trainable)
    missing = {path for path in regularizer.joined_kernels if path not in paths}
    if regularizer.links is not None:
        missing |= {path for path in regularizer.links.paths if paths.get(path, 1) > 1}
    if acts_on_gamma and (gamma is None or id(gamma) not in trained):
        missing.add(str(regularizer.scale))
    if missing:
        raise ValueError(
            f"Proximal: expected one trainable variable '{min(missing)}', the scale of the batch "
            "normalisation that a regularized kernel is paired with, or a kernel of the same "
            "joint group. Received none, or several. Call kss.attach on the model again; leave "
            "frozen layers out with `layers` if they are joined with trained ones."
        )
    if regularizer.unbound:
        raise ValueError(
            f"Proximal: expected the variable '{min(regularizer.unbound)}', of a layer that feeds "
            "a regularized layer, among the trainable variables. Received none. Call kss.attach "
            "on the model again."
        )
