"""The commands on whole families of networks: ``sweep`` and ``choose``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from keras_structsparse.cli.options import (
    JSON,
    AnyNetwork,
    BatchSize,
    Coupled,
    DataDir,
    DataName,
    Epochs,
    Groups,
    Kind,
    LearningRate,
    Momentum,
    Norm,
    NormOfGroups,
    Realization,
    Realize,
    Regularizer,
    Reweight,
    Shares,
    ShrinkEvery,
    Steps,
    WeightDecay,
    Weights,
    alphas,
    check_reweight,
    floating,
    integer,
    interval,
    milliseconds,
    positive,
    seeds,
    share,
    taus,
)

SWEEP_EXAMPLE = (
    "Example:\n\nstructsparse sweep --model digits-residual --dataset digits \\\n"
    "    --alphas 4e-3:6.4e-2:5 --epochs 12 --tuning-epochs 6 --out run"
)
CHOOSE_EXAMPLE = (
    "Example, after that of sweep:\n\nstructsparse choose run --max-drop 1.0 --out chosen"
)

REPORT_EXAMPLE = (
    "Example, after that of sweep:\n\nstructsparse report run\n\n"
    "structsparse report run --marks published.json"
)

STRATEGIES = ("none", "mirrored")
SEARCHES = ("grid", "bayesian")

RunDirectory = Annotated[Path, typer.Argument(metavar="RUN", help="What sweep wrote.")]


def _strategy(text: str) -> str:
    if text not in STRATEGIES:
        raise typer.BadParameter(f"expected one of {STRATEGIES}. Received: {text!r}")
    return text


def _search(text: str) -> str:
    if text not in SEARCHES:
        raise typer.BadParameter(f"expected one of {SEARCHES}. Received: {text!r}")
    return text


def _range(help: str) -> Any:
    return typer.Option(parser=interval, metavar="LEAST:LARGEST", help=help)


def _check_search(search: str, **ranges: tuple[float, float] | None) -> None:
    """Raise if a range is given that nothing searches."""
    given = [f"--{name.replace('_', '-')}" for name, found in ranges.items() if found is not None]
    if given and search != "bayesian":
        raise typer.BadParameter(
            f"expected --search bayesian with {' and '.join(given)}. Received: --search {search}"
        )


def sweep(
    model: AnyNetwork,
    dataset: DataName,
    alphas: Annotated[
        Any,
        typer.Option(
            parser=alphas, metavar="LIST|FIRST:LAST:COUNT", help="Weights of the penalty."
        ),
    ],
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="The run directory; an unfinished one goes on.")
    ],
    regularizer: Kind = Regularizer.KERNEL_SIZE,
    taus: Annotated[
        Any, typer.Option(parser=taus, metavar="LIST|auto", help="Thresholds on group norms.")
    ] = "auto",
    seeds: Annotated[Any, typer.Option(parser=seeds, metavar="LIST", help="Seeds.")] = "0",
    norm: NormOfGroups = Norm.l2,
    groups: Steps = Groups.half_ring,
    weights: Shares = Weights.uniform,
    reweight: Reweight = 0.0,
    coupled: Coupled = False,
    epochs: Epochs = 20,
    tuning_epochs: Annotated[int, integer("Epochs of fine-tuning after surgery; 0 for none.")] = 0,
    batch_size: BatchSize = 64,
    learning_rate: LearningRate = 0.1,
    momentum: Momentum = 0.9,
    weight_decay: WeightDecay = 0.0,
    ramp: Annotated[float, floating("Share of the steps over which alpha rises from 0.")] = 0.25,
    tuning_rate: Annotated[float, floating("Rate at the start of fine-tuning.")] = 0.02,
    validation: Annotated[
        float, typer.Option(parser=share, metavar="FLOAT", help="Share of images to choose on.")
    ] = 0.1,
    path_epochs: Annotated[
        int,
        integer(
            "Epochs of every alpha but the first, each starting from the network before; 0: every "
            "alpha starts anew."
        ),
    ] = 0,
    shrink_every: ShrinkEvery = 0,
    reestimate_bn: Annotated[
        int,
        integer(
            "Training images to estimate the statistics of batch normalisations from, anew after "
            "surgery; 0: they stay."
        ),
    ] = 0,
    realize: Realization = Realize.auto,
    search: Annotated[
        str,
        typer.Option(
            parser=_search,
            metavar="|".join(SEARCHES),
            help="grid tries all alphas; bayesian as many between the least and the largest, for "
            "the best network within --budget.",
        ),
    ] = "grid",
    budget: Annotated[
        float, typer.Option(parser=share, metavar="FLOAT", help="Share of the multiply-adds.")
    ] = 0.5,
    reweights: Annotated[Any, _range("Let the search choose --reweight, too.")] = None,
    learning_rates: Annotated[Any, _range("Let the search choose --learning-rate, too.")] = None,
    strategy: Annotated[
        str, typer.Option(parser=_strategy, metavar="|".join(STRATEGIES), help="tf.distribute.")
    ] = "none",
    data_dir: DataDir = None,
) -> None:
    """Train a family of networks, one per alpha and seed; go on where a killed sweep was."""
    check_reweight(regularizer, reweight if reweights is None else reweights[1])
    _check_search(search, reweights=reweights, learning_rates=learning_rates)
    from keras_structsparse.data import datasets

    # Before Keras is imported: that files are missing is said at once.
    data = datasets.load(dataset, data_dir, validation=validation, seed=0)
    from keras_structsparse.cli import sweep_jobs
    from keras_structsparse.sweeps.settings import TAUS, Search, Settings
    from keras_structsparse.training.fit import Recipe
    from keras_structsparse.training.penalty_config import Form

    recipe = Recipe(epochs, batch_size, learning_rate, momentum, ramp, weight_decay)
    later = replace(recipe, ramp=0.0)
    tuning = (
        replace(later, epochs=tuning_epochs, learning_rate=tuning_rate) if tuning_epochs else None
    )
    path = replace(later, epochs=path_epochs) if path_epochs else None
    form = Form(regularizer.value, norm.value, groups.value, reweight, weights.value, coupled)
    names = sweep_jobs.identity(model), f"{dataset}, {validation:g} for validation"
    settings = Settings(
        *names,
        alphas,
        taus or TAUS,
        seeds,
        form,
        recipe,
        tuning,
        path=path,
        shrink_every=shrink_every or None,
        reestimate=reestimate_bn or None,
        realize=realize.value,
        search=Search(len(alphas), budget, reweights, learning_rates)
        if search == "bayesian"
        else None,
    )
    sweep_jobs.sweep(model, settings, data, out, strategy)


def choose(
    run: RunDirectory,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where to write the network.")],
    max_drop: Annotated[
        float | None,
        floating("The cheapest that loses at most so many per cent of accuracy."),
    ] = None,
    max_multiply_adds: Annotated[
        float | None, floating("The best with at most so many multiply-adds.", positive)
    ] = None,
    max_latency: Annotated[
        float | None,
        typer.Option(
            parser=milliseconds,
            metavar="FLOAT[ms]",
            help="The best that takes at most so many milliseconds for one image.",
        ),
    ] = None,
) -> None:
    """Choose a network of a sweep by its validation accuracy; write it with a model card."""
    wishes = {
        "--max-drop": max_drop,
        "--max-multiply-adds": max_multiply_adds,
        "--max-latency": max_latency,
    }
    given = [name for name, value in wishes.items() if value is not None]
    if len(given) != 1:
        received = " and ".join(given) or "none"
        raise typer.BadParameter(f"expected one of {', '.join(wishes)}. Received: {received}")
    from keras_structsparse.cli import sweep_jobs
    from keras_structsparse.sweeps.choosing import Wish

    drop = None if max_drop is None else max_drop / 100
    sweep_jobs.choose(run, Wish(drop, max_multiply_adds, max_latency), out)


def report(
    run: RunDirectory,
    marks: Annotated[
        Path | None,
        typer.Option(
            metavar=f"FILE{JSON}",
            help="Other networks to show beside the frontier: a list of objects with name, "
            "multiply_adds or multiply_adds_fraction, accuracy and source.",
        ),
    ] = None,
) -> None:
    """Draw the figures of a sweep, also of an unfinished one, and write its page report.html."""
    from keras_structsparse.sweeps.references import read_marks

    others = () if marks is None else read_marks(marks)
    from keras_structsparse.cli import sweep_jobs
    from keras_structsparse.sweeps import read_run

    sweep_jobs.report(read_run(run), others)
