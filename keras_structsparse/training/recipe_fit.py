"""Train a network by a recipe, on streams of images."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from keras_structsparse.data.image_streams import Streams
from keras_structsparse.regularizers import GroupSparsityRegularizer
from keras_structsparse.regularizers.attachment import regularizers_of
from keras_structsparse.training.fit import AlphaRamp, compile_for
from keras_structsparse.training.recipes import DataRecipe


def prepare(
    model: keras.Model,
    recipe: DataRecipe,
    examples: int,
    regularizer: GroupSparsityRegularizer | None = None,
    weights: str = "uniform",
    coupled: bool = False,
) -> None:
    """Attach a regularizer, if any, and compile a classifier as a recipe says.

    Args:
        model: The model; its outputs are class probabilities.
        recipe: The recipe.
        examples: Number of training images.
        regularizer: The regularizer; None trains without.
        weights: As for :func:`keras_structsparse.attach`.
        coupled: As for :func:`keras_structsparse.attach`.
    """
    recipe = recipe.beside(regularizer is not None)
    compile_for(model, recipe, examples, regularizer, weights, coupled)


def follow(
    model: keras.Model,
    recipe: DataRecipe,
    data: Streams,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> dict[str, list[float]]:
    """Train a prepared model; alpha of its regularizers rises as the recipe says.

    Args:
        model: A model after :func:`prepare`.
        recipe: The recipe.
        data: The streams.
        callbacks: More callbacks.

    Returns:
        The metrics of every epoch.
    """
    alphas = {id(r.alpha): r.alpha for r in regularizers_of(model).values()}
    ramp = AlphaRamp(list(alphas.values()), round(recipe.ramp * recipe.steps(data.examples)))
    history = model.fit(
        data.train,
        epochs=recipe.epochs,
        validation_data=data.validation,
        callbacks=[ramp, *callbacks],
        shuffle=False,  # the stream shuffles
        verbose=0,
    )
    return {name: [float(value) for value in values] for name, values in history.history.items()}
