"""What ``structsparse train`` does: a model that fits the data, its training, a report."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np
import typer

from keras_structsparse.cli import console
from keras_structsparse.cli.models import Source
from keras_structsparse.data.datasets import Dataset
from keras_structsparse.errors import ModelError
from keras_structsparse.graph.cloning import copy_model
from keras_structsparse.regularizers.attachment import regularizers_of
from keras_structsparse.surgery.kernel_provenance import Ancestry
from keras_structsparse.surgery.plans import Plan
from keras_structsparse.surgery.plans import plan as read_off
from keras_structsparse.training import fit as training
from keras_structsparse.training.callbacks.target_multiply_adds import TargetMultiplyAdds
from keras_structsparse.training.penalty_config import Form


def classifier(source: Source, data: Dataset, name: str, seed: int) -> keras.Model:
    """A model without penalties that fits a data set.

    Args:
        source: Gives the model.
        data: The data set.
        name: What the user knows the model as.
        seed: Seed of new weights and of the training.

    Returns:
        The model, uncompiled.

    Raises:
        ModelError: The model does not take the images or does not give class probabilities.
    """
    keras.utils.set_random_seed(seed)
    # A copy: it leaves behind the regularizers that the model came with.
    model = copy_model(source(data.shape, data.classes))
    _check_fit(model, data, name)
    return model


def _check_fit(model: keras.Model, data: Dataset, name: str) -> None:
    inputs, outputs = ([tuple(t.shape[1:]) for t in side] for side in (model.inputs, model.outputs))
    if len(inputs) != 1 or not _takes(inputs[0], data.shape):
        raise ModelError(
            f"{name}: expected an input of shape {data.shape}, the images of data set "
            f"'{data.name}'. Received a model with {_listed('input', inputs)}"
        )
    if outputs != [(data.classes,)]:
        raise ModelError(
            f"{name}: expected an output of shape ({data.classes},), the classes of data set "
            f"'{data.name}'. Received a model with {_listed('output', outputs)}"
        )
    answers = keras.ops.convert_to_numpy(keras.tree.flatten(model(data.train.x[:2]))[0])
    if answers.min() < 0 or not np.allclose(answers.sum(axis=-1), 1.0, atol=1e-2):
        raise ModelError(
            f"{name}: expected class probabilities, as a softmax gives them. Received outputs "
            f"from {answers.min():.3g} to {answers.max():.3g}"
        )


def _takes(shape: tuple[int | None, ...], image: tuple[int, ...]) -> bool:
    return len(shape) == len(image) and all(
        side in (None, given) for side, given in zip(shape, image, strict=True)
    )


def _listed(what: str, shapes: Sequence[tuple[int | None, ...]]) -> str:
    return f"{what}s of shapes {shapes}" if len(shapes) > 1 else f"{what} of shape {shapes[0]}"


def fit(
    model: keras.Model,
    data: Dataset,
    recipe: training.Recipe,
    form: Form,
    alpha: float,
    budget: TargetMultiplyAdds | None = None,
    shrinking: training.Shrinking | None = None,
) -> tuple[keras.Model, Ancestry]:
    """Compile and train a model, with a line for each epoch; say what it came to.

    Args:
        model: The model.
        data: The data set.
        recipe: How to train.
        form: Everything about the penalty but its weight.
        alpha: The weight.
        budget: What steers alpha, if anything does.
        shrinking: When to cut the network on the way; None for not at all.

    Returns:
        The network, which is another one if it was cut, and whose kernels it has left.
    """
    examples = len(data.train)
    penalty = form.regularizer(alpha)
    training.compile_for(model, recipe, examples, penalty, form.weights, form.coupled)
    train, validation = ((part.x, part.y) for part in (data.train, data.validation))
    with console.epoch_progress(recipe.epochs, -(-examples // recipe.batch_size)) as progress:
        if shrinking is not None:
            shrunk = training.fit_and_shrink(
                model, train, recipe, shrinking, validation, [progress]
            )
        else:
            callbacks = [progress] if budget is None else [budget, progress]
            training.fit(model, train, recipe, validation, callbacks)
    if budget is not None:
        typer.echo(f"multiply-adds: {budget.target:.1%} wanted, {budget.reached:.1%} reached")
    if shrinking is None:
        return model, Ancestry.of(model)
    if len(shrunk.sections) == 1:
        typer.echo("not shrunk: there was nothing to cut that would have saved time")
    for section in shrunk.sections[1:]:
        share = section.multiply_adds / shrunk.sections[0].multiply_adds
        typer.echo(f"shrunk to {share:.1%} of the multiply-adds after {section.epoch} epochs")
    return shrunk.model, shrunk.ancestry


def report(model: keras.Model, ancestry: Ancestry, data: Dataset, tau: float, groups: str) -> Plan:
    """Print what a training came to.

    Args:
        model: The model.
        ancestry: Whose kernels it has.
        data: The data set.
        tau: Threshold for the sizes of the kernels.
        groups: The groups that the sizes are counted in.

    Returns:
        The plan, in kernels of the base architecture.

    Raises:
        ModelError: A weight is not finite.
    """
    plan = ancestry.of_base(read_off(model, tau, groups))
    for name, split in (("validation", data.validation), ("test", data.test)):
        typer.echo(f"{name} accuracy {training.accuracy(model, (split.x, split.y)):.4f}")
    if regularizers_of(model):
        typer.echo(f"penalty {sum(map(float, model.losses)):.6g}")
    console.console().print(console.plan_table(plan, f"kernels with a norm above {tau:g}"))
    return plan
