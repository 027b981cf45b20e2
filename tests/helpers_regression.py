"""Regularized least squares whose solution can be checked: one linear layer, all data each step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers as L

import keras_structsparse as kss
from keras_structsparse.graph import nested_groups

Array = Any

ALPHA = 0.15625  # Exact in float32.
SAMPLES = 64
OUTPUTS = 8


@dataclass(frozen=True)
class Problem:
    """Least squares with a penalty on the kernel of a linear layer.

    Attributes:
        inputs: Array (samples, *shape of a kernel).
        targets: Array (samples, kernels).
        how: The groups of the penalty.
    """

    inputs: Array
    targets: Array
    how: str

    @property
    def regularizer(self) -> Any:
        return kss.KernelSize(ALPHA, groups=self.how)

    def layer(self) -> keras.layers.Layer:
        options = {"use_bias": False, "kernel_regularizer": self.regularizer}
        if self.inputs.ndim == 2:
            return L.Dense(OUTPUTS, **options)
        return L.Conv2D(OUTPUTS, self.inputs.shape[1:3], **options)

    def gradient(self, kernel: Array) -> Array:
        """Of the mean squared error."""
        flat = self.inputs.reshape(SAMPLES, -1)
        errors = flat @ kernel.reshape(-1, OUTPUTS) - self.targets
        return (2 * flat.T @ errors / errors.size).reshape(kernel.shape)

    def residual(self, kernel: Array) -> float:
        """How far a kernel is from satisfying the optimality conditions: 0 at the solution only."""
        moved = kernel - self.gradient(kernel)
        return float(np.abs(kernel - shrunk(moved, ALPHA, self.how)).max())


def group_lasso() -> Problem:
    """Targets that depend on few outputs strongly and on the others weakly."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(SAMPLES, 6))
    truth = rng.normal(size=(6, OUTPUTS)) * np.array([2, 2, 1, 1, 0.5, 0.1, 0.05, 0.02])
    return Problem(inputs, _targets(rng, inputs, truth), "kernel")


def nested_rings() -> Problem:
    """Kernels 3x3 of which some need only their middle, one nothing."""
    rng = np.random.default_rng(1)
    inputs = rng.normal(size=(SAMPLES, 3, 3, 1))
    truth = 2 * rng.normal(size=(3, 3, 1, OUTPUTS))
    ring = nested_groups.ring_index((3, 3)).reshape(3, 3)
    for j, first in enumerate((0, 0, 1, 1, 2, 2, 2, 3)):
        truth[ring < first, :, j] *= 0.02
    return Problem(inputs, _targets(rng, inputs, truth), "half_ring")


def _targets(rng: np.random.Generator, inputs: Array, truth: Array) -> Array:
    noise = 0.05 * rng.normal(size=(SAMPLES, OUTPUTS))
    return inputs.reshape(SAMPLES, -1) @ truth.reshape(-1, OUTPUTS) + noise


def shrunk(kernel: Array, step: float, how: str) -> Array:
    """The proximal step of l2 norms, written out kernel by kernel and group by group."""
    result = kernel.copy()
    masks = nested_groups.masks(kernel.shape[:-2], how).reshape(-1, *kernel.shape[:-2]).astype(bool)
    for mask in masks:
        for j in range(kernel.shape[-1]):
            length = np.linalg.norm(result[mask][..., j])
            result[mask, ..., j] *= max(0.0, 1 - step / length) if length else 0.0
    return result


def train(optimizer: keras.optimizers.Optimizer, steps: int, problem: Problem) -> Array:
    """The kernel after some steps, in float64."""
    keras.utils.set_random_seed(0)
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    layer = problem.layer()
    shape = problem.inputs.shape[1:]
    model = keras.Sequential([keras.Input(shape), layer, L.Flatten()])
    at_once = 1 if keras.backend.backend() == "torch" else 50
    model.compile(optimizer, "mse", steps_per_execution=at_once)
    data = (np.concatenate([x] * steps) for x in (problem.inputs, problem.targets))
    model.fit(*data, batch_size=SAMPLES, shuffle=False, verbose=0)
    return keras.ops.convert_to_numpy(layer.kernel)
