"""What the commands on families of networks do."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import typer

from keras_structsparse.cli import console, models, train
from keras_structsparse.data.datasets import Dataset
from keras_structsparse.graph.cloning import copy_model
from keras_structsparse.sweeps import Run, Settings, read_run
from keras_structsparse.sweeps import sweep as run_sweep
from keras_structsparse.sweeps.choosing import Wish, choose_network, hand_over
from keras_structsparse.sweeps.references import Mark
from keras_structsparse.sweeps.report.report import write_report


def identity(model: str) -> str:
    """What a model is known as in the settings of a run: a file by its content too.

    Args:
        model: A file or a name of the zoo.
    """
    if not (path := Path(model)).is_file():
        return model
    return f"{path.name}, SHA-256 {hashlib.sha256(path.read_bytes()).hexdigest()}"


def sweep(model: str, settings: Settings, data: Dataset, out: Path, strategy: str) -> None:
    """Run what is missing of a sweep, then draw its frontier and print its points.

    Args:
        model: A file or a name of the zoo.
        settings: The settings.
        data: The data set.
        out: The run directory.
        strategy: "none" or "mirrored".
    """
    source = models.source(model)
    train.classifier(source, data, f"--model {model}", 0)  # Its errors come first.

    def build() -> keras.Model:
        return copy_model(source(data.shape, data.classes))

    bars = console.TrialBars(console.console())
    run = run_sweep(build, data, settings, out, STRATEGIES[strategy](), progress=bars)
    report(run)


def report(run: Run, marks: Sequence[Mark] = ()) -> None:
    """Write the report of a run, and print its points."""
    page = write_report(run, marks)
    console.console().print(console.sweep_table(run.found()))
    typer.echo(f"wrote {page}")


def choose(folder: Path, wish: Wish, out: Path) -> None:
    """Write the network that meets a wish, and say which it is."""
    run = read_run(folder)
    chosen = choose_network(run, wish)
    hand_over(run, chosen, out)
    point = chosen.point
    typer.echo(
        f"alpha {point.alpha:g}, tau {point.tau:g}, seed {chosen.trial.seed}: "
        f"{point.multiply_adds_fraction:.1%} of the multiply-adds, validation accuracy "
        f"{point.validation_finetuned:.2%}, test accuracy {point.accuracy_finetuned:.2%}"
    )
    typer.echo(f"saved {out}")


def _mirrored() -> Any:
    import tensorflow as tf

    return tf.distribute.MirroredStrategy()


STRATEGIES = {"none": lambda: None, "mirrored": _mirrored}
