"""Check in double precision that a rebuilt network is equal, with a control that must fail."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import keras
import numpy as np

from keras_structsparse._typing import Array
from keras_structsparse.graph import functional_graph
from keras_structsparse.graph.batch_norm_folding import folded
from keras_structsparse.graph.cloning import copy_model
from keras_structsparse.graph.prunable_layers import kernel_layers
from keras_structsparse.surgery import Costs, prune
from keras_structsparse.surgery.plans import Plan, masked

TOLERANCE = 1e-10


@dataclass(frozen=True)
class Verification:
    """How far a rebuilt network is from the one it stands for, in float64.

    Attributes:
        error: Largest difference between their outputs, relative to the largest output.
        control: The same after one more, living kernel is set to zero: what the check can see.
        tolerance: The largest error that passes; a control must exceed it a thousandfold.
        subject: What was compared.
    """

    error: float
    control: float
    tolerance: float = TOLERANCE
    subject: str = "pruned against masked"

    @property
    def passed(self) -> bool:
        """Whether the outputs are equal, and the check could have told otherwise."""
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

    Both start from a float64 copy of the model, so that rounding cannot hide a mistake.

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
        The differences; ``.passed`` tells whether all is well.

    Raises:
        DeadNetworkError: The plan kills the network.
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
        The differences; ``.passed`` tells whether all is well.

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
    """The difference that one more removed kernel makes: the first that can be seen."""
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
    """Whole numbers stay what they are: they may be indices."""
    whole = isinstance(layer, keras.layers.InputLayer) and "float" not in str(layer.dtype)
    return {} if whole else {"dtype": "float64"}


def random_inputs(model: keras.Model, samples: int, seed: int) -> list[Array]:
    """Random arrays that fit the inputs of a model; 32 stands for sizes that are not known.

    Args:
        model: The model.
        samples: Number of samples.
        seed: Seed.

    Returns:
        One array per input. Samples are in turn standard normal, uniform between 0 and 1, and
        uniform between 0 and 255, so that a network for any of these, with its own rescaling or
        without, sees some that are neither black nor saturated; integers 0 and 1 for integer
        inputs.
    """
    rng = np.random.default_rng(seed)
    arrays = []
    for tensor in model.inputs:
        shape = (samples, *(size or 32 for size in tensor.shape[1:]))
        floating = "float" in str(tensor.dtype)
        arrays.append(_mixed(rng, shape) if floating else rng.integers(0, 2, shape))
    return arrays


def _mixed(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    kinds = [rng.normal(size=shape), rng.uniform(size=shape), rng.uniform(0, 255, size=shape)]
    return np.stack([kinds[sample % 3][sample] for sample in range(shape[0])])


def _outputs(model: keras.Model, inputs: list[Array]) -> list[Array]:
    packed = keras.tree.pack_sequence_as(functional_graph.input_structure(model), inputs)
    # Without it, a layer whose call says training=True makes the layers after it train as well.
    outputs = keras.tree.flatten(model(packed, training=False))
    return [keras.ops.convert_to_numpy(tensor) for tensor in outputs]


def _difference(expected: list[Array], found: list[Array]) -> float:
    """The largest relative difference; infinite where anything is not finite."""
    worst = 0.0
    for a, b in zip(expected, found, strict=True):
        scale = float(np.abs(a).max()) or 1.0
        difference = float(np.abs(a - b).max()) / scale
        worst = max(worst, difference if np.isfinite(difference) else float("inf"))
    return worst


def _controls(model: keras.Model, plan: Plan) -> Iterator[Plan]:
    """The plan with one more kernel removed: the largest of each layer in turn."""
    for name, layer in kernel_layers(functional_graph.read(model)).items():
        kernel = keras.ops.convert_to_numpy(layer.kernel)
        base = max(kernel.shape[:-2], default=1)
        sizes = list(plan.sizes.get(name, [base] * kernel.shape[-1]))
        lengths = np.abs(kernel).sum(axis=tuple(range(kernel.ndim - 1))) * (np.array(sizes) > 0)
        if lengths.any():
            sizes[int(np.argmax(lengths))] = 0
            yield Plan({**plan.sizes, name: sizes})
