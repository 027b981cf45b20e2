"""The command ``recipe``: train by the recipe of a data set, also of one too large for memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from keras_structsparse.cli import outputs
from keras_structsparse.cli.generated_options import Fields, with_generated_options
from keras_structsparse.cli.options import KERAS, Alpha, DataDir, Force, Seed, integer
from keras_structsparse.cli.tables import console, recipe_table
from keras_structsparse.data.augmentation import ImageOptions
from keras_structsparse.training.penalty_config import PenaltyConfig
from keras_structsparse.training.recipes import RECIPES, DataRecipe

EXAMPLE = (
    "Example:\n\nstructsparse recipe digits --epochs 2 --alpha 0.002 \\\n"
    "    --weights multiply_adds --out trained.keras"
)


@with_generated_options
def recipe(
    form: Annotated[PenaltyConfig, Fields(PenaltyConfig, panel="Penalty")],
    images: Annotated[
        ImageOptions, Fields(ImageOptions, only=("image_size", "preprocess"), panel="Images")
    ],
    name: Annotated[str, typer.Argument(metavar="NAME", help="A recipe; none lists them.")] = "",
    out: Annotated[
        Path | None, typer.Option(metavar=f"FILE{KERAS}", help="Where to save the model.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar=f"NAME|FILE{KERAS}", help="Another network than the recipe's."),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|DIR|FILE.npz", help="Other data than the recipe's, as for train."
        ),
    ] = None,
    alpha: Alpha = None,
    epochs: Annotated[int, integer("Number of epochs; 0 for the recipe's.")] = 0,
    data_dir: DataDir = None,
    seed: Seed = 0,
    force: Force = False,
) -> None:
    """Train a network by the recipe of a data set, whose images are streamed from disk."""
    if not name:
        console().print(recipe_table(RECIPES))
        return
    if name not in RECIPES:
        raise typer.BadParameter(f"expected one of {', '.join(RECIPES)}. Received: {name!r}")
    if out is None:
        raise typer.BadParameter(f"expected --out FILE{KERAS} with a recipe. Received none")
    outputs.check_new_file(out, "--out", KERAS, force)
    chosen = _with_data(RECIPES[name], dataset, images)
    if dataset is not None:
        outputs.check_data(dataset, "--dataset")
    from keras_structsparse.cli import files, train
    from keras_structsparse.data.image_streams import streams
    from keras_structsparse.training.fit import compile_for

    chosen = replace(chosen, epochs=epochs) if epochs else chosen
    data = streams(chosen, data_dir, seed=seed)
    base = files.source(model or chosen.model)
    some = files.some_images(data.validation)
    network = files.classifier(base, some, data.classes, "model", chosen.dataset, seed)
    penalty = form.regularizer(alpha)
    compile_for(network, chosen, data.examples, penalty, form.weights, form.coupled)
    network, _ = train.fit(network, data.train, data.validation, chosen)
    accuracy = network.evaluate(data.test, return_dict=True, verbose=0)["accuracy"]
    typer.echo(f"test accuracy {accuracy:.4f}")
    files.save(network, out)


def _with_data(recipe: DataRecipe, dataset: str | None, images: ImageOptions) -> DataRecipe:
    """The recipe for other data, and with what is said of the images."""
    changes = {
        "dataset": dataset,
        "side": images.image_size,
        "preprocess": None if images == ImageOptions(images.image_size) else images.preprocess,
    }
    given = {name: value for name, value in changes.items() if value is not None}
    return replace(recipe, **given)  # type: ignore[arg-type]
