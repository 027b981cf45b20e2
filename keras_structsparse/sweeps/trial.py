"""One training, and the networks that thresholds make of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import keras

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
    accuracy,
    compile_for,
    compile_regularized,
    fit,
    fit_and_shrink,
)
from keras_structsparse.training.penalty_config import PenaltyConfig
from keras_structsparse.training.reattachment import reattach
from keras_structsparse.training.recipes import Recipe, Shrinking
from keras_structsparse.training.shrinking import NO_HELPERS, own_training

Build = Callable[[], keras.Model]
Outcome = tuple[Point, keras.Model]


@dataclass(frozen=True)
class TrainedNetwork:
    """A trained network.

    Attributes:
        model: The network, plain or with regularizers.
        ancestry: Which kernels of the base network it has.
        whole: Multiply-adds of the base network.
        correlations: By layer of the base network, the mean correlation of its kernels after every
            epoch of this training.
    """

    model: keras.Model
    ancestry: Ancestry
    whole: int
    correlations: Mapping[str, Sequence[float]] = field(default_factory=dict)


def train(
    build: Build,
    data: Dataset,
    settings: Settings,
    trial: Trial,
    stages: Stages = lambda name, epochs: (),
    scope: Callable[[], AbstractContextManager[Any]] = nullcontext,
    start: TrainedNetwork | None = None,
) -> TrainedNetwork:
    """Train the network of a trial.

    Args:
        build: Gives the base network, new, with softmax outputs.
        data: The data set.
        settings: The settings of the sweep.
        trial: The trial; alpha 0 trains without penalty.
        stages: Gives the callbacks of each training.
        scope: Under which networks are made, such as that of a distribution strategy.
        start: The network to start from, on a path of alphas; None for a new one.

    Returns:
        The network, with its regularizers.

    Raises:
        ModelError: ``build`` gives no model that can be trained on the data.
    """
    keras.utils.set_random_seed(trial.seed)
    recipe, form = settings.recipe_of(trial, first=start is None), settings.form_of(trial)
    with scope():
        state = _compiled(built(build), len(data.train), form, recipe, trial, start)
    correlations = CorrelationLog(state.ancestry, min(settings.taus))
    callbacks = [*stages(_stage("training", trial), recipe.epochs), correlations]
    state = replace(state, correlations=correlations.values)
    if settings.shrink_every is None or not trial.alpha:
        fit(state.model, data.train.arrays, recipe, callbacks=callbacks)
        return state
    shrinking = Shrinking(settings.shrink_every, always=True)
    shrunk = fit_and_shrink(
        state.model,
        data.train.arrays,
        recipe,
        shrinking,
        callbacks=callbacks,
        ancestry=state.ancestry,
    )
    return replace(state, model=shrunk.model, ancestry=shrunk.ancestry)


def _compiled(
    base: keras.Model,
    examples: int,
    form: PenaltyConfig,
    recipe: Recipe,
    trial: Trial,
    start: TrainedNetwork | None,
) -> TrainedNetwork:
    """The network to train: the base; or the start, with the base's shares of alpha."""
    penalty = form.regularizer(trial.alpha) if trial.alpha else None
    compile_for(base, recipe, examples, penalty, form.weights, form.coupled)
    if start is None:
        return TrainedNetwork(base, Ancestry.of(base), profile(base).multiply_adds)
    reattach(regularizers_of(base), start.model, start.ancestry)
    compile_regularized(start.model, recipe, examples)
    return start


def without_zeros(trained: TrainedNetwork) -> TrainedNetwork | None:
    """A trained network without its zeros and regularizers: the start of the next one of a path.

    Args:
        trained: The network from :func:`train`.

    Returns:
        The network, which needs only Keras; None for a dead one.
    """
    try:
        model = prune(trained.model, tau=0.0, costs=NO_HELPERS)
    except DeadNetworkError:
        return None
    ancestry = trained.ancestry.followed_by(Ancestry.between(trained.model, model))
    return replace(trained, model=model, ancestry=ancestry)


def evaluate(
    trained: TrainedNetwork,
    data: Dataset,
    settings: Settings,
    trial: Trial,
    stages: Stages = lambda name, epochs: (),
    scope: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> list[Outcome]:
    """Prune with every useful threshold, and fine-tune the pruned networks.

    Thresholds are judged on the validation split; the test split is only reported on.

    Args:
        trained: The network from :func:`train`.
        data: As for :func:`train`.
        settings: As for :func:`train`.
        trial: As for :func:`train`; of alpha 0, nothing is pruned.
        stages: As for :func:`train`.
        scope: As for :func:`train`.

    Returns:
        The points with their networks, the cheapest first; none if all of them are dead.
    """
    if not trial.alpha:
        return [_dense(trained.model, data)]
    with scope():
        candidates = find_candidates(trained.model, data, settings)
    outcomes = []
    for candidate in candidates:
        point = _point(trial, candidate, data.test, trained)
        if settings.tuning is not None:
            name = f"{_stage('fine-tuning', trial)}, tau {candidate.tau:g}"
            callbacks = stages(name, settings.tuning.epochs)
            point = _tuned(point, candidate.model, data, settings.tuning, callbacks, scope)
        outcomes.append((point, candidate.model))
    return outcomes


def _stage(what: str, trial: Trial) -> str:
    """The name of a training, as progress bars show it."""
    return f"{what}, {f'alpha {trial.alpha:g}' if trial.alpha else 'dense'}, seed {trial.seed}"


def built(build: Build) -> keras.Model:
    """The network that a function gives.

    Args:
        build: The function.

    Raises:
        ModelError: It gives none that a sweep can train.
    """
    model = build()
    if not isinstance(model, keras.Model):
        raise ModelError(
            f"build: expected a function that gives a Keras model. Received: {model!r}"
        )
    own = own_training(model)
    if own is not None:
        raise ModelError(
            "build: expected a function that gives a model that trains as Keras does. Received: "
            f"{type(model).__name__} with its own {own}, which pruned networks would lose; surgery "
            "makes plain models"
        )
    if attached := regularizers_of(model):
        raise ModelError(
            "build: expected a function that gives a network without a penalty, which a sweep adds "
            f"for each alpha. Received: one with a {type(next(iter(attached.values()))).__name__} "
            "on its layers"
        )
    return model


def _dense(model: keras.Model, data: Dataset) -> Outcome:
    size = profile(model)
    validation, test = (accuracy(model, part.arrays) for part in (data.validation, data.test))
    point = Point(
        0.0, 0.0, size.multiply_adds, 1.0, size.params, validation, validation, test, test, {}
    )
    return point, model


def _point(trial: Trial, candidate: Candidate, test: Split, trained: TrainedNetwork) -> Point:
    at_surgery = accuracy(candidate.model, test.arrays)
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
    fit(model, data.train.arrays, tuning, callbacks=callbacks)
    validation, test = (accuracy(model, part.arrays) for part in (data.validation, data.test))
    return replace(point, validation_finetuned=validation, accuracy_finetuned=test)
