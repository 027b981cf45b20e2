"""The command ``shrink``: a trained model and its data in, a smaller model with its report out."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from keras_structsparse._validation import HEADS, MOST_EPOCHS, count, positive_int
from keras_structsparse.cli import outputs, parsing
from keras_structsparse.cli.generated_options import Fields, Values, with_generated_options
from keras_structsparse.cli.options import (
    DataArgument,
    DataDir,
    Force,
    ModelFile,
    Seed,
    integer,
    one_of,
)
from keras_structsparse.cli.tables import before_and_after_table, console
from keras_structsparse.data.augmentation import ImageOptions
from keras_structsparse.training.shrink.budget import Budget, check_budget
from keras_structsparse.training.shrink.latency import Latency
from keras_structsparse.training.shrink.method import ShrinkMethod

if TYPE_CHECKING:
    import keras

    from keras_structsparse.data.image_streams import Streams

EXAMPLE = (
    "Example, after that of train:\n\n"
    "structsparse shrink trained.keras digits --multiply-adds 0.4 --out smaller"
)

SHARE = {"parser": parsing.share, "metavar": "SHARE"}
TIME = {"parser": parsing.latency, "metavar": "MS|SHARE"}
BUDGETS = {"multiply_adds": SHARE, "params": SHARE, "latency": TIME, "max_drop": SHARE}
PLACE = ("runtime", "threads", "batch_size")

Epochs = Annotated[int, integer("Number of epochs in all; a new head takes as many before.")]
BatchSize = Annotated[int, integer("Images in a batch.")]
Head = Annotated[
    str,
    one_of(
        HEADS,
        "auto gives a network whose outputs are not those of the classes a new head, and trains "
        "it; new gives it to every network; none to none.",
    ),
]
Workdir = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Where to store the state, to go on with after a kill."),
]


@with_generated_options
def shrink(
    model: ModelFile,
    data: DataArgument,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where to write the network.")],
    budget: Annotated[Values, Fields(Budget, texts=BUDGETS, panel="Budget: one of these")],
    place: Annotated[Values, Fields(Latency, only=PLACE, panel="Where --latency is measured")],
    method: Annotated[ShrinkMethod, Fields(ShrinkMethod, panel="Method")],
    images: Annotated[ImageOptions, Fields(ImageOptions, panel="Images")],
    epochs: Epochs = 20,
    batch_size: BatchSize = 32,
    head: Head = "auto",
    workdir: Workdir = None,
    data_dir: DataDir = None,
    seed: Seed = 0,
    force: Force = False,
) -> None:
    """Shrink a trained model to a budget, and write it with its exports and a report."""
    _check(budget, method, epochs, batch_size)
    if budget["latency"] is not None:
        budget["latency"] = replace(budget["latency"], **place)
    elif place != {name: getattr(Latency, name) for name in PLACE}:
        raise typer.BadParameter(
            "expected --latency with --runtime, --threads or --run-batch-size. Received none"
        )
    check_budget(Budget(**budget), method)
    outputs.check_own_directory(out, "--out", force)
    outputs.check_data(data, "DATA")
    from keras_structsparse.cli import files
    from keras_structsparse.data.loading import for_model
    from keras_structsparse.training.heads import image_side
    from keras_structsparse.training.shrink import shrink as training
    from keras_structsparse.training.shrink.handing_over import check_modules, hand_over

    check_modules()
    # It warns of the second compilation of a training, which is meant here.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    network = files.load_compiled(model)
    streams = for_model(data, data_dir, images, batch_size, seed, image_side(network))
    network = _classifier(network, streams, model, data, head, epochs, batch_size, workdir, seed)
    result = training.shrink(
        network,
        streams.train,
        streams.validation,
        epochs=epochs,
        batch_size=batch_size,
        method=method,
        workdir=workdir,
        **budget,
    )
    settings = {"model": str(model), "data": f"{data}{images}", "budget": str(Budget(**budget))}
    written = hand_over(
        replace(result, classes=streams.class_names),
        network,
        out,
        test=streams.test,
        input_shape=streams.shape,
        settings={**settings, **_shown(method, epochs, batch_size, seed)},
    )
    for text in (*written.failed, *written.doubts):
        typer.echo(f"warning: {text}", err=True)
    console().print(before_and_after_table(written.rows))
    for name, size in written.sizes.items():
        typer.echo(f"saved {out / name} ({size:,} bytes)")
    typer.echo(f"read {out / 'card.md'} or open {out / 'report.html'}")


def _check(budget: Values, method: ShrinkMethod, epochs: int, batch_size: int) -> None:
    """Raise a usage error unless exactly one budget is given and the numbers are in range."""
    given = [name for name, value in budget.items() if value is not None]
    if len(given) != 1:
        options = [f"--{name.replace('_', '-')}" for name in budget]
        received = " and ".join(f"--{name.replace('_', '-')}" for name in given) or "none"
        raise typer.BadParameter(f"expected one of {', '.join(options)}. Received: {received}")
    method.removal_epochs(count("--epochs", epochs, MOST_EPOCHS))
    positive_int("--batch-size", batch_size)


def _shown(method: ShrinkMethod, epochs: int, batch_size: int, seed: int) -> dict[str, str]:
    """The settings as the report shows them."""
    numbers = {"epochs": epochs, "batch_size": batch_size, "seed": seed, **vars(method)}
    return {
        name.replace("_", " "): "chosen" if value is None else str(value)
        for name, value in numbers.items()
    }


def _classifier(
    network: keras.Model,
    data: Streams,
    model: Path,
    name: str,
    head: str,
    epochs: int,
    batch_size: int,
    workdir: Path | None,
    seed: int,
) -> keras.Model:
    """The network compiled for the classes; what became of it is said in one line."""
    import keras

    from keras_structsparse.cli import files
    from keras_structsparse.cli.progress import epoch_progress
    from keras_structsparse.training.head_training import frozen_epochs, trained_with_head
    from keras_structsparse.training.heads import needs_head, ready_to_shrink
    from keras_structsparse.training.training_data import TrainingData

    said, some = f"MODEL {model}", files.some_images(data.validation)
    keras.utils.set_random_seed(seed)
    if not needs_head(network, data.classes, head, said):
        loss = ready_to_shrink(network, some, said, name)
        typer.echo(f"compiled with {loss} and accuracy" if loss else "compiled as in its file")
        return network
    files.check_images(network, some, said, name)
    typer.echo(
        f"a new head for {data.classes} classes: trained alone for {frozen_epochs(epochs)} epochs, "
        f"then with the rest for {epochs - frozen_epochs(epochs)}"
    )
    steps = TrainingData.of(data.train, batch_size).steps
    with epoch_progress(epochs, steps) as progress:
        parts = data.train, data.validation
        return trained_with_head(
            network, data.classes, *parts, epochs, batch_size, [progress], workdir
        )
