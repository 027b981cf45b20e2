"""Train a network with a structured-sparsity regularizer: the one training of all commands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

from keras_structsparse._typing import Array
from keras_structsparse.graph.onednn import warn_of_overflows
from keras_structsparse.regularizers import GroupSparsityRegularizer
from keras_structsparse.regularizers.alpha import distinct_alphas
from keras_structsparse.regularizers.attachment import attach, regularizers_of
from keras_structsparse.surgery.kernel_provenance import Ancestry
from keras_structsparse.training.callbacks.alpha_ramp import AlphaRamp
from keras_structsparse.training.callbacks.stop_on_nan import StopOnNaN
from keras_structsparse.training.callbacks.target_multiply_adds import TargetMultiplyAdds
from keras_structsparse.training.optimizer.proximal import Proximal
from keras_structsparse.training.recipes import Recipe, Shrinking
from keras_structsparse.training.shrinking import Shrunk, fit_shrinking
from keras_structsparse.training.tf_input import build_for_training
from keras_structsparse.training.training_data import Data, TrainingData

CLASSIFIER: Mapping[str, Any] = {
    "loss": "sparse_categorical_crossentropy",
    "metrics": ["accuracy"],
}


def compile_for(
    model: keras.Model,
    recipe: Recipe,
    examples: int,
    regularizer: GroupSparsityRegularizer | None = None,
    weights: str = "uniform",
    coupled: bool = False,
) -> None:
    """Attach a regularizer, if any, and compile a classifier.

    A recipe for a data set may leave out weight decay beside a penalty, see
    :class:`keras_structsparse.training.recipes.DataRecipe`.

    Args:
        model: The model; its outputs are class probabilities.
        recipe: The recipe.
        examples: Size of the training set.
        regularizer: The regularizer; None trains without.
        weights: As for :func:`attach`.
        coupled: As for :func:`attach`.
    """
    recipe = recipe.beside(regularizer is not None)
    if regularizer is not None:
        attach(model, regularizer, weights=weights, coupled=coupled)
        compile_regularized(model, recipe, examples)
    else:
        warn_of_overflows(model)
        model.compile(recipe.sgd(examples), **CLASSIFIER)


def compile_regularized(model: keras.Model, recipe: Recipe, examples: int) -> None:
    """Compile a classifier that already has its regularizers.

    Args:
        model: The model; its outputs are class probabilities.
        recipe: The recipe.
        examples: Size of the training set.
    """
    model.compile(Proximal(recipe.sgd(examples)), **CLASSIFIER)


def restart(optimizer: keras.optimizers.Optimizer) -> None:
    """Reset the momentum and the step count of an optimizer, as if it were new.

    Args:
        optimizer: The optimizer of a compiled model; its learning rate and alpha are kept.
    """
    for variable in optimizer.variables if optimizer.built else ():
        if variable.name not in ("alpha", "learning_rate"):
            variable.assign(np.zeros(variable.shape))


def fit(
    model: keras.Model,
    train: Data,
    recipe: Recipe,
    validation: Data | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    shuffle: bool = True,
) -> dict[str, list[float]]:
    """Train a compiled model; alpha of its regularizers rises as the recipe says.

    Where a callback steers alpha towards a target (:class:`TargetMultiplyAdds`), the recipe's ramp
    is not used.

    Args:
        model: A compiled model.
        train: Arrays (inputs, labels); or a ``tf.data.Dataset`` or ``keras.utils.PyDataset`` of
            batches, with a known number of them per epoch.
        recipe: The recipe it was compiled for. Its batch size is that of arrays only.
        validation: Data to evaluate after every epoch, of any of these kinds.
        callbacks: More callbacks.
        shuffle: Whether arrays, and the batches of a ``PyDataset``, are shuffled in every epoch. A
            ``tf.data.Dataset`` has an order of its own.

    Returns:
        The metrics of every epoch.

    Raises:
        DivergedError: The loss is no longer a finite number.
        ValueError: ``train`` is of another kind, or the number of its batches is unknown or
            infinite.
    """
    data = TrainingData.of(train, recipe.batch_size)
    build_for_training(model, data.x, data.y)
    sample = data.x[: recipe.batch_size] if isinstance(data.x, np.ndarray) else None
    callbacks = [StopOnNaN(sample), *callbacks]
    with _arguments(model, data, recipe, validation, callbacks, shuffle) as arguments:
        history = model.fit(data.x, data.y, **arguments)
    return {name: [float(value) for value in values] for name, values in history.history.items()}


def fit_and_shrink(
    model: keras.Model,
    train: Data,
    recipe: Recipe,
    shrinking: Shrinking,
    validation: Data | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    ancestry: Ancestry | None = None,
    shuffle: bool = True,
) -> Shrunk:
    """As :func:`fit`, and remove the kernels that are exactly zero every few epochs.

    Args:
        model: A compiled model with regularizers.
        train: As for :func:`fit`.
        recipe: The recipe it was compiled for.
        shrinking: When to prune.
        validation: As for :func:`fit`.
        callbacks: More callbacks.
        ancestry: That of the model, if it has been pruned before.
        shuffle: As for :func:`fit`.

    Returns:
        The smaller network with its history.

    Raises:
        ValueError: As for :func:`fit` and :func:`keras_structsparse.fit_shrinking`.
    """
    data = TrainingData.of(train, recipe.batch_size)
    with _arguments(model, data, recipe, validation, callbacks, shuffle) as arguments:
        return fit_shrinking(
            model,
            data.x,
            data.y,
            shrink_every=shrinking.every,
            always=shrinking.always,
            ancestry=ancestry,
            **arguments,
        )


@contextmanager
def _arguments(
    model: keras.Model,
    data: TrainingData,
    recipe: Recipe,
    validation: Data | None,
    callbacks: Sequence[keras.callbacks.Callback],
    shuffle: bool,
) -> Iterator[dict[str, Any]]:
    """The arguments of ``model.fit``, with the ramp of the recipe unless alpha is steered."""
    alphas = distinct_alphas(regularizers_of(model).values())
    ramp = AlphaRamp(alphas, round(recipe.ramp * recipe.epochs * data.steps))
    steered = any(isinstance(callback, TargetMultiplyAdds) for callback in callbacks)
    try:
        yield {
            "epochs": recipe.epochs,
            "validation_data": validation,
            "callbacks": [*callbacks] if steered else [ramp, *callbacks],
            "verbose": 0,
            **data.options(recipe.batch_size, shuffle),
        }
    finally:
        if not steered:
            ramp.on_train_end()


def accuracy(model: keras.Model, data: Data, batch_size: int = 512) -> float:
    """Share of examples whose most probable class is the label.

    Args:
        model: A classifier; it need not be compiled.
        data: Arrays of inputs and labels, or batches of them.
        batch_size: Examples at a time, for arrays.

    Returns:
        A number in [0, 1].
    """
    right = [
        np.argmax(keras.ops.convert_to_numpy(model(inputs)), axis=-1)
        == keras.ops.convert_to_numpy(labels)
        for inputs, labels in _batches(data, batch_size)
    ]
    return float(np.mean(np.concatenate(right)))


def _batches(data: Data, batch_size: int) -> Iterator[tuple[Array, Array]]:
    if not isinstance(data, tuple):
        yield from data
        return
    inputs, labels = data
    for i in range(0, len(labels), batch_size):
        yield inputs[i : i + batch_size], labels[i : i + batch_size]
