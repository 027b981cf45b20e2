"""One training, and all the networks that its thresholds give."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import keras

from keras_structsparse.datasets import Dataset, Split
from keras_structsparse.errors import DeadNetworkError, ModelError
from keras_structsparse.frontier import pareto
from keras_structsparse.plans import Plan, plan
from keras_structsparse.profiles import profile
from keras_structsparse.results import Point
from keras_structsparse.selection import masked_accuracy
from keras_structsparse.surgery import prune
from keras_structsparse.sweeps.settings import Settings, Trial
from keras_structsparse.training import Recipe, accuracy, compile_for, fit

Array = Any
Build = Callable[[], keras.Model]
Outcome = tuple[Point, keras.Model]
Stages = Callable[[str, int], Sequence[keras.callbacks.Callback]]
"""From what is trained now, and for how many epochs, to the callbacks for it."""


@dataclass(frozen=True)
class _Candidate:
    """A threshold and the network it leaves, before fine-tuning."""

    tau: float
    plan: Plan
    model: keras.Model
    multiply_adds: int
    validation: float


def run_trial(
    build: Build,
    data: Dataset,
    settings: Settings,
    trial: Trial,
    stages: Stages = lambda name, epochs: (),
    scope: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> list[Outcome]:
    """Train once, cut with every useful threshold, fine-tune what is left.

    Thresholds are judged on the validation split; the test split is only reported on.

    Args:
        build: Gives the base network, new, with softmax outputs.
        data: The data set.
        settings: The settings of the sweep.
        trial: The trial; alpha 0 trains without penalty and cuts nothing.
        stages: Gives the callbacks of each training.
        scope: Under which networks are made, such as that of a distribution strategy.

    Returns:
        The points with their networks, the cheapest first; none if all that is left is dead.

    Raises:
        ModelError: ``build`` gives no model that can be trained on the data.
    """
    keras.utils.set_random_seed(trial.seed)
    with scope():
        base = _built(build)
        penalty = settings.form.regularizer(trial.alpha) if trial.alpha else None
        weights, coupled = settings.form.weights, settings.form.coupled
        compile_for(base, settings.recipe, len(data.train), penalty, weights, coupled)
    fit(
        base,
        _pair(data.train),
        settings.recipe,
        callbacks=stages(trial.name, settings.recipe.epochs),
    )
    if not trial.alpha:
        return [_dense(base, data)]
    whole = profile(base).multiply_adds
    with scope():
        candidates = _candidates(base, data.validation, settings)
    outcomes = []
    for candidate in candidates:
        point = _point(trial, candidate, data.test, whole)
        if settings.tuning is not None:
            name = f"{trial.name}, tau {candidate.tau:g}"
            callbacks = stages(name, settings.tuning.epochs)
            point = _tuned(point, candidate.model, data, settings.tuning, callbacks, scope)
        outcomes.append((point, candidate.model))
    return outcomes


def _built(build: Build) -> keras.Model:
    model = build()
    if not isinstance(model, keras.Model):
        raise ModelError(
            f"build: expected a function that gives a Keras model. Received: {model!r}"
        )
    return model


def _dense(model: keras.Model, data: Dataset) -> Outcome:
    size = profile(model)
    validation, test = (accuracy(model, _pair(part)) for part in (data.validation, data.test))
    point = Point(
        0.0, 0.0, size.multiply_adds, 1.0, size.params, validation, validation, test, test, {}
    )
    return point, model


def _candidates(model: keras.Model, validation: Split, settings: Settings) -> list[_Candidate]:
    """The thresholds that no other one beats on the validation split, the cheapest first."""
    tried: dict[Any, _Candidate] = {}
    for tau in sorted(settings.taus):
        chosen = plan(model, tau)
        key = tuple(tuple(sizes) for sizes in chosen.sizes.values())
        if key in tried:
            continue
        try:
            pruned = prune(model, chosen)
        except DeadNetworkError:
            break  # Larger thresholds remove no less.
        value = masked_accuracy(model, chosen, _pair(validation))
        tried[key] = _Candidate(tau, chosen, pruned, profile(pruned).multiply_adds, value)
    found = list(tried.values())
    least = found[0].validation - settings.max_drop if found else 0.0
    found = [candidate for candidate in found if candidate.validation >= least]
    # Of thresholds that come to the same, the smallest.
    values = {(c.multiply_adds, c.validation): c for c in reversed(found)}
    return [list(values.values())[i] for i in pareto(list(values))]


def _point(trial: Trial, candidate: _Candidate, test: Split, whole: int) -> Point:
    at_surgery = accuracy(candidate.model, _pair(test))
    return Point(
        alpha=trial.alpha,
        tau=candidate.tau,
        multiply_adds=candidate.multiply_adds,
        multiply_adds_fraction=candidate.multiply_adds / whole,
        params=profile(candidate.model).params,
        validation_at_surgery=candidate.validation,
        validation_finetuned=candidate.validation,
        accuracy_at_surgery=at_surgery,
        accuracy_finetuned=at_surgery,
        sizes={name: tuple(sizes) for name, sizes in candidate.plan.sizes.items()},
    )


def _tuned(
    point: Point,
    model: keras.Model,
    data: Dataset,
    tuning: Recipe,
    callbacks: Sequence[keras.callbacks.Callback],
    scope: Callable[[], AbstractContextManager[Any]],
) -> Point:
    """The point after fine-tuning the network."""
    with scope():
        compile_for(model, tuning, len(data.train))
    fit(model, _pair(data.train), tuning, callbacks=callbacks)
    validation, test = (accuracy(model, _pair(part)) for part in (data.validation, data.test))
    return replace(point, validation_finetuned=validation, accuracy_finetuned=test)


def _pair(part: Split) -> tuple[Array, Array]:
    return part.x, part.y
