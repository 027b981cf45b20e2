"""Naive numpy forms of the norms and penalties, and checks of proximal steps against them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from hypothesis import settings

from keras_structsparse.graph import nested_groups

Array = np.ndarray[Any, Any]

NORM: dict[str, Callable[[Array], float]] = {
    "l2": lambda entries: float(np.sqrt(np.sum(entries**2))),
    "group_normalized": lambda entries: float(np.sqrt(np.sum(entries**2) / entries.size)),
    "group_scaled": lambda entries: float(np.sqrt(np.sum(entries**2) * entries.size)),
    "linf": lambda entries: float(np.max(np.abs(entries))),
}
"""The norms as the paper defines them, on the vector of a group's entries."""


def examples(count: int) -> settings:
    """At most so many examples of a property, where the profile has not fewer."""
    profile = settings.get_profile(settings.get_current_profile_name())
    return settings(max_examples=min(count, profile.max_examples))


def numpy(tensor: Any) -> Array:
    """A tensor's values; bfloat16, which numpy lacks, as float32."""
    if "bfloat16" in str(tensor.dtype):
        tensor = keras.ops.cast(tensor, "float32")
    return np.asarray(keras.ops.convert_to_numpy(tensor))


def random_kernel(
    shape: tuple[int, ...], seed: int = 0, dead: float = 0.0, ties: bool = False
) -> Array:
    """A float64 kernel; a share `dead` of its rings and kernels is 0, `ties` makes it integer."""
    rng = np.random.default_rng(seed)
    kernel = rng.integers(-2, 3, shape).astype("float64") if ties else rng.normal(size=shape)
    ring = nested_groups.ring_index(shape[:-2]).reshape(shape[:-2])
    for j in range(shape[-1]):
        for n in range(ring.max() + 1):
            kernel[ring == n, :, j] *= rng.random() >= dead
        kernel[..., j] *= rng.random() >= dead
    return kernel


def naive_norms(kernel: Array, how: str, norm: str) -> Array:
    """Group norms (groups, kernels), one masked copy of the kernel at a time."""
    masks = nested_groups.masks(kernel.shape[:-2], how).reshape(-1, *kernel.shape[:-2]).astype(bool)
    kernels = range(kernel.shape[-1])
    return np.array([[NORM[norm](kernel[mask][..., j]) for j in kernels] for mask in masks])


def gradient(function: Callable[..., Any], *arguments: Array) -> list[Array]:
    """Automatic differentiation of a scalar function, on the backend in use."""
    inputs = [keras.ops.convert_to_tensor(argument) for argument in arguments]
    derivatives = _GRADIENT[keras.backend.backend()](function, inputs)
    return [numpy(derivative) for derivative in derivatives]


def _gradient_tensorflow(function: Callable[..., Any], inputs: list[Any]) -> list[Any]:
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(inputs)
        result = function(*inputs)
    return list(tape.gradient(result, inputs))


def _gradient_jax(function: Callable[..., Any], inputs: list[Any]) -> list[Any]:
    import jax

    return list(jax.grad(function, argnums=tuple(range(len(inputs))))(*inputs))


def _gradient_torch(function: Callable[..., Any], inputs: list[Any]) -> list[Any]:
    import torch

    leaves = [tensor.detach().clone().requires_grad_() for tensor in inputs]
    return list(torch.autograd.grad(function(*leaves), leaves))


_GRADIENT = {
    "tensorflow": _gradient_tensorflow,
    "jax": _gradient_jax,
    "torch": _gradient_torch,
}


def prox_gap(z: Array, v: Array, penalty: Callable[[Array], float], seed: int = 0) -> float:
    """How much lower than at `z` the objective `1/2 |z - v|^2 + penalty(z)` gets near by.

    Tries random moves of several lengths, whole and on single entries, and moves towards v and 0.
    """
    rng = np.random.default_rng(seed)

    def objective(x: Array) -> float:
        return 0.5 * float(np.sum((x - v) ** 2)) + float(penalty(x))

    moves = [v - z, -z, *rng.normal(size=(8, *z.shape))]
    moves += [move * (rng.random(z.shape) < 0.2) for move in moves]
    tried = [objective(z + length * move) for move in moves for length in (1e-1, 1e-3, 1e-5, -1e-3)]
    return objective(z) - min(tried)


def assert_prox_minimises(
    z: Any, v: Array, penalty: Callable[[Array], float], tolerance: float = 1e-12
) -> None:
    """Fail unless no move from `z` lowers `1/2 |z - v|^2 + penalty(z)`."""
    gap = prox_gap(numpy(z), v, penalty)
    assert gap <= tolerance, f"the objective can be lowered by {gap}"
