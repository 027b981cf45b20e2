"""What the command ``recipe`` does."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import keras
import typer

from keras_structsparse.cli import console, models
from keras_structsparse.data.image_streams import Streams, streams
from keras_structsparse.errors import ModelError
from keras_structsparse.graph.cloning import copy_model
from keras_structsparse.training.penalty_config import Form
from keras_structsparse.training.recipe_fit import follow, prepare
from keras_structsparse.training.recipes import DataRecipe


def train(
    recipe: DataRecipe,
    model: str | None,
    form: Form,
    alpha: float,
    epochs: int,
    out: Path,
    data_dir: Path | None,
    seed: int,
) -> None:
    """Train a network by a recipe, say how good it is, and save it.

    Args:
        recipe: The recipe.
        model: A file or a name of the zoo; None for the recipe's.
        form: The form of the penalty.
        alpha: Its weight.
        epochs: Number of epochs; 0 for the recipe's.
        out: The file.
        data_dir: Folder of the data.
        seed: Seed of all random numbers.
    """
    recipe = replace(recipe, epochs=epochs) if epochs else recipe
    data = streams(recipe, data_dir, seed=seed)
    network = _network(model or recipe.model, data, seed)
    prepare(network, recipe, data.examples, form.regularizer(alpha), form.weights, form.coupled)
    steps = math.ceil(data.examples / recipe.batch_size)
    with console.epoch_progress(recipe.epochs, steps) as progress:
        follow(network, recipe, data, [progress])
    accuracy = network.evaluate(data.test, return_dict=True, verbose=0)["accuracy"]
    typer.echo(f"test accuracy {accuracy:.4f}")
    models.save(network, out)


def _network(name: str, data: Streams, seed: int) -> keras.Model:
    keras.utils.set_random_seed(seed)
    network = copy_model(models.source(name)(data.shape, data.classes))
    expected = (None, *data.shape), (None, data.classes)
    if (network.input_shape, network.output_shape) != expected:
        raise ModelError(
            f"model: expected shapes {expected} for the recipe's images and classes. "
            f"Received: {(network.input_shape, network.output_shape)}"
        )
    return network
