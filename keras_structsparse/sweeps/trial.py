"""One training, and all the networks that its thresholds give."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import keras

from keras_structsparse._typing import Array
from keras_structsparse.data.datasets import Dataset, Split
from keras_structsparse.errors import DeadNetworkError, ModelError
from keras_structsparse.profiling.profile import profile
from keras_structsparse.regularizers.attachment import regularizers_of
from keras_structsparse.surgery import prune
from keras_structsparse.surgery.kernel_provenance import Ancestry
from keras_structsparse.sweeps.candidates import Candidate, find_candidates
from keras_structsparse.sweeps.correlation_log import CorrelationLog
from keras_structsparse.sweeps.points import Point
from keras_structsparse.sweeps.progress import Stages
from keras_structsparse.sweeps.settings import Settings, Trial
from keras_structsparse.training.fit import (
    Recipe,
    Shrinking,
    accuracy,
    compile_for,
    compile_regularized,
    fit,
    fit_and_shrink,
)
from keras_structsparse.training.penalty_config import Form
from keras_structsparse.training.reattachment import reattach
from keras_structsparse.training.shrinking import NO_HELPERS

Build = Callable[[], keras.Model]
Outcome = tuple[Point, keras.Model]


@dataclass(frozen=True)
class State:
    """A trained network, cut to its size.

    Attributes:
        model: The network, plain or with regularizers.
        ancestry: Whose kernels of the base network it has.
        whole: Multiply-adds of the base network.
        correlations: By layer of the base network, the mean correlation of its kernels after every
            epoch of this training.
    """

    model: keras.Model
    ancestry: Ancestry
    whole: int
    correlations: Mapping[str, Sequence[float]] = field(default_factory=dict)


def run_trial(
    build: Build,
    data: Dataset,
    settings: Settings,
    trial: Trial,
    stages: Stages = lambda name, epochs: (),
    scope: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> list[Outcome]:
    """Train once from the beginning, cut with every useful threshold, fine-tune what is left.

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
    trained = train(build, data, settings, trial, stages, scope)
    return evaluate(trained, data, settings, trial, stages, scope)


def train(
    build: Build,
    data: Dataset,
    settings: Settings,
    trial: Trial,
    stages: Stages = lambda name, epochs: (),
    scope: Callable[[], AbstractContextManager[Any]] = nullcontext,
    start: State | None = None,
) -> State:
    """Train the network of a trial.

    Args:
        build: As for :func:`run_trial`.
        data: As for :func:`run_trial`.
        settings: As for :func:`run_trial`.
        trial: As for :func:`run_trial`.
        stages: As for :func:`run_trial`.
        scope: As for :func:`run_trial`.
        start: The network to start from, on a path of alphas; None for a new one.

    Returns:
        The network, with its regularizers.
    """
    keras.utils.set_random_seed(trial.seed)
    recipe, form = settings.recipe_of(trial, first=start is None), settings.form_of(trial)
    with scope():
        state = _compiled(_built(build), len(data.train), form, recipe, trial, start)
    correlations = CorrelationLog(state.ancestry, min(settings.taus))
    callbacks = [*stages(trial.name, recipe.epochs), correlations]
    state = replace(state, correlations=correlations.values)
    if settings.shrink_every is None or not trial.alpha:
        fit(state.model, _pair(data.train), recipe, callbacks=callbacks)
        return state
    shrinking = Shrinking(settings.shrink_every, always=True)
    shrunk = fit_and_shrink(
        state.model,
        _pair(data.train),
        recipe,
        shrinking,
        callbacks=callbacks,
        ancestry=state.ancestry,
    )
    return replace(state, model=shrunk.model, ancestry=shrunk.ancestry)


def _compiled(
    base: keras.Model,
    examples: int,
    form: Form,
    recipe: Recipe,
    trial: Trial,
    start: State | None,
) -> State:
    """The network to train: the base, or one to go on with and the base's shares of alpha."""
    penalty = form.regularizer(trial.alpha) if trial.alpha else None
    compile_for(base, recipe, examples, penalty, form.weights, form.coupled)
    if start is None:
        return State(base, Ancestry.of(base), profile(base).multiply_adds)
    reattach(regularizers_of(base), start.model, start.ancestry)
    compile_regularized(start.model, recipe, examples)
    return start


def cut(trained: State) -> State | None:
    """A trained network without its zeros and regularizers, to start the next one of a path from.

    Args:
        trained: What :func:`train` returned.

    Returns:
        The network, which needs only Keras; None of one that is dead.
    """
    try:
        model = prune(trained.model, tau=0.0, costs=NO_HELPERS)
    except DeadNetworkError:
        return None
    ancestry = trained.ancestry.followed_by(Ancestry.between(trained.model, model))
    return replace(trained, model=model, ancestry=ancestry)


def evaluate(
    trained: State,
    data: Dataset,
    settings: Settings,
    trial: Trial,
    stages: Stages = lambda name, epochs: (),
    scope: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> list[Outcome]:
    """Cut with every useful threshold, and fine-tune what is left.

    Thresholds are judged on the validation split; the test split is only reported on.

    Args:
        trained: What :func:`train` returned.
        data: As for :func:`run_trial`.
        settings: As for :func:`run_trial`.
        trial: As for :func:`run_trial`.
        stages: As for :func:`run_trial`.
        scope: As for :func:`run_trial`.

    Returns:
        As :func:`run_trial`.
    """
    if not trial.alpha:
        return [_dense(trained.model, data)]
    with scope():
        candidates = find_candidates(trained.model, data, settings)
    outcomes = []
    for candidate in candidates:
        point = _point(trial, candidate, data.test, trained)
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


def _point(trial: Trial, candidate: Candidate, test: Split, trained: State) -> Point:
    at_surgery = accuracy(candidate.model, _pair(test))
    left = Ancestry.between(trained.model, candidate.model).left_of(candidate.plan)
    sizes = trained.ancestry.of_base(left).sizes
    return Point(
        alpha=trial.alpha,
        tau=candidate.tau,
        multiply_adds=candidate.multiply_adds,
        multiply_adds_fraction=candidate.multiply_adds / trained.whole,
        params=profile(candidate.model).params,
        validation_at_surgery=candidate.validation,
        validation_finetuned=candidate.validation,
        accuracy_at_surgery=at_surgery,
        accuracy_finetuned=at_surgery,
        sizes={name: tuple(own) for name, own in sizes.items()},
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
