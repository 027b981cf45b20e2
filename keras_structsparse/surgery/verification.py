"""Check in float64 that a rebuilt network computes the same, with a control that must differ."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import keras
import numpy as np

from keras_structsparse._typing import Array
from keras_structsparse.graph import functional_graph
from keras_structsparse.graph.batch_norm_folding import folded
from keras_structsparse.graph.cloning import copy_model
from keras_structsparse.graph.kernel_axes import plain_kernel
from keras_structsparse.graph.numerics import relative_difference
from keras_structsparse.graph.prunable_layers import kernel_layers
from keras_structsparse.surgery import Costs, prune
from keras_structsparse.surgery.plans import Plan, masked

TOLERANCE = 1e-10


@dataclass(frozen=True)
class Verification:
    """The differences between the outputs of a rebuilt network and its reference, in float64.

    Attributes:
        error: Largest difference between their outputs, relative to the largest output.
        control: The same after one more kernel is set to zero, to show what the check can detect.
        tolerance: The largest error that passes; a control must exceed it a thousandfold.
        subject: What was compared.
    """

    error: float
    control: float
    tolerance: float = TOLERANCE
    subject: str = "pruned against masked"

    @property
    def passed(self) -> bool:
        """Whether the outputs are equal, and the control shows that a difference is detected."""
        return self.error <= self.tolerance and self.control > 1e3 * self.tolerance

    def __str__(self) -> str:
        verdict = "equal" if self.passed else "NOT equal"
        if self.error <= self.tolerance and not self.passed:
            verdict = "undecided: no kernel makes a difference"
        return (
            f"{self.subject} in float64: {verdict} (relative difference {self.error:.1e}, "
            f"allowed {self.tolerance:.0e}; with one living kernel removed {self.control:.1e})"
        )


def verify(
    model: keras.Model,
    plan: Plan,
    constants: str = "exact",
    realize: str = "auto",
    samples: int = 5,
    seed: int = 0,
    costs: Costs | None = None,
    round_to: int = 1,
) -> Verification:
    """Compare ``prune(model, plan)`` with ``masked(model, plan)`` in float64 on random inputs.

    Both are made of a float64 copy of the model, so that rounding cannot hide an error.

    Args:
        model: A functional or built Sequential model.
        plan: The plan.
        constants: As for :func:`keras_structsparse.prune`.
        realize: Likewise.
        samples: Number of random inputs. Five is a size that few layers have: see "Traps" in
            docs/design-notes.md.
        seed: Seed of the inputs.
        costs: As for :func:`keras_structsparse.prune`.
        round_to: Likewise.

    Returns:
        The differences; ``.passed`` says whether the outputs are equal.

    Raises:
        DeadNetworkError: With the plan, no output depends on the input.
        ModelError: The model has no graph.
        PlanError: The plan does not fit the model.
        RuntimeError: The backend computes in float32 only.
    """
    double = in_float64(model)
    inputs = random_inputs(double, samples, seed)
    expected = _outputs(masked(double, plan), inputs)
    pruned = prune(double, plan, constants, realize=realize, costs=costs, round_to=round_to)
    error = _difference(expected, _outputs(pruned, inputs))
    return Verification(error, _control(double, plan, inputs, expected))


def verify_folding(model: keras.Model, samples: int = 5, seed: int = 0) -> Verification:
    """Compare ``folded(model)`` with ``model`` in float64 on random inputs.

    Args:
        model: A functional or built Sequential model.
        samples: Number of random inputs.
        seed: Seed of the inputs.

    Returns:
        The differences; ``.passed`` says whether the outputs are equal.

    Raises:
        ModelError: The model has no graph, or a layer cannot be copied.
        RuntimeError: The backend computes in float32 only.

    Examples:
        >>> stack = [keras.layers.Conv2D(4, 3), keras.layers.BatchNormalization()]
        >>> verify_folding(keras.Sequential([keras.Input((8, 8, 1)), *stack])).passed
        True
    """
    double = in_float64(model)
    inputs = random_inputs(double, samples, seed)
    expected = _outputs(double, inputs)
    error = _difference(expected, _outputs(folded(double), inputs))
    control = _control(double, Plan({}), inputs, expected)
    return Verification(error, control, subject="folded against the model")


def _control(model: keras.Model, plan: Plan, inputs: list[Array], expected: list[Array]) -> float:
    """The first detectable difference that removing one more kernel makes."""
    control = 0.0
    for other in _controls(model, plan):
        control = max(control, _difference(expected, _outputs(masked(model, other), inputs)))
        if control > 1e3 * TOLERANCE:
            break
    return control


def in_float64(model: keras.Model) -> keras.Model:
    """A copy of a model that computes in float64.

    Raises:
        RuntimeError: The backend computes in float32 only.
    """
    probe = keras.ops.ones((), dtype="float64")
    if keras.backend.standardize_dtype(probe.dtype) != "float64":
        raise RuntimeError(
            "verify: the backend computes in float32 only. With JAX, set JAX_ENABLE_X64=1."
        )
    return copy_model(model, _double)


def _double(layer: keras.Layer) -> dict[str, str]:
    """The dtype to change; integer inputs keep theirs, since they may be indices."""
    whole = isinstance(layer, keras.layers.InputLayer) and "float" not in str(layer.dtype)
    return {} if whole else {"dtype": "float64"}


def random_inputs(model: keras.Model, samples: int, seed: int) -> list[Array]:
    """Random arrays of the shapes of a model's inputs, with 32 for unknown sizes.

    Args:
        model: The model.
        samples: Number of samples.
        seed: Seed.

    Returns:
        One array per input. The samples are standard normal, uniform between 0 and 1, and uniform
        between 0 and 255 in turn, so that some are in the range that the network expects, whether
        it rescales its inputs or not. Integer inputs get integers 0 and 1, those that an
        embedding reads, of any dtype, its indices.
    """
    rng = np.random.default_rng(seed)
    bounds = _numbers_of_indices(functional_graph.read(model))
    arrays: list[Array] = []
    for tensor, bound in zip(model.inputs, bounds, strict=True):
        shape = (samples, *(size or 32 for size in tensor.shape[1:]))
        floating = "float" in str(tensor.dtype)
        if floating and bound is None:
            arrays.append(_mixed(rng, shape))
        else:
            arrays.append(rng.integers(0, bound or 2, shape).astype(float if floating else int))
    return arrays


def _numbers_of_indices(graph: functional_graph.Graph) -> list[int | None]:
    """For each input, the number of indices of the smallest embedding that reads it, if any."""
    found = []
    for tensor in graph.inputs:
        tensors, sizes = [tensor], []
        for index in tensors:  # grows
            for call in graph.readers.get(index, ()):
                if isinstance(call.operation, keras.layers.Embedding):
                    sizes.append(int(call.operation.input_dim))
                elif type(call.operation) in _PASSING:
                    tensors += call.outputs
        found.append(min(sizes, default=None))
    return found


_PASSING = (keras.layers.Reshape, keras.layers.Flatten, keras.layers.Permute)


def _mixed(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    kinds = [rng.normal(size=shape), rng.uniform(size=shape), rng.uniform(0, 255, size=shape)]
    return np.stack([kinds[sample % 3][sample] for sample in range(shape[0])])


def _outputs(model: keras.Model, inputs: list[Array]) -> list[Array]:
    packed = keras.tree.pack_sequence_as(functional_graph.input_structure(model), inputs)
    # Otherwise a layer called with training=True would put the layers after it in training mode.
    outputs = keras.tree.flatten(model(packed, training=False))
    return [keras.ops.convert_to_numpy(tensor) for tensor in outputs]


def _difference(expected: list[Array], found: list[Array]) -> float:
    """The largest relative difference of the outputs; infinite if any entry is not finite."""
    worst = np.max([relative_difference(a, b) for a, b in zip(expected, found, strict=True)])
    return float(worst) if np.isfinite(worst) else float("inf")


def _controls(model: keras.Model, plan: Plan) -> Iterator[Plan]:
    """The plan with one more kernel removed, the largest one of each layer in turn."""
    for name, layer in kernel_layers(functional_graph.read(model)).items():
        kernel = plain_kernel(layer)
        base = max(kernel.shape[:-2], default=1)
        sizes = list(plan.sizes.get(name, [base] * kernel.shape[-1]))
        lengths = np.abs(kernel).sum(axis=tuple(range(kernel.ndim - 1))) * (np.array(sizes) > 0)
        if lengths.any():
            sizes[int(np.argmax(lengths))] = 0
            yield Plan({**plan.sizes, name: sizes})
