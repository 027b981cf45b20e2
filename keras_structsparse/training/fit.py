"""Train a network with a structured-sparsity regularizer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_structsparse import _keras_compat
from keras_structsparse._typing import Array
from keras_structsparse._validation import fraction_below_one, positive_int, positive_number
from keras_structsparse.regularizers import GroupSparsityRegularizer
from keras_structsparse.regularizers.attachment import attach, regularizers_of
from keras_structsparse.surgery.kernel_provenance import Ancestry
from keras_structsparse.training.callbacks.target_multiply_adds import TargetMultiplyAdds
from keras_structsparse.training.optimizer.proximal import Proximal
from keras_structsparse.training.shrinking import Shrunk, fit_shrinking
from keras_structsparse.training.tf_warm_start import build_for_training

Split = tuple[Array, Array]

CLASSIFIER: Mapping[str, Any] = {
    "loss": "sparse_categorical_crossentropy",
    "metrics": ["accuracy"],
}

NOT_DECAYED = ("bias", "gamma", "beta")


@dataclass(frozen=True)
class Recipe:
    """How long and how fast to train.

    Attributes:
        epochs: Number of epochs.
        batch_size: Examples a step.
        learning_rate: Rate at the start; it falls to 0 along a half cosine.
        momentum: Momentum of SGD.
        ramp: Share of the steps over which alpha rises from 0, in [0, 1).
        weight_decay: Factor of ``1/2 |w|^2`` over kernels, in [0, 1); biases and normalisations
            are left out.
    """

    epochs: int = 20
    batch_size: int = 64
    learning_rate: float = 0.1
    momentum: float = 0.9
    ramp: float = 0.25
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        positive_int("epochs", self.epochs)
        positive_int("batch_size", self.batch_size)
        positive_number("learning_rate", self.learning_rate)
        for name in ("momentum", "ramp", "weight_decay"):
            fraction_below_one(name, getattr(self, name))

    def steps(self, examples: int) -> int:
        """Number of steps for a training set of so many examples."""
        return self.epochs * -(-examples // self.batch_size)

    def sgd(self, examples: int) -> keras.optimizers.Optimizer:
        """SGD with momentum, the schedule and the weight decay.

        Keras takes the decay off the weights themselves, by ``rate * decay`` a step; as a part of
        the gradient, as in the publications, momentum adds it up to ``1 / (1 - momentum)`` times as
        much. So that is what Keras is told.
        """
        decay = self.weight_decay / (1 - self.momentum)
        schedule = self.schedule(self.steps(examples))
        optimizer = keras.optimizers.SGD(schedule, self.momentum, weight_decay=decay or None)
        if decay:
            optimizer.exclude_from_weight_decay(var_names=list(NOT_DECAYED))
        return optimizer

    def schedule(self, steps: int) -> keras.optimizers.schedules.LearningRateSchedule:
        """The learning rate of every step."""
        return keras.optimizers.schedules.CosineDecay(self.learning_rate, steps)


@dataclass(frozen=True)
class Shrinking:
    """When a network is cut while it is trained.

    Attributes:
        every: Epochs from one cut to the next.
        always: Whether to cut also where that is not expected to save time. What is expected
            depends on measured times, so only with it two trainings are the same.
    """

    every: int
    always: bool = False

    def __post_init__(self) -> None:
        positive_int("every", self.every)


class AlphaRamp(keras.callbacks.Callback):
    """Raise alpha linearly from 0 to its full value over the first steps of training.

    A penalty at full strength from the start kills kernels before they have learned anything.

    Args:
        alphas: The variables to set; each ends at the value it has at the start of training.
        steps: Number of steps of the ramp; 0 for none.
    """

    def __init__(self, alphas: Sequence[keras.Variable], steps: int) -> None:
        super().__init__()
        self._alphas, self._steps, self._step = list(alphas), steps, 0
        self._full: list[float] = []

    def on_train_begin(self, logs: Any = None) -> None:
        """Remember the full values."""
        self._step = 0
        self._full = [float(keras.ops.convert_to_numpy(alpha)) for alpha in self._alphas]

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Set alpha for the coming step."""
        if self._step <= self._steps:
            _keras_compat.sync_jax_state(self.model)
            share = self._step / self._steps if self._steps else 1.0
            for alpha, full in zip(self._alphas, self._full, strict=True):
                alpha.assign(full * share)
        self._step += 1

    def on_train_end(self, logs: Any = None) -> None:
        """Leave alpha at its full value, also after very short trainings."""
        # None is known of a training that failed before it began.
        for alpha, full in zip(self._alphas, self._full, strict=False):
            alpha.assign(full)


def compile_for(
    model: keras.Model,
    recipe: Recipe,
    examples: int,
    regularizer: GroupSparsityRegularizer | None = None,
    weights: str = "uniform",
    coupled: bool = False,
) -> None:
    """Attach a regularizer, if any, and compile a classifier.

    Args:
        model: The model; its outputs are class probabilities.
        recipe: The recipe.
        examples: Size of the training set.
        regularizer: The regularizer; None trains without.
        weights: As for :func:`attach`.
        coupled: As for :func:`attach`.
    """
    if regularizer is not None:
        attach(model, regularizer, weights=weights, coupled=coupled)
        compile_regularized(model, recipe, examples)
    else:
        model.compile(recipe.sgd(examples), **CLASSIFIER)


def compile_regularized(model: keras.Model, recipe: Recipe, examples: int) -> None:
    """Compile a classifier that has its regularizers already.

    Args:
        model: The model; its outputs are class probabilities.
        recipe: The recipe.
        examples: Size of the training set.
    """
    model.compile(Proximal(recipe.sgd(examples)), **CLASSIFIER)


def restart(optimizer: keras.optimizers.Optimizer) -> None:
    """Forget the momentum and the step count of an optimizer, as if it were new.

    Args:
        optimizer: The optimizer of a compiled model; its learning rate and alpha stay.
    """
    for variable in optimizer.variables if optimizer.built else ():
        if variable.name not in ("alpha", "learning_rate"):
            variable.assign(np.zeros(variable.shape))


def fit(
    model: keras.Model,
    train: Split,
    recipe: Recipe,
    validation: Split | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> dict[str, list[float]]:
    """Train a compiled model; alpha of its regularizers rises as the recipe says.

    Where a callback steers alpha towards a budget (:class:`TargetMultiplyAdds`), the recipe's ramp
    is left out.

    Args:
        model: A compiled model.
        train: Inputs and labels.
        recipe: The recipe it was compiled for.
        validation: Inputs and labels to report on after every epoch.
        callbacks: More callbacks.

    Returns:
        The metrics of every epoch.
    """
    build_for_training(model, *train)
    with _arguments(model, train, recipe, validation, callbacks) as arguments:
        history = model.fit(*train, **arguments)
    return {name: [float(value) for value in values] for name, values in history.history.items()}


def fit_and_shrink(
    model: keras.Model,
    train: Split,
    recipe: Recipe,
    shrinking: Shrinking,
    validation: Split | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    ancestry: Ancestry | None = None,
) -> Shrunk:
    """As :func:`fit`, and cut out what has gone to zero on the way.

    Args:
        model: A compiled model with regularizers.
        train: Inputs and labels.
        recipe: The recipe it was compiled for.
        shrinking: When to cut.
        validation: Inputs and labels to report on after every epoch.
        callbacks: More callbacks.
        ancestry: That of the model, if it has been cut before.

    Returns:
        The network that is left.
    """
    with _arguments(model, train, recipe, validation, callbacks) as arguments:
        return fit_shrinking(
            model,
            *train,
            shrink_every=shrinking.every,
            always=shrinking.always,
            ancestry=ancestry,
            **arguments,
        )


@contextmanager
def _arguments(
    model: keras.Model,
    train: Split,
    recipe: Recipe,
    validation: Split | None,
    callbacks: Sequence[keras.callbacks.Callback],
) -> Iterator[dict[str, Any]]:
    """The arguments of ``model.fit``, with the ramp of the recipe unless alpha is steered."""
    alphas = {id(r.alpha): r.alpha for r in regularizers_of(model).values()}
    ramp = AlphaRamp(list(alphas.values()), round(recipe.ramp * recipe.steps(len(train[1]))))
    steered = any(isinstance(callback, TargetMultiplyAdds) for callback in callbacks)
    try:
        yield {
            "batch_size": recipe.batch_size,
            "epochs": recipe.epochs,
            "validation_data": validation,
            "callbacks": [*callbacks] if steered else [ramp, *callbacks],
            "verbose": 0,
        }
    finally:
        if not steered:
            ramp.on_train_end()


def accuracy(model: keras.Model, data: Split, batch_size: int = 512) -> float:
    """Share of examples whose most probable class is the label.

    Args:
        model: A classifier; it need not be compiled.
        data: Inputs and labels.
        batch_size: Examples at a time.

    Returns:
        A number in [0, 1].
    """
    inputs, labels = data
    right = [
        np.argmax(keras.ops.convert_to_numpy(model(inputs[i : i + batch_size])), axis=-1)
        == labels[i : i + batch_size]
        for i in range(0, len(labels), batch_size)
    ]
    return float(np.mean(np.concatenate(right)))
