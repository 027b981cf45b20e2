"""Check in float64 that a rebuilt network computes the same, with a control that must differ."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import keras
import numpy as np

from keras_structsparse._typing import Array
from keras_structsparse._validation import positive_int
from keras_structsparse.errors import StructSparseError
from keras_structsparse.graph import functional_graph
from keras_structsparse.graph.batch_norm_folding import folded
from keras_structsparse.graph.cloning import copy_model
from keras_structsparse.graph.kernel_axes import plain_kernel
from keras_structsparse.graph.last_activations import in_front, kinds
from keras_structsparse.graph.numerics import relative_difference
from keras_structsparse.graph.prunable_layers import kernel_layers, quantized_layers
from keras_structsparse.surgery import Costs, prune
from keras_structsparse.surgery.plans import Plan, masked
from keras_structsparse.surgery.pruning import check_options
from keras_structsparse.surgery.verification_inputs import Trial, random_inputs, trials

__all__ = ["Verification", "in_float64", "random_inputs", "verify", "verify_folding"]

TOLERANCE = 1e-10


@dataclass(frozen=True)
class Verification:
    """The differences between the outputs of a rebuilt network and its reference, in float64.

    Attributes:
        error: Largest difference between their outputs, relative to the largest output; also of
            the values in front of a last softmax, sigmoid or tanh.
        control: The same after one more kernel is set to zero, to show what the check can detect.
        tolerance: The largest error that passes; a control must exceed it a thousandfold.
        subject: What was compared.
        tried: The kinds of inputs on which both were compared.
        skipped: The kinds of inputs on which the reference itself fails, with the reason.
        problem: What could not be checked, and why; empty if everything could.
    """

    error: float
    control: float
    tolerance: float = TOLERANCE
    subject: str = "pruned against masked"
    tried: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    problem: str = ""

    @property
    def passed(self) -> bool:
        """Whether the outputs are equal, and the control shows that a difference is detected."""
        equal = self.error <= self.tolerance and self.control > 1e3 * self.tolerance
        return equal and not self.problem

    def __bool__(self) -> bool:
        return self.passed

    def __str__(self) -> str:
        if self.problem:
            return f"{self.subject} in float64: NOT checked: {self.problem}"
        tried = f"; tried: {', '.join(self.tried)}" * bool(self.tried)
        skipped = f"; not tried: {', '.join(self.skipped)}" * bool(self.skipped)
        verdict = "equal" if self.passed else "NOT equal"
        if self.error <= self.tolerance and not self.passed:
            verdict = "undecided: no kernel makes a difference"
        return (
            f"{self.subject} in float64: {verdict} (relative difference {self.error:.1e}, "
            f"allowed {self.tolerance:.0e}; with one living kernel removed {self.control:.1e})"
            f"{tried}{skipped}"
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

    Both are made of a float64 copy of the model, so that rounding cannot hide an error. The inputs
    are random values; if tensors of the model have masks, also with masked steps; if it has open
    axes, in several sizes. The result says what was tried: other inputs may show other differences.
    Outputs of a softmax, sigmoid or tanh are compared in front of it too, where it cannot saturate.

    Args:
        model: A functional or built Sequential model.
        plan: The plan.
        constants: As for :func:`keras_structsparse.prune`.
        realize: Likewise.
        samples: Number of random inputs of each kind. Five is a size that few layers have: see
            "Traps" in docs/design-notes.md.
        seed: Seed of the inputs.
        costs: As for :func:`keras_structsparse.prune`.
        round_to: Likewise.

    Returns:
        The differences; ``.passed``, and the truth value, say whether the outputs are equal. Where
        the model cannot be checked, as one with quantised layers, ``.problem`` says why.

    Raises:
        DeadNetworkError: With the plan, no output depends on the input.
        ModelError: The model has no graph.
        PlanError: The plan does not fit the model.
        RuntimeError: The backend computes in float32 only.
        TypeError: As for :func:`keras_structsparse.prune`.
        ValueError: Likewise.
    """
    check_options(constants, realize, costs)
    block = positive_int("round_to", round_to)
    if not isinstance(plan, Plan):
        raise TypeError(f"plan: expected a keras_structsparse.Plan. Received: {plan!r}")

    def rebuilt(double: keras.Model) -> keras.Model:
        return prune(double, plan, constants, realize=realize, costs=costs, round_to=block)

    return _compared(model, plan, rebuilt, Verification(0.0, 0.0), samples, seed)


def verify_folding(model: keras.Model, samples: int = 5, seed: int = 0) -> Verification:
    """Compare ``folded(model)`` with ``model`` in float64 on random inputs.

    Args:
        model: A functional or built Sequential model.
        samples: Number of random inputs of each kind.
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
    empty = Verification(0.0, 0.0, subject="folded against the model")
    # By its name in this module, so that a test can put a wrong one in its place.
    return _compared(model, Plan({}), lambda double: folded(double), empty, samples, seed)


def _compared(
    model: keras.Model,
    plan: Plan,
    rebuild: Callable[[keras.Model], keras.Model],
    empty: Verification,
    samples: int,
    seed: int,
) -> Verification:
    """Compare the masked model with a rebuilt one on all trials.

    Args:
        model: The model.
        plan: What the reference masks.
        rebuild: From the float64 copy to the network that is checked.
        empty: The result, but for the numbers.
        samples: Number of samples of each trial.
        seed: Seed of the inputs.
    """
    _check_backend()
    if layers := quantized_layers(functional_graph.read(model)):
        return _unchecked(empty, f"{layers}; quantised weights have no float64 copy")
    stage = "its copy in float64"
    result = empty
    try:
        double = in_float64(model)
        stage = "the masked model"
        reference = masked(double, plan)
        stage = "the rebuilt network"
        made = rebuild(double)
        stage = "the values in front of the last activations"
        fronts = _fronts(reference, made)
        references, rebuilt = _with_fronts(reference, fronts), _with_fronts(made, fronts)
        for number, trial in enumerate(trials(double, samples, seed)):
            stage = f"the masked model on {trial.what}"
            try:
                expected = _outputs(references, trial.inputs)
            except Exception as error:  # Keras and its backends raise anything
                if not number:
                    raise
                result = _skipped(result, trial, _first_line(error))
                continue
            if number and not all(np.isfinite(array).all() for array in expected):
                result = _skipped(result, trial, "its outputs are not finite")
                continue
            stage = f"the rebuilt network on {trial.what}"
            worst = max(result.error, _difference(expected, _outputs(rebuilt, trial.inputs)))
            result = replace(result, error=worst, tried=(*result.tried, trial.what))
            if not number:
                stage = "the control"
                control = _control(double, plan, fronts, trial.inputs, expected)
                result = replace(result, control=control)
    except StructSparseError:
        raise
    except Exception as error:
        return _unchecked(result, f"{stage}: {type(error).__name__}: {_first_line(error)}")
    return result


def _unchecked(result: Verification, problem: str) -> Verification:
    return replace(result, error=float("inf"), problem=problem)


def _skipped(result: Verification, trial: Trial, reason: str) -> Verification:
    return replace(result, skipped=(*result.skipped, f"{trial.what} ({reason})"))


def _first_line(error: Exception) -> str:
    """The first sentence of an error of Keras, which may go on for pages."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__


def _fronts(reference: keras.Model, made: keras.Model) -> list[int]:
    """The outputs of both networks that are a last softmax, sigmoid or tanh."""
    pairs = zip(kinds(reference), kinds(made), strict=True)
    return [place for place, (kind, other) in enumerate(pairs) if kind == other != ""]


def _with_fronts(model: keras.Model, fronts: list[int]) -> list[keras.Model]:
    """A network, and what it computes in front of its last activations."""
    return [model, in_front(model, fronts)] if fronts else [model]


def _control(
    model: keras.Model, plan: Plan, fronts: list[int], inputs: list[Array], expected: list[Array]
) -> float:
    """The first detectable difference that removing one more kernel makes."""
    control = 0.0
    for other in _controls(model, plan):
        found = _outputs(_with_fronts(masked(model, other), fronts), inputs)
        control = max(control, _difference(expected, found))
        if control > 1e3 * TOLERANCE:
            break
    return control


def in_float64(model: keras.Model) -> keras.Model:
    """A copy of a model that computes in float64.

    Raises:
        RuntimeError: The backend computes in float32 only.
    """
    _check_backend()
    return copy_model(model, _double)


def _check_backend() -> None:
    probe = keras.ops.ones((), dtype="float64")
    if keras.backend.standardize_dtype(probe.dtype) != "float64":
        raise RuntimeError(
            "verify: the backend computes in float32 only. With JAX, set JAX_ENABLE_X64=1."
        )


def _double(layer: keras.Layer) -> dict[str, str]:
    """The dtype to change; integer inputs keep theirs, since they may be indices."""
    whole = isinstance(layer, keras.layers.InputLayer) and "float" not in str(layer.dtype)
    return {} if whole else {"dtype": "float64"}


def _outputs(models: list[keras.Model], inputs: list[Array]) -> list[Array]:
    packed = keras.tree.pack_sequence_as(functional_graph.input_structure(models[0]), inputs)
    # Otherwise a layer called with training=True would put the layers after it in training mode.
    outputs = keras.tree.flatten([model(packed, training=False) for model in models])
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
