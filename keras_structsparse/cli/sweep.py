"""The command ``sweep``: a family of networks, one training per alpha and seed."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from keras_structsparse.cli import parsing
from keras_structsparse.cli.generated_options import Fields, Values, with_generated_options
from keras_structsparse.cli.options import AnyNetwork, DataDir, DataName, floating, integer, one_of
from keras_structsparse.cli.report import write_and_print
from keras_structsparse.cli.tables import console
from keras_structsparse.data.augmentation import ImageOptions
from keras_structsparse.sweeps.settings import STRATEGIES, Search, Settings
from keras_structsparse.training.penalty_config import PenaltyConfig
from keras_structsparse.training.recipes import Recipe

if TYPE_CHECKING:
    from keras_structsparse.data.splits import Dataset

EXAMPLE = (
    "Example:\n\nstructsparse sweep --model digits-residual --dataset digits \\\n"
    "    --alphas 4e-3:6.4e-2:5 --epochs 12 --tuning-epochs 6 --out run"
)

SEARCHES = ("grid", "bayesian")

TEXTS = {
    "alphas": {"parser": parsing.alphas, "metavar": "LIST|FIRST:LAST:COUNT"},
    "taus": {"parser": parsing.taus, "metavar": "LIST|auto"},
    "seeds": {"parser": parsing.seeds, "metavar": "LIST"},
}


TuningEpochs = Annotated[int, integer("Epochs of fine-tuning after surgery; 0 for none.")]
TuningRate = Annotated[float, floating("Learning rate at the start of fine-tuning.")]
PathEpochs = Annotated[
    int,
    integer(
        "Epochs of every alpha but the first, each starting from the network before; 0: every "
        "alpha starts anew."
    ),
]
ValidationShare = Annotated[float, floating("Share of images to choose on.", parsing.share)]
SearchKind = Annotated[
    str,
    one_of(
        SEARCHES,
        "grid tries all alphas; bayesian as many between the least and the largest, for the best "
        "network within --budget.",
    ),
]
Strategy = Annotated[str, one_of(STRATEGIES, "How to train on several devices, by tf.distribute.")]


@with_generated_options
def sweep(
    model: AnyNetwork,
    dataset: DataName,
    out: Annotated[
        Path,
        typer.Option(metavar="DIR", help="The run directory; an unfinished one is continued."),
    ],
    settings: Annotated[Values, Fields(Settings, texts=TEXTS, panel="Sweep")],
    form: Annotated[PenaltyConfig, Fields(PenaltyConfig, panel="Penalty")],
    recipe: Annotated[Recipe, Fields(Recipe, panel="Training")],
    ranges: Annotated[Values, Fields(Search, panel="Bayesian search")],
    images: Annotated[
        ImageOptions, Fields(ImageOptions, only=("image_size", "preprocess"), panel="Images")
    ],
    tuning_epochs: TuningEpochs = 0,
    tuning_rate: TuningRate = 0.02,
    path_epochs: PathEpochs = 0,
    validation: ValidationShare = 0.1,
    search: SearchKind = "grid",
    strategy: Strategy = "none",
    data_dir: DataDir = None,
) -> None:
    """Train a family of networks, one per alpha and seed; continue a sweep that was killed."""
    _check_search(search, reweights=ranges["reweight"], learning_rates=ranges["learning_rate"])
    later = replace(recipe, ramp=0.0)
    bayesian = Search(len(settings["alphas"]), **ranges)
    asked = Settings(
        identity(model),
        f"{dataset}{images}, {validation:g} for validation",
        form=form,
        recipe=recipe,
        tuning=replace(later, epochs=tuning_epochs, learning_rate=tuning_rate)
        if tuning_epochs
        else None,
        path=replace(later, epochs=path_epochs) if path_epochs else None,
        search=bayesian if search == "bayesian" else None,
        **settings,
    )
    from keras_structsparse.data.loading import load

    # Before Keras is imported: that files are missing is said at once.
    data = load(dataset, data_dir, validation, 0, images.image_size, images.preprocess)
    _run(model, asked, data, out, strategy)


def _check_search(search: str, **ranges: tuple[float, float] | None) -> None:
    """Raise a usage error if a range is given for a sweep without a search."""
    given = [f"--{name.replace('_', '-')}" for name, found in ranges.items() if found is not None]
    if given and search != "bayesian":
        raise typer.BadParameter(
            f"expected --search bayesian with {' and '.join(given)}. Received: --search {search}"
        )


def identity(model: str) -> str:
    """The name of a model in the settings of a run; that of a file has a hash of its content.

    Args:
        model: A file or a name of the zoo.
    """
    if not (path := Path(model)).is_file():
        return model
    return f"{path.name}, SHA-256 {hashlib.sha256(path.read_bytes()).hexdigest()}"


def _run(model: str, settings: Settings, data: Dataset, out: Path, strategy: str) -> None:
    """Run the missing trials of a sweep, then write its report and print its points."""
    import keras

    from keras_structsparse.cli import files
    from keras_structsparse.cli.progress import TrialBars
    from keras_structsparse.graph.cloning import copy_model
    from keras_structsparse.sweeps.sweeping import distribution
    from keras_structsparse.sweeps.sweeping import sweep as run_sweep

    source = files.source(model)
    # The errors of a model that does not fit the data come first.
    images = data.train.x[:2]
    files.classifier(source, images, data.classes, f"--model {model}", data.name, 0)

    def build() -> keras.Model:
        return copy_model(source(data.shape, data.classes))

    bars = TrialBars(console())
    run = run_sweep(build, data, settings, out, distribution(strategy), progress=bars)
    write_and_print(run)
