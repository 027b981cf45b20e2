"""The command ``train``: one training with a penalty."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from keras_structsparse.cli import outputs, parsing
from keras_structsparse.cli.generated_options import Fields, Values, with_generated_options
from keras_structsparse.cli.options import (
    JSON,
    KERAS,
    Alpha,
    AnyNetwork,
    DataDir,
    DataName,
    Force,
    NewModel,
    Seed,
)
from keras_structsparse.cli.tables import console, plan_table
from keras_structsparse.data.augmentation import ImageOptions
from keras_structsparse.sweeps.settings import Settings
from keras_structsparse.training.penalty_config import PenaltyConfig
from keras_structsparse.training.recipes import Recipe, Shrinking

if TYPE_CHECKING:
    import keras

    from keras_structsparse.data.image_streams import Streams
    from keras_structsparse.surgery.kernel_provenance import Ancestry
    from keras_structsparse.surgery.plans import Plan
    from keras_structsparse.training.callbacks.target_multiply_adds import TargetMultiplyAdds
    from keras_structsparse.training.shrinking import Shrunk
    from keras_structsparse.training.training_data import Data

TAU = 1e-3
"""Threshold on the norms of the kernels in the printed table, and of `prune` unless given."""

EXAMPLE = (
    "Example:\n\n"
    "structsparse train --model digits-plain --dataset digits \\\n"
    "    --alpha 0.01 --out trained.keras\n\n"
    "structsparse train --model digits-residual --dataset digits \\\n"
    "    --target-multiply-adds 0.4 --out trained.keras\n\n"
    "structsparse train --model digits-residual --dataset digits \\\n"
    "    --alpha 0.01 --shrink-every 4 --save-plan plan.json --out trained.keras"
)


@with_generated_options
def train(
    model: AnyNetwork,
    dataset: DataName,
    out: NewModel,
    form: Annotated[PenaltyConfig, Fields(PenaltyConfig, panel="Penalty")],
    recipe: Annotated[Recipe, Fields(Recipe, panel="Training")],
    shrinking: Annotated[Values, Fields(Settings, only=("shrink_every",), panel="Training")],
    images: Annotated[ImageOptions, Fields(ImageOptions, panel="Images")],
    alpha: Alpha = None,
    target: Annotated[
        float | None,
        typer.Option(
            "--target-multiply-adds",
            parser=parsing.share,
            metavar="FLOAT",
            help="Steer alpha to end at this share of the multiply-adds, instead of --alpha.",
        ),
    ] = None,
    save_plan: Annotated[
        Path | None,
        typer.Option(
            metavar=f"FILE{JSON}", help="Where to save which of the model's kernels are left."
        ),
    ] = None,
    data_dir: DataDir = None,
    seed: Seed = 0,
    force: Force = False,
) -> None:
    """Train a classifier with a penalty that makes its kernels fewer and smaller."""
    every = shrinking["shrink_every"]
    _check(form, alpha, target, every)
    outputs.check_new_file(out, "--out", KERAS, force)
    if save_plan is not None:
        outputs.check_new_file(save_plan, "--save-plan", JSON, force)
    from keras_structsparse.data.loading import for_training

    # Before Keras is imported: that files are missing is said at once.
    data = for_training(dataset, data_dir, images, recipe.batch_size, seed)
    from keras_structsparse.cli import files
    from keras_structsparse.training import fit as training
    from keras_structsparse.training.callbacks.target_multiply_adds import TargetMultiplyAdds

    name = f"--model {model}"
    some = files.some_images(data.validation)
    network = files.classifier(files.source(model), some, data.classes, name, dataset, seed)
    steering = None if target is None else TargetMultiplyAdds(target, TAU)
    examples, penalty = data.examples, form.regularizer(alpha)
    training.compile_for(network, recipe, examples, penalty, form.weights, form.coupled)
    shrink = Shrinking(every) if every else None
    parts = data.train, data.validation
    network, ancestry = fit(network, *parts, recipe, steering, shrink)
    plan = report(network, ancestry, data, TAU, form.groups)
    if save_plan is not None:
        files.save_plan(plan, save_plan)
    files.save(network, out)


def _check(
    form: PenaltyConfig, alpha: float | None, target: float | None, every: int | None
) -> None:
    """Raise a usage error if two options exclude each other."""
    if target is not None and alpha is not None:
        raise typer.BadParameter("expected --alpha or --target-multiply-adds. Received both")
    if target is not None and form.kind == "none":
        raise typer.BadParameter(
            "expected a --regularizer for --target-multiply-adds to steer. Received: none"
        )
    if every and (target is not None or form.kind == "none"):
        raise typer.BadParameter(
            "expected a --regularizer and no --target-multiply-adds with --shrink-every. Received "
            + ("--target-multiply-adds" if target is not None else "--regularizer none")
        )


def fit(
    model: keras.Model,
    train: Data,
    validation: Data,
    recipe: Recipe,
    steering: TargetMultiplyAdds | None = None,
    shrinking: Shrinking | None = None,
) -> tuple[keras.Model, Ancestry]:
    """Train a compiled model, with a line for each epoch and for what became of the network.

    Args:
        model: The model.
        train: Training data, as for :func:`keras_structsparse.training.fit.fit`.
        validation: Validation data, likewise.
        recipe: How to train.
        steering: The callback that steers alpha, if any.
        shrinking: When to prune the network in training; None for never.

    Returns:
        The network, another one if it was pruned, and which kernels of ``model`` it has.
    """
    from keras_structsparse.cli.progress import epoch_progress
    from keras_structsparse.surgery.kernel_provenance import Ancestry
    from keras_structsparse.training import fit as training
    from keras_structsparse.training.training_data import TrainingData

    steps = TrainingData.of(train, recipe.batch_size).steps
    with epoch_progress(recipe.epochs, steps) as progress:
        if shrinking is not None:
            shrunk = training.fit_and_shrink(
                model, train, recipe, shrinking, validation, [progress]
            )
        else:
            callbacks = [progress] if steering is None else [steering, progress]
            training.fit(model, train, recipe, validation, callbacks)
    if steering is not None:
        typer.echo(f"multiply-adds: {steering.target:.1%} wanted, {steering.reached:.1%} reached")
    if shrinking is None:
        return model, Ancestry.of(model)
    _say_sections(shrunk)
    return shrunk.model, shrunk.ancestry


def _say_sections(shrunk: Shrunk) -> None:
    if len(shrunk.sections) == 1:
        typer.echo("not shrunk: there was nothing to remove that would have saved time")
    for section in shrunk.sections[1:]:
        share = section.multiply_adds / shrunk.sections[0].multiply_adds
        typer.echo(f"shrunk to {share:.1%} of the multiply-adds after {section.epoch} epochs")


def report(model: keras.Model, ancestry: Ancestry, data: Streams, tau: float, groups: str) -> Plan:
    """Print the accuracies and the kernels of a trained network.

    Args:
        model: The model.
        ancestry: Which kernels of the base network it has.
        data: The data set.
        tau: Threshold for the sizes of the kernels.
        groups: The groups that the sizes are counted in.

    Returns:
        The plan, in kernels of the base network.

    Raises:
        ModelError: A weight is not finite.
    """
    from keras_structsparse.regularizers.attachment import penalty, regularizers_of
    from keras_structsparse.surgery.plans import plan as read_plan
    from keras_structsparse.training.fit import accuracy

    plan = ancestry.of_base(read_plan(model, tau, groups))
    for name, split in (("validation", data.validation), ("test", data.test)):
        typer.echo(f"{name} accuracy {accuracy(model, split):.4f}")
    if regularizers_of(model):
        typer.echo(f"penalty {penalty(model):.6g}")
    console().print(plan_table(plan, f"kernels with a norm above {tau:g}"))
    return plan
