"""Check in float64 that a rebuilt network computes the same, with a control that must differ."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import keras
import numpy as np

from keras_structsparse import _keras_compat
from keras_structsparse._typing import Array
from keras_structsparse._validation import positive_int
from keras_structsparse.errors import StructSparseError
from keras_structsparse.graph import functional_graph
from keras_structsparse.graph.batch_norm_folding import folded
from keras_structsparse.graph.last_activations import in_front, kinds
from keras_structsparse.graph.prunable_layers import quantized_layers
from keras_structsparse.surgery import Costs, prune
from keras_structsparse.surgery.plans import Plan, masked
from keras_structsparse.surgery.pruning import check_options
from keras_structsparse.surgery.verification_copies import (
    check_backend,
    controls,
    in_float64,
    largest_difference,
    outputs_of,
)
from keras_structsparse.surgery.verification_inputs import Trial, random_inputs, trials
from keras_structsparse.surgery.verification_modes import InMode, Networks, in_modes

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
    Where a layer acts otherwise in training, both are compared there too, with moving statistics of
    a batch: with others, a removed channel may be another constant in training than at inference,
    for which surgery is exact. See "Verification in training mode" in docs/design-notes.md.
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

    return _compared(model, plan, rebuilt, Verification(0.0, 0.0), samples, seed, in_training=True)


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


@dataclass
class _Progress:
    """What is being done, for the message if it fails, and what was found before."""

    stage: str
    result: Verification


@_keras_compat.float64_kept()
def _compared(
    model: keras.Model,
    plan: Plan,
    rebuild: Callable[[keras.Model], keras.Model],
    empty: Verification,
    samples: int,
    seed: int,
    in_training: bool = False,
) -> Verification:
    """Compare the masked model with a rebuilt one on all trials.

    Args:
        model: The model.
        plan: What the reference masks.
        rebuild: From the float64 copy to the network that is checked.
        empty: The result, but for the numbers.
        samples: Number of samples of each trial.
        seed: Seed of the inputs.
        in_training: Whether to compare them in training mode too.
    """
    check_backend()
    if layers := quantized_layers(functional_graph.read(model)):
        return _unchecked(empty, f"{layers}; quantised weights have no float64 copy")
    progress = _Progress("its copy in float64", empty)
    try:
        double = in_float64(model)
        progress.stage = "the masked model"
        reference = masked(double, plan)
        progress.stage = "the rebuilt network"
        made = rebuild(double)
        progress.stage = "the values in front of the last activations"
        fronts = _fronts(reference, made)
        found = list(trials(double, samples, seed))
        _over_trials(progress, double, plan, reference, made, found, fronts)
        if in_training:
            progress.stage = "the pruned model in training mode"
            mask, views = partial(masked, plan=plan), partial(_with_fronts, fronts=fronts)
            networks = Networks(mask, rebuild, views)
            batches = found[0].inputs, random_inputs(double, samples, seed + 1)
            for each in in_modes(double, reference, made, networks, batches, TOLERANCE):
                progress.result = _with_mode(progress.result, each)
    except StructSparseError:
        raise
    except Exception as error:
        problem = f"{progress.stage}: {type(error).__name__}: {_first_line(error)}"
        return _unchecked(progress.result, problem)
    return progress.result


def _over_trials(
    progress: _Progress,
    double: keras.Model,
    plan: Plan,
    reference: keras.Model,
    made: keras.Model,
    found: Sequence[Trial],
    fronts: list[int],
) -> None:
    """Compare at inference; the control is made on the first trial."""
    references, rebuilt = _with_fronts(reference, fronts), _with_fronts(made, fronts)
    for number, trial in enumerate(found):
        progress.stage = f"the masked model on {trial.what}"
        try:
            expected = outputs_of(references, trial.inputs)
        except Exception as error:  # Keras and its backends raise anything
            if not number:
                raise
            progress.result = _skipped(progress.result, trial.what, _first_line(error))
            continue
        if number and not all(np.isfinite(array).all() for array in expected):
            progress.result = _skipped(progress.result, trial.what, "its outputs are not finite")
            continue
        progress.stage = f"the rebuilt network on {trial.what}"
        worst = largest_difference(expected, outputs_of(rebuilt, trial.inputs))
        progress.result = _with_error(progress.result, trial.what, worst)
        if not number:
            progress.stage = "the control"
            control = _control(double, plan, fronts, trial.inputs, expected)
            progress.result = replace(progress.result, control=control)


def _with_error(result: Verification, what: str, error: float) -> Verification:
    return replace(result, error=max(result.error, error), tried=(*result.tried, what))


def _with_mode(result: Verification, found: InMode) -> Verification:
    if found.error is None:
        return _skipped(result, found.what, found.reason)
    return _with_error(result, found.what, found.error)


def _unchecked(result: Verification, problem: str) -> Verification:
    return replace(result, error=float("inf"), problem=problem)


def _skipped(result: Verification, what: str, reason: str) -> Verification:
    return replace(result, skipped=(*result.skipped, f"{what} ({reason})"))


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
    for other in controls(model, plan):
        found = outputs_of(_with_fronts(masked(model, other), fronts), inputs)
        control = max(control, largest_difference(expected, found))
        if control > 1e3 * TOLERANCE:
            break
    return control
