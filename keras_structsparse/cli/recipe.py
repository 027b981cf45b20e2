"""The command ``recipe``: train by the recipe of a data set, also of one too large for memory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from keras_structsparse.cli import console, tables
from keras_structsparse.cli.options import (
    KERAS,
    Coupled,
    DataDir,
    Force,
    Kind,
    Regularizer,
    Reweight,
    Seed,
    Shares,
    Weights,
    check_reweight,
    floating,
    integer,
    nonnegative,
)

EXAMPLE = (
    "Example:\n\nstructsparse recipe digits --epochs 2 --alpha 0.002 \\\n"
    "    --weights multiply_adds --out trained.keras"
)


def recipe(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A recipe; none lists them.")] = "",
    out: Annotated[
        Path | None, typer.Option(metavar=f"FILE{KERAS}", help="Where to save the model.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar=f"NAME|FILE{KERAS}", help="Another network than the recipe's."),
    ] = None,
    regularizer: Kind = Regularizer.KERNEL_SIZE,
    alpha: Annotated[float, floating("Weight of the penalty.", nonnegative)] = 1e-3,
    weights: Shares = Weights.uniform,
    reweight: Reweight = 0.0,
    coupled: Coupled = False,
    epochs: Annotated[int, integer("Number of epochs; 0 for the recipe's.")] = 0,
    data_dir: DataDir = None,
    seed: Seed = 0,
    force: Force = False,
) -> None:
    """Train a network by the recipe of a data set, which is read as a stream."""
    from keras_structsparse.training.recipes import RECIPES

    if not name:
        console.console().print(tables.recipe_table(RECIPES))
        return
    if name not in RECIPES:
        raise typer.BadParameter(f"expected one of {', '.join(RECIPES)}. Received: {name!r}")
    if out is None:
        raise typer.BadParameter(f"expected --out FILE{KERAS} with a recipe. Received none")
    check_reweight(regularizer, reweight)
    console.check_new_file(out, "--out", KERAS, force)
    from keras_structsparse.cli import recipe_jobs
    from keras_structsparse.training.penalty_config import Form

    form = Form(regularizer.value, reweight=reweight, weights=weights.value, coupled=coupled)
    recipe_jobs.train(RECIPES[name], model, form, alpha, epochs, out, data_dir, seed)
